"""A test client that says exactly what it is told: MQTT packets by `broker.wire` over one socket, nothing automatic.

It speaks the level that it connected with; in 5.0 a session that is not clean never expires unless the test says so,
as in 3.1.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

from authsvc.core.credentials import NEVER_EXPIRES, WillMessage
from broker import wire
from broker.wire import Framer, Publish
from broker.wire.decode5 import parse_from_server as parse_from_server5

PATIENCE_S = 5.0
_ANSWERS = {1: wire.PUBACK, 2: wire.PUBREC}

OPENED: list[RawClient] = []  # for `close_all`: a forgotten socket is a warning, and a warning fails the test


class Closed(Exception):
    """The server has closed the connection."""


class RawClient:
    """One connection. What arrives is parsed; deliveries are kept in `received` until somebody asks for them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received: list[Publish] = []
        self.session_present = False
        self.level = wire.MQTT_3_1_1  # to connect with
        self.codec = wire.codec_of(self.level)
        self.answer: wire.Connack | None = None  # the whole CONNACK
        self._packets: list[bytes] = []
        self._framer = Framer(wire.MAX_REMAINING_LENGTH)
        self._next_id = 0
        self.disconnect_reason: int | None = None  # of the server's DISCONNECT, once `closed` has seen it

    @classmethod
    async def open(cls, address: tuple[str, int], *, tls: ssl.SSLContext | None = None, **options: Any) -> RawClient:
        """Open a socket; send nothing."""
        reader, writer = await asyncio.open_connection(*address[:2], ssl=tls, **options)
        client = cls(reader, writer)
        OPENED.append(client)
        return client

    @classmethod
    async def connected(cls, address: tuple[str, int], client_id: str, password: str, **fields: Any) -> RawClient:
        """Open a socket and a session; fail if it is refused."""
        client = await cls.open(address)
        code = await client.connect(client_id, password, **fields)
        assert code == 0, f"CONNACK {code}"
        return client

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def connect(
        self,
        client_id: str,
        password: str | bytes | None,
        *,
        username: str | None = None,
        clean: bool = True,
        keep_alive_s: int = 0,
        will: WillMessage | None = None,
        level: int | None = None,
        session_expiry_s: int | None = None,
        **properties: Any,
    ) -> int | None:
        """Send CONNECT; return the CONNACK's code, None if the server closed without one."""
        level = self.level if level is None else level
        self.codec = wire.codec_of(level)
        self._framer = Framer(wire.MAX_REMAINING_LENGTH, level=level)
        if session_expiry_s is None:
            session_expiry_s = 0 if clean else NEVER_EXPIRES
        await self.send(
            self.codec.encode_connect(
                client_id=client_id,
                clean_session=clean,
                keep_alive_s=keep_alive_s,
                username=username if username is not None or password is None else "",
                password=password.encode() if isinstance(password, str) else password,
                will=will,
                session_expiry_s=session_expiry_s,
                **properties,
            )
        )
        return await self.connack()

    async def connack(self) -> int | None:
        """Wait for a CONNACK; return its code, None if the server closed without one."""
        try:
            connack = self.codec.connack(await self.next_packet())
        except Closed:
            return None
        self.answer = connack
        self.session_present = connack.session_present
        return connack.code

    async def next_packet(self, patience_s: float = PATIENCE_S) -> bytes:
        """Return the next packet of whatever type. Raises Closed and TimeoutError."""
        async with asyncio.timeout(patience_s):
            while not self._packets:
                try:
                    data = await self.reader.read(65_536)
                except ConnectionError:
                    data = b""
                if not data:
                    raise Closed
                self._packets.extend(self._framer.packets(data))
        return self._packets.pop(0)

    async def next(self, patience_s: float = PATIENCE_S) -> wire.Packet:
        """Return the next packet, parsed; deliveries of QoS 1 and 2 are not acknowledged."""
        packet = await self.next_packet(patience_s)
        return parse_from_server5(packet) if self.codec.level == wire.MQTT_5_0 else wire.parse_from_server(packet)

    async def expect(self, kind: int, patience_s: float = PATIENCE_S) -> bytes:
        """Return the next packet of a type (its first byte without flags); deliveries before it are kept."""
        while True:
            packet = await self.next_packet(patience_s)
            if packet[0] & wire.TYPE_MASK == kind:
                return packet
            await self._keep(packet)

    async def expect_ack(self, kind: int, packet_id: int | None) -> int:
        """Return the reason of the acknowledgement of that type and id; those of other ids before it are skipped."""
        while (ack := self.codec.ack(await self.expect(kind))).packet_id != packet_id:
            pass
        return ack.reason

    async def _keep(self, packet: bytes) -> None:
        if packet[0] & wire.TYPE_MASK == wire.PUBLISH:
            publish = self.codec.publish(packet, from_server=True)
            self.received.append(publish)
            if publish.packet_id is not None:
                await self.send(self.codec.encode_ack(_ANSWERS[publish.qos], publish.packet_id))
        elif packet[0] & wire.TYPE_MASK == wire.PUBREL:
            await self.send(self.codec.encode_ack(wire.PUBCOMP, self.codec.ack(packet).packet_id))

    async def delivery(self, patience_s: float = PATIENCE_S) -> Publish:
        """Return the next delivery, acknowledged as its QoS wants."""
        while not self.received:
            await self._keep(await self.next_packet(patience_s))
        return self.received.pop(0)

    async def deliveries_until(self, topic: str, patience_s: float = PATIENCE_S) -> list[Publish]:
        """Return all deliveries before the one to `topic`, which is consumed."""
        found: list[Publish] = []
        while (publish := await self.delivery(patience_s)).topic != topic:
            found.append(publish)
        return found

    def new_id(self) -> int:
        """Return a packet id that was not used lately."""
        self._next_id = self._next_id % 60_000 + 1
        return self._next_id

    async def subscribe(self, *filters: str | tuple[str, int], properties: bytes = b"") -> list[int]:
        """Subscribe, with a QoS or in 5.0 the options byte; return the codes of the SUBACK."""
        packet_id = self.new_id()
        pairs = [(entry, 0) if isinstance(entry, str) else entry for entry in filters]
        await self.send(self.codec.encode_subscribe(packet_id, pairs, properties))
        suback = self.codec.suback(await self.expect(wire.SUBACK))
        assert suback.packet_id == packet_id
        return list(suback.codes)

    async def unsubscribe(self, *filters: str) -> list[int]:
        """Unsubscribe; return the codes of the answer, none in 3.1.1."""
        packet_id = self.new_id()
        await self.send(self.codec.encode_unsubscribe(packet_id, filters))
        unsuback = self.codec.unsuback(await self.expect(wire.UNSUBACK))
        assert unsuback.packet_id == packet_id
        return list(unsuback.codes)

    async def publish(
        self, topic: str, payload: bytes = b"", *, qos: int = 0, retain: bool = False, properties: bytes = b""
    ) -> int:
        """Publish and go through with the handshake of the QoS; return the reason that ended it, 0 in 3.1.1."""
        packet_id = self.new_id() if qos else None
        await self.send(
            self.codec.encode_publish(
                topic, payload, qos=qos, retain=retain, packet_id=packet_id, properties=properties
            )
        )
        if packet_id is None:
            return 0
        reason = await self.expect_ack(_ANSWERS[qos], packet_id)
        if qos == 1 or reason >= wire.reason_codes.UNSPECIFIED:
            return reason
        await self.send(self.codec.encode_ack(wire.PUBREL, packet_id))
        return await self.expect_ack(wire.PUBCOMP, packet_id)

    async def ping(self) -> None:
        """Send PINGREQ and wait for PINGRESP."""
        await self.send(wire.PINGREQ_PACKET)
        await self.expect(wire.PINGRESP)

    async def closed(self, patience_s: float = PATIENCE_S) -> bool:
        """Return whether the server closes the connection in time; what it sends before is kept."""
        try:
            while True:
                packet = await self.next_packet(patience_s)
                if packet[0] == wire.DISCONNECT and self.codec.level == wire.MQTT_5_0:
                    self.disconnect_reason = self.codec.disconnect(packet, from_server=True).reason
                await self._keep(packet)
        except Closed:
            return True
        except TimeoutError:
            return False

    def cut(self) -> None:
        """End without a word, as a broken network does."""
        self.writer.transport.abort()

    async def disconnect(self, reason: int = 0, properties: bytes = b"") -> None:
        """Say DISCONNECT and close."""
        await self.send(self.codec.encode_disconnect(reason, properties))
        self.writer.close()


async def close_all() -> None:
    """Close every client that a test left open; call it in the fixture that made the server."""
    while OPENED:
        client = OPENED.pop()
        client.cut()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1):
                await client.writer.wait_closed()


async def what_comes(reader: asyncio.StreamReader) -> bytes:
    """Return the next bytes, or none if the connection has ended in any way."""
    try:
        return await reader.read(65_536)
    except ConnectionError:
        return b""
