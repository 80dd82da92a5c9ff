"""The doors: TLS, WebSocket, IPv6, socket options, and clients that are too slow for what is sent to them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from authsvc.core.credentials import WillMessage
from authsvc.core.reasons import Reason
from broker import wire
from broker.limits import Limits
from broker.listeners import Listener
from broker.upstream import Upstream
from tests.broker.gate_rig import Rig, rig_on
from tests.broker.raw_client import Closed, RawClient
from tests.broker.upstreams import started

CONNECT_A = wire.encode_connect(client_id="a", username="", password=b"a")
MQTT = [Subprotocol("mqtt")]


@pytest.fixture(params=["amqtt"])
async def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Upstream]:
    """The doors do not depend on the broker: the one in this process."""
    async with started(request.param, tmp_path) as running:
        yield running


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context with a fresh self-signed certificate, and a client's that trusts it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=str(path))


async def test_tls_carries_the_same_protocol(rig: Rig, tmp_path: Path) -> None:
    """Admission, publish and delivery through TLS; plain text to that port gets nothing."""
    server, client_side = certificate(tmp_path)
    address = await rig.gate.listen(Listener(name="tls", host="127.0.0.1", port=0, tls=server))
    a = await RawClient.open(address, tls=client_side)
    assert await a.connect("a", "a") == 0
    await a.subscribe("t/g/a/#")
    await a.publish("t/g/a/x", b"x" * 100_000, qos=1)
    assert len((await a.delivery()).payload) == 100_000
    plain = await RawClient.open(address)
    await plain.send(CONNECT_A)
    assert b"\x20\x02" not in await _read(plain.reader)  # a TLS alert, or the end
    wrong = await RawClient.open(address, tls=client_side)
    assert await wrong.connect("a", "wrong") == 4
    assert await wrong.closed(2)
    await a.ping()


async def test_ipv6_listens(rig: Rig) -> None:
    """And the peer is written so that its port can be told from its address."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    host, port = await rig.gate.listen(Listener(name="six", host="::1", port=0))
    assert host == "::1"
    await RawClient.connected((host, port), "a", "a")
    (session,) = rig.service.sessions.find("t", thing="a")
    assert session.peer.startswith("[::1]:")


async def test_an_address_in_use_is_named(rig: Rig) -> None:
    """The error tells which one."""
    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{rig.address[1]}"):
        await rig.gate.listen(Listener(name="again", host="127.0.0.1", port=rig.address[1]))


async def test_accepted_sockets_keep_alive_without_delay(rig: Rig) -> None:
    """They inherit it from the listening socket."""
    await rig.client("a")
    (connection,) = rig.gate._connections
    sock = connection.transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


# --- WebSocket -----------------------------------------------------------------------------------------------


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
        while data := await _read(reader):
            answer += data
    assert b" 101 " not in answer
    writer.close()
    async with asyncio.timeout(2):
        while len(rig.gate):
            await asyncio.sleep(0.001)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65_536)
    except ConnectionError:
        return b""


async def test_an_unmasked_frame_closes(rig: Rig, url: str) -> None:
    """RFC 6455 5.1: a client masks its frames."""
    async with connect(url, subprotocols=MQTT) as ws:
        ws.transport.write(b"\x82" + bytes((len(CONNECT_A),)) + CONNECT_A)
        with pytest.raises(ConnectionClosed):
            await ws.recv()
    assert len(rig.service.sessions) == 0


# --- slow clients --------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_costs_no_memory_and_nobody_else(rig: Rig) -> None:
    """QoS 0 to it is dropped or it is ended; what is buffered towards it stays bounded; others go on."""
    slow = await rig.open()
    sock = slow.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert await slow.connect("slow", "a") == 0
    await slow.subscribe("t/g/a/#")
    slow.writer.transport.pause_reading()
    a = await rig.client("a")
    for _ in range(300):
        await a.send(wire.encode_publish("t/g/a/x", b"x" * 50_000))
    await a.publish("t/g/a/x", b"", qos=1)
    for connection in rig.gate._connections:
        if connection.transport is not None:
            assert connection.transport.get_write_buffer_size() <= 1_200_000
    await a.ping()


async def test_who_asks_and_never_reads_the_answers_is_ended(upstream: Upstream) -> None:
    """A flood of PINGREQ without reading: the buffer towards it is bounded, then the connection ends."""
    async with rig_on(upstream, limits=Limits(max_client_buffer_bytes=100_000)) as rig:
        client = await rig.client("a")
        (connection,) = rig.gate._connections
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.writer.transport.pause_reading()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(30):
                while len(rig.service.sessions):
                    client.writer.write(wire.PINGREQ_PACKET * 50_000)
                    await client.writer.drain()
        assert rig.service.sessions.ended[Reason.CONNECTION_LOST] == 1


# --- before there is a CONNECT -------------------------------------------------------------------------------


async def test_handshakes_of_tls_count_as_connections(upstream: Upstream, tmp_path: Path) -> None:
    """Silent sockets at the TLS port are bounded as others are, the oldest makes room, and their time runs out."""
    server, client_side = certificate(tmp_path)
    async with rig_on(upstream, limits=Limits(max_before_connect=5, connect_s=1.0)) as rig:
        address = await rig.gate.listen(Listener(name="tls", host="127.0.0.1", port=0, tls=server))
        silent = [await RawClient.open(address) for _ in range(8)]
        async with asyncio.timeout(1):
            while len(rig.gate) < 5:
                await asyncio.sleep(0.001)
        for client in silent[:3]:
            assert await client.closed(0.5)
        assert len(rig.gate) == 5
        a = await RawClient.open(address, tls=client_side)
        assert await a.connect("a", "a") == 0
        for client in silent[3:]:
            assert await client.closed(1.5)
        assert len(rig.gate) == 1
        await a.ping()
        (connection,) = rig.gate._connections
        assert connection.listener.connections == 1, "each is counted once"


async def test_tls_with_an_early_connect_is_answered_inside_tls(rig: Rig, tmp_path: Path) -> None:
    """A CONNECT that comes with the end of the handshake is read, and refused, inside TLS only; garbage is closed."""
    server, client_side = certificate(tmp_path)
    address = await rig.gate.listen(Listener(name="tls", host="127.0.0.1", port=0, tls=server))
    for _ in range(5):
        bad = await RawClient.open(address, tls=client_side)
        assert await bad.connect("a", "wrong") == 4
        assert await bad.closed(1.5)
    garbage = await RawClient.open(address)
    await garbage.send(CONNECT_A)
    with contextlib.suppress(Closed):
        assert (await garbage.reader.read(100))[:1] in {b"", b"\x15"}, "an alert of TLS, and nothing of MQTT"
    async with asyncio.timeout(3):
        while len(rig.gate):
            await asyncio.sleep(0.001)


async def test_a_websocket_runs_inside_tls(rig: Rig, tmp_path: Path) -> None:
    """Handshake of TLS, then of HTTP, then CONNECT; and a refusal is answered in a frame."""
    server, client_side = certificate(tmp_path)
    host, port = await rig.gate.listen(Listener(name="wss", host="127.0.0.1", port=0, tls=server, websocket=True))
    for password, code in ((b"a", 0), (b"wrong", 4)):
        async with connect(f"wss://{host}:{port}/mqtt", subprotocols=MQTT, ssl=client_side) as ws:
            await ws.send(wire.encode_connect(client_id="a", username="", password=password))
            assert await ws.recv() == wire.encode_connack(code)


async def test_a_gate_that_closes_leaves_no_handshake_behind(upstream: Upstream, tmp_path: Path) -> None:
    """Sockets whose handshake has not ended are closed with the rest."""
    server, _ = certificate(tmp_path)
    async with rig_on(upstream) as rig:
        address = await rig.gate.listen(Listener(name="tls", host="127.0.0.1", port=0, tls=server))
        silent = [await RawClient.open(address) for _ in range(3)]
        async with asyncio.timeout(1):
            while len(rig.gate) < 3:
                await asyncio.sleep(0.001)
        await rig.gate.close()
        for client in silent:
            assert await client.closed(1)


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
        assert b"\x20" not in await _read(reader)
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
