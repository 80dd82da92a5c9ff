"""Grants: the rules compiled for one principal, and the decisions on topics and filters that they give.

A grant is plain data (`rules`, `sets`) with an index over it; deciding is synchronous, needs no clock and does not
depend on the order of the rules. `Memo` remembers the decisions of one direction of one connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from authsvc.core.errors import InvalidInput
from authsvc.core.facts import Effect, KeySet, RuleAction
from authsvc.core.reasons import Reason
from authsvc.core.topics import (
    Level,
    RenderedFilter,
    SetLevel,
    check_topic_filter,
    levels_cover,
    levels_overlap,
    shared_filter,
    split_filter,
)


class Action(StrEnum):
    """What is asked: to publish a topic, to subscribe a filter, to be delivered a topic."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    DELIVER = "deliver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer: allowed or not, why, and the id of the rule that decided or came nearest.

    `qos` is the granted QoS of an allowed SUBSCRIBE, and 0 otherwise.
    """

    allowed: bool
    reason: Reason
    rule: str | None = None
    qos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRule:
    """One rule of a grant; `id` says where it comes from, such as ``definition/gateway#2`` or ``role/reader#0``."""

    id: str
    effect: Effect
    action: RuleAction
    filter: RenderedFilter
    qos_max: int | None = None
    retain: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A rule that could not be compiled for this principal, and why: `code` is that of `InvalidInput`."""

    id: str
    effect: Effect
    topic: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grant:
    """The access rules compiled for one principal, for as long as `expires_at_us` (None: no end; not judged here).

    `thing` and `definition` are keys, or None for a ground token. `sets` holds the changing sets that rules refer to,
    and `left_out` what was not compiled.
    """

    principal: str
    tenant: str
    ground: str
    thing: str | None
    definition: str | None
    client_id: str
    rules: tuple[CompiledRule, ...]
    sets: Mapping[SetLevel, KeySet] = field(default_factory=dict)
    expires_at_us: int | None = None
    left_out: tuple[LeftOut, ...] = ()

    @property
    def version(self) -> int:
        """Grows whenever a set that the grant refers to changes: older decisions are then void."""
        return sum(keys.version for keys in self.sets.values())

    def decide(
        self,
        action: Action,
        topic: str,
        *,
        qos: int = 0,
        retain: bool = False,
        deliveries_checked: bool = True,
    ) -> Decision:
        """Return whether `action` on `topic` (a filter for SUBSCRIBE) is allowed, and why."""
        raise NotImplementedError


MEMO_ENTRIES: Final = 1024
MEMO_TOPIC_BYTES: Final = 512


class Memo:
    """The decisions of one direction (PUBLISH or DELIVER) of one grant, remembered by header flags and topic bytes.

    `tables` is indexed by ``header & 0x07`` (retain bit and QoS bits; DUP removed) and maps topic bytes to allowed.
    The list and its dictionaries stay the same objects for the life of the memo.
    """

    __slots__ = ("_action", "_grant", "_version", "tables")

    def __init__(self, grant: Grant, action: Action) -> None:
        self._grant = grant
        self._action = action
        self._version = grant.version
        self.tables: list[dict[bytes, bool]] = [{} for _ in range(8)]

    def refresh(self) -> None:
        """Forget everything if a set that the grant refers to has changed. Call once per chunk."""
        raise NotImplementedError

    def decide(self, flags: int, topic: bytes, text: str) -> Decision:
        """Return the decision on `text`, which is `topic` strictly decoded, and remember it."""
        raise NotImplementedError
