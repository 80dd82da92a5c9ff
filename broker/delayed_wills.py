"""Wills that wait for their delay (MQTT 5.0, 3.1.3.2.2): dropped if the session goes on in time, judged when they fire.

A will waits here while its client is away, so nothing of it is with the broker that a revocation could not reach. What
wipes a session wipes its row in the store, and a will whose session has no row any more is never sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING

import structlog

from authsvc.core.credentials import WillMessage
from authsvc.core.errors import StoreUnavailable, UpstreamUnavailable
from authsvc.core.facts import Refusal
from authsvc.core.policy import Action, Grant
from authsvc.core.reasons import Reason
from authsvc.sessions import Admitted, Session

if TYPE_CHECKING:
    from broker.connection import ClientConnection
    from broker.gate import Gate

log = structlog.get_logger(__name__)

MAX_BYTES = 64 * 1_048_576  # of all that wait
ATTEMPTS = 15  # to read the store, which may be away when the time has come
AGAIN_AFTER_S = 2.0

Key = tuple[str, str]


class _Held:
    """One will that waits."""

    __slots__ = ("judged", "peer", "session", "size", "task", "timer", "upstream_id", "will")

    def __init__(self, session: Session, upstream_id: str, will: WillMessage, peer: str) -> None:
        self.session = session
        self.upstream_id = upstream_id
        self.will = will
        self.peer = peer
        self.size = len(will.payload) + len(will.properties) + 4 * len(will.topic)
        self.judged = True  # not so where a client is coming back and the store cannot say whether it was wiped
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None


class DelayedWills:
    """The wills of one gate that wait, by principal and client id: at most `limit`, one a session."""

    def __init__(self, gate: Gate, limit: int) -> None:
        self._gate = gate
        self._limit = limit
        self._held: dict[Key, _Held] = {}
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._held)

    def take(self, connection: ClientConnection, session: Session, will: WillMessage, reason: Reason) -> bool:
        """Keep the will of a connection that ends for its delay, and at most until the session ends (5.0, 3.1.3.2.2).

        False where it is to be sent without delay: it has none, the session ends with the connection, the gate closes,
        an operator ends the session (his reset of the client id wipes it as well), or there is no room.
        """
        expiry_s = connection.terms.session_expiry_s
        if not will.delay_s or expiry_s == 0 or reason in {Reason.SHUTTING_DOWN, Reason.KICKED}:
            return False
        after_s = will.delay_s if expiry_s is None else min(will.delay_s, expiry_s)
        return self._hold(session, connection.upstream_id, will, after_s=after_s, peer=connection.peer)

    def _hold(self, session: Session, upstream_id: str, will: WillMessage, *, after_s: float, peer: str) -> bool:
        held = _Held(session, upstream_id, will, peer)
        if len(self._held) >= self._limit or self._bytes + held.size > MAX_BYTES:
            return False
        key = (session.principal, session.client_id)
        self._drop(key)  # of an older connection of the same session
        self._held[key] = held
        self._bytes += held.size
        held.timer = self._gate.loop.call_later(after_s, self._fire, key, held, ATTEMPTS)
        return True

    async def judge(self, admitted: Admitted) -> None:
        """Drop the will of a session that was wiped, before the CONNECT that begins a new one makes the row its own.

        Called under the session's lock. Where the store cannot say, a will is not sent for that CONNECT.
        """
        key = (admitted.principal, admitted.client_id)
        held = self._held.get(key)
        if held is None or not admitted.clean_start:
            return
        try:
            outcome = await self._gate.service.grant_of_ended(held.session, held.upstream_id)
        except StoreUnavailable:
            held.judged = False
            return
        held.judged = not isinstance(outcome, Refusal)
        if isinstance(outcome, Refusal) and self._held.get(key) is held:
            self._drop(key)
            self._not_sent(held, outcome.reason)

    def reconnected(self, admitted: Admitted) -> None:
        """The client is back: its will is dropped where the session goes on, and sent where it ended (3.1.3.2.2)."""
        held = self._drop((admitted.principal, admitted.client_id))
        if held is None or not admitted.clean_start:
            return
        feed = self._gate.service.feed
        if not held.judged or feed.touched_since(admitted.position, held.session.footing, admitted.own_changes):
            self._not_sent(held, Reason.KICKED)  # what it rested on may have ended since it was judged
        elif self._may_send(held, admitted.grant):
            self._run(self._publish(held))

    async def close(self) -> None:
        """Send all that wait, judged like at their time; return when they are sent or could not be."""
        for key, held in list(self._held.items()):
            if held.timer is not None:
                held.timer.cancel()
            if held.task is None:
                self._fire(key, held, 1)
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _drop(self, key: Key) -> _Held | None:
        held = self._held.pop(key, None)
        if held is not None:
            self._bytes -= held.size
            if held.timer is not None:
                held.timer.cancel()
        return held

    def _fire(self, key: Key, held: _Held, attempts: int) -> None:
        held.task = self._run(self._send(key, held, attempts))

    def _run(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._gate.loop.create_task(work, name="delayed will")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send(self, key: Key, held: _Held, attempts: int) -> None:
        """Judge the will by the facts as they are now, and send it unless the client came back meanwhile."""
        outcome: Grant | Refusal = Refusal(reason=Reason.STORE_UNAVAILABLE)
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(AGAIN_AFTER_S)
            try:
                outcome = await self._gate.service.grant_of_ended(held.session, held.upstream_id)
            except StoreUnavailable:
                continue
            break
        if self._held.get(key) is not held:  # the client came back, with a fate of its own for the will
            return
        self._drop(key)
        if isinstance(outcome, Refusal):
            self._not_sent(held, outcome.reason)
        elif self._may_send(held, outcome):
            await self._publish(held)

    def _not_sent(self, held: _Held, reason: Reason) -> None:
        log.info("delayed_will_dropped", client_id=held.session.client_id, peer=held.peer, reason=reason.value)

    def _may_send(self, held: _Held, grant: Grant) -> bool:
        """A will is a publish: judged by the grant of this moment."""
        will = held.will
        decision = grant.decide(Action.PUBLISH, will.topic, qos=will.qos, retain=will.retain)
        if not decision.allowed:
            self._gate.service.denied(held.session, Action.PUBLISH.value, will.topic, decision)
        return decision.allowed and self._gate.upstream.capabilities.carries(will.topic)

    async def _publish(self, held: _Held) -> None:
        will = held.will
        try:
            await self._gate.upstream.publish(
                will.topic, will.payload, qos=will.qos, retain=will.retain, properties=will.properties
            )
        except UpstreamUnavailable as error:
            log.warning("will_lost", topic=will.topic, peer=held.peer, problem=str(error))
