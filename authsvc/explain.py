"""Why a client may or may not do something, rule by rule, from the same facts that an admission reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from authsvc.core.policy import Action
from authsvc.core.reasons import Reason

if TYPE_CHECKING:
    from authsvc.service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the trace: a rule (or a step of the admission) and whether it matched."""

    rule: str  # rule id, or the name of the step
    effect: str  # "allow", "deny" or "" for a step
    action: str
    topic: str  # the rendered filter of a rule
    matched: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The decision and how it came about; `basis` says whose grant was judged."""

    allowed: bool
    reason: Reason
    rule: str | None
    basis: str
    trace: Sequence[Step]


async def explain(
    service: Service,
    tenant: str,
    *,
    client_id: str | None = None,
    thing: str | None = None,
    token_id: str | None = None,
    action: Action,
    topic: str,
    qos: int = 0,
    retain: bool = False,
) -> Explanation:
    """Return the decision for the live session of `client_id`, for `thing`, or for what `token_id` would be granted.

    Raises:
        NotFound: no such session, thing or token in this tenant.
        Conflict: code ``client_id_ambiguous``: two principals use the client id; the detail names both.
        InvalidInput: none or more than one of the three were named, or the topic is malformed.
        StoreUnavailable: the facts cannot be read.
    """
    raise NotImplementedError
