"""Messages of the gate's own that carry properties: a connection that speaks MQTT 5.0, made when it is first needed.

Wills whose link is gone, those that waited for their delay among them, go out here; what has no properties goes out on
the service connection, which speaks what every broker does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.upstream import Hello, Link, LinkOwner

Connect = Callable[[LinkOwner, Hello], Awaitable[Link]]

_CODEC = wire.codec_of(wire.MQTT_5_0)


class Publisher:
    """Publishes over one connection, which is made anew when it has ended. `connect` opens a clean session."""

    def __init__(self, connect: Connect, *, answer_within_s: float) -> None:
        self._connect = connect
        self._within_s = answer_within_s
        self._opening = asyncio.Lock()
        self._talk: _Talk | None = None

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, properties: bytes) -> None:
        """Publish; with QoS 1 and 2 return when it is acknowledged. Raises UpstreamUnavailable."""
        try:
            async with asyncio.timeout(self._within_s):
                talk = await self._open()
                await talk.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        except TimeoutError as error:
            raise UpstreamUnavailable("the broker does not answer") from error

    async def stop(self) -> None:
        """End the connection in order, if there is one."""
        talk, self._talk = self._talk, None
        if talk is not None and not talk.ended:
            talk.link.write(_CODEC.encode_disconnect())
            talk.link.close()
            await talk.link.wait_closed()

    async def _open(self) -> _Talk:
        async with self._opening:
            if self._talk is None or self._talk.ended:
                talk = _Talk()
                talk.link = await self._connect(talk, Hello(level=wire.MQTT_5_0))
                talk.quota = asyncio.Semaphore(talk.link.connack.receive_maximum)  # MQTT-3.3.4-7
                self._talk = talk
            return self._talk


class _Talk:
    """One connection (`broker.upstream.LinkOwner`) and what waits for its acknowledgement."""

    link: Link
    quota: asyncio.Semaphore

    def __init__(self) -> None:
        self.ended = False
        self._framer = wire.Framer(wire.MAX_REMAINING_LENGTH, level=wire.MQTT_5_0)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._next_id = 0
        self._writable = asyncio.Event()
        self._writable.set()

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, properties: bytes) -> None:
        await self._writable.wait()
        qos = min(qos, self.link.connack.maximum_qos)
        if qos == 0:
            self._send(_CODEC.encode_publish(topic, payload, retain=retain, properties=properties))
            return
        async with self.quota:
            packet_id = self._take_id()
            packet = _CODEC.encode_publish(
                topic, payload, qos=qos, retain=retain, packet_id=packet_id, properties=properties
            )
            acknowledged = self._waiting[packet_id] = asyncio.get_running_loop().create_future()
            try:
                self._send(packet)
                await acknowledged
            finally:
                del self._waiting[packet_id]

    def _send(self, packet: bytes) -> None:
        if self.ended:
            raise UpstreamUnavailable("the connection to the broker is down")
        self.link.write(packet)

    def _take_id(self) -> int:
        while True:  # the quota leaves some free
            self._next_id = self._next_id % 65_535 + 1
            if self._next_id not in self._waiting:
                return self._next_id

    def upstream_received(self, data: bytes) -> None:
        """Match acknowledgements; whatever else such a broker says ends the connection."""
        try:
            for packet in self._framer.packets(data):
                if packet[0] != wire.PINGRESP:
                    self._acknowledged(_CODEC.ack(packet))
        except wire.MalformedPacket:
            self.link.abort()

    def _acknowledged(self, ack: wire.Ack) -> None:
        if ack.type == wire.PUBREC and ack.reason < wire.reason_codes.UNSPECIFIED:
            self.link.write(_CODEC.encode_ack(wire.PUBREL, ack.packet_id))
            return
        waiting = self._waiting.get(ack.packet_id)
        if waiting is None or waiting.done():
            return
        if ack.reason >= wire.reason_codes.UNSPECIFIED:
            waiting.set_exception(UpstreamUnavailable(f"the broker refuses the message with code {ack.reason:#04x}"))
        else:
            waiting.set_result(None)

    def upstream_closed(self, error: Exception | None) -> None:
        """Give up what waits."""
        self.ended = True
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error or UpstreamUnavailable("the connection to the broker ended"))

    def pause_client(self) -> None:
        self._writable.clear()

    def resume_client(self) -> None:
        self._writable.set()
