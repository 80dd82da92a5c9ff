"""A link that opens with the first packet, step by step, with a connection that the test gives or withholds."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.tcp.lazy import KEPT_BYTES, LazyLink
from tests.broker.link_owner import Owner, turns

CONNACK = wire.Connack(session_present=False, code=0)


class Opened:
    """The link that opens: what it is told, in order."""

    def __init__(self) -> None:
        self.connack = CONNACK
        self.told: list[object] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def subscribed(self, filters) -> None:
        self.told.append(filters)

    def __getattr__(self, name: str):
        return lambda: self.told.append(name)


class Rig:
    def __init__(self, *, within_s: float = 5.0) -> None:
        self.owner, self.opened, self.decided = Owner(), Opened(), []
        self.answer: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self.link = LazyLink(self.owner, CONNACK, self._connect, within_s=within_s, decided=self.decided.append)

    async def _connect(self) -> Opened:
        return await self.answer

    async def open(self) -> None:
        self.answer.set_result(self.opened)
        await turns()


async def test_it_is_decided_once_with_the_first_packet_or_with_the_end():
    """From then on the loss of the broker is its own link's to tell."""
    rig = Rig()
    rig.link.write(b"1")
    assert (rig.decided, rig.link.used) == ([rig.link], True)
    rig.link.write(b"2")
    await rig.open()
    assert rig.opened.told == [b"12"]
    assert rig.decided == [rig.link]
    unused = Rig()
    unused.link.close()
    assert (unused.decided, unused.link.used) == ([unused.link], False)


async def test_a_client_is_held_once_and_let_go_once():
    """However much comes on top."""
    rig = Rig()
    for _ in range(3):
        rig.link.write(bytes(KEPT_BYTES))
    assert rig.owner.client_paused == [True]
    await rig.open()
    assert rig.owner.client_paused == [True, False]


async def test_what_was_said_of_reading_before_it_opened_holds_afterwards():
    """A client that is slow already gets nothing; one that is not any more gets all."""
    rig = Rig()
    rig.link.pause()
    rig.link.write(b"1")
    await rig.open()
    assert rig.opened.told == ["pause", b"1"]
    rig.link.resume()
    rig.link.pause()
    rig.link.subscribed([("x", 1)])
    assert rig.opened.told[2:] == ["resume", "pause", [("x", 1)]]
    ready = Rig()
    ready.link.pause()
    ready.link.resume()
    ready.link.write(b"1")
    await ready.open()
    assert ready.opened.told == [b"1"]


async def test_after_the_close_nothing_more_is_sent():
    """What was written before goes out first."""
    rig = Rig()
    rig.link.write(b"1")
    rig.link.close()
    rig.link.write(b"2")
    await rig.open()
    assert rig.opened.told == [b"1", "close"]


@pytest.mark.parametrize("error", [UpstreamUnavailable("full"), RuntimeError("broken for the test")])
async def test_one_that_cannot_open_ends_and_keeps_nothing_of_what_is_still_written(error):
    """The owner is told, once, whatever it was."""
    rig = Rig()
    rig.link.write(b"1")
    rig.answer.set_exception(error)
    await asyncio.gather(rig.link._opening, return_exceptions=True)
    assert rig.owner.closed == [error if isinstance(error, UpstreamUnavailable) else None]
    for _ in range(3):
        rig.link.write(bytes(KEPT_BYTES))
    assert rig.link._kept == []
    rig.link.abort()
    assert len(rig.owner.closed) == 1


async def test_one_that_takes_too_long_ends():
    """Its turn and its opening together have a time."""
    rig = Rig(within_s=0.05)
    rig.link.write(b"1")
    assert isinstance(await rig.owner.ended(within_s=2), UpstreamUnavailable)
    assert rig.answer.cancelled()


async def test_an_abort_ends_the_opening_too():
    """Nothing goes on for a session that is over."""
    rig = Rig()
    rig.link.write(b"1")
    await turns(2)
    rig.link.abort()
    await rig.link.wait_closed()
    assert rig.answer.cancelled()
    assert (rig.owner.closed, rig.opened.told) == ([None], [])


@pytest.mark.parametrize("term", ["receive_maximum", "maximum_qos", "retain_available", "maximum_packet_size"])
async def test_another_broker_by_now_gets_nothing_of_what_was_written(term):
    """Neither what was kept nor what comes; the end is the link's to tell."""
    rig = Rig()
    rig.opened.connack = replace(CONNACK, **{term: 0})
    rig.link.write(b"1")
    await rig.open()
    rig.link.write(b"2")
    assert rig.opened.told == ["abort"]
    assert b"2" not in rig.link._kept
