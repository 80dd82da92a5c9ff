"""Aedes with our package attached, over real MQTT: the promises that an admitted and a refused client can see."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from authsvc.core.credentials import WillMessage
from broker import wire
from tests.adapters.aedes_broker import AedesBroker
from tests.adapters.aedes_rig import Rig, attached, shared_pair
from tests.broker.raw_client import Closed, RawClient
from tests.e2e.process import Process

BOOM = b"the will"


def will(topic: str, **fields: object) -> WillMessage:
    return WillMessage(**{"topic": topic, "payload": BOOM, "qos": 0, "retain": False, **fields})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, AedesBroker]]:
    with shared_pair(tmp_path_factory.mktemp("aedes")) as pair:
        yield pair


TENANTS = itertools.count(1)


@pytest.fixture
async def rig(pair: tuple[Process, AedesBroker]) -> AsyncIterator[Rig]:
    rig = Rig(*pair, tenant=f"t{next(TENANTS)}")
    await rig.cast()
    yield rig
    await rig.service.leave()


# --- 1, 6: nothing before authentication, nobody else's session ------------------------------------------------------


async def test_a_refused_connect_changes_nothing_for_the_one_whose_client_id_it_shows(rig: Rig) -> None:
    """Neither a wrong password nor somebody else's right one ends, empties or takes over a session."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False, will=will(rig.own("a") + "/gone"))
    assert await a.subscribe((rig.own("a") + "/#", 1)) == [1]
    rig.secret["stranger"] = "asdev_" + "x" * 49
    for who, code in (("stranger", 4), ("b", 5)):
        for clean in (True, False):
            assert await rig.code(who, rig.id("a"), clean=clean, will=will(rig.own("b") + "/will")) == code
    await a.send(wire.encode_publish(rig.own("a") + "/once", b"1", qos=2, packet_id=7))
    await a.expect(wire.PUBREC)
    assert await rig.code("stranger", rig.id("a")) == 4  # Aedes forgets the open QoS 2 packets of a clean session's id
    await a.send(wire.encode_publish(rig.own("a") + "/once", b"1", qos=2, packet_id=7, dup=True))
    await a.expect(wire.PUBREC)
    await a.send(wire.encode_ack(wire.PUBREL, 7))
    await a.expect(wire.PUBCOMP)
    await spy.publish(rig.own("a") + "/for-a", b"2", qos=1)
    assert (await a.deliveries_until(rig.own("a") + "/for-a"))[0].payload == b"1"
    seen = await rig.seen_by(spy)
    assert [each for each in seen if each == (rig.own("a") + "/once", b"1")] == [(rig.own("a") + "/once", b"1")]
    assert (rig.own("a") + "/gone", BOOM) not in seen
    assert (rig.own("b") + "/will", BOOM) not in seen


async def test_packets_before_the_answer_to_connect_do_nothing(rig: Rig) -> None:
    """What a client sends behind its CONNECT, in the same chunk or the next, is not looked at when it is refused."""
    spy = await rig.spy()
    client = await RawClient.open(rig.broker.address)
    connect = wire.encode_connect(
        client_id=rig.id("a"), clean_session=True, keep_alive_s=0, username="a", password=b"wrong", will=None
    )
    publish = wire.encode_publish(rig.own("a") + "/early", b"x", qos=0)
    await client.send(connect + publish)
    for _ in range(5):
        await client.send(publish)
    assert await client.connack() == 4
    assert await rig.seen_by(spy) == []


async def test_packets_sent_with_the_connect_are_served_after_it(rig: Rig) -> None:
    """A client may go on without awaiting its CONNACK (3.1.4): what it may do is done."""
    spy = await rig.spy()
    client = await RawClient.open(rig.broker.address)
    connect = wire.encode_connect(
        client_id=rig.id("a"),
        clean_session=True,
        keep_alive_s=0,
        username="a",
        password=rig.secret["a"].encode(),
        will=None,
    )
    mine = wire.encode_publish(rig.own("a") + "/early", b"x", qos=0)
    theirs = wire.encode_publish(rig.own("b") + "/early", b"x", qos=0)
    await client.send(
        connect + wire.encode_subscribe(1, [(rig.own("a") + "/#", 0), (rig.own("b") + "/#", 0)]) + mine + theirs
    )
    assert await client.connack() == 0
    assert list(wire.parse_suback(await client.expect(wire.SUBACK)).codes) == [0, 128]
    assert (await client.delivery()).topic == rig.own("a") + "/early"
    assert await rig.seen_by(spy) == [(rig.own("a") + "/early", b"x")]


async def test_the_same_thing_takes_its_session_over(rig: Rig) -> None:
    """The older connection ends, its will is sent, and the session goes on in the new one."""
    spy = await rig.spy()
    old = await rig.client("a", clean=False, will=will(rig.own("a") + "/gone"))
    assert await old.subscribe((rig.own("a") + "/x", 1)) == [1]
    new = await rig.client("a", clean=False)
    assert new.session_present
    assert await old.closed(2)
    assert await rig.seen_by(spy) == [(rig.own("a") + "/gone", BOOM)]
    await spy.publish(rig.own("a") + "/x", b"1", qos=1)
    assert (await new.delivery()).payload == b"1"
    assert [each["client_id"] for each in await rig.sessions()] == [rig.id("a")]


async def test_a_client_id_is_kept_for_its_thing_while_aedes_keeps_its_session(rig: Rig) -> None:
    """Another principal does not get a persistent session by its name, whether its owner is there or not."""
    a = await rig.client("a", clean=False)
    assert await a.subscribe((rig.own("a") + "/#", 1)) == [1]
    await a.disconnect()
    assert await rig.code("b", rig.id("a"), clean=False) == 5
    again = await rig.client("a", clean=False)
    assert again.session_present


@pytest.mark.parametrize(("clean", "code"), [(True, 0), (False, 2)], ids=["clean", "not clean"])
async def test_an_empty_client_id_needs_a_clean_session(rig: Rig, *, clean: bool, code: int) -> None:
    """MQTT-3.1.3-8: without one there is nothing to find the session by again."""
    client = await RawClient.open(rig.broker.address)
    assert await client.connect("", rig.secret["a"], username="a", clean=clean) == code
    if code == 0:
        assert await client.subscribe(rig.own("a") + "/x") == [0]


# --- 2, 3: publish and subscribe -------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_denied_publish_is_acknowledged_and_reaches_nobody(rig: Rig, qos: int) -> None:
    """Dropped, as by the gate: the connection goes on, nothing is delivered or retained."""
    spy = await rig.spy()
    a = await rig.client("a")
    await a.publish(rig.own("b") + "/x", b"no", qos=qos, retain=True)
    await a.publish("$SYS/x", b"no", qos=qos)
    await a.publish(rig.own("a") + "/x", b"yes", qos=qos)
    assert await rig.seen_by(spy) == [(rig.own("a") + "/x", b"yes")]
    assert await spy.subscribe(rig.own("b") + "/#") == [0]
    assert await rig.seen_by(spy) == []


FILTERS = [
    ("{own}/#", 1),
    ("{own}/+/x", 1),
    ("{own}", 1),
    ("{place}/+/x", 128),
    ("{place}/b/#", 128),
    ("{tenant}/#", 128),
    ("#", 128),
    ("+/#", 128),
    ("$SYS/#", 128),
    ("$share/g/{own}/x", 128),
    ("{own}/" + "x/" * 40, 128),
]


async def test_a_subscription_never_reaches_further_than_the_grant(rig: Rig) -> None:
    """Containment decides, filter by filter, and what is refused is not there later either."""
    a = await rig.client("a", clean=False)
    words = {"own": rig.own("a"), "place": f"{rig.tenant}/default", "tenant": rig.tenant}
    filters = [(filter_.format(**words), 1) for filter_, _ in FILTERS]
    assert await a.subscribe(*filters) == [code for _, code in FILTERS]
    await a.disconnect()
    spy = await rig.spy()
    await spy.publish(rig.own("b") + "/queued", b"no", qos=1)
    await spy.publish(rig.own("a") + "/queued", b"yes", qos=1)
    again = await rig.client("a", clean=False)
    assert again.session_present
    assert (await again.delivery()).payload == b"yes"
    await spy.publish(rig.own("b") + "/live", b"no", qos=1)
    await spy.publish(rig.own("a") + "/live", b"yes", qos=1)
    assert (await again.delivery()).topic == rig.own("a") + "/live"


async def test_a_subscription_above_qos_max_is_granted_at_it(rig: Rig) -> None:
    """The SUBACK says what is granted (3.9.3), also where the SUBSCRIBE came with the CONNECT."""
    rules = [{"effect": "allow", "action": "subscribe", "topic": "{tenant}/{ground}/{thing}/#", "qos_max": 1}]
    await rig.service.open_definition(key="low", rules=rules)
    await rig.thing("low", definition="low")
    low = await rig.client("low")
    assert await low.subscribe((rig.own("low") + "/x", 2), (rig.own("low") + "/y", 0)) == [1, 0]
    early = await RawClient.open(rig.broker.address)
    secret = rig.secret["low"].encode()
    connect = wire.encode_connect(
        client_id=rig.id("early"), clean_session=True, keep_alive_s=0, username="low", password=secret, will=None
    )
    await early.send(connect + wire.encode_subscribe(1, [(rig.own("low") + "/x", 2)]))
    assert await early.connack() == 0
    assert list(wire.parse_suback(await early.expect(wire.SUBACK)).codes) == [1]


# --- 4: deliveries ---------------------------------------------------------------------------------------------------


async def test_deliveries_are_decided_one_by_one(rig: Rig) -> None:
    """A subscription wider than a changing set gets what its members send: live, retained and queued."""
    await rig.service.post(f"{rig.at}/grounds", {"key": "g2"})
    await rig.thing("far", ground="g2")
    rules = [{"effect": "allow", "action": "subscribe", "topic": "{tenant}/x/{member}/#"}]
    await rig.service.open_definition(key="watcher", rules=rules)
    await rig.thing("watcher", definition="watcher")
    spy = await rig.spy()
    for key in ("a", "far"):
        await spy.publish(f"{rig.tenant}/x/{key}/kept", b"retained", qos=1, retain=True)
    watcher = await rig.client("watcher", clean=False)
    assert await watcher.subscribe((rig.tenant + "/x/+/#", 1)) == [1]
    assert (await watcher.delivery()).topic == rig.tenant + "/x/a/kept"
    for key in ("far", "a", "far", "b"):
        await spy.publish(f"{rig.tenant}/x/{key}/live", key.encode(), qos=1)
    assert [(await watcher.delivery()).topic for _ in "ab"] == [rig.tenant + "/x/a/live", rig.tenant + "/x/b/live"]
    await rig.thing("new")
    await rig.service.patch(f"{rig.at}/things/b", {"ground": "g2"})

    async def new_is_heard() -> bool:
        await spy.publish(rig.tenant + "/x/new/live", b"new", qos=1)
        return bool(watcher.received) or (await watcher.delivery(0.5)).topic == rig.tenant + "/x/new/live"

    await rig.until(new_is_heard)
    await watcher.disconnect()
    for key in ("b", "far", "a"):
        await spy.publish(f"{rig.tenant}/x/{key}/queued", key.encode(), qos=1)
    again = await rig.client("watcher", clean=False)
    assert again.session_present
    heard = [each.topic for each in [await again.delivery()]]
    await spy.publish(rig.tenant + "/x/a/last", qos=1)
    heard += [each.topic for each in await again.deliveries_until(rig.tenant + "/x/a/last")]
    assert [topic for topic in heard if "queued" in topic] == [rig.tenant + "/x/a/queued"]


async def test_denied_deliveries_take_no_others_with_them(rig: Rig) -> None:
    """In the queue of a persistent session what is denied goes, and nothing else, however they arrive."""
    rules = [{"effect": "allow", "action": "subscribe", "topic": "{tenant}/x/{member}/#"}]
    await rig.service.open_definition(key="watcher", rules=rules)
    await rig.thing("watcher", definition="watcher")
    spy = await rig.spy()
    watcher = await rig.client("watcher", clean=False)
    assert await watcher.subscribe((f"{rig.tenant}/x/+/#", 1)) == [1]
    for number in range(20):
        both = (
            wire.encode_publish(f"{rig.tenant}/x/{key}/{number}", b"", qos=1, packet_id=1000 + 2 * number + index)
            for index, key in enumerate(("a", "stranger"))
        )
        await spy.send(b"".join(both))
    heard = [(await watcher.delivery()).topic for _ in range(20)]
    assert sorted(heard) == sorted(f"{rig.tenant}/x/a/{number}" for number in range(20))
    await watcher.disconnect()
    again = await rig.client("watcher", clean=False)
    assert again.session_present
    await spy.publish(f"{rig.tenant}/x/a/last", qos=1)
    assert [each.topic for each in await again.deliveries_until(f"{rig.tenant}/x/a/last")] == []


# --- 5: wills --------------------------------------------------------------------------------------------------------


async def test_a_will_without_the_right_refuses_the_connect(rig: Rig) -> None:
    """A will is a publish, judged before anything is promised."""
    for topic in (rig.own("b") + "/gone", "$SYS/x", rig.own("a") + "/#"):
        assert await rig.code("a", will=will(topic)) == 5
    assert await rig.sessions() == []


async def test_a_will_is_sent_on_loss_and_not_after_disconnect(rig: Rig) -> None:
    """The table of what ends what, as far as the client decides."""
    spy = await rig.spy()
    polite = await rig.client("a", will=will(rig.own("a") + "/polite"))
    await polite.disconnect()
    lost = await rig.client("a", will=will(rig.own("a") + "/lost", qos=1))
    lost.cut()
    assert [(each.topic, each.payload) for each in [await spy.delivery()]] == [(rig.own("a") + "/lost", BOOM)]


async def test_a_will_is_judged_again_when_it_fires(rig: Rig) -> None:
    """A right that ended since the CONNECT ends for the will as well."""
    spy = await rig.spy()
    a = await rig.client("a", will=will(rig.own("a") + "/gone"))
    await rig.service.patch(f"{rig.at}/thing-definitions/dev", {"rules": []})
    a.cut()
    await rig.until(lambda: no_sessions(rig, besides="spy"))
    assert await rig.seen_by(spy) == []


async def no_sessions(rig: Rig, *, besides: str) -> bool:
    return [each["client_id"] for each in await rig.sessions() if each["client_id"] != rig.id(besides)] == []


# --- 12: what was denied can be read ---------------------------------------------------------------------------------


async def test_denials_in_aedes_are_read_at_the_service(rig: Rig) -> None:
    """The agent decides by itself, and says what it denied."""
    a = await rig.client("a")
    await a.publish(rig.own("b") + "/x", b"no", qos=1)
    assert await a.subscribe("#") == [128]

    async def told() -> bool:
        refusals = (await rig.service.get(f"{rig.at}/refusals?client_id={rig.id('a')}"))["items"]
        found = {(each["action"], each["topic"], each["reason"]) for each in refusals}
        return {("publish", rig.own("b") + "/x", "no_rule_matches"), ("subscribe", "#", "filter_too_wide")} <= found

    await rig.until(told)


async def test_denied_publishes_may_end_the_connection(tmp_path: Path) -> None:
    """`disconnect` in place of `drop` closes it, and the will goes out."""
    async with attached(tmp_path, "--on-denied-publish", "disconnect") as rig:
        spy = await rig.spy()
        a = await rig.client("a", will=will(rig.own("a") + "/gone"))
        with pytest.raises(Closed):
            await a.publish(rig.own("b") + "/x", b"no", qos=1)
        assert await rig.seen_by(spy) == [(rig.own("a") + "/gone", BOOM)]
