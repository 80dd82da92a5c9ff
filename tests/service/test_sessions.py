"""Locks, expiry and the registry: order, no leaks, and clocks that jump."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authsvc.core.reasons import Reason
from authsvc.expiry import Expiry
from authsvc.locks import KeyedLocks
from authsvc.sessions import Will
from tests.service.conftest import T, World


async def test_the_lock_is_first_come_first_served():
    """Waiters get the lock in the order in which they asked, and nothing is left at the end."""
    locks: KeyedLocks[str] = KeyedLocks()
    order: list[int] = []

    async def take(number: int) -> None:
        async with locks.hold("k"):
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(take(n) for n in range(20)))
    assert order == list(range(20))
    assert len(locks) == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_cancelled_waiters_give_up_their_place(plan: list[tuple[int, int, int]]):
    """Whoever is cancelled, whenever: never two holders of one key, nobody waits for ever, nothing is left."""

    async def scenario() -> None:
        locks: KeyedLocks[int] = KeyedLocks()
        holders: dict[int, int] = {}

        async def take(key: int, turns: int) -> None:
            async with locks.hold(key):
                assert holders.get(key, 0) == 0
                holders[key] = 1
                try:
                    for _ in range(turns):
                        await asyncio.sleep(0)
                finally:
                    holders[key] = 0

        async def cancelled_after(task: asyncio.Task[None], turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns % 2:
                task.cancel()

        tasks = [asyncio.create_task(take(key, turns)) for key, turns, _ in plan]
        cancels = [cancelled_after(task, turns) for task, (_, _, turns) in zip(tasks, plan, strict=True)]
        await asyncio.gather(*cancels)
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [error for error in outcomes if isinstance(error, AssertionError)]
        assert len(locks) == 0

    asyncio.run(scenario())


async def test_a_waiter_that_is_cancelled_in_the_turn_of_the_release_is_cancelled_and_no_more():
    """The one who lets go passes over it before it wakes: it still ends by its cancellation, and the lock is free."""
    locks: KeyedLocks[str] = KeyedLocks()

    async def wait() -> None:
        async with locks.hold("k"):
            raise AssertionError("it was cancelled")

    async with locks.hold("k"):
        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert len(locks) == 0


class Clocks:
    """A wall clock and a monotonic one, moved by hand."""

    def __init__(self) -> None:
        self.wall_us = 1_000_000_000
        self.mono_s = 50.0

    def now_us(self) -> int:
        return self.wall_us

    def monotonic(self) -> float:
        return self.mono_s

    def pass_(self, seconds: float) -> None:
        self.mono_s += seconds
        self.wall_us += int(seconds * 1_000_000)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def gone() -> list[str]:
    return []


@pytest.fixture
def expiry(clocks: Clocks, gone: list[str]) -> Expiry[str]:
    return Expiry(now_us=clocks.now_us, monotonic=clocks.monotonic, expired=gone.append)


def test_expiry_in_order_and_no_earlier(expiry: Expiry[str], clocks: Clocks, gone: list[str]):
    """Items end when their time has come, in order; what was cancelled or put off does not."""
    now = clocks.now_us()
    for name, seconds in (("b", 20), ("a", 10), ("cancelled", 5), ("later", 5)):
        expiry.schedule(name, now + seconds * 1_000_000)
    expiry.cancel("cancelled")
    expiry.schedule("later", now + 60_000_000)
    clocks.pass_(9.9)
    assert expiry.due() == 0
    clocks.pass_(10.2)
    assert expiry.due() == 2
    assert gone == ["a", "b"]
    assert len(expiry) == 1


def test_a_clock_set_forward_ends_at_once(expiry: Expiry[str], clocks: Clocks, gone: list[str]):
    """The wall clock says that the time has come: it has."""
    expiry.schedule("a", clocks.now_us() + 3_600_000_000)
    clocks.wall_us += 7_200_000_000
    assert expiry.due() == 1
    assert gone == ["a"]


def test_a_clock_set_back_prolongs_nothing(expiry: Expiry[str], clocks: Clocks, gone: list[str]):
    """An hour was left, an hour has passed: it ends, whatever the wall clock shows now."""
    expiry.schedule("a", clocks.now_us() + 3_600_000_000)
    clocks.wall_us -= 7_200_000_000
    clocks.pass_(1)
    assert expiry.due() == 0
    clocks.pass_(3_600)
    assert expiry.due() == 1


def test_asking_again_for_the_same_time_prolongs_nothing(expiry: Expiry[str], clocks: Clocks, gone: list[str]):
    """Every new grant of a session states its expiry again: that must not begin to count anew on a clock set back."""
    at_us = clocks.now_us() + 3_600_000_000
    expiry.schedule("a", at_us)
    clocks.wall_us -= 7_200_000_000
    expiry.due()
    for _ in range(5_000):
        expiry.schedule("a", at_us)
    assert len(expiry._heap) == 1
    clocks.pass_(3_601)
    assert expiry.due() == 1
    assert gone == ["a"]


def test_expiry_holds_no_more_than_it_must(expiry: Expiry[str], clocks: Clocks):
    """Rescheduling and cancelling for ever leaves no heap of stale entries."""
    for turn in range(20_000):
        expiry.schedule(f"s{turn % 10}", clocks.now_us() + 10_000_000 + turn)
        expiry.cancel(f"s{(turn + 5) % 10}")
    assert len(expiry._heap) < 3_000


async def test_taking_over_ends_the_former_holder(world: World):
    """The same principal and client id: one session, the newest; another principal's stays."""
    _, text = await world.ground_token("default")
    _, stranger_text = await world.ground_token("default")
    _, stranger = await world.connect(stranger_text, client_id="c1")
    _, first = await world.connect(text, client_id="c1")
    second_session, second = await world.connect(text, client_id="c1")
    assert first.ends == [(Reason.TAKEN_OVER, Will.SEND)]
    assert second.ends == stranger.ends == []
    assert world.service.sessions.holder(second_session.principal, "c1", broker="gate") is second_session


async def test_a_kick_stays_inside_its_tenant(world: World):
    """An operator ends sessions of his tenant only; the will is sent."""
    _, text = await world.app_token()
    session, wire = await world.connect(text, "gw-1")
    assert not world.service.sessions.kick(session.id, tenant="other")
    assert world.service.sessions.kick(session.id, tenant=T)
    assert wire.ends == [(Reason.KICKED, Will.SEND)]


async def test_a_closed_session_leaves_no_trace(world: World):
    """After the connection is gone the registry holds no index entry, holder, timer or lock of it."""
    _, text = await world.app_token(expires_at_us=world.clock.now_us() + 3_600_000_000)
    session, _ = await world.connect(text, "gw-1")
    sessions = world.service.sessions
    assert sessions.find(T) == [session]
    sessions.closed(session, Reason.PROTOCOL_ERROR)
    sessions.closed(session, Reason.PROTOCOL_ERROR)
    assert (len(sessions), sessions._by_name, sessions._holders, len(sessions._locks)) == (0, {}, {}, 0)
    assert len(sessions.expiry) == 0
    assert sessions.ended[Reason.PROTOCOL_ERROR] == 1


async def test_revocation_is_quick_among_a_thousand_sessions(world: World):
    """From the request to revoke to the last end told: p99 under 100 ms, and only the sessions concerned."""
    pairs = [await world.ground_token("default") for _ in range(50)]
    wires = {}
    for token, text in pairs:
        wires[token.id] = [(await world.connect(text, client_id=f"c{n}"))[1] for n in range(20)]
    assert len(world.service.sessions) == 1_000
    took = []
    for token, _ in pairs:
        begin = time.perf_counter()
        written = await world.store.ground_tokens.delete(T, "default", token.id)
        await world.service.feed.settle(written.position)
        took.append(max(wire.ended_at for wire in wires[token.id]) - begin)
    assert max(took) < 0.1
    assert len(world.service.sessions) == 0
