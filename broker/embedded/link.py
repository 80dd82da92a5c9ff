"""One session of amqtt in memory: its end, what its writer gave, and what of that is dropped.

What goes into amqtt, and when, is in `inbox.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.embedded.bounds import RetainedSender
from broker.embedded.inbox import Fed, Inbox
from broker.embedded.memory import MemoryReader, MemoryWriter
from broker.upstream import LinkOwner

if TYPE_CHECKING:
    from amqtt.session import Session

    from broker.embedded.session import GateHandler
    from broker.embedded.upstream import AmqttUpstream

FLUSH_AT = 64 * 1024  # bytes handed to the owner at once
OUT_HIGH = 64 * 1024  # bytes for a paused owner above which QoS 0 is dropped
OUT_LIMIT = 1024 * 1024  # and above which the connection ends
CLOSE_WITHIN_S = 2.0  # an end in order that takes longer ends at once
NUDGE_S = 0.02  # after the end of file: amqtt misses one that comes while it still starts, so it is told again
STUCK_AFTER_S = 3.0  # and then it is cancelled

_CONNACK, _PUBLISH, _PUBACK, _SUBACK, _UNSUBACK = 2, 3, 4, 9, 11


class EmbeddedLink:
    """One upstream connection (`broker.upstream.Link`)."""

    connack: wire.Connack  # once `answer` is there
    used: bool = True

    def __init__(self, upstream: AmqttUpstream, owner: LinkOwner, upstream_id: str, *, clean: bool) -> None:
        self.upstream_id = upstream_id
        self.clean = clean
        self.session_present = False
        self.reader = MemoryReader()
        self.writer = MemoryWriter(self.took)
        self.answer: asyncio.Future[wire.Connack] = asyncio.get_running_loop().create_future()
        self.serving: asyncio.Future[None] | None = None  # amqtt's coroutine
        self.session: Session | None = None
        self.handler: GateHandler | None = None
        self.dropped = 0  # QoS 0 messages not delivered because the client was slow
        self.owner = owner
        self.inbox = Inbox(self)
        self.leaving = False  # the gate asked for the end
        self._upstream = upstream
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._flush_due = False
        self._paused = False
        self._open = False  # the owner has the link
        self._filters: set[str] = set()
        self._closing: asyncio.TimerHandle | None = None
        self._ended = False  # end of file was fed
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
        self.inbox.add(data)
        self._upstream.feeder.schedule(self)

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
        self.leaving = True
        if self._closing is None and not self._ended:
            self._closing = self._loop.call_later(CLOSE_WITHIN_S, self.abort)
            self._upstream.feeder.schedule(self)

    def abort(self, error: Exception | None = None) -> None:
        """End now: what waits in either direction is dropped."""
        self._error = self._error or error
        self.leaving = True
        self.inbox.clear()
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

    def feed(self, budget: int) -> tuple[Fed, int]:
        """Pass on the next portion, at most `budget` packets; return what became of it and how many they were."""
        if self._ended:
            return Fed.NOTHING_LEFT, 0
        fed, given = self.inbox.feed(self._upstream.broker, budget)
        if fed is Fed.NOTHING_LEFT and self._closing is not None:
            if not self.inbox.settled():
                return Fed.MORE, given
            self._end()
        return fed, given

    def acknowledged(self, packet_id: int) -> bool:
        """Take a PUBACK; return False when it answers what amqtt has sent by itself."""
        return self.handler is not None and self.handler.acknowledged(packet_id)

    def answered(self, packets: bytes) -> None:
        """Take acknowledgements, four bytes each."""
        for start in range(0, len(packets), 4):
            if packets[start] >> 4 != _PUBACK or not self.acknowledged(packets[start + 2] << 8 | packets[start + 3]):
                self.reader.feed(packets[start : start + 4])

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
        elif kind == _CONNACK and not self.answer.done():
            self.session_present = bool(packet[2] & 0x01)
            self.connack = wire.Connack(session_present=self.session_present, code=packet[3])
            self.answer.set_result(self.connack)
            return
        elif kind == _SUBACK:
            self._subscribe_answered(packet)
        elif kind == _UNSUBACK:
            self._unsubscribe_answered()
        self.send(packet)

    def send(self, packets: bytes) -> None:
        """Hand whole packets to the owner, with those of the same turn of the loop."""
        self._out.append(packets)
        self._out_bytes += len(packets)
        if self._paused or not self._open:
            if self._out_bytes > OUT_LIMIT:
                self.abort(UpstreamUnavailable("the client does not take what is sent to it"))
        elif self._out_bytes > FLUSH_AT:
            self._flush()
        else:
            self._flush_soon()

    def _subscribe_answered(self, packet: bytes) -> None:
        asked, self.inbox.asked = self.inbox.asked, None
        if isinstance(asked, wire.Subscribe):
            codes = wire.parse_suback(packet).codes
            for (filter_, _), code in zip(asked.filters, codes, strict=False):
                if code != 0x80:
                    self._filters.add(filter_)
                    self._upstream.replace_subscription(self.upstream_id, filter_, code)
        self._upstream.feeder.schedule(self)

    def _unsubscribe_answered(self) -> None:
        asked, self.inbox.asked = self.inbox.asked, None
        if isinstance(asked, wire.Unsubscribe):
            for filter_ in asked.filters:
                self._filters.discard(filter_)
                self._upstream.forget_empty(filter_)
        self._upstream.feeder.schedule(self)

    def opened(self, session: Session, handler: GateHandler) -> None:
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
            self.owner.upstream_received(data)

    def over(self, error: Exception | None) -> None:
        """`external_connected` has returned and amqtt has let go: tell the owner, once."""
        self._end()
        if self._closed.is_set():
            return
        self._flush()
        self._closed.set()
        if self._open:
            self._open = False
            unasked = None if self.leaving else UpstreamUnavailable("amqtt ended the session")
            self.owner.upstream_closed(self._error or error or unasked)

    @property
    def filters(self) -> frozenset[str]:
        """The filters that this connection subscribed and did not unsubscribe."""
        return frozenset(self._filters)

    async def flowing(self) -> None:
        """Return when the client takes what it is sent."""
        await self._flowing.wait()
