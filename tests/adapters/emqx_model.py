"""How EMQX applies the list of an authenticator's answer, after its sources (emqx/emqx): a model for tests.

Parsing          apps/emqx_auth/src/emqx_authz/emqx_authz_rule_raw.erl: `parse_rule`, `validate_rule_topic` ("eq ")
Matching         …/emqx_authz_rule.erl: `compile_topic`, `matches` (the first one), `match_action`, `match_topics`
Words, topics    apps/emqx/src/emqx_topic.erl: `words`, `match`; 5.8.2 added `match_words`, the check of ``$``
Expiry           …/sources/emqx_authz_client_info.erl: `check`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PLUS, HASH, EMPTY = "'+'", "'#'", "''"  # atoms in place of the three special words


def words(topic: str) -> list[str]:
    """`words`: a filter's wildcards become atoms, whether it stands in a rule or in a SUBSCRIBE."""
    special = {"+": PLUS, "#": HASH, "": EMPTY}
    return [special.get(word, word) for word in topic.split("/")]


def match_tokens(name: Sequence[str], filter_: Sequence[str]) -> bool:
    """`match_tokens`, clause by clause."""
    if not name and not filter_:
        return True
    if name and filter_ and name[0] == filter_[0] and match_tokens(name[1:], filter_[1:]):
        return True
    if name and filter_ and name[0] == filter_[0]:
        return False  # Erlang takes the first clause that fits, and does not come back
    if name and filter_ and filter_[0] == PLUS:
        return match_tokens(name[1:], filter_[1:])
    return list(filter_) == [HASH]


def match(name: Sequence[str], filter_: Sequence[str], *, checks_dollar: bool) -> bool:
    """`match` of two lists of words; `checks_dollar` since 5.8.2."""
    if checks_dollar and name and name[0].startswith("$") and filter_[0] in (PLUS, HASH):
        return False
    return match_tokens(name, filter_)


@dataclass(frozen=True)
class Asked:
    """One action; `topic` is the filter of a SUBSCRIBE, of a shared one the filter within."""

    action: str
    topic: str
    qos: int = 0
    retain: bool = False


def verdict(acl: Sequence[dict[str, Any]], asked: Asked, *, checks_dollar: bool = True) -> str:
    """Return ``allow`` or ``deny`` of the first rule that matches, or ``nomatch``: the next authorizer is asked."""
    for rule in acl:
        if _matches(rule, asked, checks_dollar=checks_dollar):
            return rule["permission"]
    return "nomatch"


def _matches(rule: dict[str, Any], asked: Asked, *, checks_dollar: bool) -> bool:
    assert rule["permission"] in ("allow", "deny")
    assert set(rule) <= {"permission", "action", "topic", "qos", "retain"}
    if rule["action"] not in (asked.action, "all"):
        return False
    qos = rule.get("qos", [0, 1, 2])
    assert isinstance(qos, list)
    assert set(qos) <= {0, 1, 2}
    if asked.qos not in qos:
        return False
    if asked.action == "publish" and rule.get("retain", "all") not in ("all", asked.retain):
        return False
    topic = rule["topic"]
    assert "${" not in topic, "EMQX would fill it in"
    if topic.startswith("eq "):
        return words(asked.topic) == words(topic.removeprefix("eq "))
    return match(words(asked.topic), words(topic), checks_dollar=checks_dollar)
