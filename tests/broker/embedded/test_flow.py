"""Nothing waits inside amqtt and nothing is fed without measure: its reader and writer, turns, queues, slow clients."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.embedded import feeding, inbox
from broker.embedded import link as links
from broker.embedded.broker import GateBroker
from broker.embedded.memory import MemoryReader, MemoryWriter
from tests.broker.link_owner import connected, subscribe, turns

A, B, C = "A" * 22, "B" * 22, "C" * 22


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
    original = links.EmbeddedLink.took
    monkeypatch.setattr(
        links.EmbeddedLink, "took", lambda self, packet: (writes.append(packet), original(self, packet))
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
    for _ in range(feeding.MAX_BACKLOG + 50):
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
    assert most <= 2 * feeding.MAX_BACKLOG
    assert len(heard.publishes) == 8000


async def test_the_client_is_paused_and_resumed_at_the_marks(upstream):
    """A client that sends faster than amqtt takes is not read from for a while."""
    link, owner = await connected(upstream)
    packet = wire.encode_publish("x", b"p" * 1000)
    link.write(packet * (inbox.INBOX_HIGH // len(packet) + 1))
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
    assert sum(len(message.payload) for message in messages) < links.OUT_HIGH + 2000


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


@pytest.mark.parametrize("qos", [1, 2])
async def test_what_a_resumed_client_says_waits_for_no_answer_to_its_queue(upstream, qos):
    """Of a client that goes without having acknowledged it nothing is lost that it was answered."""
    receiver, heard = await connected(upstream, C)
    await subscribe(receiver, heard, ("x", 0))
    link, owner = await connected(upstream, clean=False)
    await subscribe(link, owner, ("q", qos))
    link.abort()
    await link.wait_closed()
    for payload in (b"1", b"2", b"3"):
        await upstream.publish("q", payload, qos=1, retain=False)
    await turns()
    link, owner = await connected(upstream, clean=False)
    async with asyncio.timeout(1):
        await _exactly_once(link, owner, range(1, 4))
        await subscribe(link, owner, ("y", 0))
        link.close()
        await link.wait_closed()
        await heard.published(3)
    assert [message.payload for message in heard.publishes] == [b"1", b"2", b"3"]
    assert [(message.payload, message.qos) for message in owner.publishes] == [(b"1", qos), (b"2", qos), (b"3", qos)]


async def test_what_a_resumed_client_says_waits_for_no_exchange_that_was_left_open(upstream):
    """A QoS 2 message without its PUBREL goes out when that comes, and what is sent meanwhile before it."""
    receiver, heard = await connected(upstream, C)
    await subscribe(receiver, heard, ("x", 0))
    link, owner = await connected(upstream, clean=False)
    link.write(wire.encode_publish("x", b"9", qos=2, packet_id=9))
    await owner.until(lambda: bool(owner.of(wire.PUBREC)))
    link.abort()
    await link.wait_closed()
    link, owner = await connected(upstream, clean=False)
    async with asyncio.timeout(1):
        await _exactly_once(link, owner, range(1, 3))
        await heard.published(2)
        link.write(wire.encode_ack(wire.PUBREL, 9))
        await heard.published(3)
    assert [message.payload for message in heard.publishes] == [b"1", b"2", b"9"]


@pytest.mark.parametrize("qos", [1, 2])
async def test_what_a_connection_has_sent_already_is_not_taken_up_as_left_open(upstream, qos):
    """A message may be delivered between the CONNACK and the start of the session."""
    link, owner = await connected(upstream, clean=False)
    await subscribe(link, owner, ("x", qos))
    await upstream.publish("x", b"m", qos=1, retain=False)
    await owner.published()
    session, handler = upstream.broker.sessions[A]
    assert session.inflight_out
    await handler._retry_deliveries()
    await turns()
    assert len(owner.publishes) == 1


async def _exactly_once(link, owner, packet_ids) -> None:
    """Publish the numbers and go through their exchanges."""
    for packet_id in packet_ids:
        link.write(wire.encode_publish("x", b"%d" % packet_id, qos=2, packet_id=packet_id))
        await _packet(owner, wire.encode_ack(wire.PUBREC, packet_id))
        link.write(wire.encode_ack(wire.PUBREL, packet_id))
        await _packet(owner, wire.encode_ack(wire.PUBCOMP, packet_id))


async def _packet(owner, packet: bytes) -> None:
    await owner.until(lambda: packet in owner.packets)
