"""Messages of the gate's own: wills whose link is gone, on a connection that is made when it is first needed.

Not the service connection: a client chooses what its will is, and a broker ends a connection for more than we know of
(mosquitto for a topic of 201 levels, for U+FFFF in a user property, for what is above its own packet size). That must
not make the broker look away, nor cost others their wills: what was under way when the connection ended is sent again,
each message alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.upstream import Hello, Link, LinkOwner

Connect = Callable[[LinkOwner, Hello], Awaitable[Link]]

ALONE_AT_ONCE = 16  # connections for one message each


class _Ended(UpstreamUnavailable):
    """The connection ended before the message was acknowledged."""


class Publisher:
    """Publishes over one connection of that level, made anew when it has ended. `connect` opens a clean session."""

    def __init__(self, connect: Connect, level: int, *, answer_within_s: float) -> None:
        self._connect = connect
        self._level = level
        self._within_s = answer_within_s
        self._opening = asyncio.Lock()
        self._alone = asyncio.Semaphore(ALONE_AT_ONCE)
        self._talk: _Talk | None = None

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, properties: bytes) -> None:
        """Publish, and return when the broker has taken it: an answer that comes after it says so for QoS 0.

        Raises:
            UpstreamUnavailable: no broker, no answer in time, or refused; or it ends the connection for this message.
        """
        try:
            async with asyncio.timeout(self._within_s):
                talk = await self._open()
                try:
                    await talk.publish(topic, payload, qos=qos, retain=retain, properties=properties)
                except _Ended:
                    await self._publish_alone(topic, payload, qos=qos, retain=retain, properties=properties)
        except TimeoutError as error:
            if self._talk is not None:
                self._talk.link.abort()  # nobody pings it: the next message finds out on a new one
            raise UpstreamUnavailable("the broker does not answer") from error

    async def stop(self) -> None:
        """End the connection in order, if there is one."""
        talk, self._talk = self._talk, None
        if talk is not None:
            await talk.leave()

    async def _open(self) -> _Talk:
        async with self._opening:
            if self._talk is None or self._talk.ended:
                self._talk = await self._connected()
            return self._talk

    async def _connected(self) -> _Talk:
        talk = _Talk(self._level)
        talk.link = await self._connect(talk, Hello(level=self._level))
        talk.quota = asyncio.Semaphore(talk.link.connack.receive_maximum)  # MQTT-3.3.4-7
        return talk

    async def _publish_alone(self, topic: str, payload: bytes, *, qos: int, retain: bool, properties: bytes) -> None:
        async with self._alone:
            talk = await self._connected()
            try:
                await talk.publish(topic, payload, qos=qos, retain=retain, properties=properties)
            finally:
                await talk.leave()


class _Talk:
    """One connection (`broker.upstream.LinkOwner`) and what waits for its acknowledgement."""

    link: Link
    quota: asyncio.Semaphore

    def __init__(self, level: int) -> None:
        self.ended = False
        self._codec = wire.codec_of(level)
        self._framer = wire.Framer(wire.MAX_REMAINING_LENGTH, level=level)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._pongs: deque[asyncio.Future[None]] = deque()
        self._next_id = 0
        self._writable = asyncio.Event()
        self._writable.set()

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, properties: bytes) -> None:
        await self._writable.wait()
        qos = min(qos, self.link.connack.maximum_qos)
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if qos == 0:
            packet = self._codec.encode_publish(topic, payload, retain=retain, properties=properties)
            self._send(packet + wire.PINGREQ_PACKET)
            self._pongs.append(taken)
            await taken
            return
        async with self.quota:
            packet_id = self._take_id()
            packet = self._codec.encode_publish(
                topic, payload, qos=qos, retain=retain, packet_id=packet_id, properties=properties
            )
            self._waiting[packet_id] = taken
            try:
                self._send(packet)
                await taken
            finally:
                del self._waiting[packet_id]

    async def leave(self) -> None:
        """End it in order."""
        if not self.ended:
            self.link.write(self._codec.encode_disconnect())
            self.link.close()
        await self.link.wait_closed()

    def _send(self, packet: bytes) -> None:
        if self.ended:
            raise _Ended("the connection to the broker is down")
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
                    self._acknowledged(self._codec.ack(packet))
                elif self._pongs and not (taken := self._pongs.popleft()).done():
                    taken.set_result(None)
        except wire.MalformedPacket:
            self.link.abort()

    def _acknowledged(self, ack: wire.Ack) -> None:
        if ack.type == wire.PUBREC and ack.reason < wire.reason_codes.UNSPECIFIED:
            self.link.write(self._codec.encode_ack(wire.PUBREL, ack.packet_id))
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
        self._writable.set()
        for waiting in (*self._waiting.values(), *self._pongs):
            if not waiting.done():
                waiting.set_exception(_Ended(str(error or "the connection to the broker ended")))

    def pause_client(self) -> None:
        self._writable.clear()

    def resume_client(self) -> None:
        self._writable.set()
