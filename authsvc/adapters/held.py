"""What a broker holds of a grant, and whether that is still right when the grant is another.

A broker that was told rules keeps them for the life of the connection, and one that was told nothing keeps at least
the subscriptions that were allowed by them. Both outlive a restart of this service: the digest is in the session's row.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Final

from authsvc.core.facts import Effect, RuleAction
from authsvc.core.grants import CompiledRule
from authsvc.core.policy import Grant
from authsvc.core.topics import SetLevel

_DIGEST_BYTES: Final = 12  # told apart, not kept secret

Line = tuple[str, str, str, int, str, str]


def still_right(held: Grant, new: Grant) -> bool:
    """Return whether what was told under `held` is right under `new`: every allow is there, and the same denies."""
    if held.rules == new.rules and held.sets == new.sets:
        return True
    before, after = _lines(held), _lines(new)
    deny = Effect.DENY.value
    return all(line in after for line in before) and all(line in before for line in after if line[1] == deny)


@lru_cache(maxsize=4096)  # things of one kind share their grants, and they reconnect
def digest(grant: Grant) -> str:
    """Return what stands for the grant's rules in a row: of publishing and of subscribing, as ``publish/subscribe``."""
    lines = _lines(grant)
    return "/".join(_digest_of(lines, action) for action in (RuleAction.PUBLISH, RuleAction.SUBSCRIBE))


def same_subscriptions(held: str, new: str) -> bool:
    """Return whether both digests stand for the same rules of subscribing."""
    return held.rpartition("/")[2] == new.rpartition("/")[2]


def _lines(grant: Grant) -> set[Line]:
    return {_line(grant, rule) for rule in grant.rules}


def _line(grant: Grant, rule: CompiledRule) -> Line:
    qos_max = 2 if rule.qos_max is None else rule.qos_max
    retain = "" if rule.retain is None else str(rule.retain)
    # The text of `{member}` and `{module}` is the same in every ground and for every gateway: the set is not.
    whose = grant.ground if SetLevel.MEMBER in rule.filter.sets else ""
    if SetLevel.MODULE in rule.filter.sets:
        whose = f"{whose}/{grant.thing}"
    return rule.action.value, rule.effect.value, rule.filter.text, qos_max, retain, whose


def _digest_of(lines: set[Line], action: RuleAction) -> str:
    chosen = json.dumps(sorted(line for line in lines if line[0] == action.value))
    return hashlib.sha256(chosen.encode()).hexdigest()[: 2 * _DIGEST_BYTES]
