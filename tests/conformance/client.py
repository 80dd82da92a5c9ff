"""An MQTT client of 3.1, 3.1.1 and 5.0 that says what it is told. Its codec is its own: the product's is under test."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Sequence
from typing import Self

from tests.conformance.driver import PATIENCE_S, Closed, Hello, Message

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, DISCONNECT = 8, 9, 10, 11, 14
EXPIRY, ALIAS, WILL_DELAY = 0x11, 0x23, 0x18  # MQTT 5.0 2.2.2.2


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def variable(value: int) -> bytes:
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)


def packet(kind: int, flags: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([kind << 4 | flags]) + variable(len(body)) + body


class MqttClient:
    """One connection over TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, level: int) -> None:
        self._reader, self._writer, self._five = reader, writer, level == 5
        self._level = level
        self._buffer = bytearray()
        self._inbox: list[Message] = []
        self._ids = 0
        self._left: Closed | None = None
        self.session_present = False

    @classmethod
    async def open(cls, host: str, port: int, level: int) -> Self:
        reader, writer = await asyncio.open_connection(host, port)
        return cls(reader, writer, level)

    # --- packets -------------------------------------------------------------------------------------------------

    def _properties(self, *properties: bytes) -> bytes:
        """Return a property section; nothing at all before MQTT 5."""
        body = b"".join(properties)
        return variable(len(body)) + body if self._five else b""

    async def _send(self, data: bytes) -> None:
        if self._left is not None:
            raise self._left
        self._writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def _read(self) -> tuple[int, int, bytes]:
        """Return type, flags and body of the next packet."""
        if self._left is not None:
            raise self._left
        while (found := self._framed()) is None:
            try:
                data = await self._reader.read(65_536)
            except ConnectionError:
                data = b""
            if not data:
                self._left = Closed()
                self._writer.close()
                raise self._left
            self._buffer += data
        first, body = found
        if first >> 4 == DISCONNECT:
            self._left = Closed(body[0] if body else 0)
            self._writer.close()
            raise self._left
        return first >> 4, first & 0x0F, body

    def _framed(self) -> tuple[int, bytes] | None:
        """Take the next whole packet out of the buffer; a wait that times out loses nothing."""
        length = shift = 0
        for at, digit in enumerate(self._buffer[1:5], 2):
            length |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                if len(self._buffer) < at + length:
                    return None
                first, body = self._buffer[0], bytes(self._buffer[at : at + length])
                del self._buffer[: at + length]
                return first, body
        return None

    async def _next(self, *kinds: int, packet_id: int | None = None) -> tuple[int, bytes]:
        """Return the next packet of these types, with that packet id; deliveries before it are kept."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                kind, flags, body = await self._read()
                if kind in kinds and (packet_id is None or struct.unpack(">H", body[:2])[0] == packet_id):
                    return kind, body
                await self._keep(kind, flags, body)

    async def _keep(self, kind: int, flags: int, body: bytes) -> None:
        if kind == PUBREL:
            await self._send(packet(PUBCOMP, 0, body[:2]))
        if kind != PUBLISH:
            return
        qos = flags >> 1 & 3
        size = struct.unpack(">H", body[:2])[0]
        topic, body = body[2 : 2 + size].decode(), body[2 + size :]
        packet_id, body = (body[:2], body[2:]) if qos else (b"", body)
        if self._five:
            body = self._without_properties(body)
        if qos:
            await self._send(packet(PUBACK if qos == 1 else PUBREC, 0, packet_id))
        self._inbox.append(Message(topic, body.decode(), qos, bool(flags & 1)))

    @staticmethod
    def _without_properties(body: bytes) -> bytes:
        length = shift = at = 0
        while True:
            digit = body[at]
            length |= (digit & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if digit < 0x80:
                return body[at + length :]

    def _new_id(self) -> bytes:
        self._ids += 1
        return struct.pack(">H", self._ids)

    @property
    def gone(self) -> bool:
        return self._left is not None

    # --- what the player asks for --------------------------------------------------------------------------------

    async def connect(self, hello: Hello) -> int:
        flags = 0xC0 | (2 if hello.clean else 0)
        payload = [text(hello.client_id)]
        if hello.will is not None:
            topic, message, qos, retain, delay_s = hello.will
            flags |= 4 | qos << 3 | (0x20 if retain else 0)
            delay = [bytes([WILL_DELAY]) + struct.pack(">I", delay_s)] if delay_s else []
            payload += [self._properties(*delay), text(topic), text(message)]
        payload += [text(hello.username), text(hello.password)]
        expiry = [bytes([EXPIRY]) + struct.pack(">I", hello.expiry_s)] if hello.expiry_s else []
        await self._send(
            packet(
                CONNECT,
                0,
                text("MQIsdp" if self._level == 3 else "MQTT"),
                bytes([self._level, flags, 0, 0]),  # keep-alive 0
                self._properties(*expiry),
                *payload,
            )
        )
        _, body = await self._next(CONNACK)
        self.session_present = bool(body[0] & 1)
        return body[1]

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> list[int]:
        packet_id = self._new_id()
        pairs = [text(topic_filter) + bytes([qos]) for topic_filter, qos in filters]
        await self._send(packet(SUBSCRIBE, 2, packet_id, self._properties(), *pairs))
        _, body = await self._next(SUBACK, packet_id=self._ids)
        return list(self._without_properties(body[2:]) if self._five else body[2:])

    async def unsubscribe(self, topic_filter: str) -> None:
        await self._send(packet(UNSUBSCRIBE, 2, self._new_id(), self._properties(), text(topic_filter)))
        await self._next(UNSUBACK, packet_id=self._ids)

    async def publish(self, topic: str, payload: str, *, qos: int, retain: bool, alias: int = 0) -> int:
        packet_id = self._new_id() if qos else b""
        sent_id = self._ids
        properties = self._properties(*([bytes([ALIAS]) + struct.pack(">H", alias)] if alias else []))
        flags = qos << 1 | int(retain)
        await self._send(packet(PUBLISH, flags, text(topic), packet_id, properties, payload.encode()))
        if qos == 0:
            return 0
        # RabbitMQ answers a QoS 2 PUBLISH as one of QoS 1 (docs: "QoS 2 ... downgraded")
        kind, body = await self._next(PUBACK, PUBREC, packet_id=sent_id)
        code = body[2] if len(body) > 2 else 0
        if kind == PUBREC and code < 0x80:
            await self._send(packet(PUBREL, 2, packet_id))
            await self._next(PUBCOMP, packet_id=sent_id)
        return code

    async def message(self, patience_s: float) -> Message:
        async with asyncio.timeout(patience_s):
            while not self._inbox:
                await self._keep(*await self._read())
        return self._inbox.pop(0)

    async def closed(self, patience_s: float) -> int | None:
        try:
            async with asyncio.timeout(patience_s):
                while True:
                    await self._keep(*await self._read())
        except Closed as left:
            return left.code

    def cut(self) -> None:
        self._writer.transport.abort()

    async def disconnect(self) -> None:
        with contextlib.suppress(Closed):
            await self._send(packet(DISCONNECT, 0))
        self._writer.close()
