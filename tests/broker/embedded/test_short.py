"""Messages of QoS 0 and 1 past amqtt's tasks: the same deliveries, in the same order, and bounded like the others."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from amqtt.broker import Broker
from amqtt.plugins.base import BasePlugin
from amqtt.session import Session
from transitions import MachineError

from broker import wire
from broker.embedded import AmqttUpstream, feeding
from broker.embedded import broker as short_ways
from broker.embedded import session as sessions
from broker.embedded.broker import GateBroker
from broker.embedded.memory import MemoryReader
from broker.embedded.session import GateHandler, GateSession
from tests.broker.link_owner import connected, subscribe, turns

A, B = "A" * 22, "B" * 22
HEARD: list[str] = []


class Listener(BasePlugin):
    """A plugin that wants to hear of messages."""

    async def on_broker_message_received(self, *, client_id, message):
        """Note the topic."""
        HEARD.append(message.topic)


# --- sessions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", list(itertools.product(("connect", "disconnect"), repeat=3)))
def test_the_states_of_a_session_are_amqtts(steps):
    """The same states, refusals and times as amqtt's own machine, step by step."""
    ours, theirs = GateSession(), Session()
    for step in steps:
        outcomes = []
        for session in (ours, theirs):
            try:
                getattr(session.transitions, step)()
                outcomes.append(session.transitions.state)
            except MachineError:
                outcomes.append("refused")
        assert outcomes[0] == outcomes[1]
        assert ours.transitions.is_connected() == theirs.transitions.is_connected()
        assert (ours.last_disconnect_time is None) == (theirs.last_disconnect_time is None)


# --- publishing -------------------------------------------------------------------------------------------------


async def test_a_message_takes_the_short_way_and_is_acknowledged(upstream, monkeypatch):
    """QoS 0, QoS 1, repeated and long ones: amqtt reads none of them, the client gets its PUBACK, all arrive."""
    link, owner = await connected(upstream)
    reader, heard = await connected(upstream, B)
    await subscribe(reader, heard, ("x", 0))
    read: list[bytes] = []
    original = MemoryReader.feed
    monkeypatch.setattr(MemoryReader, "feed", lambda self, data: (read.append(data), original(self, data))[1])
    link.write(
        wire.encode_publish("x", b"0")
        + wire.encode_publish("x", b"1", qos=1, packet_id=258)
        + wire.encode_publish("x", b"2", qos=1, packet_id=65_535, dup=True)
        + wire.encode_publish("x", b"3" * 300, qos=1, packet_id=7)
        + wire.encode_publish("x", b"4" * 20_000)
    )
    messages = await heard.published(5)
    assert [message.payload[:1] for message in messages] == [b"0", b"1", b"2", b"3", b"4"]
    assert [len(message.payload) for message in messages[3:]] == [300, 20_000]
    assert [wire.parse_ack(packet).packet_id for packet in owner.of(wire.PUBACK)] == [258, 65_535, 7]
    assert read == []


async def test_a_publish_waits_for_the_subscribe_before_it(upstream):
    """What a client sends keeps its order: its own subscription hears what it publishes right behind it."""
    link, owner = await connected(upstream)
    for number in range(20):
        link.write(wire.encode_subscribe(1, [(f"x/{number}", 1)]) + wire.encode_publish(f"x/{number}", b"m"))
    assert [message.topic for message in await owner.published(20)] == [f"x/{number}" for number in range(20)]


async def test_a_publish_that_comes_later_waits_for_an_unanswered_subscribe_too(upstream, monkeypatch):
    """What is written while amqtt still works on a SUBSCRIBE stays behind it, however many turns that takes."""
    go_on = asyncio.Event()
    original = Broker._handle_subscription

    async def slow(self, *args):
        await go_on.wait()
        await original(self, *args)

    monkeypatch.setattr(Broker, "_handle_subscription", slow)
    link, owner = await connected(upstream)
    link.write(wire.encode_subscribe(1, [("x", 0)]))
    await turns()
    link.write(wire.encode_publish("x", b"m"))
    await turns()
    assert link.inbox.size
    go_on.set()
    assert [message.payload for message in await owner.published()] == [b"m"]


async def test_messages_of_a_client_stay_in_order_beside_qos_2(upstream):
    """Of each topic and QoS, with amqtt's way and the short one mixed in one chunk."""
    link, owner = await connected(upstream)
    reader, heard = await connected(upstream, B)
    await subscribe(reader, heard, ("x/#", 0))
    chunk = b""
    for number in range(1, 101):
        chunk += wire.encode_publish("x/0", b"%d" % number)
        chunk += wire.encode_publish("x/2", b"%d" % number, qos=2, packet_id=number)
        chunk += wire.encode_publish("x/1", b"%d" % number, qos=1, packet_id=1000 + number)
    link.write(chunk)
    await owner.until(lambda: len(owner.of(wire.PUBREC)) == 100)
    link.write(b"".join(wire.encode_ack(wire.PUBREL, number) for number in range(1, 101)))
    messages = await heard.published(300)
    for topic in ("x/0", "x/1", "x/2"):
        assert [int(message.payload) for message in messages if message.topic == topic] == list(range(1, 101))


async def test_a_plugin_that_listens_to_messages_hears_them_all():
    """Then amqtt's own way is taken, for every message."""
    HEARD.clear()
    upstream = AmqttUpstream({"plugins": {f"{__name__}.Listener": {}}})
    await upstream.start()
    try:
        assert upstream.broker.short is False
        link, owner = await connected(upstream)
        await subscribe(link, owner, ("x", 1))
        link.write(wire.encode_publish("x", b"0") + wire.encode_publish("x", b"1", qos=1, packet_id=9))
        messages = await owner.published(2)
        link.write(b"".join(wire.encode_ack(wire.PUBACK, message.packet_id) for message in messages))
        await turns()
        assert [message.payload for message in messages] == [b"0", b"1"]
        assert HEARD == ["x", "x"]
        assert len(owner.of(wire.PUBACK)) == 1
    finally:
        await upstream.stop()


async def test_a_packet_that_cannot_be_passed_on_ends_its_own_client_only(upstream):
    """The gate passes on nothing such; were it to, the others are fed as before."""
    bad, bad_owner = await connected(upstream, B)
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 0))
    bad.write(b"\x30\x04\x00\x02\xff\xfe")
    link.write(wire.encode_publish("x", b"m"))
    await owner.published()
    assert await bad_owner.ended() is not None
    assert owner.closed == []


async def test_what_waits_in_amqtt_is_bounded_in_bytes_too(upstream, monkeypatch):
    """A thousand messages of a quarter MiB would be a quarter GiB: above the bound nobody is fed."""
    monkeypatch.setattr(feeding, "MAX_BACKLOG_BYTES", 100_000)
    link, owner = await connected(upstream)
    link.write(wire.encode_publish("x", b""))  # due before the first of these is delivered
    for _ in range(3):
        upstream.broker.route(None, "q", b"p" * 50_000)
    await asyncio.sleep(0)
    assert link.inbox.size
    while link.inbox.size:
        await asyncio.sleep(0.001)
    await upstream.publish("x", b"p", qos=0, retain=False)
    await turns()
    assert upstream.broker.queued_bytes == 0


# --- delivering -------------------------------------------------------------------------------------------------


async def test_a_failure_at_one_receiver_costs_the_others_nothing(upstream, monkeypatch):
    """amqtt loses the message for all that come after the one that failed."""
    links = [await connected(upstream, letter * 22) for letter in "DEF"]
    for link, owner in links:
        await subscribe(link, owner, ("x", 0))
    original = GateHandler.deliver

    def fails(self, packet):
        if self.session.client_id == "D" * 22:
            raise RuntimeError("broken")
        original(self, packet)

    monkeypatch.setattr(GateHandler, "deliver", fails)
    await upstream.publish("x", b"m", qos=0, retain=False)
    for _, owner in links[1:]:
        await owner.published()
    assert links[0][1].publishes == []


async def test_deliveries_of_one_message_are_spread_over_turns(upstream, monkeypatch):
    """A message to many receivers does not stop the loop: others get their turn between the deliveries."""
    delivered = 0

    def counted(self, packet):
        nonlocal delivered
        delivered += 1

    monkeypatch.setattr(GateHandler, "deliver", counted)
    monkeypatch.setattr(short_ways, "DELIVERIES_PER_TURN", 10)
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 0))
    entries = upstream.broker.subscriptions["x"]
    entries *= 95
    for _ in range(3):
        upstream.broker.route(None, "x", b"m")
    steps, before = [], 0
    while delivered < 3 * 95:
        await asyncio.sleep(0)
        steps.append(delivered - before)
        before = delivered
    assert max(steps) <= 10


async def test_packet_ids_are_used_again_after_their_acknowledgement(upstream):
    """An id that waits for its PUBACK is not given to another message; an answered one is free."""
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 1))
    session = upstream.broker.sessions[A][0]
    for _ in range(3):
        await upstream.publish("x", b"m", qos=1, retain=False)
    assert [message.packet_id for message in await owner.published(3)] == [1, 2, 3]
    link.write(wire.encode_ack(wire.PUBACK, 2))
    await turns()
    assert list(session.inflight_out) == [1, 3]
    session._packet_id = 0
    await upstream.publish("x", b"m", qos=1, retain=False)
    assert (await owner.published(4))[-1].packet_id == 2


async def test_a_delivery_without_answer_is_given_up_and_counted(upstream, monkeypatch):
    """After the time that amqtt gives it, it is forgotten and its packet id is free; an answered one does not count."""
    monkeypatch.setattr(sessions, "ACKNOWLEDGE_WITHIN_S", 0.05)
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 1))
    for _ in range(3):
        await upstream.publish("x", b"m", qos=1, retain=False)
    await owner.published(3)
    link.write(wire.encode_ack(wire.PUBACK, 2))
    session = upstream.broker.sessions[A][0]
    async with asyncio.timeout(2):
        while session.inflight_out:
            await asyncio.sleep(0.005)
    assert upstream.unacknowledged == 2
    assert len(owner.publishes) == 3


async def test_a_client_that_answers_nothing_is_sent_no_more_than_the_bound(upstream, monkeypatch):
    """Beyond it deliveries are given up at once, without a search for a free packet id or a log line for each."""
    monkeypatch.setattr(sessions, "MAX_UNACKNOWLEDGED", 10)
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 1))
    for _ in range(15):
        await upstream.publish("x", b"m", qos=1, retain=False)
    messages = await owner.published(10)
    await turns()
    assert len(owner.publishes) == 10
    assert upstream.unacknowledged == 5
    link.write(wire.encode_ack(wire.PUBACK, messages[0].packet_id))
    await turns()
    await upstream.publish("x", b"again", qos=1, retain=False)
    assert (await owner.published(11))[-1].payload == b"again"


async def test_what_a_connection_left_unanswered_is_not_sent_to_the_next(upstream):
    """As with amqtt: the message is gone with the connection, and its packet id is free."""
    link, owner = await connected(upstream, clean=False)
    await subscribe(link, owner, ("x", 1))
    await upstream.publish("x", b"m", qos=1, retain=False)
    await owner.published()
    link.abort()
    await link.wait_closed()
    assert upstream.broker.sessions[A][0].inflight_out == {}
    link, owner = await connected(upstream, clean=False)
    await turns()
    assert link.session_present
    assert owner.publishes == []


async def test_retained_and_queued_messages_share_the_packet_ids(upstream):
    """What amqtt sends itself and what takes the short way never carry one id at a time."""
    for number in range(20):
        upstream.retain(f"x/{number}", b"kept", qos=1)
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x/#", 1))
    link.subscribed([("x/#", 1)])
    for _ in range(20):
        await upstream.publish("x/live", b"m", qos=1, retain=False)
    messages = await owner.published(40)
    ids = [message.packet_id for message in messages]
    assert len(set(ids)) == 40
    link.write(b"".join(wire.encode_ack(wire.PUBACK, packet_id) for packet_id in ids))
    await turns(50)
    assert upstream.broker.sessions[A][0].inflight_out == {}
    assert upstream.broker.sessions[A][1]._puback_waiters == {}


async def test_the_short_way_is_open_without_such_plugins(upstream):
    """Also with a plugin that listens to something else."""
    assert isinstance(upstream.broker, GateBroker)
    assert upstream.broker.short is True
