"""What a broker's sessions here follow: the rows of the store at start, and the broker's own list from then on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from authsvc.adapters.held import digest
from authsvc.adapters.management import ManagementUnavailable
from authsvc.adapters.restoring import admitted_again
from authsvc.consequences import WIPING_OPS, wipes
from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import Change, Kind, Name, Refusal
from authsvc.core.reasons import Reason
from authsvc.sessions import Session, tenant_name
from authsvc.store.attached import AttachedSession

if TYPE_CHECKING:
    from authsvc.adapters.attached import Attached

log = structlog.get_logger(__name__)

ATTEMPTS: Final = 3
AT_ONCE: Final = 32  # rows that are restored side by side
FLUSH_S: Final = 2.0
SWEEP_S: Final = 60.0
LIST_S: Final = 20.0  # that the broker may take for its list, page by page
LIST_AT_START_S: Final = 5.0  # nobody is answered meanwhile
SETTLED_US: Final = 10_000_000  # an answered CONNECT may take that long to show in the broker's own lists


class Following:
    """Restores and sweeps the sessions of one attached broker. `restore` comes before any hook, then `run`."""

    def __init__(self, attached: Attached) -> None:
        self._attached = attached
        self._unknown: set[Session] = set()  # to the broker, at the last sweep
        self._not_restored: list[AttachedSession] = []

    async def restore(self) -> None:
        """Open the sessions of the clients that were connected when the service ended.

        Whoever may not be connected any more, or was told what is no longer right, is kicked; so is whoever was to be
        wiped, connected or not, and may not have been. Raises StoreUnavailable.
        """
        rows = self._attached.rows
        await rows.load()
        for row in await self._not_wiped():
            self._kick(row, wipe=True)
        for row in rows:
            self._attached.subscribed.restored(row.client_id)
        here = await self._clients(LIST_AT_START_S)
        await self._restore_all([row for row in rows if row.gone_us is None or (here and row.client_id in here)])

    async def sweep(self) -> None:
        """Compare with the broker's own list: close what it did not know twice in a row, take up what it knows.

        Kicked is nobody but who was admitted once and would not be any more. Frees the client ids that nobody has used
        for longer than they are held. Raises StoreUnavailable.
        """
        attached = self._attached
        now_us = attached.service.now_us()
        here = await self._clients()
        if here is not None:
            unknown = {
                session
                for session in attached.sessions()
                if session.client_id not in here and now_us - session.since_us > SETTLED_US
            }
            for session in unknown & self._unknown:
                if session.ending is None:
                    attached.closed(session, Reason.CONNECTION_LOST)
                    attached.rows.left(session.client_id, now_us=now_us)
            self._unknown = unknown - self._unknown
            lost = [row for row in attached.rows if row.client_id in here and attached.session(row.client_id) is None]
            await self._restore_all(lost)
        attached.rows.forget_gone_before(now_us - int(attached.config.hold_s * 1_000_000))
        attached.subscribed.keep_only(attached.rows)

    def apply(self, change: Change) -> None:
        """Have wiped what the broker keeps for clients that are away and whose sessions the change ends for good.

        The sessions that are open are ended by `authsvc.consequences`, which the feed tells after this.
        """
        attached = self._attached
        attached.subscribed.apply(change)
        if attached.kicks is None or not wipes(change):
            return
        kind, tenant, key = change.name
        if kind is Kind.THING:
            rows = attached.rows.of(f"thing/{tenant}/{key}")
        elif kind is Kind.TENANT:
            rows = [row for row in attached.rows if row.tenant == key]
        else:
            rows = [row for row in attached.rows if row.tenant == tenant and key in (row.token_id, row.secret_id)]
        for row in rows:
            if attached.session(row.client_id) is None:
                attached.wipe(row.client_id)

    async def run(self) -> None:
        """Write what the rows owe, restore what could not be, and sweep, for ever; owned by the caller's task group."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep_forever(), name=f"sweeps of {self._attached.name}")
            tasks.create_task(self._flush_forever(), name=f"rows of {self._attached.name}")

    async def _not_wiped(self) -> list[AttachedSession]:
        """Return the rows of clients whose sessions a change ended for good since they connected.

        Who was wiped has no row any more, or that of a later CONNECT; but a kick is owed in memory only, and by now the
        thing that was blocked may be active again: nothing else remembers it.
        """
        rows = list(self._attached.rows)
        if self._attached.kicks is None or not rows:
            return []
        first_us = min(row.since_us for row in rows)
        changes = await self._attached.service.store.changes_since(first_us, WIPING_OPS)
        wiped_us = {_wiped_by(change): change.at_us for change in changes if wipes(change)}
        return [row for row in rows if any(wiped_us.get(name, -1) >= row.since_us for name in _rests_on(row))]

    async def _restore_all(self, rows: list[AttachedSession]) -> None:
        for start in range(0, len(rows), AT_ONCE):
            await asyncio.gather(*(self._restore_or_later(row) for row in rows[start : start + AT_ONCE]))

    async def _restore_or_later(self, row: AttachedSession) -> None:
        try:
            done = await self._restore(row)
        except StoreUnavailable:
            done = False
        if not done:
            self._not_restored.append(row)

    async def _restore(self, row: AttachedSession) -> bool:
        """Open the row's session, or kick it; nothing to do if the client id has a session or a kick by now."""
        attached = self._attached
        for _ in range(ATTEMPTS):
            admitted = await admitted_again(attached.service, row)
            async with attached.lock(row.client_id):
                if attached.session(row.client_id) is not None or attached.rows.get(row.client_id) is not row:
                    return True
                if attached.kicks is not None and attached.kicks.owes(row.client_id):
                    return True
                if isinstance(admitted, Refusal):
                    reason = admitted.reason
                    log.info("session_not_restored", broker=attached.name, client_id=row.client_id, reason=reason.value)
                    self._kick(row, wipe=reason is not Reason.TOKEN_EXPIRED)
                    return True
                was_told_other = attached.adapter.swap == "kick" and row.held != digest(admitted.grant)
                if was_told_other or attached.is_doubtful(admitted):
                    self._kick(row, wipe=True)
                    return True
                session = attached.open(admitted, username=row.username, peer=row.peer)
                if session is not None:
                    session.since_us = row.since_us
                    if row.gone_us is not None:
                        attached.rows.put(replace(row, gone_us=None))
                    return True
        return False

    def _kick(self, row: AttachedSession, *, wipe: bool) -> None:
        if self._attached.kicks is not None:
            self._attached.kicks.add(row.client_id, wipe=wipe)
        else:
            self._attached.rows.left(row.client_id, now_us=self._attached.service.now_us())

    async def _clients(self, within_s: float = LIST_S) -> frozenset[str] | None:
        if self._attached.management is None:
            return None
        try:
            async with asyncio.timeout(within_s):
                return await self._attached.management.clients()
        except ManagementUnavailable as error:
            problem = str(error)
        except TimeoutError:
            problem = f"the list took longer than {within_s:g} s"
        except Exception as error:  # noqa: BLE001  # whatever a broker answers, the service goes on
            problem = type(error).__name__
        log.warning("sweep_failed", broker=self._attached.name, problem=problem)
        return None

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            await self._attached.rows.flush()
            waiting, self._not_restored = self._not_restored, []
            await self._restore_all(waiting)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.sweep()


def _rests_on(row: AttachedSession) -> list[Name]:
    """Return the records whose end wipes what the broker keeps for the row's client."""
    names = [tenant_name(row.tenant), Name(Kind.TOKEN, row.tenant, row.token_id)]
    names.append(Name(Kind.SECRET, row.tenant, row.secret_id))
    if row.thing:
        names.append(Name(Kind.THING, row.tenant, row.thing))
    return names


def _wiped_by(change: Change) -> Name:
    return tenant_name(change.name.key) if change.name.kind is Kind.TENANT else change.name
