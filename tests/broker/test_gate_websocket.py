"""MQTT in WebSocket: the same protocol, what is no handshake or no MQTT, and what it may cost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from authsvc.core.credentials import WillMessage
from broker import wire
from broker.listeners import Listener
from broker.upstream import Upstream
from tests.broker.certificates import contexts
from tests.broker.gate_rig import Rig
from tests.broker.raw_client import what_comes
from tests.broker.upstreams import started

CONNECT_A = wire.encode_connect(client_id="a", username="", password=b"a")
MQTT = [Subprotocol("mqtt")]


@pytest.fixture(params=["amqtt"])
async def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Upstream]:
    """The doors do not depend on the broker: the one in this process."""
    async with started(request.param, tmp_path) as running:
        yield running


@pytest.fixture
async def url(rig: Rig) -> str:
    host, port = await rig.gate.listen(Listener(name="ws", host="127.0.0.1", port=0, websocket=True))
    return f"ws://{host}:{port}/mqtt"


async def packet(ws: ClientConnection, framer: wire.Framer) -> bytes:
    """Return the next packet, which must come in one frame of its own here."""
    async with asyncio.timeout(5):
        while True:
            for found in framer.packets(await ws.recv()):
                return found


async def test_websocket_carries_the_same_protocol(rig: Rig, url: str) -> None:
    """MQTT-6.0.0-2: packets need not be aligned with frames; ping frames are answered; the will is sent."""
    spy = await rig.spy()
    framer = wire.Framer(1 << 20)
    async with connect(url, subprotocols=MQTT) as ws:
        assert ws.subprotocol == "mqtt"
        will = WillMessage(topic="t/g/a/will", payload=b"w", qos=0, retain=False)
        stream = wire.encode_connect(client_id="a", username="", password=b"a", will=will)
        stream += wire.encode_subscribe(1, [("t/g/a/#", 0)])
        for n in range(0, len(stream), 7):
            await ws.send(stream[n : n + 7])
        assert await packet(ws, framer) == wire.encode_connack(0)
        assert await packet(ws, framer) == wire.encode_suback(1, [0])
        await (await ws.ping())
        publish = wire.encode_publish("t/g/a/x", b"1")
        await ws.send([publish[:5], publish[5:]])  # fragments of one message
        assert await packet(ws, framer) == publish
    assert [t for t, _ in [(p.topic, 0) for p in (await spy.delivery(), await spy.delivery())]] == [
        "t/g/a/x",
        "t/g/a/will",
    ]


@pytest.mark.parametrize("subprotocols", [None, [Subprotocol("mqttv3.1")]], ids=["none", "other"])
async def test_the_subprotocol_is_required(url: str, subprotocols: list[Subprotocol] | None) -> None:
    """MQTT-6.0.0-3: 400 to whoever does not speak `mqtt`."""
    with pytest.raises(InvalidStatus):
        await connect(url, subprotocols=subprotocols)


@pytest.mark.parametrize(
    "data",
    ["text", b"\x30\x01\x00", b"\xf0\x00", b"x" * 2_000_000],
    ids=["text-frame", "malformed", "reserved", "over-limit"],
)
async def test_what_is_not_mqtt_in_binary_frames_closes(rig: Rig, url: str, data: str | bytes) -> None:
    """MQTT-6.0.0-1; and nothing else ends."""
    a = await rig.client("a")
    async with connect(url, subprotocols=MQTT) as ws:
        await ws.send(wire.encode_connect(client_id="ws", username="", password=b"a"))
        await ws.recv()
        with pytest.raises(ConnectionClosed):  # noqa: PT012
            await ws.send(data)
            async with asyncio.timeout(3):
                await ws.recv()
    await a.ping()


@pytest.mark.parametrize(
    "raw",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", CONNECT_A, b"\x16\x03\x01", b"G" * 100_000, b"\r\n\r\n"],
    ids=["plain-http", "mqtt", "tls", "long", "empty"],
)
async def test_what_is_no_handshake_is_no_connection(rig: Rig, url: str, raw: bytes) -> None:
    """It is refused or closed, and leaves nothing."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    if not raw.endswith(b"\r\n"):
        writer.write_eof()
    async with asyncio.timeout(7):
        answer = b""
        while data := await what_comes(reader):
            answer += data
    assert b" 101 " not in answer
    writer.close()
    async with asyncio.timeout(2):
        while len(rig.gate):
            await asyncio.sleep(0.001)


async def test_an_unmasked_frame_closes(rig: Rig, url: str) -> None:
    """RFC 6455 5.1: a client masks its frames."""
    async with connect(url, subprotocols=MQTT) as ws:
        ws.transport.write(b"\x82" + bytes((len(CONNECT_A),)) + CONNECT_A)
        with pytest.raises(ConnectionClosed):
            await ws.recv()
    assert len(rig.service.sessions) == 0


async def test_a_websocket_runs_inside_tls(rig: Rig, tmp_path: Path) -> None:
    """Handshake of TLS, then of HTTP, then CONNECT; and a refusal is answered in a frame."""
    server, client_side = contexts(tmp_path)
    host, port = await rig.gate.listen(Listener(name="wss", host="127.0.0.1", port=0, tls=server, websocket=True))
    for password, code in ((b"a", 0), (b"wrong", 4)):
        async with connect(f"wss://{host}:{port}/mqtt", subprotocols=MQTT, ssl=client_side) as ws:
            await ws.send(wire.encode_connect(client_id="a", username="", password=password))
            assert await ws.recv() == wire.encode_connack(code)


async def websocket(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a WebSocket whose frames the test writes itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0]))
    writer.write(
        b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def frame(payload: bytes, opcode: int = 2) -> bytes:
    """Return a masked frame (with the mask 0) of a payload below 64 KiB."""
    if len(payload) < 126:
        return bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload
    return bytes((0x80 | opcode, 0x80 | 126)) + len(payload).to_bytes(2, "big") + bytes(4) + payload


async def test_nothing_large_is_kept_of_a_websocket_before_its_connect(rig: Rig, url: str) -> None:
    """A frame that announces a megabyte is not waited for while nobody knows who sends it."""
    reader, writer = await websocket(url)
    (connection,) = rig.gate._connections
    head = b"\x82\xff" + (1_000_000).to_bytes(8, "big") + bytes(4)
    writer.write(head + bytes(200_000))
    async with asyncio.timeout(2):
        assert b"\x20" not in await what_comes(reader)
    assert connection.is_ended
    assert len(rig.gate) == 0
    writer.close()


async def test_pings_of_a_websocket_that_reads_no_answer_end_it(rig: Rig, url: str) -> None:
    """RFC 6455 wants each ping answered; the answers nobody takes are bounded, and others are served meanwhile."""
    _, writer = await websocket(url)
    writer.write(frame(wire.encode_connect(client_id="ws", username="", password=b"a")))
    async with asyncio.timeout(2):
        while not len(rig.service.sessions):
            await asyncio.sleep(0.001)
    writer.transport.pause_reading()
    (connection,) = rig.gate._connections
    a = await rig.client("a")
    flood = frame(b"x" * 125, 9) * 500
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(20):
            while not connection.is_ended:
                writer.write(flood)
                await writer.drain()
                if connection.transport is not None:
                    assert connection.transport.get_write_buffer_size() < 3 * 1_048_576
    assert connection.is_ended
    await a.ping()
    writer.transport.abort()


async def test_tiny_frames_stall_nobody(rig: Rig, url: str) -> None:
    """A chunk of ten thousands of frames is worked off in portions: others get their turn."""
    reader, writer = await websocket(url)
    writer.write(frame(wire.encode_connect(client_id="ws", username="", password=b"a")))
    await reader.readexactly(6)
    a = await rig.client("a")
    stream = b"".join(frame(bytes((byte,))) for byte in wire.PINGREQ_PACKET * 40_000)
    loop = asyncio.get_running_loop()
    worst, stalled = 0.0, loop.time()

    def look() -> None:
        nonlocal worst, stalled
        worst, stalled = max(worst, loop.time() - stalled), loop.time()
        handle[0] = loop.call_later(0.001, look)

    handle = [loop.call_later(0.001, look)]
    writer.write(stream)
    answered = 0
    async with asyncio.timeout(30):
        while answered < 40_000:
            answered += (await reader.read(65_536)).count(b"\xd0\x00")
    handle[0].cancel()
    await a.ping()
    assert worst < 0.2
    writer.transport.abort()
