"""Attacks across the wall between tenants (promise 10), and on sessions and wills (promises 5 and 6)."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.credentials import WillMessage
from authsvc.core.errors import InvalidInput
from authsvc.core.facts import GroundAccess
from authsvc.core.reasons import Reason
from tests.e2e.system import PUBLISH, SUBSCRIBE, System, allow, own


async def test_neither_topics_nor_wildcards_cross_the_wall(system: System) -> None:
    """Publish, subscribe, shared groups of one name, wills; both ways."""
    spy = await system.spy()
    a1, z1 = await system.client("A1"), await system.client("Z1")
    for client, foreign in ((a1, own("Z1")), (z1, own("A1"))):
        tenant = foreign.partition("/")[0]
        filters = [
            "#",
            "+/#",
            f"{tenant}/#",
            f"{foreign}/#",
            f"+/{foreign.partition('/')[2]}/#",
            f"$share/g/{foreign}/#",
        ]
        assert await client.subscribe(*filters) == [0x80] * len(filters)
        await client.publish(f"{foreign}/x", b"no", qos=1)
    will = WillMessage(topic=f"{own('Z1')}/will", payload=b"no", qos=1, retain=True)
    assert await system.code("A1", system.secret["A1"], username="A1", will=will) == 5
    assert Reason.WILL_DENIED in system.reasons("t1")
    assert await system.seen_by(spy) == []


@pytest.mark.parametrize("topic", ["#", "+/#", "t2/x", "{ground}/x", "$SYS/#", "+/x", "t1x/#"])
async def test_a_rule_outside_the_tenant_is_not_stored(system: System, topic: str) -> None:
    """The wall: 422 `rule_outside_tenant`, for every repository that takes rules."""
    for create in (system.store.definitions.create, system.store.roles.create):
        with pytest.raises(InvalidInput) as caught:
            await create("t1", "wide", rules=[allow(SUBSCRIBE, topic)])
        assert caught.value.code in {"rule_outside_tenant", "topic_invalid"}


async def test_equal_names_in_two_tenants_are_two(system: System) -> None:
    """A thing, a ground and a client id of one name in both tenants share nothing: session, topics, reasons."""
    await system.do(system.store.grounds.create("t2", "g1"))
    await system.do(system.store.things.create("t2", "A1", definition="dev", ground="g1"))
    await system.device_token("A1-of-t2", "t2", "A1")
    first = await system.client("A1", "A1", clean=False)
    second = await system.client("A1-of-t2", "A1", username="A1", clean=False)
    assert not second.session_present
    await first.subscribe(("t1/g1/A1/#", 1))
    await second.subscribe(("t2/g1/A1/#", 1))
    await second.publish("t2/g1/A1/x", b"2", qos=1)
    await first.publish("t1/g1/A1/x", b"1", qos=1)
    assert (await first.delivery()).payload == b"1"
    assert (await second.delivery()).payload == b"2"


async def test_a_token_admits_no_thing_of_another_tenant(system: System) -> None:
    """An app token of t1 knows nothing of t2's things; out of its ground it is `thing_out_of_scope`."""
    await system.app_token("APP", "t1", ground="g1", definition="", auto_register=False)
    assert await system.code("Z1", system.secret["APP"], username="Z1") in (4, 5)
    assert await system.code("B1", system.secret["APP"], username="B1") == 5
    assert {Reason.THING_UNKNOWN, Reason.THING_OUT_OF_SCOPE} <= set(system.reasons("t1"))
    assert system.reasons("t2") == []


async def test_a_ground_token_sees_its_ground_only(system: System) -> None:
    """Read access is `{tenant}/{ground}/#`, no more; and it registers nothing."""
    await system.ground_token("GR", "t1", "g1", GroundAccess.READ)
    reader = await system.client("GR")
    assert await reader.subscribe("t1/g1/#", "t1/#", "t1/+/A1/#", "t1/g2/#") == [0, 0x80, 0x80, 0x80]
    for thing in ("A1", "B1", "Z1"):
        client = await system.client(thing)
        await client.publish(f"{own(thing)}/x", thing.encode(), qos=1)
    assert (await reader.delivery()).payload == b"A1"
    await reader.ping()
    assert reader.received == []


async def test_a_will_is_refused_before_anything_is_done(system: System) -> None:
    """In another's place, with a flag or a QoS that no rule allows; no thing is registered for it."""
    place = "{tenant}/{ground}/{thing}"
    rules = [allow(PUBLISH, f"{place}/#", qos_max=1, retain=False)]
    await system.do(system.store.definitions.create("t1", "narrow", rules=rules))
    await system.app_token("APP", "t1", ground="g1", definition="narrow")
    position = await system.store.last_position()
    for topic, qos, retain in (
        (f"{own('A2')}/x", 0, False),
        ("t1/g1/N1/x", 2, False),
        ("t1/g1/N1/x", 0, True),
        ("$SYS/x", 0, False),
    ):
        will = WillMessage(topic=topic, payload=b"", qos=qos, retain=retain)
        assert await system.code("N1", system.secret["APP"], username="N1", will=will) == 5
    assert await system.store.last_position() == position
    will = WillMessage(topic="t1/g1/N1/x", payload=b"", qos=1, retain=False)
    assert await system.code("N1", system.secret["APP"], username="N1", will=will) == 0


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])
async def test_take_overs_of_one_principal_storm_without_loss(system: System, clean: bool) -> None:
    """Eight at once, four rounds: all answered 0 and one left; others with the same client id are not touched."""
    bystander = await system.client("A2", "same", clean=False)
    for _ in range(4):
        clients = [await system.open() for _ in range(8)]
        codes = await asyncio.gather(
            *(c.connect("same", system.secret["A1"], username="A1", clean=clean) for c in clients)
        )
        assert set(codes) == {0}
        assert len(system.service.sessions.find("t1", thing="A1")) == 1
    await bystander.ping()


async def test_every_message_to_a_persistent_session_survives_its_take_overs(system: System) -> None:
    """WRS: QoS 1 messages sent while connections replace each other arrive, each at least once."""
    a1 = await system.client("A1", clean=False)
    await a1.subscribe((f"{own('A1')}/#", 1))
    spy = await system.client("SPY")
    got: set[int] = set()
    for n in range(10):
        a1.cut()
        await system.until(lambda: not system.service.sessions.find("t1", thing="A1") and not system.gate._leaving)
        await spy.publish(f"{own('A1')}/n", b"%d" % n, qos=1)
        a1 = await system.client("A1", clean=False)
        assert a1.session_present
        got.add(int((await a1.delivery()).payload))
    assert got == set(range(10))
