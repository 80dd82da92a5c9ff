"""Attacks on PUBLISH: other people's topics, odd spellings of them, and the order of rules (threats PUB)."""

from __future__ import annotations

import itertools

import pytest

from authsvc.core.facts import GroundAccess
from broker import wire
from tests.e2e.system import OWN, PUBLISH, SUBSCRIBE, System, allow, deny, own


async def test_nobody_publishes_outside_his_place(system: System) -> None:
    """Neighbours, other grounds, other tenants, spellings of them; all QoS, retained or not."""
    spy = await system.spy()
    a1 = await system.client("A1")
    foreign = [
        own("A2"),
        own("B1"),
        own("Z1"),
        own("A1"),  # the place itself is no part of `place/#`? It is: 4.7.1.2, so it is allowed below
        "t1/g1",
        "t1/g1/",
        "t1/g1/A1x/y",
        "t1/g1/a1/x",
        "/t1/g1/A1/x",
        "t1//g1/A1/x",
        f"{own('A1')}%2f..%2fA2/x",
        f"{own('A1')}\\..\\A2/x",
        "t1/g1/A\u0131/x",
    ]
    foreign.remove(own("A1"))
    for topic, qos, retain in itertools.product(foreign, (0, 1, 2), (False, True)):
        await a1.publish(topic, b"no", qos=qos, retain=retain)
    await a1.publish(f"{own('A1')}/../A2", b"literal", qos=1)
    await a1.publish(own("A1"), b"place", qos=1)
    assert await system.seen_by(spy) == [(f"{own('A1')}/../A2", b"literal"), (own("A1"), b"place")]


@pytest.mark.parametrize(
    "topic",
    [b"", b"t1/g1/A1/+", b"t1/g1/A1/#", b"t1/g1/A1/\0", b"\xff\xfe", b"t1/g1/A1/\xed\xa0\x80", b"t1/g1/A1/\x01"],
    ids=repr,
)
async def test_a_topic_that_is_none_closes_the_connection(system: System, topic: bytes) -> None:
    """Class H: and nothing else; before it, what was right is delivered."""
    spy = await system.spy()
    a1 = await system.client("A1")
    good = wire.encode_publish(f"{own('A1')}/x", b"good")
    await a1.send(good + wire.encode_publish(topic, b"bad") + good)
    assert await a1.closed()
    assert (await spy.delivery()).payload == b"good"
    assert await system.seen_by(spy) == []


@pytest.mark.parametrize("order", [0, 1], ids=["allow-first", "deny-first"])
async def test_a_deny_beats_every_allow_in_any_order(system: System, order: int) -> None:
    """Promise 2."""
    rules = [*OWN, deny(PUBLISH, "{tenant}/{ground}/{thing}/adm/#"), deny(SUBSCRIBE, "{tenant}/{ground}/{thing}/adm/#")]
    await system.do(system.store.definitions.update("t1", "dev", rules=rules[:: (1, -1)[order]]))
    spy = await system.spy()
    a1 = await system.client("A1")
    await a1.publish(f"{own('A1')}/adm/x", b"no", qos=1)
    await a1.publish(f"{own('A1')}/x", b"yes", qos=1)
    assert await system.seen_by(spy) == [(f"{own('A1')}/x", b"yes")]


async def test_without_a_rule_there_is_no_access(system: System) -> None:
    """Promise 2: a definition without rules that allow admits, and permits nothing."""
    await system.do(system.store.definitions.update("t1", "dev", rules=[deny(PUBLISH, "{tenant}/x")]))
    spy = await system.spy()
    a1 = await system.client("A1")
    assert await a1.subscribe(f"{own('A1')}/x", own("A1"), "t1/x") == [0x80] * 3
    await a1.publish(f"{own('A1')}/x", b"no", qos=1)
    assert await system.seen_by(spy) == []
    await system.do(system.store.definitions.update("t1", "dev", rules=OWN))


async def test_qos_and_retain_conditions_hold_in_the_hot_path(system: System) -> None:
    """The memo keeps the flags apart: an allowed QoS 0 says nothing of QoS 1, nor the like of retain."""
    place = "{tenant}/{ground}/{thing}"
    await system.do(
        system.store.definitions.update(
            "t1",
            "dev",
            rules=[allow(PUBLISH, f"{place}/q/#", qos_max=0), allow(PUBLISH, f"{place}/r/#", retain=False)],
        )
    )
    spy = await system.spy()
    a1 = await system.client("A1")
    for _ in range(3):
        await a1.publish(f"{own('A1')}/q/x", b"yes", qos=0)
        await a1.publish(f"{own('A1')}/q/x", b"no", qos=1)
        await a1.publish(f"{own('A1')}/q/x", b"no", qos=2)
        await a1.publish(f"{own('A1')}/r/x", b"yes", qos=1)
        await a1.publish(f"{own('A1')}/r/x", b"no", qos=1, retain=True)
        await a1.publish(f"{own('A1')}/r/x", b"no", qos=0, retain=True)
    await a1.publish(f"{own('A1')}/r/x", b"last", qos=1)
    seen = await system.seen_by(spy)
    assert {payload for _, payload in seen} == {b"yes", b"last"}
    assert len(seen) == 7
    await system.do(system.store.definitions.update("t1", "dev", rules=OWN))


async def test_a_ground_token_writes_commands_in_its_ground_only(system: System) -> None:
    """`write` is `{ground}/+/command/#`, of its own ground; `read` writes nothing."""
    await system.ground_token("GR", "t1", "g1", GroundAccess.READ)
    spy = await system.spy()
    writer, reader = await system.client("GT1"), await system.client("GR")
    for topic in (f"{own('A1')}/command/x", f"{own('B1')}/command/x", f"{own('Z1')}/command/x", f"{own('A1')}/state/x"):
        await writer.publish(topic, b"w", qos=1)
        await reader.publish(topic, b"r", qos=1)
    assert await system.seen_by(spy) == [(f"{own('A1')}/command/x", b"w")]


async def test_a_gateway_speaks_for_its_own_modules_only(system: System) -> None:
    """`{module}` is a changing set: bound modules are reachable at once, others and former ones are not."""
    for key in ("GW1", "GW2"):
        await system.do(system.store.things.create("t1", key, definition="gateway", ground="g1"))
        await system.device_token(key, "t1", key)
        await system.do(system.store.modules.bind("t1", key, f"{key}-m"))
    spy = await system.spy()
    gateway = await system.client("GW1")
    await gateway.publish("t1/g1/GW1/state/x", b"yes", qos=1)
    await gateway.publish("t1/g1/GW1-m/state/x", b"yes", qos=1)
    await gateway.publish("t1/g1/GW2-m/state/x", b"no", qos=1)
    await system.do(system.store.modules.unbind("t1", "GW1", "GW1-m"))
    await gateway.publish("t1/g1/GW1-m/state/x", b"no", qos=1)
    await system.do(system.store.modules.bind("t1", "GW1", "late"))
    await gateway.publish("t1/g1/late/state/x", b"yes", qos=1)
    assert [topic for topic, _ in await system.seen_by(spy)] == [
        "t1/g1/GW1/state/x",
        "t1/g1/GW1-m/state/x",
        "t1/g1/late/state/x",
    ]
