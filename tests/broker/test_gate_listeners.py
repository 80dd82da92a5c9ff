"""The doors: TLS, IPv6, socket options, and clients that are too slow for what is sent to them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authsvc.core.reasons import Reason
from broker import wire
from broker.limits import Limits
from broker.listeners import Listener
from broker.upstream import Upstream
from tests.broker.certificates import contexts
from tests.broker.gate_rig import Rig, rig_on
from tests.broker.raw_client import Closed, RawClient, what_comes
from tests.broker.upstreams import started

CONNECT_A = wire.encode_connect(client_id="a", username="", password=b"a")


@pytest.fixture(params=["amqtt"])
async def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Upstream]:
    """The doors do not depend on the broker: the one in this process."""
    async with started(request.param, tmp_path) as running:
        yield running


async def test_tls_carries_the_same_protocol(rig: Rig, tmp_path: Path) -> None:
    """Admission, publish and delivery through TLS; plain text to that port gets nothing."""
    server, client_side = contexts(tmp_path)
    address = await rig.gate.listen(Listener(name="tls", host="127.0.0.1", port=0, tls=server))
    a = await RawClient.open(address, tls=client_side)
    assert await a.connect("a", "a") == 0
    await a.subscribe("t/g/a/#")
    await a.publish("t/g/a/x", b"x" * 100_000, qos=1)
    assert len((await a.delivery()).payload) == 100_000
    plain = await RawClient.open(address)
    await plain.send(CONNECT_A)
    assert b"\x20\x02" not in await what_comes(plain.reader)  # a TLS alert, or the end
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
    server, client_side = contexts(tmp_path)
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
    server, client_side = contexts(tmp_path)
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


async def test_a_gate_that_closes_leaves_no_handshake_behind(upstream: Upstream, tmp_path: Path) -> None:
    """Sockets whose handshake has not ended are closed with the rest."""
    server, _ = contexts(tmp_path)
    async with rig_on(upstream) as rig:
        address = await rig.gate.listen(Listener(name="tls", host="127.0.0.1", port=0, tls=server))
        silent = [await RawClient.open(address) for _ in range(3)]
        async with asyncio.timeout(1):
            while len(rig.gate) < 3:
                await asyncio.sleep(0.001)
        await rig.gate.close()
        for client in silent:
            assert await client.closed(1)
