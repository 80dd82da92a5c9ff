"""amqtt's session and its handler, as the gate needs them: cheap to make, and deliveries that take no task each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import OutgoingApplicationMessage, Session
from transitions import MachineError

ACKNOWLEDGE_WITHIN_S = 5.0  # as amqtt has it; then the delivery is given up
RETRY_WITHIN_S = 10.0  # as amqtt has it too
GIVE_UP_EVERY_S = 0.1
MAX_UNACKNOWLEDGED = 32_768  # deliveries of a connection; with all 65,535 ids taken, amqtt looks each of them up


class SessionStates:
    """The three states of a session. amqtt builds a machine with forty methods for each, a third of a millisecond."""

    __slots__ = ("_session", "state")

    def __init__(self, session: GateSession) -> None:
        self._session = session
        self.state = "new"

    def connect(self) -> None:
        """Go to `connected`; raises MachineError if it is."""
        if self.state == "connected":
            raise MachineError("the session is connected")
        self.state = "connected"
        self._session._on_enter_connected()  # noqa: SLF001

    def disconnect(self) -> None:
        """Go to `disconnected`, from wherever."""
        self.state = "disconnected"
        self._session._on_enter_disconnected()  # noqa: SLF001

    def is_connected(self) -> bool:
        """Return whether the state is `connected`."""
        return self.state == "connected"


class GateSession(Session):  # type: ignore[misc]
    """A session of amqtt's with `SessionStates`."""

    def _init_states(self) -> None:
        self.transitions = SessionStates(self)


class _Sent(OutgoingApplicationMessage):  # type: ignore[misc]
    """A QoS 1 delivery without its PUBACK, in `Session.inflight_out`, which keeps its packet id from being allotted.

    Of the message only what is asked for is kept: it is never sent again.
    """

    __slots__ = ("due",)

    def __init__(self, packet_id: int, due: float) -> None:
        self.packet_id = packet_id  # type: ignore[misc]  # a slot of amqtt's
        self.due = due


class GateHandler(BrokerProtocolHandler):  # type: ignore[misc]
    """Sends QoS 0 and 1 at once and keeps what waits for its PUBACK in a table, where amqtt has a task for each."""

    given_up: Callable[[int], None] | None = None  # called with how many deliveries got no answer in time
    _due: asyncio.TimerHandle | None = None
    _retries: asyncio.Future[list[BaseException | None]] | None = None

    def deliver(self, packet: bytes) -> None:
        """Send a QoS 0 PUBLISH."""
        if self.writer is not None:
            self.writer.write(packet)

    def deliver_acknowledged(self, head: bytes, payload: bytes) -> None:
        """Send a QoS 1 PUBLISH, of which `head` is all before the packet id, unless too many have no answer."""
        if self.session is None or self.writer is None:
            return
        if len(self.session.inflight_out) >= MAX_UNACKNOWLEDGED:
            self._count_given_up(1)
            return
        packet_id: int = self.session.next_packet_id
        self.session.inflight_out[packet_id] = _Sent(packet_id, self._loop.time() + ACKNOWLEDGE_WITHIN_S)
        if self._due is None:
            self._due = self._loop.call_later(ACKNOWLEDGE_WITHIN_S, self._give_up)
        self.writer.write(b"%b%c%c%b" % (head, packet_id >> 8, packet_id & 0xFF, payload))

    def acknowledged(self, packet_id: int) -> bool:
        """Take a PUBACK; return False when it does not answer `deliver_acknowledged`."""
        if self.session is None or type(self.session.inflight_out.get(packet_id)) is not _Sent:
            return False
        del self.session.inflight_out[packet_id]
        return True

    def _give_up(self) -> None:
        self._due = None
        late, now = [], self._loop.time()
        for sent in self.session.inflight_out.values():  # the oldest first
            if type(sent) is not _Sent:
                continue
            if sent.due > now:
                self._due = self._loop.call_later(max(sent.due - now, GIVE_UP_EVERY_S), self._give_up)
                break
            late.append(sent.packet_id)
        for packet_id in late:
            del self.session.inflight_out[packet_id]
        self._count_given_up(len(late))

    def _count_given_up(self, count: int) -> None:
        if count and self.given_up is not None:
            self.given_up(count)

    async def _retry_deliveries(self) -> None:
        """Take up the exchanges that the last connection left open, and wait for no answer: the client may be gone.

        amqtt does nothing of what a client says before it has them all, or 10 s have passed.
        """
        session = self.session
        if session is None:
            return
        begun = {*self._pubrec_waiters, *self._pubcomp_waiters, *self._pubrel_waiters}  # by this connection, already
        left = [
            self._handle_message_flow(message)
            for message in (*session.inflight_in.values(), *session.inflight_out.values())
            if type(message) is not _Sent and message.packet_id not in begun
        ]
        if left:
            within = [asyncio.wait_for(flow, RETRY_WITHIN_S) for flow in left]
            self._retries = asyncio.gather(*within, return_exceptions=True)

    async def stop(self) -> None:
        """Stop as amqtt does, and forget what waits: it is not sent again."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self.session is not None:
            waiting = self.session.inflight_out
            for packet_id in [packet_id for packet_id, sent in waiting.items() if type(sent) is _Sent]:
                del waiting[packet_id]
        await super().stop()
