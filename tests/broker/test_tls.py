"""The door that accepts by itself: whatever one connection does, or the system lacks, the next one gets in."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

import pytest
import structlog

from broker import proxy_protocol, tls
from broker.proxy_protocol import network_of
from broker.tls import TlsServer
from tests.broker.certificates import contexts

HERE = (network_of("127.0.0.1"),)
CARRIED = ("203.0.113.9", 4711)


class Guest:
    """A protocol as the gate's: it says hello when its transport is ready."""

    made: list[Guest]

    def __init__(self) -> None:
        self.lost: list[Exception | None] = []
        self.made.append(self)

    def connection_made(self, transport):
        self.transport = transport
        self.peer = transport.get_extra_info("peername")

    def secured(self, transport):
        self.transport = transport
        transport.write(b"hello")

    def data_received(self, data): ...

    def eof_received(self):
        return False

    def connection_lost(self, exc):
        self.lost.append(exc)

    def pause_writing(self): ...

    def resume_writing(self): ...


@pytest.fixture
async def door():
    """Opens a server for `factory`, and closes it and all that it made."""
    Guest.made = []
    servers = []

    def opened(factory=Guest, *, context=None, proxies=HERE, within_s=5.0) -> tuple[TlsServer, int]:
        listening = socket.create_server(("127.0.0.1", 0), backlog=200)
        listening.setblocking(False)
        servers.append(TlsServer(listening, context, factory, handshake_within_s=within_s, proxies=proxies))
        return servers[-1], listening.getsockname()[1]

    yield opened
    for server in servers:
        server.close()
    for guest in Guest.made:
        guest.transport.abort()
    await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def caller(port: int, said: bytes = b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def heard(reader: asyncio.StreamReader) -> bytes:
    """Return what comes, b"" when the connection ends without a word."""
    async with asyncio.timeout(2):
        try:
            return await reader.read(100)
        except ConnectionResetError:
            return b""


HEADER = proxy_protocol.encode(CARRIED)


async def test_one_connection_that_fails_is_closed_and_the_next_gets_in(door):
    """Whatever goes wrong in what is made for it."""
    fails = iter([True, False])

    def factory():
        if next(fails):
            raise RuntimeError("broken for the test")
        return Guest()

    _, port = door(factory)
    with structlog.testing.capture_logs() as logs:
        async with caller(port, HEADER) as (reader, _):
            assert await heard(reader) == b""
        async with caller(port, HEADER) as (reader, _):
            assert await heard(reader) == b"hello"
    assert [entry["event"] for entry in logs] == ["connection_failed"]


async def test_without_a_file_for_another_socket_it_waits_and_tries_again(door, monkeypatch):
    """EMFILE is no end, and no loop that takes the whole processor."""
    loop = asyncio.get_running_loop()
    real, failures = loop.sock_accept, []

    async def sock_accept(listening):
        if len(failures) < 2:
            failures.append(loop.time())
            raise OSError(errno.EMFILE, "too many open files")
        failures.append(loop.time())
        return await real(listening)

    monkeypatch.setattr(tls, "ACCEPT_AGAIN_S", 0.1)
    monkeypatch.setattr(loop, "sock_accept", sock_accept)
    with structlog.testing.capture_logs() as logs:
        _, port = door()
        async with caller(port, HEADER) as (reader, _):
            assert await heard(reader) == b"hello"
    assert [entry["event"] for entry in logs] == ["accept_failed", "accept_failed"]
    assert failures[1] - failures[0] > 0.09
    assert failures[2] - failures[1] > 0.09


async def test_while_a_storm_is_let_in_everybody_else_has_a_turn(door):
    """`sock_accept` does not wait while others queue."""
    turns = 0
    seen = []

    def factory():
        seen.append(turns)
        return Guest()

    _, port = door(factory, proxies=(), context=None)
    callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    async with asyncio.timeout(5):
        while len(seen) < 30:
            turns += 1
            await asyncio.sleep(0)
    assert len(set(seen)) == 30
    for one in callers:
        one.close()


async def test_those_whose_header_is_awaited_are_bounded_and_make_room_when_they_go(door, monkeypatch):
    """One more is sent away at once, and the door is not shut for good."""
    monkeypatch.setattr(tls, "HEADERS_AWAITED", 2)
    server, port = door()
    async with contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(caller(port)) for _ in range(2)]
        async with asyncio.timeout(2):
            while len(server._headers) < 2:
                await asyncio.sleep(0.001)
        async with caller(port, HEADER) as (reader, _):
            assert await heard(reader) == b""
        assert Guest.made == []
        silent[0][1].write(HEADER)
        assert await heard(silent[0][0]) == b"hello"
        async with caller(port, HEADER) as (reader, _):
            assert await heard(reader) == b"hello"
    assert [guest.peer for guest in Guest.made] == [CARRIED, CARRIED]


@pytest.mark.parametrize(("said", "told"), [(b"", []), (HEADER[:13], ["the connection ended in the header"])])
async def test_a_connection_that_ends_in_its_header_is_let_go_at_once(door, said, told):
    """A look whether anybody listens is no event; half a header is one. Neither keeps anything waiting."""
    server, port = door()
    with structlog.testing.capture_logs() as logs:
        async with caller(port, said) as (reader, writer):
            writer.write_eof()
            assert await heard(reader) == b""
        async with asyncio.timeout(2):
            while server._headers:
                await asyncio.sleep(0.001)
    assert [entry["problem"] for entry in logs] == told


async def test_refusals_are_told_again_in_the_next_second(door):
    """A sample of each."""
    server, port = door()

    async def refused(count: int) -> int:
        with structlog.testing.capture_logs() as logs:
            for _ in range(count):
                async with caller(port, b"GET /") as (reader, _):
                    assert await heard(reader) == b""
        return len(logs)

    server._refused_since = asyncio.get_running_loop().time() + 100  # this second does not end during the test
    assert await refused(20) == tls.REFUSALS_LOGGED_PER_S
    server._refused_since -= 200
    assert await refused(1) == 1


async def test_with_the_door_those_end_who_have_not_said_who_they_are(door):
    """Closed means that nobody comes in any more."""
    server, port = door()
    async with caller(port, HEADER) as (reader, _), caller(port, HEADER[:5]) as (late, writer):
        assert await heard(reader) == b"hello"
        async with asyncio.timeout(2):
            while len(server._headers) != 1:
                await asyncio.sleep(0.001)
        server.close()
        assert await heard(late) == b""
        with contextlib.suppress(OSError):
            writer.write(HEADER[5:])
        await asyncio.sleep(0.01)
        assert len(Guest.made) == 1
        assert Guest.made[0].lost == []


@pytest.mark.parametrize("early", ["in-made", "before-the-task", "during"])
async def test_a_connection_that_is_ended_before_tls_is_agreed_on_is_closed_and_told_once(door, tmp_path, early):
    """Refused when it is made, ended in the same turn, or while the other side says nothing."""

    class Refused(Guest):
        def connection_made(self, transport):
            super().connection_made(transport)
            if early == "in-made":
                transport.abort()
            elif early == "before-the-task":
                asyncio.get_running_loop().call_soon(transport.abort)

    context, _ = contexts(tmp_path)
    _, port = door(Refused, context=context, proxies=())
    async with caller(port) as (reader, _):
        if early == "during":
            async with asyncio.timeout(2):
                while not (Guest.made and Guest.made[0].transport.begun):
                    await asyncio.sleep(0.001)
            Guest.made[0].transport.abort()
        assert await heard(reader) == b""
    (guest,) = Guest.made
    assert len(guest.lost) == (early != "in-made")
    assert guest.transport.socket.fileno() == -1


async def test_a_handshake_that_does_not_come_ends_in_time(door, tmp_path):
    """The time of a CONNECT is the time of its handshake, too."""
    context, _ = contexts(tmp_path)
    _, port = door(context=context, proxies=(), within_s=0.2)
    async with caller(port) as (reader, _):
        assert await heard(reader) == b""
    assert len(Guest.made[0].lost) == 1
