"""Attacks on SUBSCRIBE and on what is delivered: wide filters, sets, queues, retained messages (threats SUB, DLV)."""

from __future__ import annotations

import pytest

from authsvc.core.facts import GroundAccess
from tests.e2e.system import OWN, PUBLISH, SUBSCRIBE, System, allow, deny, own


@pytest.mark.parametrize(
    ("granted", "asked", "covered"),
    [
        ("a/#", "a/+", True),
        ("a/#", "a/b/#", True),
        ("a/#", "a", True),
        ("a/#", "a/", True),
        ("a/#", "+/b", False),
        ("a/#", "#", False),
        ("a/+", "a/#", False),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+/c", "a/b/+", False),
    ],
    ids=lambda value: str(value),
)
async def test_containment_not_a_match(system: System, granted: str, asked: str, covered: bool) -> None:
    """Promise 3."""
    await system.do(system.store.definitions.update("t1", "dev", rules=[allow(SUBSCRIBE, f"{{tenant}}/{granted}")]))
    a1 = await system.client("A1")
    assert await a1.subscribe(f"t1/{asked}") == [0 if covered else 0x80]
    await system.do(system.store.definitions.update("t1", "dev", rules=OWN))


async def test_the_union_of_grants_covers_nothing_wider(system: System) -> None:
    """Grants on `a/b` and `a/c` do not make `a/+`."""
    rules = [allow(SUBSCRIBE, "{tenant}/a/b"), allow(SUBSCRIBE, "{tenant}/a/c")]
    await system.do(system.store.definitions.update("t1", "dev", rules=rules))
    a1 = await system.client("A1")
    assert await a1.subscribe("t1/a/+", "t1/a/b", "t1/a/c") == [0x80, 0, 0]
    await system.do(system.store.definitions.update("t1", "dev", rules=OWN))


async def test_five_thousand_filters_stall_nobody(system: System) -> None:
    """One packet of 5,000 filters is answered, a thousand granted, while another client goes on."""
    a1, a2 = await system.client("A1"), await system.client("A2")
    codes = await a1.subscribe(*(f"{own('A1')}/{n}" for n in range(5000)))
    await a2.ping()
    assert codes == [0] * 1000 + [0x80] * 4000


async def test_a_set_level_follows_its_set(system: System) -> None:
    """A ground that no topic spells; joiners are seen at once, leavers and strangers never."""
    rules = [allow(SUBSCRIBE, "{tenant}/device/{member}/state")]
    await system.do(system.store.definitions.create("t1", "reader", rules=rules))
    await system.do(system.store.things.create("t1", "R", definition="reader", ground="g1"))
    await system.device_token("R", "t1", "R")
    reader = await system.client("R")
    assert await reader.subscribe("t1/device/+/state", "t1/device/#", "t1/+/+/state") == [0, 0x80, 0x80]
    spy = await system.client("SPY")
    for thing in ("A1", "B1", "A2", "nobody"):
        await spy.publish(f"t1/device/{thing}/state", thing.encode(), qos=1)
    assert [(await reader.delivery()).payload for _ in range(2)] == [b"A1", b"A2"]
    await system.do(system.store.things.update("t1", "A2", ground="g2"))
    await system.do(system.store.things.update("t1", "B1", ground="g1"))
    for thing in ("A2", "B1"):
        await spy.publish(f"t1/device/{thing}/state", thing.encode(), qos=1)
    assert (await reader.delivery()).payload == b"B1"
    await reader.ping()
    assert reader.received == []
    await system.do(system.store.things.update("t1", "A2", ground="g1"))


async def test_a_deny_narrows_what_a_granted_filter_delivers(system: System) -> None:
    """Live, retained and queued; never through the wider filter, never through a narrower."""
    deny_secret = deny(SUBSCRIBE, "{tenant}/{ground}/+/secret/#")
    await system.do(
        system.store.definitions.update("t1", "dev", rules=[allow(SUBSCRIBE, "{tenant}/{ground}/#"), deny_secret])
    )
    spy = await system.client("SPY")
    await spy.publish(f"{own('A2')}/secret/r", b"retained", qos=1, retain=True)
    a1 = await system.client("A1", clean=False)
    assert await a1.subscribe(("t1/g1/#", 1), ("t1/g1/+/secret/#", 1), ("t1/g1/A2/+/r", 1)) == [1, 0x80, 1]
    await spy.publish(f"{own('A2')}/secret/live", b"live", qos=1)
    await spy.publish("t1/g1/end", qos=1)
    got = [await a1.delivery()]
    assert {p.topic for p in got} == {"t1/g1/end"}
    await system.lost(a1, "A1")
    await spy.publish(f"{own('A2')}/secret/queued", b"queued", qos=1)
    await spy.publish("t1/g1/end", qos=1)
    a1 = await system.client("A1", clean=False)
    assert await a1.deliveries_until("t1/g1/end") == []
    await system.do(system.store.definitions.update("t1", "dev", rules=OWN))


async def test_a_right_that_went_is_gone_for_what_is_queued_and_retained(system: System) -> None:
    """CVE-2018-12546 from the reader's side: no redelivery after the right was taken."""
    a1 = await system.client("A1", clean=False)
    assert await a1.subscribe((f"{own('A1')}/#", 1)) == [1]
    spy = await system.client("SPY")
    await spy.publish(f"{own('A1')}/x", b"unacknowledged", qos=1, retain=True)
    await a1.next_packet()  # the delivery, not acknowledged
    await system.lost(a1, "A1")
    await spy.publish(f"{own('A1')}/x", b"queued", qos=1)
    await system.do(system.store.definitions.update("t1", "dev", rules=[allow(SUBSCRIBE, "{tenant}/end")]))
    a1 = await system.client("A1", clean=False)
    assert await a1.subscribe(("t1/end", 1), (f"{own('A1')}/#", 1)) == [1, 0x80]
    await spy.publish("t1/end", qos=1)
    assert await a1.deliveries_until("t1/end") == []
    await system.do(system.store.definitions.update("t1", "dev", rules=OWN))


async def test_who_never_subscribed_gets_nothing(system: System) -> None:
    """Retained data and a wide subscription of somebody else; new connections are sent nothing."""
    spy = await system.spy()
    await spy.publish(f"{own('A1')}/r", b"x", qos=1, retain=True)
    for clean in (True, False):
        a1 = await system.client("A1", clean=clean)
        await spy.publish(f"{own('A1')}/live", b"x", qos=1)
        await system.seen_by(spy)
        await a1.ping()
        assert a1.received == []


async def test_one_readers_failure_is_not_anothers(system: System) -> None:
    """A subscriber that is cut in the middle costs the others nothing."""
    await system.ground_token("GR", "t1", "g1", GroundAccess.READ)
    readers = [await system.client("GR", f"r{n}") for n in range(6)]
    for reader in readers:
        assert await reader.subscribe(("t1/g1/#", 1)) == [1]
    a1 = await system.client("A1")
    for n in range(100):
        if n == 50:
            readers[0].cut()
        await a1.publish(f"{own('A1')}/n", b"%d" % n, qos=1)
    for reader in readers[1:]:
        assert [int((await reader.delivery()).payload) for _ in range(100)] == list(range(100))


async def test_nothing_tells_of_foreign_clients(system: System) -> None:
    """`$SYS` and whatever brokers spell presence with."""
    a1 = await system.client("A1")
    filters = ["$SYS/#", "$SYS/broker/clients/+", "$events/#", "$share/g/$SYS/#", "$CONTROL/#", "+/connected/#"]
    assert await a1.subscribe(*filters) == [0x80] * len(filters)


async def test_publish_rights_are_no_subscribe_rights(system: System) -> None:
    """The two actions are apart: who may write need not read."""
    await system.do(system.store.definitions.update("t1", "dev", rules=[allow(PUBLISH, "{tenant}/{ground}/{thing}/#")]))
    a1 = await system.client("A1")
    assert await a1.subscribe(f"{own('A1')}/x") == [0x80]
    await system.do(system.store.definitions.update("t1", "dev", rules=OWN))
