"""Attacks on what was taken away: revoked tokens, blocked and moved things, suspended tenants (promises 5 and 9)."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest

from authsvc.core.credentials import WillMessage
from authsvc.core.facts import GroundAccess, TenantState, ThingState
from authsvc.core.reasons import Reason
from tests.e2e.system import OWN, PUBLISH, SUBSCRIBE, System, allow, own


async def _revoke(system: System) -> None:
    await system.do(system.store.device_tokens.delete("t1", "A1", system.token_id["A1"]))


async def _block(system: System) -> None:
    await system.do(system.store.things.update("t1", "A1", state=ThingState.BLOCKED))


async def _delete(system: System) -> None:
    await system.do(system.store.things.delete("t1", "A1"))


async def _suspend(system: System) -> None:
    await system.do(system.store.tenants.update("t1", state=TenantState.SUSPENDED))


async def _resume(system: System) -> None:
    if (await system.store.tenants.get("t1")).state is TenantState.SUSPENDED:
        await system.do(system.store.tenants.update("t1", state=TenantState.ACTIVE))


ENDS = pytest.mark.parametrize(
    ("end", "code"),
    [(_revoke, 4), (_block, 5), (_delete, 4), (_suspend, 5)],
    ids=["revoke", "block", "delete", "suspend"],
)


@ENDS
async def test_it_ends_the_connection_the_will_the_session_and_its_queue(system: System, end, code: int) -> None:
    """The table of what ends what, line by line: nothing is sent, nothing is kept, nothing comes back."""
    spy = await system.spy()
    will = WillMessage(topic=f"{own('A1')}/will", payload=b"never", qos=1, retain=True)
    a1 = await system.client("A1", clean=False, will=will)
    assert await a1.subscribe((f"{own('A1')}/#", 1)) == [1]
    away = await system.client("A1", "away", clean=False)
    assert await away.subscribe((f"{own('A1')}/#", 1)) == [1]
    away.cut()
    await system.until(lambda: len(system.service.sessions.find("t1", thing="A1")) == 1)
    await spy.publish(f"{own('A1')}/queued", b"q", qos=1)
    await end(system)
    assert await a1.closed(2)
    assert await system.code("A1", system.secret["A1"], username="A1", clean=False) == code
    await system.until(lambda: not system.gate._leaving)
    assert [t for t, _ in await system.seen_by(spy)] == [f"{own('A1')}/queued"]
    await _resume(system)
    if end is _suspend:
        again = await system.client("A1", "away", clean=False)
        assert not again.session_present
        await again.ping()
        assert again.received == []


@ENDS
async def test_what_is_sent_in_the_same_moment_reaches_nobody_later(system: System, end, code: int) -> None:
    """A stream of messages as publisher and as subscriber; after the answer of the API nothing passes."""
    del code
    spy = await system.spy()
    a1 = await system.client("A1")
    await a1.subscribe(f"{own('A1')}/#")

    async def stream() -> None:
        n = 0
        while not a1.writer.is_closing():
            await a1.send(b"\x30\x0c\x00\x0at1/g1/A1/s" if n % 2 else b"\x30\x0b\x00\x09t1/g1/A1/")
            n += 1
            await asyncio.sleep(0.002)

    streaming = asyncio.create_task(stream())
    await asyncio.sleep(0.1)
    await end(system)
    await system.seen_by(spy)  # what was under way when the API answered
    streaming.cancel()
    assert await a1.closed(2)
    assert await system.seen_by(spy) == []
    await _resume(system)


async def test_what_is_retained_below_a_blocked_place_is_cleared(system: System) -> None:
    """Block and delete clear it, revoking a token does not; beside the place nothing is touched."""
    a1, a2 = await system.client("A1"), await system.client("A2")
    await a1.publish(f"{own('A1')}/r", b"r", qos=1, retain=True)
    await a2.publish(f"{own('A2')}/r", b"r", qos=1, retain=True)
    await system.do(system.store.device_tokens.delete("t1", "A1", system.token_id["A1"]))
    spy = await system.spy()
    assert {(await spy.delivery()).topic, (await spy.delivery()).topic} == {f"{own('A1')}/r", f"{own('A2')}/r"}
    await _block(system)
    async with asyncio.timeout(5):
        while await system.store.clearings():
            await asyncio.sleep(0.005)
    late = await system.client("SPY", "late")
    await late.subscribe(("t1/#", 1))
    await late.publish("t1/end", qos=1)
    assert [p.topic for p in await late.deliveries_until("t1/end") if p.payload] == [f"{own('A2')}/r"]


async def test_one_of_two_tokens_ends_its_own_sessions_only(system: System) -> None:
    """The client by the other token stays, works, and keeps its session."""
    await system.device_token("second", "t1", "A1")
    first = await system.client("A1", "c1", clean=False)
    second = await system.client("second", "c2", username="A1", clean=False)
    await second.subscribe((f"{own('A1')}/#", 1))
    await _revoke(system)
    assert await first.closed(2)
    await second.ping()
    second.cut()
    second = await system.client("second", "c2", username="A1", clean=False)
    assert second.session_present


async def test_the_same_principal_by_a_new_token_keeps_its_session(system: System) -> None:
    """A rotated token is the same principal; and the session then rests on the new one."""
    await system.device_token("new", "t1", "A1")
    old = await system.client("A1", "c", clean=False)
    await old.subscribe((f"{own('A1')}/#", 1))
    new = await system.client("new", "c", username="A1", clean=False)
    assert new.session_present
    assert await old.closed(2)
    await _revoke(system)
    await new.ping()
    await new.publish(f"{own('A1')}/x", b"1", qos=1)
    assert (await new.delivery()).payload == b"1"


async def test_an_expired_token_ends_its_session_and_sends_the_will(system: System) -> None:
    """On plain expiry the will is sent if the rules allow it."""
    spy = await system.spy()
    expires_at_us = time.time_ns() // 1000 + 600_000
    await system.device_token("short", "t1", "A1", expires_at_us=expires_at_us)
    will = WillMessage(topic=f"{own('A1')}/will", payload=b"w", qos=1, retain=False)
    a1 = await system.client("short", "c", username="A1", will=will)
    assert await a1.closed(3)
    assert time.time_ns() // 1000 >= expires_at_us
    assert (await spy.delivery()).payload == b"w"
    assert await system.code("c", system.secret["short"], username="A1") == 4


async def test_a_moved_thing_follows_its_place_at_once(system: System) -> None:
    """The connection goes on with the new grant: the old place is closed to it, the new one open."""
    spy = await system.spy()
    a1 = await system.client("A1")
    await a1.subscribe(f"{own('A1')}/#")
    await system.do(system.store.things.update("t1", "A1", ground="g2"))
    await a1.publish(f"{own('A1')}/x", b"old", qos=1)
    await spy.publish(f"{own('A1')}/command", b"old", qos=1)
    await a1.publish("t1/g2/A1/x", b"new", qos=1)
    assert await a1.subscribe("t1/g2/A1/#", f"{own('A1')}/#") == [0, 0x80]
    await spy.publish("t1/g2/A1/command", b"new", qos=1)
    assert (await a1.delivery()).payload == b"new"
    assert [payload for _, payload in await system.seen_by(spy)] == [b"old", b"new", b"new"]


async def test_narrowed_rules_hold_for_live_sessions(system: System) -> None:
    """The next packet is judged by the new rules, subscriptions made under the old ones included."""
    spy = await system.client("SPY")
    a1 = await system.client("A1")
    await a1.subscribe(f"{own('A1')}/#", f"{own('A1')}/keep/#")
    await system.do(
        system.store.definitions.update("t1", "dev", rules=[allow(SUBSCRIBE, "{tenant}/{ground}/{thing}/keep/#")])
    )
    await spy.publish(f"{own('A1')}/x", b"no", qos=1)
    await spy.publish(f"{own('A1')}/keep/x", b"yes", qos=1)
    assert (await a1.delivery()).payload == b"yes"
    assert await a1.subscribe(f"{own('A1')}/#") == [0x80]
    await system.do(system.store.definitions.update("t1", "dev", rules=OWN))


async def test_a_will_is_judged_by_the_rules_of_the_moment_it_fires(system: System) -> None:
    """Promise 5: a right that went takes the will with it; a will without the right refuses the CONNECT."""
    spy = await system.spy()
    will = WillMessage(topic=f"{own('A1')}/will", payload=b"no", qos=1, retain=False)
    a1 = await system.client("A1", will=will)
    await system.do(
        system.store.definitions.update("t1", "dev", rules=[OWN[1], allow(PUBLISH, "{tenant}/{ground}/{thing}/x")])
    )
    a1.cut()
    await system.until(lambda: not system.service.sessions.find("t1", thing="A1"))
    assert await system.code("A1", system.secret["A1"], username="A1", will=will) == 5
    assert Reason.WILL_DENIED in system.reasons()
    assert await system.seen_by(spy) == []
    await system.do(system.store.definitions.update("t1", "dev", rules=OWN))


@pytest.mark.parametrize("attempt", range(3))
async def test_a_revocation_during_connect_leaves_no_session(system: System, attempt: int) -> None:
    """Eight CONNECTs race with the revocation of their token: whoever got in is out when it has settled."""
    del attempt
    clients = [await system.open() for _ in range(8)]

    async def connect(n: int) -> int | None:
        await asyncio.sleep(n * 0.0007)
        return await clients[n].connect(f"c{n}", system.secret["A1"], username="A1", clean=bool(n % 2))

    codes, _ = await asyncio.gather(asyncio.gather(*(connect(n) for n in range(8))), _revoke(system))
    assert set(codes) <= {0, 4, None}
    assert all(await asyncio.gather(*(client.closed(2) for client in clients)))
    assert system.service.sessions.find("t1", thing="A1") == []


async def test_take_overs_and_revocations_race_without_a_survivor(system: System) -> None:
    """Eight clients of one client id in a storm while the token goes: nobody is left, and nothing hangs."""

    async def hammer(n: int) -> None:
        for _ in range(6):
            client = await system.open()
            code = await client.connect("same", system.secret["A1"], username="A1", clean=bool(n % 2))
            if code not in (0, None):
                return

    async with asyncio.timeout(15):
        storm = [asyncio.create_task(hammer(n)) for n in range(8)]
        await asyncio.sleep(0.05)
        await _revoke(system)
        await asyncio.gather(*storm)
        await system.until(lambda: system.service.sessions.find("t1", thing="A1") == [])
    assert system.gate._leaving == {}


async def test_a_hundred_sessions_of_one_ground_token_end_together(system: System) -> None:
    """All of them within a second, others untouched; each within 100 ms of the answer at the median."""
    await system.ground_token("GR", "t1", "g1", GroundAccess.READ)
    readers = [await system.client("GR", f"r{n}") for n in range(100)]
    a1 = await system.client("A1")

    async def end_of(client) -> float:
        assert await client.closed(5)
        return time.perf_counter()

    waiting = [asyncio.create_task(end_of(reader)) for reader in readers]
    await asyncio.sleep(0)
    await system.do(system.store.ground_tokens.delete("t1", "g1", system.token_id["GR"]))
    answered = time.perf_counter()
    late = [max(0.0, at - answered) for at in await asyncio.gather(*waiting)]
    assert max(late) < 1.0
    assert statistics.median(late) < 0.1
    await a1.ping()
