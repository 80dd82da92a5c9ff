"""Between the gate and rumqttd: what MQTT allows and rumqttd ends a connection for is put in the form that it takes.

* Acknowledgements of deliveries in another order than the deliveries end the connection, and the gate acknowledges at
  once what it withholds: here they wait for those before them.
* An acknowledgement, or a PUBREL, that it does not await ends the connection: here it is not passed on.
* An UNSUBSCRIBE is answered once for each filter that was held, so never or several times: here once, when the PINGREQ
  sent behind it is answered.
* The end of a connection is an event with the number of its place, told twice after a DISCONNECT, and late after a
  reset: by then the place may be another's, whose connection it ends. So no DISCONNECT is passed on, every end is in
  order, and it is over when rumqttd has closed its side, which comes after the event.
* Retained messages are the gate's: they are sent here, with packet ids above those that rumqttd uses.

Every link speaks 5.0, whatever its client does: see `rumqttd_words`.

A session that is idle gets a PINGREQ now and then, as rumqttd takes no keep-alive of 0.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from broker import wire
from broker.managed.rumqttd_words import as_3, as_5
from broker.retained import Retained
from broker.upstream import Link, LinkOwner

log = structlog.get_logger(__name__)

HIGHEST_ID: Final = 100  # of its deliveries: router/iobufs.rs, MAX_INFLIGHT
OWN_IDS: Final = range(1_001, 65_001)
RETAINED_UNDER_WAY: Final = 32
RETAINED_BYTES_A_TURN: Final = 65_536
PING_EVERY_S: Final = 36_000.0  # the keep-alive is 65,535 s


class RumqttdLink:
    """Owner of a link to rumqttd, and the link that the gate sees (`broker.upstream.LinkOwner` and `Link`)."""

    session_present: bool
    connack: wire.Connack
    used: bool = True

    def __init__(
        self,
        owner: LinkOwner,
        level: int,
        retained: Callable[[str], list[Retained]],
        *,
        expiry_s: int | None = None,
        ended: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`ended` is told the seconds that the session is to stay, `expiry_s` or what a DISCONNECT made of it."""
        self._expiry_s = expiry_s
        self._ended = ended
        self._owner = owner
        self._codec = wire.codec_of(level)
        self._find = retained
        self._legal = wire.legal_first_bytes(level)
        self._framer = wire.Framer(wire.MAX_REMAINING_LENGTH, level=wire.MQTT_5_0)
        self._translates = level != wire.MQTT_5_0  # for the owner: towards rumqttd every link speaks 5.0
        self._loop = asyncio.get_running_loop()
        self._unacknowledged: deque[int] = deque()  # deliveries, in their order
        self._acknowledged: dict[int, bytes] = {}  # before their turn
        self._unfinished: deque[int] = deque()  # PUBRELs of its, in their order
        self._finished: dict[int, bytes] = {}
        self._open: set[int] = set()  # QoS 2 ids of the client on this link
        self._pongs: deque[bytes] = deque()  # what stands for each PINGRESP that comes
        self._queue: deque[tuple[Retained, int]] = deque()
        self._under_way: set[int] = set()
        self._next_own = OWN_IDS.start
        self._paused = False
        self._pumping = False
        self._closed = False
        self._ping: asyncio.TimerHandle | None = None

    def over(self, link: Link) -> RumqttdLink:
        """Take the link; return this one, which stands for it."""
        self._link = link
        self.session_present = link.session_present
        self.connack = link.connack
        self._ping = self._loop.call_later(PING_EVERY_S, self._stay)
        return self

    def _stay(self) -> None:
        self._pongs.append(b"")
        self._link.write(wire.PINGREQ_PACKET)
        self._ping = self._loop.call_later(PING_EVERY_S, self._stay)

    # --- from the gate ---------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send whole packets, those that rumqttd takes."""
        position = start = 0
        pieces: list[bytes] = []
        while position < len(data):
            end = wire.frame(data, position, wire.MAX_REMAINING_LENGTH, self._legal)
            kind = data[position] & wire.TYPE_MASK
            if self._translates or (kind != wire.SUBSCRIBE and (kind != wire.PUBLISH or data[position] & 0x04)):
                packet = data[position:end]
                passed = self._passed(kind, packet)
                if passed != packet:
                    pieces += (data[start:position], passed)
                    start = end
            position = end
        rest = data[start:] if start else data
        out = b"".join((*pieces, rest)) if pieces else rest
        if out:
            self._link.write(out)

    def _passed(self, kind: int, packet: bytes) -> bytes:
        """Return what goes on in place of a packet."""
        if kind == wire.PINGREQ:
            self._pongs.append(wire.PINGRESP_PACKET)
            return packet
        if kind == wire.UNSUBSCRIBE:
            asked = self._codec.unsubscribe(packet)
            self._pongs.append(self._codec.encode_unsuback(asked.packet_id, bytes(len(asked.filters))))
            return self._as_5(packet) + wire.PINGREQ_PACKET
        if kind == wire.SUBSCRIBE or (kind == wire.PUBLISH and not packet[0] & 0x04):
            return self._as_5(packet)
        if kind == wire.DISCONNECT:
            if self._expiry_s is not None and (changed := self._codec.disconnect(packet).session_expiry_s) is not None:
                self._expiry_s = changed
            return b""
        packet_id = _packet_id(packet, 0)
        if kind == wire.PUBLISH:  # of QoS 2
            if packet_id in self._open:
                self._answer(wire.PUBREC, packet_id)
                return b""
            self._open.add(packet_id)
        elif kind == wire.PUBREL:
            if packet_id not in self._open:
                self._answer(wire.PUBCOMP, packet_id)
                return b""
            self._open.discard(packet_id)
        elif packet_id > HIGHEST_ID:
            self._own(kind, packet_id)
            return b""
        elif kind == wire.PUBCOMP:
            return _in_turn(self._unfinished, self._finished, packet_id, packet)
        elif kind in {wire.PUBACK, wire.PUBREC}:
            return _in_turn(self._unacknowledged, self._acknowledged, packet_id, packet)
        return self._as_5(packet)

    def _answer(self, kind: int, packet_id: int) -> None:
        self._loop.call_soon(self._deliver, self._codec.encode_ack(kind, packet_id))

    def _as_5(self, packet: bytes) -> bytes:
        return as_5(packet) if self._translates else packet

    def pause(self) -> None:
        """Deliver nothing."""
        self._paused = True
        self._link.pause()

    def resume(self) -> None:
        """Deliver again."""
        self._paused = False
        self._link.resume()
        self._pump()

    def close(self) -> None:
        """End in order."""
        self._link.close()

    def abort(self) -> None:
        """End in order too: what was written has been decided, and a reset may cost another his connection."""
        self._link.close()

    async def wait_closed(self) -> None:
        """Return when the connection is gone."""
        await self._link.wait_closed()

    # --- from rumqttd ----------------------------------------------------------------------------------------

    def upstream_received(self, data: bytes) -> None:
        """Pass on what it says, but for its answers to what was sent here."""
        try:
            buffer = self._framer.feed(data)
            position = start = 0
            pieces: list[bytes] = []
            while (end := self._framer.cut(buffer, position)) != wire.NEED_MORE:
                first = buffer[position]
                kind = first & wire.TYPE_MASK
                if kind == wire.PUBLISH:
                    if first & 0x06:
                        self._unacknowledged.append(_packet_id(buffer, position))
                elif kind == wire.PUBREL:
                    self._unfinished.append(_packet_id(buffer, position))
                elif kind in {wire.UNSUBACK, wire.PINGRESP}:
                    pieces.append(buffer[start:position])
                    start = end
                    if kind == wire.PINGRESP and self._pongs:
                        pieces.append(self._pongs.popleft())
                if self._translates and start != end:
                    pieces.append(as_3(buffer[position:end]))
                    start = end
                position = end
            self._framer.keep(buffer, position)
        except wire.MalformedPacket as error:
            log.warning("upstream_protocol_error", detail=str(error))
            self._link.abort()
            return
        out = b"".join((*pieces, buffer[start:position])) if pieces else buffer[:position]
        if out:
            self._owner.upstream_received(out)

    def upstream_closed(self, error: Exception | None) -> None:
        """Tell the owner."""
        self._closed = True
        self._queue.clear()
        if self._ping is not None:
            self._ping.cancel()
        if self._expiry_s is not None:
            self._ended(self._expiry_s)
        self._owner.upstream_closed(error)

    def pause_client(self) -> None:
        """Tell the owner."""
        self._owner.pause_client()

    def resume_client(self) -> None:
        """Tell the owner."""
        self._owner.resume_client()

    # --- retained messages -----------------------------------------------------------------------------------

    def subscribed(self, filters: Sequence[tuple[str, int]]) -> None:
        """Send what is retained under the filters, as fast as the client acknowledges."""
        for filter_, qos in filters:
            self._queue.extend((message, min(qos, message.qos)) for message in self._find(filter_))
        self._pump()

    def _pump(self) -> None:
        if self._queue and not self._pumping and not self._closed:
            self._pumping = True
            self._loop.call_soon(self._send_retained)

    def _send_retained(self) -> None:
        self._pumping = False
        sent = 0
        while self._queue and not self._paused and not self._closed and sent < RETAINED_BYTES_A_TURN:
            message, qos = self._queue[0]
            packet_id = None
            if qos:
                if len(self._under_way) >= RETAINED_UNDER_WAY:
                    return  # the next acknowledgement goes on
                packet_id = self._next_own
                self._next_own = packet_id + 1 if packet_id + 1 in OWN_IDS else OWN_IDS.start
                self._under_way.add(packet_id)
            self._queue.popleft()
            packet = self._codec.encode_publish(
                message.topic, message.payload, qos=qos, retain=True, packet_id=packet_id
            )
            sent += len(packet)
            self._deliver(packet)
        if not self._paused:
            self._pump()

    def _own(self, kind: int, packet_id: int) -> None:
        """The client answers a retained message."""
        if kind == wire.PUBREC and packet_id in self._under_way:
            self._answer(wire.PUBREL, packet_id)
            return
        self._under_way.discard(packet_id)
        self._pump()

    def _deliver(self, packet: bytes) -> None:
        if not self._closed:
            self._owner.upstream_received(packet)


def _in_turn(awaited: deque[int], early: dict[int, bytes], packet_id: int, packet: bytes) -> bytes:
    """Return the acknowledgements whose turn it is now; one that nobody awaits is dropped."""
    if packet_id not in awaited:
        return b""
    early[packet_id] = packet
    due = b""
    while awaited and awaited[0] in early:
        due += early.pop(awaited.popleft())
    return due


def _packet_id(buffer: bytes, position: int) -> int:
    """Return the id of the PUBLISH (QoS 1, 2) or acknowledgement that begins at `position`."""
    is_publish = buffer[position] & wire.TYPE_MASK == wire.PUBLISH
    position += 1
    while buffer[position] & 0x80:
        position += 1
    position += 1
    if is_publish:
        position += 2 + int.from_bytes(buffer[position : position + 2], "big")
    return int.from_bytes(buffer[position : position + 2], "big")
