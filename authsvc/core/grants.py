"""Grants: the rules compiled for one principal, and the decisions on topics and filters that they give.

A grant is plain data (`rules`, `sets`); an index over it is built when it is first asked. Deciding is synchronous,
needs no clock and does not depend on the order of the rules. `Memo` remembers decisions for one direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple, cast

from authsvc.core.errors import InvalidInput
from authsvc.core.facts import Effect, KeySet, RuleAction
from authsvc.core.index import Entry, RuleIndex
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


class CompiledRule(NamedTuple):
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
    action: RuleAction
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
    _indexes: dict[RuleAction, RuleIndex] = field(default_factory=dict, init=False, repr=False)

    @property
    def version(self) -> int:
        """Grows whenever a set that the grant refers to changes: decisions made before are then void."""
        return sum([keys.version for keys in self.sets.values()]) if self.sets else 0

    def decide(
        self,
        action: Action,
        topic: str,
        *,
        qos: int = 0,
        retain: bool = False,
        deliveries_checked: bool = True,
    ) -> Decision:
        """Return whether `action` on `topic` (a filter for SUBSCRIBE) is allowed, and why.

        A deny beats every allow. `qos` and `retain` are judged on PUBLISH (a will is one); a SUBSCRIBE above a rule's
        `qos_max` is granted at it; a DELIVER is judged by its topic alone. `deliveries_checked` says that every message
        of the subscription will be decided on as well: then a filter may be wider in set levels, and a deny that only
        overlaps it does not refuse it; shared subscriptions are never narrowed so. What is no valid topic or filter is
        denied with ``protocol_error``.
        """
        if action is Action.SUBSCRIBE:
            return self._decide_filter(topic, qos=qos, deliveries_checked=deliveries_checked)
        if topic == "" or "+" in topic or "#" in topic:
            return _NOT_A_TOPIC
        if action is Action.PUBLISH:
            return _judge_publish(self._index(RuleAction.PUBLISH).matching(topic), qos=qos, retain=retain)
        return _judge_delivery(self._index(RuleAction.SUBSCRIBE).matching(topic))

    def entries(self, action: RuleAction) -> tuple[Entry, ...]:
        """Return the rules of one action as they are decided on, in order of rank: plain data for adapters."""
        return self._index(action).entries

    def _index(self, action: RuleAction) -> RuleIndex:
        index = self._indexes.get(action)
        if index is None:
            rules = sorted((rule for rule in self.rules if rule.action is action), key=_order)
            index = RuleIndex([self._entry(rank, rule) for rank, rule in enumerate(rules)])
            self._indexes[action] = index
        return index

    def _entry(self, rank: int, rule: CompiledRule) -> Entry:
        levels: tuple[Level, ...]
        if rule.filter.sets:
            levels = tuple(level if isinstance(level, str) else self.sets[level] for level in rule.filter.levels)
        elif len(rule.filter.levels) <= 2:  # `#` and `/#` are the only ones spelled otherwise
            levels = tuple(split_filter(rule.filter.text))
        else:
            levels = cast("tuple[str, ...]", rule.filter.levels)  # the same object: there are many sessions
        return Entry(
            rank=rank,
            id=rule.id,
            levels=levels,
            allow=rule.effect is Effect.ALLOW,
            qos_max=2 if rule.qos_max is None else rule.qos_max,
            retain=rule.retain,
        )

    def _decide_filter(self, filter_: str, *, qos: int, deliveries_checked: bool) -> Decision:
        try:
            shared = shared_filter(filter_)
            inner = check_topic_filter(filter_ if shared is None else shared.inner, max_levels=None)
        except InvalidInput:
            return _NOT_A_TOPIC
        # A message that is denied to the member of a group that the broker chose is lost to the whole group: a shared
        # subscription must be covered as it stands, it is never narrowed by its deliveries.
        narrowed = deliveries_checked and shared is None
        requested = split_filter(inner)
        entries = self._index(RuleAction.SUBSCRIBE).entries
        granted: Entry | None = None
        wider: Entry | None = None
        crossing: Entry | None = None
        for entry in entries:  # by rank, so the first of equals is the one named
            if not entry.allow:
                if levels_cover(allowed=entry.levels, requested=requested):
                    return Decision(allowed=False, reason=Reason.RULE_DENIES, rule=entry.id)
                if crossing is None and levels_overlap(entry.levels, requested):
                    crossing = entry
            elif levels_cover(allowed=entry.levels, requested=requested, widen_sets=narrowed):
                if granted is None or entry.qos_max > granted.qos_max:
                    granted = entry
            elif wider is None and levels_overlap(entry.levels, requested):
                wider = entry
        if granted is None:
            if wider is None:
                return _NO_RULE
            return Decision(allowed=False, reason=Reason.FILTER_TOO_WIDE, rule=wider.id)
        if crossing is not None and not narrowed:
            return Decision(allowed=False, reason=Reason.RULE_DENIES, rule=crossing.id)
        return Decision(allowed=True, reason=Reason.RULE_ALLOWS, rule=granted.id, qos=min(qos, granted.qos_max))


_NO_RULE: Final = Decision(allowed=False, reason=Reason.NO_RULE_MATCHES)
_NOT_A_TOPIC: Final = Decision(allowed=False, reason=Reason.PROTOCOL_ERROR)


def _order(rule: CompiledRule) -> tuple[str, int, int, str]:
    # A total order of the rules that does not depend on how they were listed: which rule a decision names is stable.
    return (rule.filter.text, rule.qos_max or 0, -1 if rule.retain is None else rule.retain, rule.id)


def _judge_publish(matching: list[Entry], *, qos: int, retain: bool) -> Decision:
    """Return the decision of the rules whose filters match; `matching` is in no order."""
    allowing: Entry | None = None
    denying: Entry | None = None
    low_qos: Entry | None = None
    other_flag: Entry | None = None
    for entry in matching:
        same_flag = entry.retain is None or entry.retain is retain
        if not entry.allow:
            if same_flag and (denying is None or entry.rank < denying.rank):
                denying = entry
        elif same_flag:
            if qos <= entry.qos_max:
                if allowing is None or entry.rank < allowing.rank:
                    allowing = entry
            elif low_qos is None or entry.rank < low_qos.rank:
                low_qos = entry
        elif qos <= entry.qos_max and (other_flag is None or entry.rank < other_flag.rank):
            other_flag = entry
    if denying is not None:
        return Decision(allowed=False, reason=Reason.RULE_DENIES, rule=denying.id)
    if allowing is not None:
        return Decision(allowed=True, reason=Reason.RULE_ALLOWS, rule=allowing.id)
    if low_qos is not None:
        return Decision(allowed=False, reason=Reason.QOS_TOO_HIGH, rule=low_qos.id)
    if other_flag is not None:
        return Decision(allowed=False, reason=Reason.RETAIN_DENIED, rule=other_flag.id)
    return _NO_RULE


def _judge_delivery(matching: list[Entry]) -> Decision:
    chosen: Entry | None = None
    for entry in matching:
        if chosen is None or (entry.allow, entry.rank) < (chosen.allow, chosen.rank):  # a deny before every allow
            chosen = entry
    if chosen is None:
        return _NO_RULE
    reason = Reason.RULE_ALLOWS if chosen.allow else Reason.RULE_DENIES
    return Decision(allowed=chosen.allow, reason=reason, rule=chosen.id)


MEMO_ENTRIES: Final = 1024  # topics of one direction of one connection; then all are forgotten
_EMPTY: Final[Mapping[bytes, bool]] = MappingProxyType({})
MEMO_TOPIC_BYTES: Final = 512  # longer topics are decided each time: nobody fills the memory with 64 KiB keys


class Memo:
    """The decisions of one direction (PUBLISH or DELIVER) of one grant, remembered by header flags and topic bytes.

    `tables` is indexed by ``header & 0x07`` (retain bit and QoS bits; DUP removed) and maps topic bytes to allowed.
    The list stays the same object for the life of the memo; a table is made when there is something to remember, so
    look it up anew after `decide`. Only topics that passed the strict check of UTF-8 and wildcards may be given to
    `decide`. A swapped grant needs a new memo.
    """

    __slots__ = ("_action", "_grant", "_left", "_version", "tables")

    def __init__(self, grant: Grant, action: Action) -> None:
        self._grant = grant
        self._action = action
        self._version = grant.version
        self._left = MEMO_ENTRIES
        self.tables: list[Mapping[bytes, bool]] = [_EMPTY] * 8

    def refresh(self) -> None:
        """Forget everything if a set that the grant refers to has changed. Call once per chunk, before `tables`."""
        version = self._grant.version
        if version != self._version:
            self._version = version
            self._forget()

    def decide(self, flags: int, topic: bytes, text: str) -> Decision:
        """Return the decision on `text`, which is `topic` strictly decoded, and remember it."""
        self.refresh()
        decision = self._grant.decide(self._action, text, qos=flags >> 1, retain=bool(flags & 1))
        if len(topic) <= MEMO_TOPIC_BYTES:
            if topic not in self.tables[flags]:
                if self._left == 0:
                    self._forget()
                self._left -= 1
            table = self.tables[flags]
            if not isinstance(table, dict):
                table = self.tables[flags] = {}
            table[topic] = decision.allowed
        return decision

    def _forget(self) -> None:
        for table in self.tables:
            if isinstance(table, dict):
                table.clear()
        self._left = MEMO_ENTRIES
