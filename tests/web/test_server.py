"""What the server refuses before the application sees it, by raw sockets."""

import asyncio
import contextlib
import signal
import socket

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from authsvc.web import server as web_server
from authsvc.web.server import MAX_HEAD_BYTES, make_server


@pytest.fixture
async def port():
    """A server with a one-line application; the port that it listens on."""

    async def hello(request):
        return PlainTextResponse(f"hello {len(await request.body())}")

    sock = socket.create_server(("127.0.0.1", 0))
    server = make_server(Starlette(routes=[Route("/", hello, methods=["GET", "POST"])]), sock=sock)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    serving = asyncio.create_task(server.serve(), name="http")
    async with asyncio.timeout(5):
        while not server.started:
            await asyncio.sleep(0.01)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    yield sock.getsockname()[1]
    server.should_exit = True
    async with asyncio.timeout(5):
        await serving


async def talk(port, *pieces, read_all=True):
    """Send the pieces and return everything that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        async with asyncio.timeout(8):
            with contextlib.suppress(ConnectionError):
                return await reader.read(-1)
            return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def served(port) -> bool:
    answer = await talk(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"hello 0")


async def test_an_honest_request_is_served_without_naming_the_server(port):
    """The answer carries no server header."""
    assert await served(port)
    answer = await talk(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"\r\nserver:" not in answer.lower()


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
            id="length and chunked",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", id="two lengths"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", id="signed length"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", id="odd encoding"),
        pytest.param(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", id="space before colon"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (1 << 20) + b"\r\n\r\n", id="1 MB header"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 40_000 + b"\r\n", id="40,000 headers"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (4 * MAX_HEAD_BYTES), id="endless header"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS hello"),
    ],
)
async def test_a_smuggled_or_oversized_head_is_400_and_the_connection_ends(port, request_bytes):
    """One answer at most, never 200, and everybody else is served."""
    answer = await talk(port, request_bytes)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400"), answer[:200]
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert await served(port)


async def test_a_head_that_trickles_in_is_cut_off(port, monkeypatch):
    """A client that is slow with its head, or says nothing, loses its connection; others are served meanwhile."""
    monkeypatch.setattr(web_server, "HEAD_TIMEOUT_S", 0.3)

    async def trickle():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                for letter in b"GET / HTTP/1.1\r\nHost: slow" * 50:
                    writer.write(bytes([letter]))
                    await writer.drain()
                    if reader.at_eof():
                        break
                    await asyncio.sleep(0.02)
            with contextlib.suppress(ConnectionError):
                await reader.read(-1)
        writer.close()
        return True

    results = await asyncio.gather(*(trickle() for _ in range(20)), *(talk(port) for _ in range(50)), served(port))
    assert results[:20] == [True] * 20
    assert all(answer.startswith(b"HTTP/1.1 400") for answer in results[20:70])
    assert results[-1]


async def test_a_kept_alive_connection_has_a_fresh_bound_for_each_request(port):
    """Many small requests on one connection never add up to a head that is too large."""
    one = b"GET / HTTP/1.1\r\nHost: x\r\nPad: " + b"p" * 8_000 + b"\r\n\r\n"
    last = one.replace(b"Host: x", b"Host: x\r\nConnection: close")
    answer = await talk(port, *([one] * 20), last)
    assert answer.count(b"HTTP/1.1 200") == 21
