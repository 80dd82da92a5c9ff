"""A test client that says exactly what it is told: MQTT packets by `broker.wire` over one socket, nothing automatic."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

from authsvc.core.credentials import WillMessage
from broker import wire
from broker.wire import Framer, Publish

PATIENCE_S = 5.0


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
        self._packets: list[bytes] = []
        self._framer = Framer(wire.MAX_REMAINING_LENGTH)
        self._next_id = 0

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
        level: int = wire.MQTT_3_1_1,
    ) -> int | None:
        """Send CONNECT; return the CONNACK's code, None if the server closed without one."""
        await self.send(
            wire.encode_connect(
                client_id=client_id,
                clean_session=clean,
                keep_alive_s=keep_alive_s,
                username=username if username is not None or password is None else "",
                password=password.encode() if isinstance(password, str) else password,
                will=will,
                level=level,
            )
        )
        return await self.connack()

    async def connack(self) -> int | None:
        """Wait for a CONNACK; return its code, None if the server closed without one."""
        try:
            connack = wire.parse_connack(await self.next_packet())
        except Closed:
            return None
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
        return wire.parse_from_server(await self.next_packet(patience_s))

    async def expect(self, kind: int, patience_s: float = PATIENCE_S) -> bytes:
        """Return the next packet of a type (its first byte without flags); deliveries before it are kept."""
        while True:
            packet = await self.next_packet(patience_s)
            if packet[0] & wire.TYPE_MASK == kind:
                return packet
            await self._keep(packet)

    async def expect_ack(self, kind: int, packet_id: int | None) -> None:
        """Wait for the acknowledgement of that type and id; those of other ids before it are passed over."""
        while wire.parse_ack(await self.expect(kind)).packet_id != packet_id:
            pass

    async def _keep(self, packet: bytes) -> None:
        if packet[0] & wire.TYPE_MASK == wire.PUBLISH:
            publish = wire.parse_publish(packet)
            self.received.append(publish)
            if publish.qos == 1:
                await self.send(wire.encode_ack(wire.PUBACK, publish.packet_id))
            elif publish.qos == 2:
                await self.send(wire.encode_ack(wire.PUBREC, publish.packet_id))
        elif packet[0] & wire.TYPE_MASK == wire.PUBREL:
            await self.send(wire.encode_ack(wire.PUBCOMP, wire.parse_ack(packet).packet_id))

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

    async def subscribe(self, *filters: str | tuple[str, int]) -> list[int]:
        """Subscribe; return the codes of the SUBACK."""
        packet_id = self.new_id()
        pairs = [(entry, 0) if isinstance(entry, str) else entry for entry in filters]
        await self.send(wire.encode_subscribe(packet_id, pairs))
        suback = wire.parse_suback(await self.expect(wire.SUBACK))
        assert suback.packet_id == packet_id
        return list(suback.codes)

    async def unsubscribe(self, *filters: str) -> None:
        """Unsubscribe and wait for the answer."""
        packet_id = self.new_id()
        await self.send(wire.encode_unsubscribe(packet_id, filters))
        assert wire.parse_ack(await self.expect(wire.UNSUBACK)).packet_id == packet_id

    async def publish(self, topic: str, payload: bytes = b"", *, qos: int = 0, retain: bool = False) -> None:
        """Publish and go through with the handshake of the QoS."""
        packet_id = self.new_id() if qos else None
        await self.send(wire.encode_publish(topic, payload, qos=qos, retain=retain, packet_id=packet_id))
        if qos == 1:
            await self.expect_ack(wire.PUBACK, packet_id)
        elif qos == 2:
            await self.expect_ack(wire.PUBREC, packet_id)
            await self.send(wire.encode_ack(wire.PUBREL, packet_id))
            await self.expect_ack(wire.PUBCOMP, packet_id)

    async def ping(self) -> None:
        """Send PINGREQ and wait for PINGRESP."""
        await self.send(wire.PINGREQ_PACKET)
        await self.expect(wire.PINGRESP)

    async def closed(self, patience_s: float = PATIENCE_S) -> bool:
        """Return whether the server closes the connection in time; what it sends before is kept."""
        try:
            while True:
                await self._keep(await self.next_packet(patience_s))
        except Closed:
            return True
        except TimeoutError:
            return False

    def cut(self) -> None:
        """End without a word, as a broken network does."""
        self.writer.transport.abort()

    async def disconnect(self) -> None:
        """Say DISCONNECT and close."""
        await self.send(wire.DISCONNECT_PACKET)
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
