"""What happens while an admission waits for the broker: the client goes, the link ends, the footing changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from authsvc.core.facts import Kind, Name
from authsvc.core.reasons import Reason
from authsvc.store.clearings import Clearing, ClearingKind
from broker import wire
from broker.limits import Limits
from broker.upstream import Link, Upstream
from tests.broker.gate_rig import Rig, rig_on
from tests.broker.upstreams import embedded, started

UNAVAILABLE = 3


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with embedded() as running:
        yield running


@pytest.fixture
async def rig(upstream: Upstream) -> AsyncIterator[Rig]:
    async with rig_on(upstream) as running:
        yield running


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_client_that_has_gone_gets_no_session_although_the_broker_was_reached(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancellation may be lost: `asyncio.wait_for` of Python 3.11 prefers a result that comes at that moment."""
    connect = upstream.connect
    links: list[Link] = []

    async def deaf(owner, upstream_id: str, *, clean: bool, **hello) -> Link:
        links.append(await connect(owner, upstream_id, clean=clean, **hello))
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return links[0]

    monkeypatch.setattr(upstream, "connect", deaf)
    client = await rig.open()
    connecting = asyncio.create_task(client.connect("a", "a", clean=False))
    await until(lambda: links)
    connecting.cancel()
    client.cut()
    await until(lambda: not rig.gate.admission.tasks)
    assert rig.service.sessions.find("t", thing="a") == []
    async with asyncio.timeout(5):
        await links[0].wait_closed()
    monkeypatch.setattr(upstream, "connect", connect)
    await (await rig.client("a", clean=False)).ping()


def hang_up(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every link of the upstream end before its CONNECT is through."""
    connect = upstream.connect

    async def hangs_up(owner, upstream_id: str, *, clean: bool, **hello) -> Link:
        link = await connect(owner, upstream_id, clean=clean, **hello)
        link.abort()
        await link.wait_closed()
        return link

    monkeypatch.setattr(upstream, "connect", hangs_up)


async def test_a_link_that_ended_before_the_connack_is_no_session(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker accepted and hung up: the client hears that the broker is unavailable, not yes."""
    with monkeypatch.context() as patch:
        hang_up(upstream, patch)
        client = await rig.open()
        assert await client.connect("a", "a", clean=False) == UNAVAILABLE
    assert [refusal.reason for refusal in rig.service.refused] == [Reason.BROKER_UNAVAILABLE]
    assert rig.service.sessions.find("t", thing="a") == []
    await (await rig.client("a", clean=False)).ping()


async def test_an_upstream_session_that_was_not_taken_can_be_cleared(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody uses it after a CONNECT that failed: what is to be wiped waits for no end."""
    with monkeypatch.context() as patch:
        hang_up(upstream, patch)
        assert await (await rig.open()).connect("a", "a", clean=False) == UNAVAILABLE
    (upstream_id,) = rig.service.rows.values()
    rig.service.store.add(Clearing(id=1, kind=ClearingKind.SESSION, target=upstream_id, since_us=0))
    await until(lambda: not rig.service.store.waiting)


async def test_the_time_of_a_session_runs_when_it_was_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MQTT 5.0: the row is there, the client is not; it ends as if the client had left."""
    async with started("mosquitto", tmp_path) as mosquitto, rig_on(mosquitto, level=wire.MQTT_5_0) as rig:
        hang_up(mosquitto, monkeypatch)
        client = await rig.open()
        assert await client.connect("a", "a", clean=False, session_expiry_s=60) == wire.reason_codes.SERVER_UNAVAILABLE
        assert rig.service.left == {upstream_id: 60 for upstream_id in rig.service.rows.values()}
        assert rig.service.left


async def test_a_session_that_its_connection_cannot_take_is_none(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in that step: no session is listed that nobody has, and the next CONNECT gets it."""

    def broken(*_: object, **_and: object) -> None:
        raise RuntimeError("broken for the test")

    with monkeypatch.context() as patch:
        patch.setattr("broker.connection.ClientConnection.opened", broken)
        assert await (await rig.open()).connect("a", "a", clean=False) == UNAVAILABLE
    assert rig.service.sessions.find("t", thing="a") == []
    await (await rig.client("a", clean=False)).ping()


async def test_an_admission_that_begins_anew_waits_for_the_store_again(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal for lack of time names what was waited for last, not what an earlier attempt had waited for."""
    async with rig_on(upstream, limits=Limits(admission_s=0.4)) as rig:
        connect = upstream.connect

        async def overtaken(owner, upstream_id: str, *, clean: bool, **hello) -> Link:
            link = await connect(owner, upstream_id, clean=clean, **hello)
            rig.service.feed.touch(Name(Kind.THING, "t", "a"))
            rig.service.may_admit.clear()
            return link

        monkeypatch.setattr(upstream, "connect", overtaken)
        client = await rig.open()
        assert await client.connect("a", "a", clean=False) == UNAVAILABLE
        assert [refusal.reason for refusal in rig.service.refused] == [Reason.STORE_UNAVAILABLE]
        assert rig.service.refused[0].detail.endswith("it waits for the store")
        assert rig.service.admissions == 2


async def test_the_end_of_a_link_that_was_not_taken_says_nothing_of_the_next(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the admission rests on changed while the broker was reached: that link is let go, the next is good."""
    connect = upstream.connect
    links: list[Link] = []

    async def once_overtaken(owner, upstream_id: str, *, clean: bool, **hello) -> Link:
        links.append(await connect(owner, upstream_id, clean=clean, **hello))
        if len(links) == 1:
            rig.service.feed.touch(Name(Kind.THING, "t", "a"))
        return links[-1]

    monkeypatch.setattr(upstream, "connect", once_overtaken)
    client = await rig.client("a", clean=False)
    assert len(links) == rig.service.admissions == 2
    async with asyncio.timeout(5):
        await links[0].wait_closed()
    await client.ping()
    assert rig.service.refused == []


async def test_what_changed_in_the_queue_for_the_lock_leaves_no_upstream_session(rig: Rig) -> None:
    """Two of one client id: when the second is let in its token is no longer good, and nothing was written for it."""
    queued = rig.service.sessions.lock("thing/t/a", "a", broker=rig.gate.name)
    client = await rig.open()
    async with queued:
        connecting = asyncio.create_task(client.connect("a", "a", clean=False))
        await until(lambda: rig.service.admissions)
        del rig.service.rules["a"]
        rig.service.feed.touch(Name(Kind.THING, "t", "a"))
    assert await connecting == 4
    assert rig.service.rows == {}
