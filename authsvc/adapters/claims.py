"""Whose a client id is at one attached broker: asked before a CONNECT is admitted, and again under its lock.

A hook that waits for the broker's management waits, at a broker which asks one question after the other, for a hook
behind it: RabbitMQ's own management and our kicks there need answers from us. With `Adapter.asks_in_turn` nothing is
waited for: what has to be done or asked first is begun, and the client is told to come again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from authsvc.adapters.following import SETTLED_US
from authsvc.adapters.held import digest, same_subscriptions
from authsvc.adapters.management import ManagementUnavailable
from authsvc.core.facts import Refusal
from authsvc.core.reasons import Reason
from authsvc.sessions import Admitted
from authsvc.store.attached import AttachedSession

if TYPE_CHECKING:
    from authsvc.adapters.attached import Attached

# A CONNECT waits that long for the broker's management, all its questions and kicks together: EMQX and VerneMQ wait 5 s
# for the answer, and what is behind it in the same connection waits with it.
MANAGEMENT_WITHIN_S: Final = 3.0
ASK_S: Final = 2.0  # of a question that no CONNECT waits for
MOST_HELD: Final = 10_000  # client ids of one principal at one broker
MOST_ASKED: Final = 1_000  # client ids that are being asked about, and that were found free, each

_TAKEN: Final = Refusal(reason=Reason.CLIENT_ID_TAKEN, detail="the client id is another principal's at this broker")
_ENDING: Final = Refusal(
    reason=Reason.BROKER_UNAVAILABLE, detail="the session before this one is being ended; connect again"
)
_NOT_WIPED: Final = Refusal(
    reason=Reason.BROKER_UNAVAILABLE, detail="the broker does not wipe what it keeps from before"
)
_TOO_MANY: Final = Refusal(
    reason=Reason.SESSION_LIMIT, detail=f"the principal has {MOST_HELD} client ids in use at this broker"
)


class Claims:
    """Decides who may have a client id. `run` it as a task where the broker asks in turn."""

    def __init__(self, attached: Attached) -> None:
        self._attached = attached
        self._in_turn = attached.adapter.asks_in_turn
        self._asking: set[str] = set()
        self._questions: asyncio.Queue[str] = asyncio.Queue()
        self._free: dict[str, int] = {}  # client ids of which the broker had nothing -> when it was asked

    async def may_hold(self, principal: str, client_id: str, *, until: float) -> Refusal | None:
        """Return why the client id is not free for the principal; asked before anything is written.

        The broker's management is waited for `until` then, by the loop's time.
        """
        row = self._attached.rows.get(client_id)
        if row is not None and row.principal != principal and not await self._is_free(row, until):
            return _TAKEN
        if row is None and self._attached.rows.number_of(principal) >= MOST_HELD:
            refusal = self._make_room(principal)
            if refusal is not None:
                return refusal
        return self.must_wait(client_id)

    def must_wait(self, client_id: str) -> Refusal | None:
        """Return a refusal where the client id's lock would be waited for while a kick holds it, and may not be."""
        kicks = self._attached.kicks
        if self._in_turn and kicks is not None and kicks.blocks(client_id):
            kicks.hurry(client_id)
            return _ENDING
        return None

    async def waits_too_long(self, client_id: str, *, until: float) -> Refusal | None:
        """Return a refusal where a kick that holds the client id's lock does not come to an end `until` then."""
        attached = self._attached
        if attached.kicks is not None and attached.kicks.holds(client_id):
            try:
                async with asyncio.timeout_at(until), attached.lock(client_id):
                    return None
            except TimeoutError:
                return _ENDING
        return None

    def _make_room(self, principal: str) -> Refusal | None:
        """Give up the oldest client id of a principal that has too many; nobody else's is touched."""
        attached = self._attached
        row = attached.rows.oldest(principal, gone=True)
        if row is not None and attached.rows.number_of(principal) < 2 * MOST_HELD:
            attached.wipe(row.client_id)  # it is given up when the broker has
            if attached.kicks is None:
                attached.rows.forget(row.client_id)
            return None
        row = attached.rows.oldest(principal, gone=False)
        if row is None or attached.management is not None:
            return _TOO_MANY
        session = attached.session(row.client_id)  # no such broker says that a client left
        if session is not None:
            attached.closed(session, Reason.SESSION_LIMIT)
        attached.rows.forget(row.client_id)
        return None

    async def claim(self, admitted: Admitted, *, until: float) -> Refusal | None:
        """Have the client id free for the admission, under its lock: kicks done, nobody else's, nothing wrong kept."""
        attached, client_id = self._attached, admitted.client_id
        kicks = attached.kicks
        if kicks is not None and kicks.owes(client_id):
            refusal = self.must_wait(client_id)
            if refusal is not None:
                return refusal
            if not self._in_turn and not await kicks.settle(client_id, until=until):
                return _NOT_WIPED
        row = attached.rows.get(client_id)
        if row is not None and row.principal != admitted.principal:
            if not await self._is_free(row, until):
                return _TAKEN
            session = attached.session(client_id)
            if session is not None:
                attached.closed(session, Reason.CONNECTION_LOST)
            row = None
        if row is None:
            attached.subscribed.forget(client_id)  # the broker keeps nothing of it
            return None
        if kicks is None or not await self._must_wipe(row, admitted):
            return None
        kicks.add(client_id, wipe=True)
        if self._in_turn:
            return _ENDING
        return None if await kicks.settle(client_id, until=until) else _NOT_WIPED

    async def run(self) -> None:
        """Ask the management about client ids, one after the other, for ever; owned by the caller's task group."""
        while True:
            client_id = await self._questions.get()
            free = await self._broker_has_none(client_id, asyncio.get_running_loop().time() + ASK_S)
            self._asking.discard(client_id)
            self._free.pop(client_id, None)
            if free:
                self._free[client_id] = self._attached.service.now_us()
                if len(self._free) > MOST_ASKED:
                    del self._free[next(iter(self._free))]

    async def _must_wipe(self, row: AttachedSession, admitted: Admitted) -> bool:
        """Return whether what the broker may keep for the client id was subscribed under a right that has ended."""
        attached = self._attached
        if not attached.deliveries_checked and not same_subscriptions(row.held, digest(admitted.grant)):
            return True
        if row.secret_id != admitted.secret_id:
            secret = await attached.service.store.secret(row.secret_id)
            if secret is None or secret.revoked_at_us is not None:
                return True
        return attached.is_doubtful(admitted)

    async def _is_free(self, row: AttachedSession, until: float) -> bool:
        """Return whether the broker has nothing under another principal's client id any more.

        The word of the management counts only when the last CONNECT of the client id has had time to show there.
        """
        attached = self._attached
        now_us = attached.service.now_us()
        if row.gone_us is not None and row.gone_us + attached.config.hold_s * 1_000_000 < now_us:
            return True
        session = attached.session(row.client_id)
        since_us = row.since_us if session is None else session.since_us
        if attached.management is None or now_us - since_us < SETTLED_US:
            return False
        if not self._in_turn:
            return await self._broker_has_none(row.client_id, until)
        # An answer is good for as long as a CONNECT needs to show: one that came after it is younger than SETTLED_US.
        if now_us - self._free.get(row.client_id, 0) < SETTLED_US:
            return True
        if row.client_id not in self._asking and len(self._asking) < MOST_ASKED:
            self._asking.add(row.client_id)
            self._questions.put_nowait(row.client_id)
        return False

    async def _broker_has_none(self, client_id: str, until: float) -> bool:
        management = self._attached.management
        with suppress(ManagementUnavailable, TimeoutError):
            async with asyncio.timeout_at(until):
                return management is not None and await management.has_session(client_id) is False
        return False
