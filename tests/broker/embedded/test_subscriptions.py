"""Subscriptions and retained messages as the gate gets them from amqtt, and what amqtt would do instead."""

from __future__ import annotations

from broker import wire
from tests.broker.link_owner import connected, subscribe, turns, unsubscribe

A, B = "A" * 22, "B" * 22


async def test_a_repeated_filter_takes_its_new_qos_and_misses_nothing(upstream):
    """MQTT-3.8.4-3: replaced without interruption; amqtt answers the new QoS and keeps the old one."""
    link, owner = await connected(upstream)
    assert await subscribe(link, owner, ("x", 2)) == b"\x02"
    assert await subscribe(link, owner, ("x", 0)) == b"\x00"
    await upstream.publish("x", b"m", qos=2, retain=False)
    assert [message.qos for message in await owner.published()] == [0]
    assert await subscribe(link, owner, ("x", 0), ("x", 1)) == b"\x00\x01"
    assert [(session.client_id, qos) for session, qos in upstream.broker.subscriptions["x"]] == [(A, 1)]


async def test_subscribe_and_unsubscribe_are_done_in_the_order_they_came(upstream):
    """amqtt would handle both SUBSCRIBE first, and the UNSUBSCRIBE between them last."""
    link, owner = await connected(upstream)
    link.write(
        wire.encode_subscribe(1, [("x", 0)]) + wire.encode_unsubscribe(2, ["x"]) + wire.encode_subscribe(3, [("x", 0)])
    )
    await owner.until(lambda: len(owner.of(wire.SUBACK)) == 2)
    assert [packet[0] & 0xF0 for packet in owner.packets] == [wire.SUBACK, wire.UNSUBACK, wire.SUBACK]
    await upstream.publish("x", b"m", qos=0, retain=False)
    await owner.published()


async def test_empty_filters_are_removed(upstream):
    """amqtt keeps a filter that nobody holds, and compares every message with it for ever."""
    link, owner = await connected(upstream, clean=False)
    await subscribe(link, owner, ("x", 0), ("y", 0))
    await unsubscribe(link, owner, "x")
    assert list(upstream.broker.subscriptions) == ["y"]
    clean, clean_owner = await connected(upstream, B)
    await subscribe(clean, clean_owner, ("y", 0), ("z", 0))
    clean.abort()
    await clean.wait_closed()
    assert {filter_: len(held) for filter_, held in upstream.broker.subscriptions.items()} == {"y": 1}
    assert list(upstream.broker.sessions) == [A]


async def test_an_unknown_pubrel_is_not_answered_by_amqtt(upstream):
    """The capability `answers_pubrel` is false: the gate answers."""
    link, owner = await connected(upstream)
    link.write(wire.encode_ack(wire.PUBREL, 9) + wire.PINGREQ_PACKET)
    await owner.until(lambda: bool(owner.of(wire.PINGRESP)))
    assert owner.of(wire.PUBCOMP) == []
    assert upstream.capabilities.answers_pubrel is False


async def test_a_message_to_a_dollar_topic_of_the_gates_own_goes_nowhere(upstream):
    """A will on a `$` topic is not handed to amqtt."""
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("$x/#", 0))
    await upstream.publish("$x/y", b"m", qos=0, retain=True)
    await turns()
    assert owner.publishes == []
    assert upstream.retained("$x/#") == []


async def test_amqtt_holds_no_retained_message(upstream):
    """A connection that did not subscribe gets nothing, even if a plugin put a message there."""
    await upstream.broker.retain_message(None, "x", b"planted")
    watcher, watched = await connected(upstream, B)
    await subscribe(watcher, watched, ("x", 0))
    link, owner = await connected(upstream)
    await turns()
    assert owner.publishes == []
    assert upstream.broker.retained_messages == {}


async def test_retained_messages_come_after_the_suback_with_the_flag_and_the_lower_qos(upstream):
    """`subscribed` sends what matches through amqtt's own handler, which allots the packet id."""
    upstream.retain("x/1", b"one", qos=1)
    upstream.retain("x/2", b"two", qos=0)
    upstream.retain("y", b"other", qos=0)
    link, owner = await connected(upstream)
    codes = await subscribe(link, owner, ("x/+", 1))
    link.subscribed([("x/+", codes[0])])
    messages = await owner.published(2)
    assert {(message.topic, message.payload, message.qos, message.retain) for message in messages} == {
        ("x/1", b"one", 1, True),
        ("x/2", b"two", 0, True),
    }
    assert all(message.packet_id for message in messages if message.qos)


async def test_a_queued_message_comes_without_the_retain_flag(upstream):
    """amqtt would send what waited for a session with the flag set; nobody retained it."""
    link, owner = await connected(upstream, clean=False)
    await subscribe(link, owner, ("x", 1))
    link.abort()
    await link.wait_closed()
    await upstream.publish("x", b"waited", qos=1, retain=False)
    await turns()
    link, owner = await connected(upstream, clean=False)
    assert [message.retain for message in await owner.published()] == [False]


async def test_many_retained_messages_are_paced_and_all_arrive(upstream):
    """A burst is sent in portions with acknowledgements, so that it fits the buffers of a client that reads."""
    for number in range(500):
        upstream.retain(f"r/{number}", b"p", qos=1)
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("r/#", 1))
    link.subscribed([("r/#", 1)])
    acknowledged: set[int] = set()
    largest = 0
    while len(acknowledged) < 500:
        await owner.until(lambda: len(owner.publishes) > len(acknowledged))
        fresh = [message.packet_id for message in owner.publishes[len(acknowledged) :]]
        largest = max(largest, len(fresh))
        for packet_id in fresh:
            acknowledged.add(len(acknowledged))
            link.write(wire.encode_ack(wire.PUBACK, packet_id))
    assert largest <= 32
    assert len({message.topic for message in owner.publishes}) == 500


async def test_retained_messages_wait_for_a_slow_client_instead_of_being_dropped(upstream):
    """Towards a paused client nothing is sent, so that QoS 0 is not dropped and the limit is not met."""
    for number in range(600):
        upstream.retain(f"r/{number}", b"p" * 4000, qos=0)
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("r/#", 0))
    link.pause()
    link.subscribed([("r/#", 0)])
    await turns(200)
    assert owner.publishes == []
    link.resume()
    await owner.until(lambda: len(owner.packets) >= 601)  # the SUBACK too
    assert link.dropped == 0
    assert owner.closed == []


async def test_retained_messages_below_a_place_are_cleared(upstream):
    """`clear_retained` forgets the place and what is below it, and nothing beside it."""
    for topic in ("t/g/a", "t/g/a/state", "t/g/ab/state"):
        upstream.retain(topic, b"m", qos=0)
    await upstream.clear_retained("t/g/a")
    assert [message.topic for message in upstream.retained("#")] == ["t/g/ab/state"]
