"""Listeners behind a proxy, and a broker that is told who connects: the carried address counts, from who may carry."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from authsvc.core.errors import UpstreamUnavailable
from broker import proxy_protocol, wire
from broker.config_file import parse_broker_config
from broker.limits import Limits
from broker.listeners import Listener
from broker.proxy_protocol import network_of
from broker.tcp import TcpUpstream
from broker.tcp.dial import Dial, _connected, open_link
from broker.tcp.link import TcpLink
from broker.upstream import Hello
from tests.broker.certificates import contexts
from tests.broker.gate_rig import rig_on
from tests.broker.link_owner import Owner
from tests.broker.raw_client import RawClient
from tests.broker.upstreams import embedded

HERE = (network_of("127.0.0.1"),)
ELSEWHERE = (network_of("192.0.2.0/24"),)
CARRIED = ("203.0.113.9", 4711)


@pytest.fixture
async def rig():
    async with (
        embedded() as upstream,
        rig_on(upstream, limits=Limits(connect_s=0.4, failed_connect_burst=2)) as running,
    ):
        yield running


def listener(proxies=HERE, **more) -> Listener:
    return Listener(name="proxied", host="127.0.0.1", port=0, proxies=proxies, **more)


async def refused(client: RawClient, within_s: float = 2.0) -> bool:
    return await client.closed(within_s)


async def test_the_carried_address_is_the_clients(rig):
    """In the session list, and whatever follows the header in the same segment is the client's."""
    client = await RawClient.open(await rig.gate.listen(listener()))
    connect = wire.encode_connect(client_id="c", username="", password=b"a")
    await client.send(proxy_protocol.encode(CARRIED) + connect)
    assert await client.connack() == 0
    (session,) = rig.service.sessions.find("t", thing="a")
    assert session.peer == "203.0.113.9:4711"
    await client.publish("t/g/a/x", b"m", qos=1)


async def test_back_off_counts_the_carried_address(rig):
    """A guesser behind the proxy does not use up the failures of others behind it."""
    address = await rig.gate.listen(listener())

    async def code(source: tuple[str, int]) -> int | None:
        client = await RawClient.open(address)
        await client.send(proxy_protocol.encode(source))
        return await client.connect("c", "wrong")

    assert [await code(CARRIED) for _ in range(3)] == [4, 4, 3]
    assert await code(("203.0.113.10", 1)) == 4


async def test_local_is_the_proxys_own_address(rig):
    """A health check that speaks MQTT comes from the proxy itself."""
    client = await RawClient.open(await rig.gate.listen(listener()))
    await client.send(proxy_protocol.encode(None))
    assert await client.connect("c", "a") == 0
    (session,) = rig.service.sessions.find("t", thing="a")
    assert session.peer.startswith("127.0.0.1:")


async def test_the_header_comes_before_tls(rig, tmp_path):
    """Two layers, in this order, byte for byte."""
    context, trusting = contexts(tmp_path)
    address = await rig.gate.listen(listener(tls=context))
    reader, writer = await asyncio.open_connection(*address)
    writer.write(proxy_protocol.encode(CARRIED))
    await writer.start_tls(trusting, server_hostname="127.0.0.1")
    client = RawClient(reader, writer)
    assert await client.connect("c", "a") == 0
    (session,) = rig.service.sessions.find("t", thing="a")
    assert session.peer == "203.0.113.9:4711"
    writer.close()
    await writer.wait_closed()


# --- attacks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        proxy_protocol.encode(CARRIED),
        wire.encode_connect(client_id="c", username="", password=b"a"),
        b"",
    ],
    ids=["header", "mqtt", "silence"],
)
async def test_who_is_not_named_is_not_heard(rig, said):
    """Neither with a header nor without: closed at once, whatever he says."""
    client = await RawClient.open(await rig.gate.listen(listener(ELSEWHERE)))
    await client.send(said)
    assert await refused(client, 0.3)
    assert rig.service.sessions.find("t", thing="a") == []


async def test_a_listener_without_proxies_takes_no_header(rig):
    """There the header is no CONNECT, and nobody's address changes."""
    client = await rig.open()
    await client.send(proxy_protocol.encode(CARRIED))
    assert await refused(client)


@pytest.mark.parametrize(
    ("said", "at_once"),
    [
        (wire.encode_connect(client_id="c", username="", password=b"a"), True),
        (b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 1883\r\n", True),
        (proxy_protocol.SIGNATURE + b"\x21\x11\xff\xff", True),
        (proxy_protocol.encode(CARRIED)[:-1], False),
        (proxy_protocol.SIGNATURE, False),
        (b"", False),
    ],
    ids=["missing", "version-1", "oversized", "truncated", "signature-only", "silence"],
)
async def test_what_is_no_header_ends_the_connection(rig, said, at_once):
    """As soon as that is certain, and else when the time for a CONNECT is over; nothing is answered."""
    client = await RawClient.open(await rig.gate.listen(listener()))
    began = asyncio.get_running_loop().time()
    await client.send(said)
    assert await refused(client)
    assert (asyncio.get_running_loop().time() - began < 0.3) is at_once
    assert rig.service.sessions.find("t", thing="a") == []


async def test_a_trickled_header_does_not_buy_time(rig):
    """The clock runs from the accept, not from the last byte."""
    client = await RawClient.open(await rig.gate.listen(listener()))
    began = asyncio.get_running_loop().time()
    for byte in proxy_protocol.encode(CARRIED):
        await client.send(bytes((byte,)))
        if await client.closed(0.05):
            break
    assert asyncio.get_running_loop().time() - began < 1.0


async def test_hundreds_without_a_header_do_not_shut_the_door(rig):
    """They wait outside of the gate's own limits, and go by themselves."""
    address = await rig.gate.listen(listener())
    silent = [await RawClient.open(address) for _ in range(300)]
    client = await RawClient.open(address)
    await client.send(proxy_protocol.encode(CARRIED))
    assert await client.connect("c", "a") == 0
    assert all(await asyncio.gather(*(refused(one) for one in silent)))


async def test_a_refused_header_is_told_with_the_way_out_and_without_its_bytes(rig):
    """A sample of them: a flood of headers is no flood of lines."""
    address = await rig.gate.listen(listener())
    with structlog.testing.capture_logs() as logs:
        for _ in range(12):
            client = await RawClient.open(address)
            await client.send(b"PROXY TCP4 secret-looking 127.0.0.1 1 2\r\n")
            assert await refused(client)
    told = [entry for entry in logs if entry["event"] == "proxy_header_refused"]
    assert 1 <= len(told) <= 10
    assert "send-proxy-v2" in told[0]["problem"]
    assert "secret" not in str(told)


def test_the_broker_file_names_the_proxies(tmp_path: Path):
    """Addresses and networks; a mistake names the key."""

    def of(value: object) -> object:
        content = {"listeners": {"default": {"bind": "127.0.0.1:0", "proxy-protocol": value}}}
        return parse_broker_config(content, where="broker.yaml", folder=tmp_path).listeners[0].proxies

    assert of(["10.0.0.5", "fd00::/64"]) == (network_of("10.0.0.5"), network_of("fd00::/64"))
    assert of("10.0.0.5") == (network_of("10.0.0.5"),)
    assert of(None) == of([]) == ()
    for wrong in (True, ["0.0.0.0/0"], ["lb"], [5]):
        with pytest.raises(Exception, match="proxy-protocol"):
            of(wrong)


# --- towards the broker ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "tls"])
async def test_a_broker_is_told_who_connects(rig, tmp_path, with_tls):
    """The header goes ahead of TLS and CONNECT; the gate's own connections are LOCAL. The broker is a second gate."""
    context, trusting = contexts(tmp_path) if with_tls else (None, None)
    if trusting is not None:
        trusting.hostname_checks_common_name = False
    _, port = await rig.gate.listen(listener(tls=context))
    dial = Dial(port=port, tls=trusting, username="", password=b"a", proxy_protocol=True)
    upstream = TcpUpstream(dial=dial, mqtt5="no")
    owner = Owner()
    link = await upstream.connect(owner, "A" * 22, clean=True, hello=Hello(peer=CARRIED))
    (session,) = rig.service.sessions.find("t", thing="a")
    assert session.peer == "203.0.113.9:4711"
    link.close()
    await link.wait_closed()
    await upstream.start()
    assert upstream.reachable
    (session,) = rig.service.sessions.find("t", thing="a")
    assert session.peer.startswith("127.0.0.1:")
    await upstream.stop()
    if with_tls:
        other = TcpUpstream(dial=replace(dial, host="localhost"), mqtt5="no")
        with pytest.raises(UpstreamUnavailable, match="certificate"):
            await other.connect(Owner(), "A" * 22, clean=True, hello=Hello(peer=CARRIED))


async def test_the_first_address_that_answers_is_taken(monkeypatch):
    """A name may have one where nobody listens."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()

    async def two(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(loop, "getaddrinfo", two)
    with await _connected("broker.example", port) as connected:
        assert connected.getpeername() == ("127.0.0.1", port)
    server.close()
    with pytest.raises(ConnectionRefusedError):
        await _connected("broker.example", port)


async def test_a_full_backlog_of_a_socket_is_waited_for(tmp_path):
    """As TCP does by itself: connect(2) of a Unix socket gives up at once instead."""
    path = tmp_path / "b.sock"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(str(path))
        listening.listen(0)
        first.connect(str(path))
        link = TcpLink(Owner(), "A" * 22, clean=True, gone=lambda _: None)
        opening = asyncio.create_task(open_link(Dial(path=path), link))
        await asyncio.sleep(0.05)
        assert not opening.done()
        listening.accept()[0].close()
        async with asyncio.timeout(2):
            await opening
        link.abort()
        await asyncio.sleep(0)
