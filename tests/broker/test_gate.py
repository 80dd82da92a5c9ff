"""What passes the gate and what does not: packets of an admitted client, in both directions."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.facts import Effect, Rule, RuleAction
from broker import wire
from broker.limits import Limits
from broker.upstream import Upstream
from tests.broker.gate_rig import Rig, of_3_1_1, refused, rig_on
from tests.broker.scripted import OWN


async def test_a_permitted_publish_arrives_and_a_denied_one_does_not(rig: Rig) -> None:
    """The spy sees what `a` publishes in its own place, and nothing of what it publishes elsewhere."""
    spy = await rig.spy()
    a = await rig.client("a")
    for qos in (0, 1, 2):
        await a.publish("t/g/b/x", b"no", qos=qos)
        await a.publish("t/g/a/x", b"yes%d" % qos, qos=qos)
    assert await rig.seen_by(spy) == [("t/g/a/x", b"yes0"), ("t/g/a/x", b"yes1"), ("t/g/a/x", b"yes2")]
    assert {d.topic for d in rig.service.denials} == {"t/g/b/x"}


async def test_a_burst_passes_in_order(rig: Rig) -> None:
    """Thousands of messages in few writes arrive completely and in order."""
    a = await rig.client("a")
    assert await a.subscribe("t/g/a/#") == [0]
    await a.send(b"".join(rig.codec.encode_publish("t/g/a/n", b"%d" % n) for n in range(2000)))
    assert [int((await a.delivery()).payload) for _ in range(2000)] == list(range(2000))


async def test_denied_packets_between_permitted_ones_leave_only_the_permitted(rig: Rig) -> None:
    """More denied packets than one turn of the loop takes: every one is dropped, every other arrives, in order."""
    a = await rig.client("a")
    assert await a.subscribe("t/g/a/#") == [0]
    await a.send(
        b"".join(
            rig.codec.encode_publish("t/g/a/n", b"%d" % n) + rig.codec.encode_publish("t/g/b/n", b"%d" % n) * 3
            for n in range(700)
        )
    )
    assert [int((await a.delivery()).payload) for _ in range(700)] == list(range(700))


async def test_every_cut_of_the_stream_gives_the_same_packets(rig: Rig) -> None:
    """PUBLISH of all QoS, SUBSCRIBE and PINGREQ, one byte at a time."""
    a = await rig.client("a")
    stream = (
        rig.codec.encode_subscribe(1, [("t/g/a/#", 0)])
        + rig.codec.encode_publish("t/g/a/1", b"x" * 200)
        + rig.codec.encode_publish("t/g/a/2", b"", qos=1, packet_id=2)
        + rig.codec.encode_publish("t/g/b/3", b"", qos=2, packet_id=3)
        + wire.PINGREQ_PACKET
    )
    for n in range(len(stream)):
        await a.send(stream[n : n + 1])
    await a.expect(wire.SUBACK)
    await a.publish("t/g/a/end", qos=1)
    assert [p.topic for p in await a.deliveries_until("t/g/a/end")] == ["t/g/a/1", "t/g/a/2"]


# --- QoS 2 ---------------------------------------------------------------------------------------------------


@of_3_1_1
async def test_a_denied_qos_2_publish_is_answered_here_and_its_id_is_free_for_others(rig: Rig) -> None:
    """PUBREC and PUBCOMP come for the denied one; QoS 1 with the same id passes meanwhile."""
    spy = await rig.spy()
    a = await rig.client("a")
    await a.send(rig.codec.encode_publish("t/g/b/x", b"no", qos=2, packet_id=2))
    await a.expect(wire.PUBREC)
    await a.send(rig.codec.encode_publish("t/g/a/x", b"yes", qos=1, packet_id=2))
    await a.expect(wire.PUBACK)
    await a.send(rig.codec.encode_ack(wire.PUBREL, 2))
    await a.expect(wire.PUBCOMP)
    assert await rig.seen_by(spy) == [("t/g/a/x", b"yes")]


@of_3_1_1
async def test_an_open_denied_id_stays_denied_whatever_is_sent_under_it(rig: Rig) -> None:
    """A repetition under an open QoS 2 id is a repetition: it delivers nothing (4.3.3)."""
    spy = await rig.spy()
    a = await rig.client("a")
    await a.send(rig.codec.encode_publish("t/g/b/x", b"no", qos=2, packet_id=7))
    await a.expect(wire.PUBREC)
    await a.send(rig.codec.encode_publish("t/g/a/x", b"smuggled", qos=2, packet_id=7, dup=True))
    await a.expect(wire.PUBREC)
    await a.send(rig.codec.encode_ack(wire.PUBREL, 7))
    await a.expect(wire.PUBCOMP)
    assert await rig.seen_by(spy) == []


async def test_a_denied_repetition_does_not_lose_the_message_that_was_permitted(rig: Rig) -> None:
    """The PUBREL of an id that went upstream goes upstream, though a denied PUBLISH came under the same id."""
    spy = await rig.spy()
    a = await rig.client("a")
    await a.send(rig.codec.encode_publish("t/g/a/x", b"yes", qos=2, packet_id=7))
    await a.expect(wire.PUBREC)
    await a.send(rig.codec.encode_publish("t/g/b/x", b"no", qos=2, packet_id=7))
    await a.expect(wire.PUBREC)
    await a.send(rig.codec.encode_ack(wire.PUBREL, 7))
    await a.expect(wire.PUBCOMP)
    assert await rig.seen_by(spy) == [("t/g/a/x", b"yes")]


async def test_a_pubrel_that_nobody_waits_for_is_answered(rig: Rig) -> None:
    """4.3.3: a PUBREL is always answered with PUBCOMP."""
    a = await rig.client("a")
    await a.send(rig.codec.encode_ack(wire.PUBREL, 99))
    assert rig.codec.ack(await a.expect(wire.PUBCOMP)).packet_id == 99


@of_3_1_1
async def test_a_denied_qos_2_id_is_remembered_across_a_reconnect(rig: Rig) -> None:
    """The PUBREL after a reconnect of the persistent session is answered by the gate, which made the PUBREC."""
    a = await rig.client("a", clean=False)
    await a.send(rig.codec.encode_publish("t/g/b/x", b"no", qos=2, packet_id=7))
    await a.expect(wire.PUBREC)
    a.cut()
    a = await rig.client("a", clean=False)
    assert a.session_present
    spy = await rig.spy()
    await a.send(rig.codec.encode_publish("t/g/a/x", b"smuggled", qos=2, packet_id=7, dup=True))
    await a.expect(wire.PUBREC)
    await a.send(rig.codec.encode_ack(wire.PUBREL, 7))
    await a.expect(wire.PUBCOMP)
    assert await rig.seen_by(spy) == []


async def test_open_qos_2_ids_are_bounded(upstream: Upstream) -> None:
    """Who opens one id more than the limit is closed."""
    async with rig_on(upstream, limits=Limits(max_open_qos2=10)) as rig:
        a = await rig.client("a")
        for n in range(1, 11):
            place = "a" if rig.is5 else "ab"[n % 2]  # 5.0: a denied one is over with its PUBREC
            await a.send(rig.codec.encode_publish(f"t/g/{place}/x", b"", qos=2, packet_id=n))
            await a.expect(wire.PUBREC)
        await a.send(rig.codec.encode_publish("t/g/a/x", b"", qos=2, packet_id=11))
        assert await a.closed()


# --- what a denied publish does ------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_denied_publish_disconnects_where_that_is_set(upstream: Upstream, qos: int) -> None:
    """`on_denied_publish = disconnect`: the connection ends, and nothing was published."""
    async with rig_on(upstream, on_denied_publish="disconnect") as rig:
        spy = await rig.spy()
        a = await rig.client("a")
        await a.send(rig.codec.encode_publish("t/g/b/x", b"no", qos=qos, packet_id=1 if qos else None))
        assert await a.closed()
        assert await rig.seen_by(spy) == []


async def test_dollar_topics_are_denied_and_the_connection_still_works(rig: Rig) -> None:
    """`$SYS`, `$CONTROL`, `$share` and friends reach nobody."""
    spy = await rig.spy()
    a = await rig.client("a")
    for topic in ("$SYS/x", "$CONTROL/x", "$share/g/t/g/a/x", "$queue/x", "$aws/x"):
        await a.publish(topic, b"no", qos=1)
    await a.publish("t/g/a/x", b"yes", qos=1)
    assert await rig.seen_by(spy) == [("t/g/a/x", b"yes")]


# --- SUBSCRIBE -----------------------------------------------------------------------------------------------


async def test_codes_come_in_the_order_of_the_filters(rig: Rig) -> None:
    """Five filters, the second and fourth forbidden; the others are live."""
    a = await rig.client("a")
    codes = await a.subscribe(("t/g/a/1", 0), ("t/g/b/#", 1), ("t/g/a/2", 1), "#", ("t/g/a/+", 2))
    assert codes == [0, refused(rig), 1, refused(rig), 2]


@pytest.mark.parametrize(
    "filter_", ["#", "+/#", "+/+/#", "/#", "+", "t/#", "t/g/+/x", "t/+/a/x", "$SYS/#", "$SYS/+/#", "t/g/b/x", "t/g/+"]
)
async def test_a_filter_wider_than_the_grant_is_refused(rig: Rig, filter_: str) -> None:
    """Containment, not a match; and nothing is delivered for it."""
    spy = await rig.client("spy")
    a = await rig.client("a")
    assert await a.subscribe("t/g/a/end", (filter_, 1)) == [0, refused(rig)]
    await spy.publish("t/g/b/x", b"secret", qos=1)
    await spy.publish("t/g/a/end", qos=1)
    assert await a.deliveries_until("t/g/a/end") == []


async def test_a_shared_subscription_is_checked_on_its_inner_filter(rig: Rig) -> None:
    """Granted where the broker knows them and the inner filter is covered; otherwise 0x80, never a literal."""
    a = await rig.client("a")
    known = rig.upstream.capabilities.shared_subscriptions
    assert await a.subscribe("$share/grp/t/g/a/#") == [0 if known else refused(rig)]
    bad = ["$share/grp/t/g/b/#", "$share/grp/#", "$share/t", "$share//t/g/a/x", "$share/+/t/g/a/x"]
    invalid = wire.reason_codes.TOPIC_FILTER_INVALID if rig.is5 else wire.SUBACK_REFUSED
    assert await a.subscribe(*bad) == [refused(rig)] * 2 + [invalid] * 3


async def test_limits_of_a_session_are_answered_filter_by_filter(upstream: Upstream) -> None:
    """Filters beyond the number and the depth allowed; repeated ones do not count twice."""
    async with rig_on(upstream, limits=Limits(max_subscriptions=5, max_topic_levels=6)) as rig:
        full = wire.reason_codes.QUOTA_EXCEEDED if rig.is5 else wire.SUBACK_REFUSED
        a = await rig.client("a")
        assert await a.subscribe(*(f"t/g/a/{n}" for n in range(7))) == [0, 0, 0, 0, 0, full, full]
        assert await a.subscribe("t/g/a/0", "t/g/a/9") == [0, full]
        await a.unsubscribe("t/g/a/0")
        assert await a.subscribe("t/g/a/1/2/3", "t/g/a/1/2/3/4") == [0, full]
        assert await a.subscribe("t/g/a/9") == [full]


async def test_a_repeated_filter_takes_the_new_qos(rig: Rig) -> None:
    """MQTT-3.8.4-3: the new QoS replaces the old one, and one copy is delivered."""
    a = await rig.client("a")
    assert await a.subscribe(("t/g/a/x", 2)) == [2]
    assert await a.subscribe(("t/g/a/x", 0)) == [0]
    await a.publish("t/g/a/x", b"1", qos=1)
    assert (await a.delivery()).qos == 0
    assert await a.subscribe(("t/g/a/x", 0), ("t/g/a/x", 1)) == [1, 1]
    await a.publish("t/g/a/x", b"2", qos=1)
    second = await a.delivery()
    assert (second.qos, second.payload) == (1, b"2")


async def test_an_unsubscribed_filter_delivers_nothing(rig: Rig) -> None:
    """UNSUBACK comes, with the client's id, and the filter is gone; an unknown filter is answered too."""
    a = await rig.client("a")
    await a.subscribe("t/g/a/#", "t/g/a/end")
    await a.unsubscribe("t/g/a/#", "never/subscribed", "$share/x/y")
    await a.publish("t/g/a/x", qos=1)
    await a.publish("t/g/a/end", qos=1)
    assert await a.deliveries_until("t/g/a/end") == []


async def test_qos_max_clips_a_subscription(rig: Rig) -> None:
    """A SUBSCRIBE above `qos_max` is granted at `qos_max`."""
    rules = (Rule(effect=Effect.ALLOW, action=RuleAction.SUBSCRIBE, topic="{tenant}/{ground}/{thing}/#", qos_max=1),)
    rig.service.rules["a"] = rules
    a = await rig.client("a")
    assert await a.subscribe(("t/g/a/x", 2), ("t/g/a/y", 0)) == [1, 0]


# --- deliveries ----------------------------------------------------------------------------------------------

DENY_SECRET = Rule(effect=Effect.DENY, action=RuleAction.SUBSCRIBE, topic="{tenant}/{ground}/{thing}/secret/#")


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_denied_delivery_is_acknowledged_upstream_and_dropped(rig: Rig, qos: int) -> None:
    """A deny that only overlaps narrows the deliveries; more of them than any window of the broker all go away."""
    rig.service.rules["a"] = (*OWN, DENY_SECRET)
    a = await rig.client("a")
    assert await a.subscribe(("t/g/a/#", qos)) == [qos]
    spy = await rig.client("spy")
    for n in range(60):
        await spy.publish("t/g/a/secret/x", b"%d" % n, qos=qos)
    await spy.publish("t/g/a/end", qos=max(qos, 1))
    assert await a.deliveries_until("t/g/a/end") == []
    assert {d.action for d in rig.service.denials} == {"deliver"}


async def test_queued_messages_are_judged_when_they_are_delivered(rig: Rig) -> None:
    """What waited while the client was away is withheld if the right went meanwhile."""
    a = await rig.client("a", clean=False)
    assert await a.subscribe(("t/g/a/#", 1)) == [1]
    await rig.lost(a)
    spy = await rig.client("spy")
    await spy.publish("t/g/a/secret/x", b"no", qos=1)
    await spy.publish("t/g/a/end", qos=1)
    rig.service.rules["a"] = (*OWN, DENY_SECRET)
    a = await rig.client("a", clean=False)
    assert await a.deliveries_until("t/g/a/end") == []


# --- retained ------------------------------------------------------------------------------------------------


async def test_a_retained_message_comes_with_the_flag_and_only_once(rig: Rig) -> None:
    """Kept by the broker or by the gate in its place; an empty one clears it."""
    a = await rig.client("a")
    await a.publish("t/g/a/r", b"kept", qos=1, retain=True)
    b = await rig.client("a", "second")
    assert await b.subscribe(("t/g/a/#", 1)) == [1]
    first = await b.delivery()
    assert (first.payload, first.retain) == (b"kept", True)
    await a.publish("t/g/a/r", b"live", qos=1, retain=True)
    second = await b.delivery()
    assert (second.payload, second.retain) == (b"live", False)
    await a.publish("t/g/a/r", b"", qos=1, retain=True)
    assert (await b.delivery()).payload == b""
    c = await rig.client("a", "third")
    assert await c.subscribe(("t/g/a/#", 1)) == [1]
    await a.publish("t/g/a/end", qos=1)
    assert await c.deliveries_until("t/g/a/end") == []


async def test_a_denied_retained_publish_neither_sets_nor_clears(rig: Rig) -> None:
    """Neither a message nor an empty one changes what is retained elsewhere."""
    spy = await rig.client("spy")
    await spy.publish("t/g/b/cfg", b"right", qos=1, retain=True)
    a = await rig.client("a")
    for qos in (0, 1, 2):
        await a.publish("t/g/b/cfg", b"", qos=qos, retain=True)
        await a.publish("t/g/b/cfg", b"wrong", qos=qos, retain=True)
    assert await spy.subscribe("t/g/b/cfg") == [0]
    assert (await spy.delivery()).payload == b"right"


async def test_a_client_that_never_subscribed_gets_nothing(rig: Rig) -> None:
    """Retained data and everybody's subscriptions exist; a new connection is sent nothing of it."""
    spy = await rig.spy()
    await spy.publish("t/g/a/r", b"x", qos=1, retain=True)
    for clean in (True, False):
        a = await rig.client("a", clean=clean)
        await spy.publish("t/g/a/live", b"x", qos=1)
        await rig.seen_by(spy)
        await a.ping()
        assert a.received == []


async def test_a_queued_message_carries_no_retain_flag(rig: Rig) -> None:
    """What comes before the first SUBACK of a connection was queued: MQTT-3.3.1-9."""
    a = await rig.client("a", clean=False)
    assert await a.subscribe(("t/g/a/#", 1)) == [1]
    await rig.lost(a)
    spy = await rig.client("spy")
    await spy.publish("t/g/a/q", b"queued", qos=1, retain=True)
    a = await rig.client("a", clean=False)
    queued = await a.delivery()
    assert (queued.payload, queued.retain) == (b"queued", False)


async def test_who_subscribes_before_acknowledging_the_queue_is_answered_at_once(rig: Rig) -> None:
    """Several queued messages, the SUBSCRIBE first, then the acknowledgements: nothing waits for anything."""
    a = await rig.client("a", clean=False)
    assert await a.subscribe(("t/g/a/#", 1)) == [1]
    await rig.lost(a)
    spy = await rig.client("spy")
    for n in range(3):
        await spy.publish("t/g/a/q", b"%d" % n, qos=1)
    async with asyncio.timeout(3):
        a = await rig.client("a", clean=False)
        await a.send(rig.codec.encode_subscribe(9, [("t/g/a/other", 1)]))
        await a.expect(wire.SUBACK)  # what comes before it is acknowledged as it comes
        assert [(await a.delivery()).payload for _ in range(3)] == [b"0", b"1", b"2"]
