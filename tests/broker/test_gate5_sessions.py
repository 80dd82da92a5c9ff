"""Sessions and wills of MQTT 5.0: clean start and expiry, the delay of a will, and the ends that leave nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authsvc.core.credentials import NEVER_EXPIRES, WillMessage
from authsvc.core.reasons import Reason
from authsvc.sessions import Will
from broker import wire
from broker.limits import Limits
from broker.upstream import Upstream
from broker.wire.properties import (
    CONTENT_TYPE,
    SESSION_EXPIRY,
)
from broker.wire.sections import (
    encode,
)
from tests.broker.gate_rig import LEVELS, Rig, rig_on, session_of
from tests.broker.scripted import OWN
from tests.broker.upstreams import started

V5 = wire.codec_of(wire.MQTT_5_0)
PROPERTIES = encode([(CONTENT_TYPE, "text/plain")])


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    async with started("mosquitto", tmp_path) as running:
        LEVELS[running] = wire.MQTT_5_0
        yield running
    del LEVELS[running]


def expiry(seconds: int) -> bytes:
    return encode([(SESSION_EXPIRY, seconds)])


def will(delay_s: int = 0, *, qos: int = 1, topic: str = "t/g/a/will") -> WillMessage:
    return WillMessage(topic=topic, payload=b"w", qos=qos, retain=False, delay_s=delay_s, properties=PROPERTIES)


async def gone(rig: Rig, thing: str = "a") -> None:
    """Wait until the thing has no session and its farewell is said."""
    async with asyncio.timeout(5):
        while rig.service.sessions.find("t", thing=thing) or rig.gate._leaving:
            await asyncio.sleep(0.001)


# --- sessions ------------------------------------------------------------------------------------------------


async def test_clean_start_empties_a_session_that_is_kept_afterwards(rig: Rig) -> None:
    """3.1.2.4: subscriptions and queue are gone, and the new session is one that outlives its connection."""
    a = await rig.client("a", clean=False)
    await a.subscribe(("t/g/a/#", 1))
    a.cut()
    await gone(rig)
    spy = await rig.client("spy")
    await spy.publish("t/g/a/x", b"old", qos=1)
    a = await rig.client("a", clean=True, session_expiry_s=100)
    assert not a.session_present
    assert await a.subscribe(("t/g/a/#", 1)) == [1]
    a.cut()
    await gone(rig)
    await spy.publish("t/g/a/x", b"new", qos=1)
    a = await rig.client("a", clean=False)
    assert a.session_present
    assert (await a.delivery()).payload == b"new"


async def test_a_session_without_expiry_resumes_and_ends_with_its_connection(rig: Rig) -> None:
    """3.1.2.11.2: clean start 0 and expiry 0."""
    a = await rig.client("a", clean=False)
    await a.subscribe(("t/g/a/#", 1))
    a.cut()
    await gone(rig)
    spy = await rig.client("spy")
    await spy.publish("t/g/a/x", b"queued", qos=1)
    a = await rig.client("a", clean=False, session_expiry_s=0)
    assert a.session_present
    assert (await a.delivery()).payload == b"queued"
    a.cut()
    await gone(rig)
    assert list(rig.service.left.values()) == [0]
    assert not (await rig.client("a", clean=False)).session_present


async def test_a_session_ends_upstream_when_its_time_is_over(rig: Rig) -> None:
    """The broker is told the expiry, and keeps to it."""
    a = await rig.client("a", clean=False, session_expiry_s=1)
    a.cut()
    await gone(rig)
    assert list(rig.service.left.values()) == [1]
    assert (await rig.client("a", clean=False, session_expiry_s=1)).session_present
    session_of(rig).connection.end(Reason.CONNECTION_LOST, Will.SEND)
    await gone(rig)
    await asyncio.sleep(3)  # Mosquitto looks once a second
    assert not (await rig.client("a", clean=False)).session_present


async def test_a_disconnect_may_change_the_expiry(rig: Rig) -> None:
    """3.14.2.2.2: to nothing, and the session is gone with the connection; to more, and it is noted."""
    a = await rig.client("a", clean=False)
    await a.disconnect(properties=expiry(0))
    await gone(rig)
    assert list(rig.service.left.values()) == [0]
    a = await rig.client("a", clean=False, session_expiry_s=5)
    assert not a.session_present
    await a.disconnect(properties=expiry(NEVER_EXPIRES))
    await gone(rig)
    assert list(rig.service.left.values()) == [None]
    assert (await rig.client("a", clean=False)).session_present


async def test_a_disconnect_cannot_give_an_expiry_to_a_session_that_had_none(rig: Rig) -> None:
    """3.14.2.2.2: a protocol error, and the will is sent."""
    spy = await rig.spy()
    a = await rig.client("a", will=will())
    await a.send(V5.encode_disconnect(properties=expiry(10)))
    assert await a.closed()
    assert a.disconnect_reason == 0x82
    assert (await spy.delivery()).topic == "t/g/a/will"


@pytest.mark.parametrize(("first", "second"), [(4, 5), (5, 4), (3, 5), (5, 3)])
async def test_a_session_is_resumed_by_another_level(rig: Rig, first: int, second: int) -> None:
    """Queue, subscriptions and an open QoS 2 exchange are those of the session, whatever its client speaks now."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False, level=first)
    await a.subscribe(("t/g/a/in", 1))
    await a.send(a.codec.encode_publish("t/g/a/x", b"once", qos=2, packet_id=5))
    await a.expect_ack(wire.PUBREC, 5)
    a.cut()
    await gone(rig)
    await spy.publish("t/g/a/in", b"queued", qos=1, properties=PROPERTIES)
    a = await rig.client("a", clean=False, level=second)
    assert a.session_present or second == wire.MQTT_3_1
    assert (await a.delivery()).payload == b"queued"
    await a.send(a.codec.encode_ack(wire.PUBREL, 5))
    assert await a.expect_ack(wire.PUBCOMP, 5) == 0
    rig.service.regrant("a", OWN[:1])
    await a.ping()
    assert not session_of(rig).connection.state.subscriptions


async def test_a_denied_id_of_a_session_of_3_1_1_is_answered_in_5_0(rig: Rig) -> None:
    """The gate said PUBREC for it: it says PUBCOMP too, and nothing of it goes upstream."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False, level=4)
    await a.send(a.codec.encode_publish("t/g/b/x", b"no", qos=2, packet_id=7))
    await a.expect_ack(wire.PUBREC, 7)
    a.cut()
    await gone(rig)
    a = await rig.client("a", clean=False)
    await a.send(V5.encode_publish("t/g/a/x", b"smuggled", qos=2, packet_id=7, dup=True))
    assert await a.expect_ack(wire.PUBREC, 7) == 0
    await a.send(V5.encode_ack(wire.PUBREL, 7))
    assert await a.expect_ack(wire.PUBCOMP, 7) == 0
    assert await rig.seen_by(spy) == []


# --- wills ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reason", "sent"), [(0x00, False), (0x04, True), (0x80, True)])
async def test_a_disconnect_says_whether_its_will_is_sent(rig: Rig, reason: int, sent: bool) -> None:
    """3.14.4: reason code 0 alone drops it; its properties are those that were given."""
    spy = await rig.spy()
    a = await rig.client("a", will=will())
    await a.disconnect(reason)
    await gone(rig)
    await spy.publish("t/end", qos=1)
    seen = await spy.deliveries_until("t/end")
    assert [(p.topic, p.properties) for p in seen] == ([("t/g/a/will", PROPERTIES)] if sent else [])


async def test_a_will_waits_for_its_delay(rig: Rig) -> None:
    """3.1.3.2.2: not before, and then once, with its properties."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False, will=will(1))
    a.cut()
    await gone(rig)
    assert await rig.seen_by(spy) == []
    delivery = await spy.delivery(3)
    assert (delivery.topic, delivery.payload) == ("t/g/a/will", b"w")
    assert len(rig.gate.delayed_wills) == 0


async def test_a_delay_ends_with_the_session(rig: Rig) -> None:
    """Whichever comes first; a session without expiry sends its will at once."""
    spy = await rig.spy()
    a = await rig.client("a", will=will(1_000))
    a.cut()
    assert (await spy.delivery(1)).topic == "t/g/a/will"
    a = await rig.client("a", clean=False, session_expiry_s=1, will=will(1_000))
    a.cut()
    assert (await spy.delivery(3)).topic == "t/g/a/will"


@pytest.mark.parametrize("how", ["reconnect", "take-over"])
async def test_a_session_that_goes_on_in_time_drops_the_will(rig: Rig, how: str) -> None:
    """MQTT-3.1.3-9; the next connection has a will of its own, or none."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False, will=will(1))
    if how == "reconnect":
        a.cut()
        await gone(rig)
        assert len(rig.gate.delayed_wills) == 1
    again = await rig.client("a", clean=False)
    assert again.session_present
    assert len(rig.gate.delayed_wills) == 0
    await asyncio.sleep(1.2)
    assert await rig.seen_by(spy) == []


async def test_a_clean_start_sends_the_will_of_the_session_that_ends(rig: Rig) -> None:
    """3.1.3.2.2: the session is over, and so is the waiting."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False, will=will(1_000))
    a.cut()
    await gone(rig)
    await rig.client("a", clean=True)
    assert (await spy.delivery(1)).topic == "t/g/a/will"


async def test_a_clean_start_that_takes_over_sends_the_will_of_the_session_that_ends(rig: Rig) -> None:
    """The older connection leaves its will to wait in the very moment in which its session ends."""
    spy = await rig.spy()
    await rig.client("a", clean=False, will=will(1_000))
    await rig.client("a", clean=True)
    assert (await spy.delivery(1)).topic == "t/g/a/will"
    assert len(rig.gate.delayed_wills) == 0


async def test_a_refused_connect_leaves_a_waiting_will_alone(rig: Rig) -> None:
    """Promise 1: whoever it was that knew the client id."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False, will=will(1))
    a.cut()
    await gone(rig)
    other = await rig.open()
    assert await other.connect("a", "wrong") == 0x86
    await rig.client("b", "a")  # another principal under the same client id
    assert (await spy.delivery(3)).topic == "t/g/a/will"


async def test_a_waiting_will_is_judged_when_it_fires(rig: Rig) -> None:
    """A right that went while its client was away."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False, will=will(1))
    a.cut()
    await gone(rig)
    rig.service.rules["a"] = OWN[1:]
    async with asyncio.timeout(4):
        while len(rig.gate.delayed_wills):
            await asyncio.sleep(0.01)
    assert await rig.seen_by(spy) == []
    assert [d.topic for d in rig.service.denials] == ["t/g/a/will"]


async def test_a_waiting_will_of_a_wiped_session_is_never_sent(rig: Rig) -> None:
    """Revoke, block, delete and suspend wipe the row, also of a client that is away."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False, will=will(1))
    a.cut()
    await gone(rig)
    rig.service.rows.clear()
    async with asyncio.timeout(4):
        while len(rig.gate.delayed_wills):
            await asyncio.sleep(0.01)
    assert await rig.seen_by(spy) == []


async def test_revoked_while_connected_means_no_will_at_all(rig: Rig) -> None:
    """Neither now nor after its delay."""
    spy = await rig.spy()
    await rig.client("a", clean=False, will=will(1))
    rig.service.sessions.end(session_of(rig), Reason.TOKEN_REVOKED, Will.NEVER)
    await gone(rig)
    assert len(rig.gate.delayed_wills) == 0
    assert await rig.seen_by(spy) == []


async def test_wills_that_wait_are_bounded(upstream: Upstream) -> None:
    """One more is sent without its delay: it is late for nobody, and lost for nobody."""
    async with rig_on(upstream, limits=Limits(max_delayed_wills=2)) as rig:
        spy = await rig.spy()
        for n in range(3):
            a = await rig.client("a", f"a{n}", clean=False, will=will(1_000, topic=f"t/g/a/{n}"))
            a.cut()
            await gone(rig)
        assert len(rig.gate.delayed_wills) == 2
        assert (await spy.delivery()).topic == "t/g/a/2"
        rig.service.rows.clear()


async def test_wills_that_wait_are_sent_when_the_gate_closes(upstream: Upstream) -> None:
    """Those of clients that are away, and those of clients that are connected, delay or not."""
    async with rig_on(upstream) as watching:
        spy = await watching.spy()
        async with rig_on(upstream) as rig:
            a = await rig.client("a", "away", clean=False, will=will(1_000, topic="t/g/a/away"))
            a.cut()
            await gone(rig)
            await rig.client("a", "here", clean=False, will=will(1_000, topic="t/g/a/here"))
            await rig.gate.close()
            assert {(await spy.delivery()).topic for _ in range(2)} == {"t/g/a/away", "t/g/a/here"}


async def test_what_is_sent_of_a_will_has_an_id_that_is_free(rig: Rig) -> None:
    """QoS 2 ids of the client that are open do not stand in its way."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False, will=will(qos=2))
    for packet_id in range(65_535, 65_530, -1):
        await a.send(V5.encode_publish("t/g/a/open", b"", qos=2, packet_id=packet_id))
        await a.expect_ack(wire.PUBREC, packet_id)
    a.cut()
    assert (await spy.delivery()).topic == "t/g/a/will"


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_will_that_waited_has_its_properties_with_every_qos(rig: Rig, qos: int) -> None:
    """It goes out on a connection of the gate's own, which speaks 5.0 for it, also after that one was lost."""
    spy = await rig.spy()
    for _ in range(2):
        a = await rig.client("a", clean=False, will=will(1, qos=qos))
        a.cut()
        delivery = await spy.delivery(4)
        assert (delivery.topic, delivery.qos, delivery.properties) == ("t/g/a/will", qos, PROPERTIES)
        await rig.client("a", clean=True)
        await gone_of_gates_own(rig)


async def gone_of_gates_own(rig: Rig) -> None:
    """End the gate's own connection that speaks 5.0."""
    talk = rig.upstream._publishers[wire.MQTT_5_0]._talk
    if talk is not None and not talk.ended:
        talk.link.abort()
        await talk.link.wait_closed()
