"""Head and body of a short answer go out as one write, and nothing that was held back is lost or late."""

import asyncio
import socket

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from authsvc.web.joined import JoinedWrites, join
from authsvc.web.server import make_server


class Transport:
    """Takes what is written, and says what it was closed after."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str) -> str:
        return name


@pytest.fixture
def writes() -> tuple[JoinedWrites, Transport, dict[str, object]]:
    """What is tried, the transport behind it, and the scope of a request."""
    transport, scope = Transport(), {}
    joined = JoinedWrites(transport)  # type: ignore[arg-type]
    joined.offer(scope)
    return joined, transport, scope


def test_one_write_waits_for_the_next_and_no_other_does(writes) -> None:
    """It is asked for anew for every answer."""
    joined, transport, scope = writes
    joined.write(b"a")
    join(scope)
    joined.write(b"b")
    assert transport.written == [b"a"]
    joined.write(b"c")
    joined.write(b"d")
    assert transport.written == [b"a", b"bc", b"d"]


@pytest.mark.parametrize("end", ["flush", "close"])
def test_what_nothing_followed_goes_out_at_the_end(writes, end: str) -> None:
    """The head of an answer without a body, or of one that broke off; the next answer is not held for it."""
    joined, transport, scope = writes
    join(scope)
    joined.write(b"head")
    getattr(joined, end)()
    assert transport.written == [b"head"]
    assert transport.closed is (end == "close")
    if end == "flush":
        join(scope)
        joined.flush()
        joined.write(b"next")
        assert transport.written == [b"head", b"next"]


def test_all_else_of_a_transport_is_the_transports_own(writes) -> None:
    """Where no write is concerned."""
    joined, transport, _ = writes
    assert joined.get_extra_info("peername") == "peername"
    assert not joined.is_closing()
    transport.close()
    assert joined.is_closing()


def test_an_application_behind_another_server_is_none_the_worse() -> None:
    """What only ours offers is not asked for there."""
    join({"type": "http"})


@pytest.fixture
async def port():
    """A server whose answers are all to be joined; the port that it listens on."""

    async def short(request):
        join(request.scope)
        return PlainTextResponse("x" * int(request.query_params["n"]))

    async def long(request):
        async def parts():
            yield b"first"
            await asyncio.sleep(60)

        join(request.scope)
        return StreamingResponse(parts())

    routes = [Route("/short", short, methods=["GET", "HEAD"]), Route("/long", long)]
    sock = socket.create_server(("127.0.0.1", 0))
    server = make_server(Starlette(routes=routes), sock=sock)
    serving = asyncio.create_task(server.serve(), name="http")
    while not server.started:
        await asyncio.sleep(0.01)
    yield sock.getsockname()[1]
    server.should_exit = True
    server.force_exit = True
    await serving


@pytest.mark.parametrize("size", [0, 5, 300_000])
async def test_answers_come_whole_and_in_order_over_one_connection(port: int, size: int) -> None:
    """Also those whose requests came in one packet, and one that does not fit into the buffers of a socket."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = [b"GET /short?n=%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in (size, 1, 2)]
    writer.write(b"".join(asked))
    async with asyncio.timeout(5):
        for n in (size, 1, 2):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert b"content-length: %d\r\n" % n in head
            assert await reader.readexactly(n) == b"x" * n
    writer.close()


@pytest.mark.parametrize(
    ("request_", "end"),
    [
        pytest.param(b"HEAD /short?n=7 HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n", id="no body"),
        pytest.param(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n", b"first\r\n", id="a body in parts"),
    ],
)
async def test_an_answer_that_does_not_follow_holds_up_none(port: int, request_: bytes, end: bytes) -> None:
    """What is there of it is sent at once, on a connection that stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_)
    async with asyncio.timeout(5):
        assert (await reader.readuntil(end)).startswith(b"HTTP/1.1 200")
    writer.close()
