"""As much of AMQP 0-9-1 as a login attempt needs: connect, PLAIN, tune, open (sections 2.2 and 4.2 of its text)."""

from __future__ import annotations

import asyncio
import struct

HEADER = b"AMQP\x00\x00\x09\x01"
START_OK, TUNE, TUNE_OK, OPEN, OPEN_OK = (10, 11), (10, 30), (10, 31), (10, 40), (10, 41)


async def login(address: tuple[str, int], user: str, password: str, *, vhost: str = "/", patience_s: float = 3) -> bool:
    """Return whether RabbitMQ opens an AMQP connection; False when it closes, or leaves the login unanswered."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(patience_s):
            writer.write(HEADER)
            await _method(reader)
            writer.write(
                _frame(START_OK, _table() + _short("PLAIN") + _long(f"\0{user}\0{password}") + _short("en_US"))
            )
            if await _method(reader) != TUNE:
                return False
            writer.write(_frame(TUNE_OK, struct.pack(">HIH", 0, 131_072, 0)))
            writer.write(_frame(OPEN, _short(vhost) + _short("") + b"\0"))
            return await _method(reader) == OPEN_OK
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        return False
    finally:
        writer.close()


async def _method(reader: asyncio.StreamReader) -> tuple[int, int]:
    kind, _, size = struct.unpack(">BHI", await reader.readexactly(7))
    payload = await reader.readexactly(size + 1)
    found: tuple[int, int] = struct.unpack(">HH", payload[:4])
    return found if kind == 1 else await _method(reader)


def _frame(method: tuple[int, int], arguments: bytes) -> bytes:
    payload = struct.pack(">HH", *method) + arguments
    return struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce"


def _short(text: str) -> bytes:
    return bytes([len(text.encode())]) + text.encode()


def _long(text: str) -> bytes:
    return struct.pack(">I", len(text.encode())) + text.encode()


def _table() -> bytes:
    return struct.pack(">I", 0)
