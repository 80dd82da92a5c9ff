"""The contract with amqtt, line by line: what is relied on, and what is done about the rest.

Each test fails when amqtt changes on that line, and says so before a release does.
"""

from __future__ import annotations

import asyncio
import inspect
import logging

import pytest
from amqtt.broker import Broker
from amqtt.contexts import ListenerType
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler

from authsvc.core.errors import InvalidInput, UpstreamUnavailable
from broker import embedded, embedded_inbox, embedded_link, wire
from broker.embedded import AmqttUpstream
from broker.embedded_broker import GateAuth, GateBroker
from broker.embedded_memory import MemoryReader, MemoryWriter
from tests.broker.link_owner import Owner, subscribe, turns, unsubscribe

A, B, C = "A" * 22, "B" * 22, "C" * 22


@pytest.fixture
async def upstream():
    running = AmqttUpstream()
    await running.start()
    yield running
    await running.stop()


async def connected(upstream, upstream_id=A, *, clean=True):
    owner = Owner()
    return await upstream.connect(owner, upstream_id, clean=clean), owner


# --- 1: one authentication plugin, ours -------------------------------------------------------------------------


async def test_amqtt_asks_one_authentication_plugin_and_it_is_ours(upstream):
    """No plugin of amqtt's defaults is loaded, and a session is not anonymous, so that it has a queue."""
    await connected(upstream)
    plugins = upstream.broker.plugins_manager
    assert [type(plugin).__name__ for plugin in plugins.plugins] == ["GateAuth"]
    assert [type(plugin) for plugin in plugins._auth_plugins] == [GateAuth]
    assert plugins._topic_plugins == []
    assert upstream.broker.sessions[A][0].is_anonymous is False


async def test_amqtt_opens_no_socket(upstream):
    """Its only listener is external: nobody reaches it past the gate."""
    assert [listener.type for listener in upstream.broker.listeners_config.values()] == [ListenerType.EXTERNAL]
    assert all(server.instance is None for server in upstream.broker._servers.values())


@pytest.mark.parametrize(
    "path",
    [
        "amqtt.plugins.authentication.AnonymousAuthPlugin",
        "amqtt.plugins.authentication.FileAuthPlugin",
        "amqtt.plugins.topic_checking.TopicTabooPlugin",
        "amqtt.plugins.topic_checking.TopicAccessControlListPlugin",
    ],
)
def test_a_plugin_that_would_decide_beside_us_is_refused_by_name(path):
    """Authentication and topic plugins of a configuration are refused before anything starts."""
    with pytest.raises(InvalidInput, match=path):
        AmqttUpstream({"plugins": {path: {}}})


async def test_other_plugins_are_loaded():
    """A plugin that only listens keeps working behind the gate."""
    upstream = AmqttUpstream({"plugins": {"amqtt.plugins.logging_amqtt.EventLoggerPlugin": {}}})
    await upstream.start()
    try:
        names = [type(plugin).__name__ for plugin in upstream.broker.plugins_manager.plugins]
        assert names == ["GateAuth", "EventLoggerPlugin"]
    finally:
        await upstream.stop()


# --- 2: one connection at a time --------------------------------------------------------------------------------


async def test_the_old_connection_has_gone_before_the_next_connect_is_fed(upstream, monkeypatch):
    """amqtt's own take-over, after which the new connection hears nothing, is never reached."""
    running: list[int] = []
    most: list[int] = []
    original = Broker.external_connected

    async def counted(self, reader, writer, name):
        running.append(1)
        most.append(len(running))
        try:
            await original(self, reader, writer, name)
        finally:
            running.pop()

    monkeypatch.setattr(Broker, "external_connected", counted)  # GateBroker inherits it
    owners = [Owner() for _ in range(5)]
    links = await asyncio.gather(*(upstream.connect(owner, A, clean=False) for owner in owners), return_exceptions=True)
    alive = [(link, owner) for link, owner in zip(links, owners, strict=True) if not isinstance(link, Exception)]
    link, owner = alive[-1]
    await turns()
    assert max(most) == 1
    live = [(link, owner) for link, owner in alive if not owner.closed]
    assert len(live) == 1
    link, owner = live[0]
    await subscribe(link, owner, ("x", 1))
    await upstream.publish("x", b"heard", qos=1, retain=False)
    assert (await owner.published())[0].payload == b"heard"


async def test_a_session_is_resumed_with_its_subscriptions_and_its_queue(upstream):
    """Session present is what amqtt says, and a QoS 1 message waits for a session that is not anonymous."""
    link, owner = await connected(upstream, clean=False)
    assert link.session_present is False
    await subscribe(link, owner, ("x/#", 1))
    link.abort()
    await link.wait_closed()
    await upstream.publish("x/1", b"waited", qos=1, retain=False)
    await turns()
    link, owner = await connected(upstream, clean=False)
    assert link.session_present is True
    assert [(message.topic, message.payload) for message in await owner.published()] == [("x/1", b"waited")]


async def test_a_cleared_session_is_gone_with_its_queue(upstream):
    """After `clear_session` there is no session, no subscription and no queued message."""
    link, owner = await connected(upstream, clean=False)
    await subscribe(link, owner, ("x/#", 1))
    link.abort()
    await link.wait_closed()
    await upstream.publish("x/1", b"waited", qos=1, retain=False)
    await upstream.clear_session(A)
    assert A not in upstream.broker.sessions
    assert upstream.broker.subscriptions == {}
    link, owner = await connected(upstream, clean=False)
    assert link.session_present is False
    await subscribe(link, owner, ("y", 1))
    assert owner.publishes == []


# --- 3: the end of external_connected ends the client -----------------------------------------------------------


async def test_an_end_that_amqtt_decides_ends_the_owner_once_even_without_a_closed_writer(upstream):
    """On a wildcard in a topic amqtt leaves its loop without closing the writer; the link ends all the same."""
    link, owner = await connected(upstream)
    link.write(b"\x30\x05\x00\x01$x" + b"y")  # its first character is the topic `$`
    assert isinstance(await owner.ended(), UpstreamUnavailable)
    await link.wait_closed()
    await turns()
    assert len(owner.closed) == 1
    assert A not in upstream.broker.sessions


async def test_an_exception_inside_amqtt_ends_that_owner_once_and_nobody_else(upstream, monkeypatch):
    """A failure while one session is served is an end of that connection only."""

    async def fails(self, *_):
        raise RuntimeError("broken")

    monkeypatch.setattr(Broker, "_handle_unsubscription", fails)
    link, owner = await connected(upstream)
    other, other_owner = await connected(upstream, B)
    link.write(wire.encode_unsubscribe(1, ["x"]))
    assert isinstance(await owner.ended(), UpstreamUnavailable)
    await subscribe(other, other_owner, ("x", 0))
    assert len(owner.closed) == 1
    assert other_owner.closed == []
    again, _ = await connected(upstream)
    assert again.session_present is False


@pytest.mark.parametrize("how", ["close", "abort", "stop", "disconnect"])
async def test_every_end_is_told_exactly_once(upstream, how):
    """An end that the gate asked for is told without an error, once."""
    link, owner = await connected(upstream)
    if how == "stop":
        await upstream.stop()
    elif how == "disconnect":
        link.write(wire.DISCONNECT_PACKET)
    else:
        getattr(link, how)()
        getattr(link, how)()
    await link.wait_closed()
    link.abort()
    link.close()
    await turns()
    assert owner.closed == [None]


async def test_a_connect_that_amqtt_does_not_answer_is_an_error_and_leaves_nothing(upstream, monkeypatch):
    """No CONNACK in time: the caller is told, its owner is not called, and the id can be used again."""

    async def silent(self, authorize):
        await asyncio.sleep(3600)

    monkeypatch.setattr(embedded, "CONNECT_WITHIN_S", 0.05)
    monkeypatch.setattr(BrokerProtocolHandler, "mqtt_connack_authorize", silent)
    monkeypatch.setattr(embedded_link, "STUCK_AFTER_S", 0.05)
    owner = Owner()
    with pytest.raises(UpstreamUnavailable):
        await upstream.connect(owner, A, clean=True)
    monkeypatch.undo()
    link, _ = await connected(upstream)
    assert link.session_present is False
    assert owner.closed == []


# --- 4: nothing waits, nothing is fed without measure ------------------------------------------------------------


async def test_write_drain_and_close_of_the_writer_never_wait():
    """amqtt holds a lock while it drains: were that to wait, one slow client would stop its deliveries."""
    taken = []
    writer = MemoryWriter(taken.append)
    writer.write(b"\xd0\x00")
    for coroutine in (writer.drain(), writer.close()):
        with pytest.raises(StopIteration):
            coroutine.send(None)
    writer.write(b"\xd0\x00")
    assert taken == [b"\xd0\x00"]
    assert writer.get_peer_info() is not None


async def test_a_read_of_bytes_that_are_there_does_not_suspend():
    """amqtt reads field by field; a suspension for each would cost more than the rest of the packet."""
    reader = MemoryReader()
    reader.feed(b"abc")
    reader.feed(b"de")
    with pytest.raises(StopIteration) as read:
        reader.read(4).send(None)
    assert read.value.value == b"abcd"
    reader.feed_eof()
    assert await reader.read(4) == b"e"
    assert await reader.read(1) == b""


async def test_amqtt_writes_whole_packets(upstream, monkeypatch):
    """Each write is one packet: on that rests what is dropped towards a slow client."""
    writes = []
    original = embedded_link.EmbeddedLink.took
    monkeypatch.setattr(
        embedded_link.EmbeddedLink, "took", lambda self, packet: (writes.append(packet), original(self, packet))
    )
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 2), ("y", 1), ("z", 0))
    for qos, topic in enumerate("zyx"):
        link.write(wire.encode_publish(topic, b"p" * 300, qos=qos, packet_id=qos or None))
    await owner.until(lambda: bool(owner.of(wire.PUBREC)))
    link.write(wire.encode_ack(wire.PUBREL, 2))
    await owner.published(3)
    assert len(writes) >= 7
    assert all(wire.packet_size(packet, 0, wire.MAX_REMAINING_LENGTH) == len(packet) for packet in writes)


@pytest.mark.parametrize("qos", [pytest.param(0, id="routed"), pytest.param(2, id="by amqtt")])
async def test_at_most_32_packets_of_a_client_are_fed_in_a_turn(upstream, monkeypatch, qos):
    """amqtt makes a task of each packet; 10,000 at once would stop the loop for a second. Nor are as many routed."""
    fed: list[int] = []
    read, route = MemoryReader.feed, GateBroker.route
    link, owner = await connected(upstream)
    packet = wire.encode_publish("x", b"", qos=qos, packet_id=1 if qos else None)
    monkeypatch.setattr(MemoryReader, "feed", lambda *args: (fed.append(len(args[1]) // len(packet)), read(*args))[1])
    monkeypatch.setattr(GateBroker, "route", lambda *args: (fed.append(1), route(*args))[1])
    link.write(packet * 1000)
    assert fed == []
    await asyncio.sleep(0)
    assert sum(fed) == 32
    await asyncio.sleep(0)
    assert sum(fed) <= 64
    await owner.until(lambda: link.inbox.size == 0) if qos else await turns(100)
    assert sum(fed) == 1000


async def test_nobody_is_fed_while_amqtt_holds_a_thousand_messages(upstream):
    """amqtt's queues have no bound; the gate's clients wait instead."""
    link, owner = await connected(upstream)
    link.write(wire.encode_publish("x", b""))  # due before amqtt takes the first of these
    for _ in range(embedded.MAX_BACKLOG + 50):
        upstream.broker._broadcast_queue.put_nowait({"session": None, "topic": "q", "data": b""})
    await asyncio.sleep(0)
    assert link.inbox.size, "fed in spite of the backlog"
    link.close()
    await link.wait_closed()
    assert not link.inbox.size


async def test_a_flood_of_many_clients_is_held_back_and_all_of_it_arrives(upstream):
    """Messages inside amqtt stay bounded however many clients publish, and none is lost on the way."""
    receiver, heard = await connected(upstream, C)
    await subscribe(receiver, heard, ("f/#", 0))
    links = [(await connected(upstream, f"{number:022d}"))[0] for number in range(40)]
    for link in links:
        link.write(wire.encode_publish("f/x", b"m") * 200)
    most = 0
    while len(heard.packets) < 8001:  # the SUBACK too
        await asyncio.sleep(0.005)
        held = upstream.broker._broadcast_queue.qsize() + sum(link.waiting for link in links)
        most = max(most, held)
    assert most <= 2 * embedded.MAX_BACKLOG
    assert len(heard.publishes) == 8000


async def test_the_client_is_paused_and_resumed_at_the_marks(upstream):
    """A client that sends faster than amqtt takes is not read from for a while."""
    link, owner = await connected(upstream)
    packet = wire.encode_publish("x", b"p" * 1000)
    link.write(packet * (embedded_inbox.INBOX_HIGH // len(packet) + 1))
    assert owner.client_paused == [True]
    await owner.until(lambda: owner.client_paused == [True, False])


async def test_towards_a_slow_client_qos_0_is_dropped_and_counted_and_qos_1_is_kept(upstream):
    """Above the high-water mark QoS 0 goes; what was promised stays."""
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("q0", 0), ("q1", 1))
    link.pause()
    for _ in range(200):
        await upstream.publish("q0", b"p" * 1000, qos=0, retain=False)
    await upstream.publish("q1", b"kept", qos=1, retain=False)
    while upstream.broker._broadcast_queue.qsize():
        await turns()
    await turns()
    assert upstream.dropped == link.dropped > 100
    assert owner.publishes == []
    link.resume()
    messages = await owner.published(200 - link.dropped + 1)
    assert messages[-1].payload == b"kept"
    assert sum(len(message.payload) for message in messages) < embedded_link.OUT_HIGH + 2000


async def test_above_the_limit_a_slow_client_is_ended(upstream):
    """A client that does not read what it asked for with QoS 1 loses its connection, not the gate its memory."""
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("q1", 1))
    link.pause()
    for _ in range(12):
        await upstream.publish("q1", b"p" * 100_000, qos=1, retain=False)
    assert isinstance(await owner.ended(), UpstreamUnavailable)
    assert owner.publishes == []


async def test_the_queue_of_an_absent_session_is_bounded_in_number_and_bytes(upstream):
    """amqtt queues without bound; here the first thousand, or half a MiB, stay."""
    link, owner = await connected(upstream, clean=False)
    await subscribe(link, owner, ("q/#", 1))
    link.abort()
    await link.wait_closed()
    queue = upstream.broker.sessions[A][0].retained_messages
    for _ in range(1100):
        await upstream.publish("q/x", b"m", qos=1, retain=False)
    while upstream.broker._broadcast_queue.qsize():
        await turns()
    await turns()
    assert queue.qsize() == 1000
    assert queue.dropped == 100
    link, owner = await connected(upstream, clean=False)
    await owner.published(1000)
    assert not owner.closed


async def test_what_was_written_before_an_end_is_routed(upstream):
    """amqtt drops what it took when a client ends; so the end is fed when all before it is routed."""
    receiver, heard = await connected(upstream, C)
    await subscribe(receiver, heard, ("x", 0))
    for end in ("close", "disconnect"):
        heard.packets.clear()
        link, _ = await connected(upstream, B)
        link.write(wire.encode_publish("x", b"m") * 300)
        if end == "close":
            link.close()
        else:
            link.write(wire.DISCONNECT_PACKET)
        await heard.published(300)
        await link.wait_closed()


# --- 5: subscriptions -------------------------------------------------------------------------------------------


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


# --- 6: retained messages ---------------------------------------------------------------------------------------


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
    """amqtt sends what waited for a session with the flag set; nobody retained it."""
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


# --- the signatures and the noise -------------------------------------------------------------------------------


def test_what_is_called_in_amqtt_is_still_there():
    """Names and parameters that the upstream uses."""
    assert list(inspect.signature(Broker.external_connected).parameters) == [
        "self",
        "reader",
        "writer",
        "listener_name",
    ]
    assert list(inspect.signature(Broker.internal_message_broadcast).parameters)[:3] == ["self", "topic", "data"]
    assert {"topic", "data", "qos", "retain"} <= set(inspect.signature(BrokerProtocolHandler.mqtt_publish).parameters)
    assert all(
        isinstance(getattr(Broker, name), property) for name in ("sessions", "subscriptions", "retained_messages")
    )


@pytest.mark.parametrize(
    "name",
    [
        "_topic_filtering",
        "_publish_retained_messages_for_subscription",
        "_initialize_client_session",
        "_broadcast_message",
        "_run_broadcast",
    ],
)
def test_what_is_answered_in_place_of_amqtt_is_what_it_asks(name):
    """An override that amqtt no longer calls would be no override."""
    own, theirs = getattr(GateBroker, name), getattr(Broker, name)
    assert own is not theirs
    assert list(inspect.signature(own).parameters) == list(inspect.signature(theirs).parameters)
    assert inspect.iscoroutinefunction(theirs)
    assert f"self.{name}(" in inspect.getsource(Broker)


async def test_amqtt_prints_no_payload_and_a_client_cannot_make_it_log_at_will(upstream, caplog):
    """Below WARNING nothing is written; of lines that a client causes a few a second."""
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 0))
    link.write(wire.encode_publish("x", b"do not print"))
    link.write(b"".join(wire.encode_ack(wire.PUBACK, number) for number in range(1, 500)))
    link.write(wire.PINGREQ_PACKET)
    await owner.until(lambda: bool(owner.of(wire.PINGRESP)))
    assert "do not print" not in caplog.text
    assert len([record for record in caplog.records if record.name.startswith("amqtt")]) <= 30
    assert logging.getLogger("amqtt").level == logging.WARNING
