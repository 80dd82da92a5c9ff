"""MQTT 5.0 through the gate, what 3.1.1 has no word for: properties, reason codes, aliases, options, and limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from authsvc.core.credentials import WillMessage
from authsvc.core.facts import Effect, Rule, RuleAction
from authsvc.core.reasons import Reason
from authsvc.sessions import Will
from broker import wire
from broker.limits import Limits
from broker.listeners import Listener
from broker.outbound import Outbound
from broker.tcp import TcpUpstream
from broker.upstream import Upstream
from broker.wire.properties import (
    CONTENT_TYPE,
    CORRELATION_DATA,
    MESSAGE_EXPIRY,
    PAYLOAD_FORMAT,
    RESPONSE_TOPIC,
    SUBSCRIPTION_IDENTIFIER,
    TOPIC_ALIAS,
    USER_PROPERTY,
)
from broker.wire.sections import (
    encode,
)
from tests.broker.certificates import contexts
from tests.broker.gate_rig import LEVELS, Rig, rig_on, session_of
from tests.broker.mosquitto import Mosquitto
from tests.broker.raw_client import RawClient
from tests.broker.scripted import OWN
from tests.broker.upstreams import started

V5 = wire.codec_of(wire.MQTT_5_0)
MESSAGE = encode(
    [
        (PAYLOAD_FORMAT, 1),
        (CONTENT_TYPE, "text/plain"),
        (RESPONSE_TOPIC, "t/g/a/answer"),
        (CORRELATION_DATA, b"\0\xff"),
        (USER_PROPERTY, ("k", "1")),
        (USER_PROPERTY, ("k", "2")),
    ]
)


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    async with started("mosquitto", tmp_path) as running:
        LEVELS[running] = wire.MQTT_5_0
        yield running
    del LEVELS[running]


def alias(number: int) -> bytes:
    return encode([(TOPIC_ALIAS, number)])


async def ended_with(client: RawClient) -> int | None:
    assert await client.closed()
    return client.disconnect_reason


# --- CONNECT -------------------------------------------------------------------------------------------------


async def test_the_connack_says_what_the_gate_and_the_broker_allow(rig: Rig) -> None:
    """3.2.2.3: the client id that was assigned, our packet size and aliases, the lesser receive maximum."""
    a = await RawClient.connected(rig.address, "", "a", level=wire.MQTT_5_0)
    b = await rig.client("b")
    assert a.answer is not None
    assert b.answer is not None
    assert a.answer.assigned_client_id == session_of(rig).client_id
    assert b.answer.assigned_client_id is None
    assert a.answer.topic_alias_maximum == 10
    assert a.answer.maximum_packet_size == 262_144
    assert 0 < a.answer.receive_maximum <= 1_000
    assert a.answer.server_keep_alive_s is None


async def test_a_client_of_5_0_before_a_broker_of_3_1_1_is_told_so(tmp_path: Path) -> None:
    """0x84, in the form of 5.0; nothing was judged."""
    async with started("amqtt", tmp_path) as amqtt, rig_on(amqtt) as rig:
        client = await rig.open()
        assert await client.connect("a", "a", level=wire.MQTT_5_0) == 0x84
        assert await client.closed()
        assert rig.service.admissions == 0


async def test_a_client_of_5_0_before_a_broker_that_was_never_seen_may_come_back(tmp_path: Path) -> None:
    """Whether it speaks 5.0 is not known yet: 0x88, not 0x84, which says never."""
    mosquitto = Mosquitto(tmp_path)
    upstream = TcpUpstream(path=mosquitto.path)
    await upstream.start()
    async with rig_on(upstream, level=wire.MQTT_5_0) as rig:
        assert await (await rig.open()).connect("a", "a") == 0x88
        assert await (await rig.open()).connect("a", "a", level=wire.MQTT_3_1_1) == 3
        await mosquitto.start()
        async with asyncio.timeout(10):
            while not upstream.reachable:
                await asyncio.sleep(0.01)
        assert await (await rig.open()).connect("a", "a") == 0
    await upstream.stop()
    await mosquitto.stop()


@pytest.mark.parametrize(
    ("password", "fields", "code"),
    [
        ("wrong", {}, 0x86),
        ("a", {"will": WillMessage(topic="t/g/b/x", payload=b"", qos=0, retain=False)}, 0x87),
    ],
    ids=["credential", "will"],
)
async def test_a_refused_connect_has_a_reason(
    rig: Rig, password: str, fields: dict[str, WillMessage], code: int
) -> None:
    """3.2.2.2; the connection is closed after it."""
    client = await rig.open()
    assert await client.connect("a", password, **fields) == code
    assert await client.closed()


async def test_enhanced_authentication_is_refused(rig: Rig) -> None:
    """4.12: CONNACK 0x8C, before anything is judged; an AUTH of a client that said nothing of it is 0x82."""
    client = await rig.open()
    client.codec = V5
    method = encode([(0x15, "SCRAM-SHA-1")])
    connect = V5.encode_connect(client_id="a", username="", password=b"a", properties=method)
    await client.send(connect)
    assert await client.connack() == 0x8C
    assert rig.service.admissions == 0
    a = await rig.client("a")
    await a.send(b"\xf0\x00")
    assert await ended_with(a) == 0x82


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (b"\x82\x07\x00\x01\x00\x00\x01x\x03", 0x82),
        (b"\x82\x07\x00\x01\x00\x00\x01x\x41", 0x81),
        (b"\x10\x02\x00\x00", 0x82),
        (b"\x32\x06\x00\x01x\x00\x00\x00", None),
        (b"\x3c\x02\x00\x00", 0x81),
        (b"\x90\x03\x00\x01\x00", 0x82),
    ],
    ids=["qos-3", "reserved-options", "second-connect", "packet-id-0", "dup-qos-2-cut", "suback"],
)
async def test_a_client_that_breaks_the_protocol_is_told_how(rig: Rig, packet: bytes, code: int | None) -> None:
    """4.13: DISCONNECT with the code of the error, then the end; others do not notice."""
    a, b = await rig.client("a"), await rig.client("b")
    await a.send(packet)
    told = await ended_with(a)
    assert told in ({0x81, 0x82} if code is None else {code, 0x81})
    await b.ping()


# --- publish -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_properties_of_a_message_pass_unchanged(rig: Rig, qos: int) -> None:
    """3.3.2.3: order, repetitions and bytes; a subscriber of 3.1.1 gets the message without them."""
    spy = await rig.spy()
    old = await rig.client("spy", "old", level=wire.MQTT_3_1_1)
    await old.subscribe(("t/g/a/x", qos))
    a = await rig.client("a")
    assert await a.publish("t/g/a/x", b"m", qos=qos, properties=MESSAGE) == 0
    delivery = await spy.delivery()
    assert (delivery.payload, delivery.properties) == (b"m", MESSAGE)
    delivery = await old.delivery()
    assert (delivery.payload, delivery.properties) == (b"m", b"")


async def test_the_expiry_of_a_message_passes(rig: Rig) -> None:
    """3.3.2.3.3: the broker counts it down, the gate leaves it alone."""
    spy = await rig.spy()
    a = await rig.client("a")
    await a.publish("t/g/a/x", b"m", qos=1, properties=encode([(MESSAGE_EXPIRY, 100)]))
    assert (await spy.delivery()).properties[0] == MESSAGE_EXPIRY


async def test_a_denied_publish_is_answered_with_its_reason(rig: Rig) -> None:
    """0x87 in PUBACK and PUBREC; the PUBREC ends the exchange, so its id is free and its PUBREL is unknown."""
    spy = await rig.spy()
    a = await rig.client("a")
    assert await a.publish("t/g/b/x", b"no", qos=1) == 0x87
    await a.send(V5.encode_publish("t/g/b/x", b"no", qos=2, packet_id=7))
    assert await a.expect_ack(wire.PUBREC, 7) == 0x87
    assert not session_of(rig).connection.state.answered
    await a.send(V5.encode_ack(wire.PUBREL, 7))
    assert await a.expect_ack(wire.PUBCOMP, 7) in {0x00, 0x92}
    await a.send(V5.encode_publish("t/g/a/x", b"yes", qos=2, packet_id=7))
    assert await a.expect_ack(wire.PUBREC, 7) == 0
    await a.send(V5.encode_ack(wire.PUBREL, 7))
    assert await a.expect_ack(wire.PUBCOMP, 7) == 0
    assert await rig.seen_by(spy) == [("t/g/a/x", b"yes")]


async def test_a_denied_publish_may_end_the_connection_with_its_reason(upstream: Upstream) -> None:
    """`on_denied_publish: disconnect`: 0x87."""
    async with rig_on(upstream, on_denied_publish="disconnect") as rig:
        a = await rig.client("a")
        await a.send(V5.encode_publish("t/g/b/x", b"no"))
        assert await ended_with(a) == 0x87


# --- topic aliases -------------------------------------------------------------------------------------------


async def test_an_alias_stands_for_its_topic(rig: Rig) -> None:
    """3.3.2.3.4: set, used, set anew; what goes on has the whole topic and no alias."""
    spy = await rig.spy()
    a = await rig.client("a")
    for topic, payload in (("t/g/a/x", b"1"), ("", b"2"), ("t/g/a/y", b"3"), ("", b"4")):
        await a.publish(topic, payload, qos=1, properties=alias(10))
    await a.publish("t/g/a/x", b"5", qos=2, properties=MESSAGE + alias(1))
    got = [await spy.delivery() for _ in range(5)]
    assert [(p.topic, p.payload) for p in got] == [
        ("t/g/a/x", b"1"),
        ("t/g/a/x", b"2"),
        ("t/g/a/y", b"3"),
        ("t/g/a/y", b"4"),
        ("t/g/a/x", b"5"),
    ]
    assert all(p.topic_alias is None for p in got)
    assert got[-1].properties == MESSAGE


async def test_an_alias_of_a_denied_topic_is_learnt_and_stays_denied(rig: Rig) -> None:
    """Whatever it stands for is judged each time: also when the alias meant a permitted topic before, and back."""
    spy = await rig.spy()
    a = await rig.client("a")
    assert await a.publish("t/g/b/x", b"no", qos=1, properties=alias(1)) == 0x87
    assert await a.publish("", b"no", qos=1, properties=alias(1)) == 0x87
    assert await a.publish("t/g/a/x", b"yes", qos=1, properties=alias(1)) == 0
    assert await a.publish("", b"yes", qos=1, properties=alias(1)) == 0
    assert await a.publish("t/g/b/x", b"no", qos=2, properties=alias(1)) == 0x87
    await a.publish("", b"no", properties=alias(1))
    rig.service.regrant("a", OWN[1:])
    assert await a.publish("", b"no", qos=1, properties=alias(1)) == 0x87
    assert await rig.seen_by(spy) == [("t/g/a/x", b"yes")] * 2
    connection = session_of(rig).connection
    assert all(b"" not in table for table in connection.inbound.memo.tables)


async def test_an_alias_used_by_a_right_that_came_later_works(rig: Rig) -> None:
    """The denied topic was learnt: when the right comes, the alias is good."""
    spy = await rig.spy()
    a = await rig.client("a")
    assert await a.publish("t/g/b/x", b"no", qos=1, properties=alias(1)) == 0x87
    extra = Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="{tenant}/g/b/x")
    rig.service.regrant("a", (*OWN, extra))
    assert await a.publish("", b"yes", qos=1, properties=alias(1)) == 0
    assert await rig.seen_by(spy) == [("t/g/b/x", b"yes")]


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (V5.encode_publish("t/g/a/x", b"", properties=alias(11)), 0x94),
        (V5.encode_publish("t/g/a/x", b"", properties=alias(65_535)), 0x94),
        (b"\x30\x0d\x00\x07t/g/a/x\x03\x23\x00\x00", 0x94),
        (V5.encode_publish("", b"", properties=alias(3)), 0x82),
        (b"\x30\x03\x00\x00\x00", 0x82),
        (b"\x30\x0b\x00\x02a+\x06\x23\x00\x01\x23\x00\x01", 0x82),
    ],
    ids=["above-maximum", "far-above", "zero", "never-set", "no-topic", "twice"],
)
async def test_an_alias_that_cannot_be_ends_the_connection(rig: Rig, packet: bytes, code: int) -> None:
    """MQTT-3.3.2-8, MQTT-3.3.2-9: 0x94; one that stands for nothing is a protocol error (3.3.4)."""
    spy = await rig.spy()
    a = await rig.client("a")
    await a.send(packet)
    assert await ended_with(a) == code
    assert await rig.seen_by(spy) == []


async def test_aliases_are_those_of_the_connection(rig: Rig) -> None:
    """MQTT-3.3.2-7: a resumed session does not resume them."""
    a = await rig.client("a", clean=False)
    await a.publish("t/g/a/x", b"", qos=1, properties=alias(1))
    a.cut()
    a = await rig.client("a", clean=False)
    assert a.session_present
    await a.send(V5.encode_publish("", b"", properties=alias(1)))
    assert await ended_with(a) == 0x82


# --- subscriptions -------------------------------------------------------------------------------------------


async def test_options_and_identifier_pass_where_the_packet_is_made_anew(rig: Rig) -> None:
    """A denied filter among them: no local, retain as published, retain handling and the identifier stay (3.8.3.1)."""
    spy = await rig.client("spy")
    await spy.publish("t/g/a/kept", b"r", qos=1, retain=True)
    a = await rig.client("a")
    properties = encode([(SUBSCRIPTION_IDENTIFIER, 300)])
    no_local, as_published, no_retained = 0x04, 0x08, 0x20
    options = 0x01 | no_local | as_published | no_retained
    assert await a.subscribe("t/g/b/#", ("t/g/a/#", options), properties=properties) == [0x87, 1]
    await a.publish("t/g/a/own", b"no", qos=1)
    await spy.publish("t/g/a/x", b"yes", qos=1, retain=True)
    delivery = await a.delivery()
    assert (delivery.topic, delivery.retain, delivery.qos) == ("t/g/a/x", True, 1)
    assert delivery.properties == properties


async def test_a_qos_above_the_rule_is_granted_at_the_rules_and_keeps_its_options(rig: Rig) -> None:
    """The lower QoS is in the bits of the QoS only."""
    rule = Rule(effect=Effect.ALLOW, action=RuleAction.SUBSCRIBE, topic="{tenant}/{ground}/{thing}/#", qos_max=1)
    rig.service.rules["a"] = (OWN[0], rule)
    a = await rig.client("a")
    assert await a.subscribe(("t/g/a/#", 0x02 | 0x04)) == [1]
    await a.publish("t/g/a/x", b"no", qos=1)
    spy = await rig.client("spy")
    await spy.publish("t/g/a/y", b"yes", qos=2)
    delivery = await a.delivery()
    assert (delivery.topic, delivery.qos) == ("t/g/a/y", 1)


async def test_an_unsubscribe_is_answered_filter_by_filter(rig: Rig) -> None:
    """3.11.3: 0x11 for what was not subscribed, repeated filters included."""
    a = await rig.client("a")
    await a.subscribe("t/g/a/x", "t/g/a/y")
    assert await a.unsubscribe("t/g/a/x", "t/g/a/z", "t/g/a/x", "t/g/a/y") == [0, 0x11, 0x11, 0]


async def test_a_subscription_that_waits_is_taken_back_with_its_right(rig: Rig) -> None:
    """A swap between SUBSCRIBE and SUBACK: 0x87, for each place of the filter, and gone upstream."""
    a = await rig.client("a")
    connection = session_of(rig).connection
    connection.data_received(V5.encode_subscribe(9, [("t/g/a/#", 1), ("t/g/b/x", 0), ("t/g/a/#", 0)]))
    rig.service.regrant("a", OWN[:1])
    assert V5.suback(await a.expect(wire.SUBACK)).codes == b"\x87\x87\x87"
    rig.service.regrant("a", OWN)
    await a.subscribe("t/g/a/end")
    await a.publish("t/g/a/x", b"no", qos=1)
    await a.publish("t/g/a/end", qos=1)
    assert await a.deliveries_until("t/g/a/end") == []


# --- limits of either side -----------------------------------------------------------------------------------


async def test_the_clients_receive_maximum_holds_for_the_broker(rig: Rig) -> None:
    """MQTT-3.3.4-9: two are under way, the third comes with an acknowledgement; withheld ones take no place."""
    deny = Rule(effect=Effect.DENY, action=RuleAction.SUBSCRIBE, topic="{tenant}/g/a/secret")
    rig.service.rules["a"] = (*OWN, deny)
    a = await rig.client("a", receive_maximum=2)
    assert await a.subscribe(("t/g/a/#", 1)) == [1]
    spy = await rig.client("spy")
    for n in range(4):
        await spy.publish("t/g/a/secret", b"no", qos=1)
        await spy.publish("t/g/a/x", b"%d" % n, qos=1)
    first = V5.publish(await a.next_packet(), from_server=True)
    second = V5.publish(await a.next_packet(), from_server=True)
    assert (first.payload, second.payload) == (b"0", b"1")
    await a.ping()
    assert a.received == []
    assert first.packet_id is not None
    await a.send(V5.encode_ack(wire.PUBACK, first.packet_id))
    assert (await a.delivery()).payload == b"2"


@pytest.mark.parametrize("last", ["t/g/a/x", "t/g/b/denied"])
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_client_that_exceeds_the_receive_maximum_is_ended(upstream: Upstream, last: str, qos: int) -> None:
    """4.9: 0x93, also where its last one would have been denied and answered here."""
    async with rig_on(upstream, limits=Limits(max_open_qos2=5)) as rig:
        a = await rig.client("a")
        assert a.answer is not None
        assert a.answer.receive_maximum == 5
        for packet_id in range(1, 6):
            await a.send(V5.encode_publish("t/g/a/x", b"", qos=2, packet_id=packet_id))
            await a.expect_ack(wire.PUBREC, packet_id)
        await a.send(V5.encode_publish("t/g/a/x", b"", qos=2, packet_id=5, dup=True))  # a repetition is none more
        await a.expect_ack(wire.PUBREC, 5)
        await a.send(V5.encode_publish(last, b"", qos=qos, packet_id=6))
        assert await ended_with(a) == 0x93


async def test_an_exchange_that_ended_gives_its_place_back(upstream: Upstream) -> None:
    """PUBCOMP and a PUBREC that refuses both do; a new connection begins with none (4.9)."""
    async with rig_on(upstream, limits=Limits(max_open_qos2=3)) as rig:
        a = await rig.client("a", clean=False)
        for _ in range(10):
            assert await a.publish("t/g/a/x", b"", qos=2) == 0
            assert await a.publish("t/g/b/x", b"", qos=2) == 0x87
        assert not session_of(rig).connection.inbound.in_flight


@pytest.mark.parametrize("maximum", [60, 128, 129, 300])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_what_is_too_large_for_the_client_is_never_sent_to_it(rig: Rig, maximum: int, qos: int) -> None:
    """MQTT-3.1.2-24: dropped and acknowledged; what follows arrives."""
    a = await rig.client("a", maximum_packet_size=maximum)
    assert await a.subscribe(("t/g/a/#", qos)) == [qos]
    connection = session_of(rig).connection
    spy = await rig.client("spy")
    for size in (maximum, 1, maximum - 10, maximum * 3, 2):
        await spy.publish("t/g/a/x", b"x" * size, qos=qos)
        if size == 1:  # from a broker that does not care
            connection.upstream_received(V5.encode_publish("t/g/a/x", b"y" * maximum))
    await spy.publish("t/g/a/end", qos=qos)
    seen = await a.deliveries_until("t/g/a/end")
    sizes = [len(p.payload) for p in seen]
    assert 1 in sizes
    assert 2 in sizes
    assert all(len(V5.encode_publish(p.topic, p.payload, qos=p.qos, packet_id=p.packet_id)) <= maximum for p in seen)


async def test_a_client_that_takes_no_connack_is_let_go(rig: Rig) -> None:
    """Without its properties the client would not know its terms; nothing larger than it takes is sent."""
    for maximum in range(1, 24):
        client = await rig.open()
        code = await client.connect("a", "a", maximum_packet_size=maximum)
        assert code in ({0x82, 0x88} if maximum >= 5 else {0x82, 0x88, None}) or client.answer is not None
        if code == 0:
            assert maximum >= len(V5.encode_connack(0, properties=wire.connack_section(client.answer)))
            break
        assert len(rig.service.sessions) == 0


async def test_a_packet_above_ours_is_refused_with_its_reason(upstream: Upstream) -> None:
    """3.2.2.3.6: 0x95, as soon as the length is known."""
    async with rig_on(upstream, limits=Limits(max_packet_bytes=1_000)) as rig:
        a = await rig.client("a")
        assert a.answer is not None
        assert a.answer.maximum_packet_size == 1_000
        await a.publish("t/g/a/x", b"x" * 900, qos=1)
        await a.send(b"\x30\xff\x7f")
        assert await ended_with(a) == 0x95


# --- ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.TOKEN_REVOKED, 0x98),
        (Reason.THING_BLOCKED, 0x98),
        (Reason.KICKED, 0x98),
        (Reason.TOKEN_EXPIRED, 0xA0),
        (Reason.SHUTTING_DOWN, 0x8B),
    ],
)
async def test_who_is_ended_by_the_service_is_told_why(rig: Rig, reason: Reason, code: int) -> None:
    """3.14.2.1; the connection is closed at once."""
    a = await rig.client("a")
    await a.ping()
    rig.service.sessions.end(session_of(rig), reason, Will.NEVER)
    async with asyncio.timeout(0.5):
        assert await ended_with(a) == code


async def test_who_is_taken_over_is_told_so(rig: Rig) -> None:
    """MQTT-3.1.4-3: 0x8E."""
    a = await rig.client("a")
    again = await rig.client("a")
    assert await ended_with(a) == 0x8E
    await again.ping()


async def test_silence_is_ended_with_its_reason(rig: Rig) -> None:
    """3.1.2.10: 0x8D after one and a half times the keep alive."""
    a = await rig.client("a", keep_alive_s=1)
    assert await ended_with(a) == 0x8D


async def test_a_lost_broker_is_told_and_not_as_the_clients_fault(rig: Rig) -> None:
    """0x89: it may come again."""
    a = await rig.client("a")
    session_of(rig).connection.link.abort()
    assert await ended_with(a) == 0x89


async def test_nothing_that_is_buffered_is_sent_after_the_end(rig: Rig) -> None:
    """Not even the DISCONNECT, which would have to come after it."""
    client = await RawClient.open(rig.address, limit=1024)
    client.level = wire.MQTT_5_0
    assert await client.connect("a", "a") == 0
    connection = session_of(rig).connection
    client.writer.transport.pause_reading()
    packet = V5.encode_publish("t/g/a/x", b"x" * 60_000)
    connection.transport.set_write_buffer_limits(high=10_000_000)
    while connection.transport.get_write_buffer_size() < 200_000:
        connection.outbound.forward(packet)
    connection.outbound.forward(V5.encode_publish("t/g/a/last", b"secret"))
    rig.service.sessions.end(session_of(rig), Reason.TOKEN_REVOKED, Will.NEVER)
    client.writer.transport.resume_reading()
    received = b""
    try:
        while chunk := await client.reader.read(65_536):
            received += chunk
    except ConnectionError:
        pass
    assert b"secret" not in received
    assert not received.endswith(b"\xe0\x01\x98")


@pytest.mark.parametrize("door", ["tls", "websocket"])
async def test_every_door_tells_why_it_closes(rig: Rig, tmp_path: Path, door: str) -> None:
    """The DISCONNECT goes out alone through TLS and in a frame too."""
    if door == "tls":
        server, client_side = contexts(tmp_path)
        address = await rig.gate.listen(Listener(name="tls", host="127.0.0.1", port=0, tls=server))
        client = await RawClient.open(address, tls=client_side)
        client.level = wire.MQTT_5_0
        assert await client.connect("a", "a") == 0
        await client.ping()
        rig.service.sessions.end(session_of(rig), Reason.TOKEN_REVOKED, Will.NEVER)
        assert await ended_with(client) == 0x98
        return
    host, port = await rig.gate.listen(Listener(name="ws", host="127.0.0.1", port=0, websocket=True))
    async with connect(f"ws://{host}:{port}/mqtt", subprotocols=[Subprotocol("mqtt")]) as ws:
        await ws.send(V5.encode_connect(client_id="a", username="", password=b"a"))
        await ws.recv()
        rig.service.sessions.end(session_of(rig), Reason.TOKEN_EXPIRED, Will.SEND)
        assert await ws.recv() == V5.encode_disconnect(0xA0)


async def test_deliveries_with_an_identifier_stay_in_the_run(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the broker alone may send is no reason to look at each packet."""
    a = await rig.client("a")
    await a.subscribe("t/g/a/#", properties=encode([(SUBSCRIPTION_IDENTIFIER, 7)]))
    outbound = session_of(rig).connection.outbound
    await a.publish("t/g/a/x", b"first", qos=1)
    assert (await a.delivery()).payload == b"first"
    packet = V5.encode_publish("t/g/a/x", b"m", properties=encode([(SUBSCRIPTION_IDENTIFIER, 7)]))
    handled: list[bytes] = []
    monkeypatch.setattr(Outbound, "handle", lambda _, one: handled.append(one))
    outbound.feed(packet * 3)
    assert handled == []
    assert [(await a.delivery()).payload for _ in range(3)] == [b"m"] * 3
