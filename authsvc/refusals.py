"""What was refused lately, in memory: the first answer to "why can my device not connect?"."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from authsvc.core.facts import Change, Kind
from authsvc.core.reasons import Reason

KEPT_PER_TENANT = 1_000
MAX_TENANTS = 1_000  # with a full list each about 250 MiB; an attacker without a token makes no tenant
MERGE_US = 1_000_000
_TEXT = 256  # characters kept of what a client chose
_RECENT = 64  # how far back an equal refusal is looked for; the newest are the ones that repeat

UNKNOWN_TENANT = ""


@dataclass(slots=True, kw_only=True)
class RefusalRecord:
    """One refused CONNECT, or one denied publish, subscribe or delivery; `count` equal ones within a second."""

    id: int  # grows by one with each record; "since which" for whoever follows
    at_us: int  # of the first
    last_at_us: int
    tenant: str  # "" when nobody knows
    peer: str
    client_id: str
    thing: str
    token_prefix: str
    action: str  # "connect", "publish", "subscribe" or "deliver"
    topic: str
    reason: Reason
    rule: str
    detail: str
    count: int = 1


class Refusals:
    """The last 1,000 refusals of each tenant; those of no known tenant are kept apart (platform keys only)."""

    def __init__(
        self, *, now_us: Callable[[], int], kept: int = KEPT_PER_TENANT, max_tenants: int = MAX_TENANTS
    ) -> None:
        self._now_us = now_us
        self._kept = kept
        self._max_tenants = max_tenants
        self._by_tenant: OrderedDict[str, deque[RefusalRecord]] = OrderedDict()
        self._merge: dict[tuple[str, ...], RefusalRecord] = {}
        self._next_id = 1
        self.total = 0

    def add(
        self,
        *,
        tenant: str | None,
        reason: Reason,
        peer: str = "",
        client_id: str = "",
        thing: str = "",
        token_prefix: str = "",
        action: str = "connect",
        topic: str = "",
        rule: str = "",
        detail: str = "",
    ) -> RefusalRecord:
        """Record one refusal, merged with an equal one of the same second, and return the record."""
        now_us = self._now_us()
        self.total += 1
        address = peer.rpartition(":")[0] or peer  # a client that tries again comes from another port
        fields = (tenant or UNKNOWN_TENANT, address, client_id[:_TEXT], thing[:_TEXT], token_prefix, action)
        key = (*fields, topic[:_TEXT], reason.value, rule)
        equal = self._merge.get(key)
        if equal is not None and now_us - equal.at_us < MERGE_US:
            equal.count += 1
            equal.last_at_us = now_us
            return equal
        record = RefusalRecord(
            id=self._next_id,
            at_us=now_us,
            last_at_us=now_us,
            tenant=fields[0],
            peer=peer,
            client_id=fields[2],
            thing=fields[3],
            token_prefix=token_prefix,
            action=action,
            topic=topic[:_TEXT],
            reason=reason,
            rule=rule,
            detail=detail[:_TEXT],
        )
        self._next_id += 1
        self._remember(key, record)
        self._list_of(record.tenant).append(record)
        return record

    def last(
        self,
        tenant: str | None,
        *,
        client_id: str | None = None,
        thing: str | None = None,
        limit: int = 100,
        after_id: int = 0,
    ) -> list[RefusalRecord]:
        """Return the newest `limit` matching refusals, newest first; tenant None: those of nobody known."""
        found: list[RefusalRecord] = []
        for record in reversed(self._by_tenant.get(tenant or UNKNOWN_TENANT, ())):
            if record.id <= after_id or len(found) >= limit:
                break
            if (client_id is None or record.client_id == client_id) and (thing is None or record.thing == thing):
                found.append(record)
        return found

    def apply(self, change: Change) -> None:
        """Forget the refusals of a tenant that was deleted: the next one of its key must not read them."""
        if change.name.kind is Kind.TENANT and change.op == "deleted":
            self._by_tenant.pop(change.name.key, None)
            for key in [key for key, record in self._merge.items() if record.tenant == change.name.key]:
                del self._merge[key]

    def _remember(self, key: tuple[str, ...], record: RefusalRecord) -> None:
        self._merge.pop(key, None)
        self._merge[key] = record
        if len(self._merge) > _RECENT:
            del self._merge[next(iter(self._merge))]

    def _list_of(self, tenant: str) -> deque[RefusalRecord]:
        records = self._by_tenant.get(tenant)
        if records is None:
            records = self._by_tenant[tenant] = deque(maxlen=self._kept)
            if len(self._by_tenant) > self._max_tenants:
                quietest = next(key for key in self._by_tenant if key not in (tenant, UNKNOWN_TENANT))
                del self._by_tenant[quietest]
        self._by_tenant.move_to_end(tenant)
        return records
