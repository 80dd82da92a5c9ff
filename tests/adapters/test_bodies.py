"""Bodies of hook requests: read whole, given up when they come too slowly or too long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from authsvc.adapters import bodies
from authsvc.adapters.adapter import MalformedHook
from authsvc.adapters.bodies import Bodies

Receive = Callable[[], Awaitable[dict[str, object]]]


def _receive(*parts: bytes, wait: asyncio.Event | None = None) -> Receive:
    """Return what gives the parts one by one, and the last one only when `wait` is set."""
    left = list(parts)

    async def receive() -> dict[str, object]:
        part = left.pop(0)
        if not left and wait is not None:
            await wait.wait()
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    return receive


@pytest.fixture
async def read(monkeypatch: pytest.MonkeyPatch):
    """The reader, with a watch that is in a hurry."""
    monkeypatch.setattr(bodies, "BODY_S", 0.1)
    monkeypatch.setattr(bodies, "TICK_S", 0.01)
    reader = Bodies()
    watch = asyncio.create_task(reader.run())
    yield reader.read
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def test_a_body_in_parts_is_read_whole(read) -> None:
    """As many parts as the network made of it."""
    assert await read(_receive(b"a", b"b", b"c")) == b"abc"


async def test_only_the_slow_body_is_given_up(read) -> None:
    """One that began later and is in time is none of its business; the task that read goes on."""
    never, soon = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        with pytest.raises(MalformedHook, match="too slowly"):
            await read(_receive(b"a", b"b", wait=never))
        await asyncio.sleep(0)  # nothing of the cancellation is left
        return "goes on"

    first = asyncio.create_task(slow())
    await asyncio.sleep(0.06)
    second = asyncio.create_task(read(_receive(b"c", b"d", wait=soon)))
    assert await first == "goes on"
    soon.set()
    assert await second == b"cd"


async def test_a_reader_that_is_cancelled_by_another_is_cancelled(read) -> None:
    """The server ends requests by cancelling them: that is no slow body."""
    task = asyncio.create_task(read(_receive(b"a", b"b", wait=asyncio.Event())))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_body_that_is_too_long_is_refused(read, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the bytes that came, before the rest is waited for."""
    monkeypatch.setattr(bodies, "MAX_HOOK_BYTES", 3)
    with pytest.raises(MalformedHook, match="more than 3 bytes"):
        await read(_receive(b"abcd", b"e", wait=asyncio.Event()))


async def test_a_caller_that_leaves_is_no_body(read) -> None:
    """What came of it is not taken for the whole."""

    async def gone() -> dict[str, object]:
        return {"type": "http.disconnect"}

    with pytest.raises(MalformedHook, match="left"):
        await read(gone)
