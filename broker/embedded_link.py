"""One session of amqtt in memory: what its reader is given, and when; what its writer gave, and what is dropped.

amqtt 0.12.1 takes whatever it is given, makes a task of every packet, and handles what waits in another order than it
came: all SUBSCRIBE before all UNSUBSCRIBE, an end before what was published ahead of it. So packets are fed in small
portions, one SUBSCRIBE or UNSUBSCRIBE at a time, and an end only when everything before it has been routed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.embedded_bounds import RetainedSender
from broker.embedded_memory import MemoryReader, MemoryWriter
from broker.embedded_packets import packet_end, take_answers
from broker.upstream import LinkOwner

if TYPE_CHECKING:
    from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
    from amqtt.session import Session

    from broker.embedded import AmqttUpstream

PACKETS_PER_TURN = 32  # each becomes a task of amqtt's
WAITING_IN_SESSION = 128  # messages that amqtt took from this client and has not routed yet
INBOX_HIGH = 64 * 1024  # bytes waiting for amqtt at which the client is no longer read
INBOX_LOW = 16 * 1024
FLUSH_AT = 64 * 1024  # bytes handed to the owner at once
OUT_HIGH = 64 * 1024  # bytes for a paused owner above which QoS 0 is dropped
OUT_LIMIT = 1024 * 1024  # and above which the connection ends
CLOSE_WITHIN_S = 2.0  # an end in order that takes longer ends at once
NUDGE_S = 0.02  # after the end of file: amqtt misses one that comes while it still starts, so it is told again
STUCK_AFTER_S = 3.0  # and then it is cancelled
SETTLE_TURNS = 3  # turns of the loop after which the tasks made of the packets fed last have run

_CONNACK, _PUBLISH, _SUBSCRIBE, _SUBACK, _UNSUBSCRIBE, _UNSUBACK, _DISCONNECT = 2, 3, 8, 9, 10, 11, 14


class Fed(Enum):
    """What became of a portion."""

    NOTHING_LEFT = auto()
    MORE = auto()  # again in the next turn
    LATER = auto()  # amqtt has enough for now
    BARRIER = auto()  # waits for an answer of amqtt's, which wakes the link


class EmbeddedLink:
    """One upstream connection (`broker.upstream.Link`)."""

    def __init__(self, upstream: AmqttUpstream, owner: LinkOwner, upstream_id: str, *, clean: bool) -> None:
        self.upstream_id = upstream_id
        self.clean = clean
        self.session_present = False
        self.reader = MemoryReader()
        self.writer = MemoryWriter(self.took)
        self.connack: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.serving: asyncio.Future[None] | None = None  # amqtt's coroutine
        self.session: Session | None = None
        self.handler: BrokerProtocolHandler | None = None
        self.dropped = 0  # QoS 0 messages not delivered because the client was slow
        self._upstream = upstream
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = 0
        self._position = 0  # in the first chunk of the inbox
        self._client_paused = False
        self._asked: wire.Subscribe | wire.Unsubscribe | None = None  # fed, not answered
        self._settling = 0
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._flush_due = False
        self._paused = False
        self._open = False  # the owner has the link
        self._suback_seen = False
        self._filters: set[str] = set()
        self._closing: asyncio.TimerHandle | None = None
        self._ended = False  # end of file was fed
        self._leaving = False  # the gate asked for the end
        self._error: Exception | None = None
        self._closed = asyncio.Event()
        self._retained = RetainedSender(self, upstream.retained)
        self._flowing = asyncio.Event()
        self._flowing.set()

    # --- the gate's side -------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue whole packets for amqtt; the client is paused while too much waits."""
        if self._ended or self._closing is not None or not data:
            return
        self._inbox.append(data)
        self._inbox_bytes += len(data)
        self._upstream.schedule(self)
        if self._inbox_bytes > INBOX_HIGH and not self._client_paused:
            self._client_paused = True
            self._owner.pause_client()

    def pause(self) -> None:
        """Keep what amqtt writes, up to the limit."""
        self._paused = True
        self._flowing.clear()

    def resume(self) -> None:
        """Deliver what was kept, and go on."""
        self._paused = False
        self._flowing.set()
        self._flush_soon()

    def subscribed(self, filters: Sequence[tuple[str, int]]) -> None:
        """Send the retained messages that match, in the background."""
        if not self._ended:
            self._retained.send(filters)

    def close(self) -> None:
        """End when amqtt has routed what was written."""
        self._leaving = True
        if self._closing is None and not self._ended:
            self._closing = self._loop.call_later(CLOSE_WITHIN_S, self.abort)
            self._upstream.schedule(self)

    def abort(self, error: Exception | None = None) -> None:
        """End now: what waits in either direction is dropped."""
        self._error = self._error or error
        self._leaving = True
        self._inbox.clear()
        self._inbox_bytes = 0
        self._out.clear()
        self._out_bytes = 0
        self.writer.closed = True
        self._end()

    async def wait_closed(self) -> None:
        """Return when amqtt has let go of the session."""
        await self._closed.wait()

    # --- towards amqtt ---------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Messages that amqtt took and has not routed yet."""
        return 0 if self.session is None else self.session.delivered_message_queue.qsize()

    def _awaiting(self) -> bool:
        """Whether amqtt owes the answer to a SUBSCRIBE or UNSUBSCRIBE, behind which all but answers waits."""
        return self._asked is not None

    def feed(self, budget: int) -> tuple[Fed, int]:
        """Give amqtt its next portion, at most `budget` packets; return what became of it and how many were given."""
        if self._ended:
            return Fed.NOTHING_LEFT, 0
        if self._awaiting():
            self._give_answers()
            return Fed.BARRIER, 0
        if self.waiting > WAITING_IN_SESSION:
            return Fed.LATER, 0
        left = min(budget, PACKETS_PER_TURN)
        given = 0
        while self._inbox and left > 0:
            chunk = self._inbox[0]
            start = position = self._position
            while position < len(chunk) and left > 0 and chunk[position] >> 4 not in (8, 10, 14):
                position = packet_end(chunk, position)
                left -= 1
                given += 1
            if position > start:
                self._give(chunk, start, position)
            elif left > 0 and not self._give_special(chunk, position):
                if not self._awaiting():
                    return Fed.MORE, given
                self._give_answers()
                return Fed.BARRIER, given
        if self._inbox:
            return Fed.MORE, given
        if self._closing is None:
            return Fed.NOTHING_LEFT, given
        if self._settled():
            self._end()
            return Fed.NOTHING_LEFT, given
        return Fed.MORE, given

    def _give(self, chunk: bytes, start: int, end: int) -> None:
        self.reader.feed(chunk if end - start == len(chunk) else chunk[start:end])
        self._settling = SETTLE_TURNS
        if end == len(chunk):
            self._inbox.popleft()
            self._position = 0
        else:
            self._position = end
        self._inbox_bytes -= end - start
        if self._client_paused and self._inbox_bytes < INBOX_LOW:
            self._client_paused = False
            self._owner.resume_client()

    def _give_answers(self) -> None:
        """Give amqtt the acknowledgements that wait behind a SUBSCRIBE or UNSUBSCRIBE.

        A resumed session's queue goes out before amqtt answers anything, message by message, 5 s for each that is
        not acknowledged: the acknowledgements must not wait for that answer.
        """
        answers, kept = take_answers(self._inbox, self._position)
        if answers:
            self._inbox, self._position = kept, 0
            self._inbox_bytes -= len(answers)
            self.reader.feed(answers)

    def _give_special(self, chunk: bytes, start: int) -> bool:
        """Give amqtt a packet that it would handle out of order; return whether to go on in this turn."""
        end = packet_end(chunk, start)
        kind = chunk[start] >> 4
        if kind == _DISCONNECT:
            if not self._settled():
                return False
            self._leaving = True
        if kind == _SUBSCRIBE:
            self._asked = wire.parse_subscribe(chunk[start:end])
        elif kind == _UNSUBSCRIBE:
            self._asked = wire.parse_unsubscribe(chunk[start:end])
        self._give(chunk, start, end)
        return kind == _DISCONNECT

    def _settled(self) -> bool:
        """Whether amqtt has routed everything it was given; asked once per turn."""
        if self._settling > 0:
            self._settling -= 1
            return False
        return self.reader.idle and self.waiting == 0

    def _end(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
        self._retained.cancel()
        if not self._ended:
            self._ended = True
            self.reader.feed_eof()
            self._loop.call_later(NUDGE_S, self._nudge, self._loop.time() + STUCK_AFTER_S)

    def _nudge(self, until: float) -> None:
        if self._closed.is_set() or self.serving is None:
            return
        if self._loop.time() > until:
            self.serving.cancel()
            return
        self._upstream.end_again(self.upstream_id)
        self._loop.call_later(NUDGE_S, self._nudge, until)

    # --- from amqtt ------------------------------------------------------------------------------------------

    def took(self, packet: bytes) -> None:
        """Take one packet that amqtt writes."""
        kind = packet[0] >> 4
        if kind == _PUBLISH:
            if self._paused and not packet[0] & 0x06 and self._out_bytes > OUT_HIGH:
                self.dropped += 1
                self._upstream.dropped += 1
                return
            if packet[0] & 0x01 and not self._suback_seen:
                # Nobody asked yet: a message that waited in the queue, which amqtt sends with the flag set
                packet = bytes((packet[0] & 0xFE,)) + packet[1:]
        elif kind == _CONNACK and not self.connack.done():
            self.session_present = bool(packet[2] & 0x01)
            self.connack.set_result(packet[3])
            return
        elif kind == _SUBACK:
            self._subscribe_answered(packet)
        elif kind == _UNSUBACK:
            self._unsubscribe_answered()
        self._out.append(packet)
        self._out_bytes += len(packet)
        if self._paused or not self._open:
            if self._out_bytes > OUT_LIMIT:
                self.abort(UpstreamUnavailable("the client does not take what is sent to it"))
        elif self._out_bytes > FLUSH_AT:
            self._flush()
        else:
            self._flush_soon()

    def _subscribe_answered(self, packet: bytes) -> None:
        self._suback_seen = True
        asked, self._asked = self._asked, None
        if isinstance(asked, wire.Subscribe):
            codes = wire.parse_suback(packet).codes
            for (filter_, _), code in zip(asked.filters, codes, strict=False):
                if code != 0x80:
                    self._filters.add(filter_)
                    self._upstream.replace_subscription(self.upstream_id, filter_, code)
        self._upstream.schedule(self)

    def _unsubscribe_answered(self) -> None:
        asked, self._asked = self._asked, None
        if isinstance(asked, wire.Unsubscribe):
            for filter_ in asked.filters:
                self._filters.discard(filter_)
                self._upstream.forget_empty(filter_)
        self._upstream.schedule(self)

    def opened(self, session: Session, handler: BrokerProtocolHandler) -> None:
        """Take the session; from the next turn of the loop on the owner is called."""
        self.session, self.handler, self._open = session, handler, True
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._out and self._open and not self._paused and not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_due = False
        self._flush()

    def _flush(self) -> None:
        if self._out and self._open and not self._paused:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            self._owner.upstream_received(data)

    def over(self, error: Exception | None) -> None:
        """`external_connected` has returned and amqtt has let go: tell the owner, once."""
        self._end()
        if self._closed.is_set():
            return
        self._flush()
        self._closed.set()
        if self._open:
            self._open = False
            unasked = None if self._leaving else UpstreamUnavailable("amqtt ended the session")
            self._owner.upstream_closed(self._error or error or unasked)

    @property
    def filters(self) -> frozenset[str]:
        """The filters that this connection subscribed and did not unsubscribe."""
        return frozenset(self._filters)

    async def flowing(self) -> None:
        """Return when the client takes what it is sent."""
        await self._flowing.wait()
