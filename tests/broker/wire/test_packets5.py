"""Single packets of MQTT 5.0: valid ones are read and written exactly, hostile ones refused with clause and code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker import wire
from broker.wire import reason_codes
from broker.wire.sections import (
    MOST,
)
from tests.broker.wire.cases import CLIENT
from tests.broker.wire.cases5 import (
    ALL_PLACES,
    EVERY_PROPERTY,
    HOSTILE5,
    PLACES,
    VALID5,
    connect,
    in_place,
    packet,
    props,
    sender_of,
)
from tests.fuzz.invariants5 import V5, encode5, parse5

SECRET = "asapp_" + "s3cretS3cret" * 4 + "x"
CUTTABLE = {wire.PUBLISH}  # the payload ends where the packet does: only the remaining length tells a cut


@pytest.mark.parametrize("case", VALID5, ids=lambda case: case.id)
def test_valid_packet_is_read_as_what_it_says(case):
    """Every field and property of a well-formed packet arrives."""
    assert parse5(case.packet, case.sender) == case.parsed


@pytest.mark.parametrize("case", VALID5, ids=lambda case: case.id)
def test_valid_packet_is_written_as_it_was_read(case):
    """Encoding the record gives the bytes of the packet, or shorter ones that are read as the same."""
    again = encode5(case.parsed)
    if case.canonical:
        assert sorted(again) == sorted(case.packet)  # the order of properties is the writer's
        assert len(again) == len(case.packet)
    else:
        assert len(again) < len(case.packet)
    assert parse5(again, case.sender) == case.parsed


@pytest.mark.parametrize("case", HOSTILE5, ids=lambda case: case.id)
def test_hostile_packet_is_refused_with_clause_and_code(case):
    """The refusal names the clause that was broken and the code to DISCONNECT with."""
    with pytest.raises(wire.MalformedPacket) as refusal:
        parse5(case.packet, case.sender)
    assert (refusal.value.clause, refusal.value.code) == (case.clause, case.code)


@pytest.mark.parametrize("case", VALID5, ids=lambda case: case.id)
def test_packet_cut_at_any_byte_is_malformed(case):
    """No parser takes the beginning of a packet for the packet."""
    for end in range(len(case.packet)):
        with pytest.raises(wire.MalformedPacket):
            parse5(case.packet[:end], case.sender)


@pytest.mark.parametrize("case", VALID5, ids=lambda case: case.id)
def test_packet_with_a_byte_too_many_is_malformed(case):
    """Trailing bytes are refused, even a whole packet."""
    for tail in (b"\x00", b"\xc0\x00"):
        with pytest.raises(wire.MalformedPacket):
            parse5(case.packet + tail, case.sender)


@pytest.mark.parametrize("place", ALL_PLACES)
@pytest.mark.parametrize("id_", EVERY_PROPERTY, ids=hex)
def test_property_is_taken_exactly_where_table_2_4_has_it(id_, place):
    """Every id in every kind of packet: accepted where the specification lists it, nowhere else."""
    more = "15 0001 'm'" if place in {"connect", "connack", "auth"} and id_ != 0x15 else ""
    raw = in_place(place, props(EVERY_PROPERTY[id_], more))
    # Two are a server's in packets that both may send (MQTT-3.3.4-6, 3.14.2.2.5).
    sender = "server" if (id_, place) in {(0x0B, "publish"), (0x1C, "disconnect")} else sender_of(place)
    if place in PLACES[id_]:
        assert encode5(parse5(raw, sender))
    else:
        with pytest.raises(wire.MalformedPacket, match=r"does not belong"):
            parse5(raw, sender)


@pytest.mark.parametrize("place", ALL_PLACES)
def test_section_cut_at_any_byte_is_malformed(place):
    """A section that ends within a property is refused, with a length that says so and with one that does not."""
    for id_, text in EVERY_PROPERTY.items():
        if place not in PLACES[id_]:
            continue
        whole = props(text)
        for end in range(2, len(whole)):
            cut = bytes((end - 1,)) + whole[1:end]
            with pytest.raises(wire.MalformedPacket):
                parse5(in_place(place, cut), sender_of(place))


def test_properties_are_kept_in_their_order_and_without_the_alias():
    """What goes on to subscribers is what the publisher wrote; the alias is a matter of this hop."""
    raw = packet(0x30, "0001 'a'", props("26 0001 'b' 0000 23 0001 03 0001 't' 26 0001 'a' 0000"))
    publish = V5.publish(raw)
    assert publish.properties == joined_hex("26 0001 62 0000 03 0001 74 26 0001 61 0000")
    assert publish.topic_alias == 1
    again = V5.publish(V5.encode_publish("a", b"", properties=publish.properties))
    assert again == replace(publish, topic_alias=None)


def joined_hex(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize("field", ["password", "username", "client_id", "authentication_method"])
def test_no_token_is_in_the_repr_of_a_connect(field):
    """Whichever field a client puts its token in, printing the record does not show it."""
    values = {"client_id": "c", "username": "gw", field: SECRET.encode() if field == "password" else SECRET}
    raw = wire.codec_of(5).encode_connect(
        **values,
        properties=wire.sections.encode([(wire.properties.USER_PROPERTY, ("token", SECRET))]),
        **({} if field == "authentication_method" else {"authentication_method": "m"}),
        authentication_data=SECRET.encode(),
    )
    assert "s3cret" not in repr(wire.parse_connect(raw, mqtt5=True))


P = wire.properties
RECORDS_WITH_SECRETS = (
    V5.publish(
        V5.encode_publish("a", SECRET.encode(), properties=wire.sections.encode([(P.USER_PROPERTY, ("t", SECRET))]))
    ),
    V5.ack(V5.encode_ack(wire.PUBACK, 1, 0x87, wire.sections.encode([(P.REASON_STRING, SECRET)]))),
    V5.disconnect(V5.encode_disconnect(4, wire.sections.encode([(P.REASON_STRING, SECRET)]))),
    V5.subscribe(V5.encode_subscribe(1, [("a", 0)], wire.sections.encode([(P.USER_PROPERTY, (SECRET, ""))]))),
    V5.suback(V5.encode_suback(1, [0], wire.sections.encode([(P.REASON_STRING, SECRET)]))),
    V5.unsubscribe(V5.encode_unsubscribe(1, ["a"], wire.sections.encode([(P.USER_PROPERTY, (SECRET, ""))]))),
    V5.unsuback(V5.encode_unsuback(1, [0], wire.sections.encode([(P.REASON_STRING, SECRET)]))),
    V5.connack(
        V5.encode_connack(
            0,
            properties=wire.sections.encode(
                [(P.REASON_STRING, SECRET), (P.AUTHENTICATION_METHOD, SECRET), (P.RESPONSE_INFORMATION, SECRET)]
                + [(P.AUTHENTICATION_DATA, SECRET.encode())]
            ),
        )
    ),
    V5.from_client(
        packet(
            0xF0,
            "18",
            props(wire.sections.encode([(P.AUTHENTICATION_METHOD, SECRET), (P.AUTHENTICATION_DATA, b"s3cret")])),
        )
    ),
)


@pytest.mark.parametrize("record", RECORDS_WITH_SECRETS, ids=lambda record: type(record).__name__)
def test_no_property_of_a_user_is_in_a_repr(record):
    """Properties, reasons and authentication are users' text: printing a record shows none of them."""
    assert "s3cret" not in repr(record)


@pytest.mark.parametrize("id_", [0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1F, 0x26], ids=hex)
@pytest.mark.parametrize("spoilt", [b"\x00", b"\xff", b"+"], ids=["nul", "not-utf8", "wildcard"])
def test_no_property_is_in_a_refusal(id_, spoilt):
    """Neither the exception nor anything chained to it holds what the property said."""
    text = b"s3cret" + spoilt
    raw = bytes((id_, 0, len(text))) + text + (b"\x00\x00" if id_ == 0x26 else b"")
    for place in ALL_PLACES:
        for section in (props(raw), props(raw, raw), bytes((len(raw) - 1,)) + raw):
            try:
                parse5(in_place(place, section), sender_of(place))
            except wire.MalformedPacket as refusal:
                assert "s3cret" not in str(refusal) + repr(refusal) + repr(refusal.__cause__)
                assert refusal.__context__ is None or refusal.__suppress_context__


@pytest.mark.parametrize("place", [place for place in ALL_PLACES if sender_of(place) == CLIENT])
def test_client_may_not_send_properties_without_end(place):
    """The time that a packet takes is bounded: a thousand user properties are a quota exceeded, one less is not."""
    one = b"\x26\x00\x00\x00\x00"
    try:
        parse5(in_place(place, props(one * (MOST - 1))), CLIENT)
    except wire.MalformedPacket as refusal:
        assert refusal.code != reason_codes.QUOTA_EXCEEDED
    with pytest.raises(wire.MalformedPacket) as refused:
        parse5(in_place(place, props(one * MOST)), CLIENT)
    assert refused.value.code == reason_codes.QUOTA_EXCEEDED


def test_connect_of_level_5_is_unsupported_unless_asked_for():
    """Who does not ask for MQTT 5.0 gets the refusal with the answer that its client reads."""
    raw = connect(0x02, b"\x00", "0001 'c'")
    with pytest.raises(wire.UnsupportedProtocol) as refusal:
        wire.parse_connect(raw)
    assert refusal.value.answer == bytes.fromhex("2003008400")
    assert wire.parse_connect(raw, mqtt5=True).level == 5


def test_connect_of_other_levels_is_read_the_same_with_5_0_asked_for():
    """The older levels stay what they are; levels that do not exist stay unsupported."""
    old = wire.encode_connect(client_id="c")
    assert wire.parse_connect(old, mqtt5=True) == wire.parse_connect(old)
    for level in (0, 6, 0x85):
        with pytest.raises(wire.UnsupportedProtocol):
            wire.parse_connect(old[:8] + bytes((level,)) + old[9:], mqtt5=True)


def test_empty_client_id_is_never_refused_by_the_protocol_of_5_0():
    """3.1.3.1: the server assigns one, and says which."""
    for flags in (0x00, 0x02):
        assert not wire.parse_connect(connect(flags, b"\x00", "0000"), mqtt5=True).client_id_refused


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: V5.encode_publish("", b""), id="no-topic-and-no-alias"),
        pytest.param(lambda: V5.encode_publish("a", b"", qos=1), id="qos-1-without-id"),
        pytest.param(lambda: V5.encode_publish("a", b"", qos=3, packet_id=1), id="qos-3"),
        pytest.param(lambda: V5.encode_publish("a", b"", dup=True), id="dup-with-qos-0"),
        pytest.param(lambda: V5.encode_ack(wire.PUBACK, 0), id="id-0"),
        pytest.param(lambda: V5.encode_ack(wire.PUBACK, 65_536, 0x87), id="id-65536"),
        pytest.param(lambda: V5.encode_subscribe(1, []), id="subscribe-nothing"),
        pytest.param(lambda: V5.encode_subscribe(1, [("a", 0x40)]), id="reserved-option"),
        pytest.param(lambda: V5.encode_subscribe(1, [("a", 0x30)]), id="retain-handling-3"),
        pytest.param(lambda: V5.encode_unsubscribe(1, []), id="unsubscribe-nothing"),
        pytest.param(lambda: V5.encode_suback(1, b""), id="suback-nothing"),
        pytest.param(lambda: V5.encode_unsuback(1, []), id="unsuback-nothing"),
        pytest.param(lambda: V5.encode_connack(0x87, session_present=True), id="refused-with-session"),
        pytest.param(lambda: V5.encode_connect(client_id="c", receive_maximum=0), id="receive-maximum-0"),
        pytest.param(lambda: wire.sections.encode([(P.RECEIVE_MAXIMUM, 65_536)]), id="number-too-large"),
        pytest.param(lambda: wire.sections.encode([(P.SUBSCRIPTION_IDENTIFIER, 0)]), id="identifier-0"),
        pytest.param(
            lambda: wire.sections.encode([(P.SUBSCRIPTION_IDENTIFIER, 268_435_456)]), id="identifier-too-large"
        ),
        pytest.param(lambda: wire.sections.encode([(P.REASON_STRING, 5)]), id="number-for-a-string"),
        pytest.param(lambda: wire.sections.encode([(P.CONTENT_TYPE, "x" * 65_536)]), id="string-too-long"),
        pytest.param(lambda: wire.sections.variable_bytes(-1), id="negative-length"),
    ],
)
def test_impossible_packet_is_not_written(call):
    """A packet that the peer would have to refuse is a ValueError of the one who asked for it."""
    with pytest.raises(ValueError, match=r"."):
        call()


def test_properties_are_taken_out_by_id():
    """A reason string that does not fit goes, user properties stay as they are."""
    section = wire.sections.encode(
        [(P.USER_PROPERTY, ("a", "b")), (P.REASON_STRING, "why"), (P.USER_PROPERTY, ("a", "c"))]
    )
    left = wire.sections.without(section, wire.PUBACK, {P.REASON_STRING})
    assert left == wire.sections.encode([(P.USER_PROPERTY, ("a", "b")), (P.USER_PROPERTY, ("a", "c"))])
    assert wire.sections.without(b"", wire.PUBACK, {P.REASON_STRING}) == b""


@pytest.mark.parametrize("case", VALID5, ids=lambda case: case.id)
def test_packet_of_5_0_passes_the_framer_of_its_level(case):
    """Every first byte that 5.0 has, AUTH among them; what only 3.1 repeats is refused at once."""
    framer = wire.Framer(65_536, level=5)
    assert list(framer.packets(case.packet)) == [case.packet]
    for first in (0x6A, 0x8A, 0xAA, 0x11, 0xF1):
        with pytest.raises(wire.MalformedPacket):
            wire.Framer(65_536, level=5).packets(bytes((first, 0))).__next__()


def test_too_large_packet_has_its_own_code():
    """4.13 and 3.14.2.1: 0x95 says why, before the packet has arrived."""
    with pytest.raises(wire.PacketTooLarge) as refusal:
        wire.Framer(100, level=5).cut(b"\x30\xff\x7f", 0)
    assert refusal.value.code == 0x95


@pytest.mark.parametrize("level", [3, 4])
def test_codec_of_older_levels_leaves_out_what_they_cannot_say(level):
    """The gate's one way of writing answers is right for each level."""
    codec = wire.codec_of(level)
    section = wire.sections.encode([(P.REASON_STRING, "why")])
    assert codec.encode_ack(wire.PUBACK, 1, 0x87, section) == bytes.fromhex("40020001")
    assert codec.encode_suback(1, [0, 0x87, 0x8F], section) == bytes.fromhex("90050001008080")
    assert codec.encode_unsuback(1, [0x11], section) == bytes.fromhex("b0020001")
    assert codec.encode_disconnect(0x98, section) == bytes.fromhex("e000")
    assert codec.encode_publish("a", b"x", properties=section) == wire.encode_publish("a", b"x")
    assert codec.encode_subscribe(1, [("a", 0x2E)], section) == wire.encode_subscribe(1, [("a", 2)])
    assert codec.encode_connect(client_id="c", session_expiry_s=5) == wire.encode_connect(client_id="c", level=level)
    assert codec.unsuback(bytes.fromhex("b0020001")) == wire.Unsuback(packet_id=1, codes=b"")
    with pytest.raises(wire.MalformedPacket):
        codec.ack(bytes.fromhex("b0020001"))
    with pytest.raises(wire.MalformedPacket):
        codec.disconnect(wire.DISCONNECT_PACKET, from_server=True)


PARSERS = {
    "connack": {wire.CONNACK},
    "publish": {wire.PUBLISH},
    "ack": {wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP},
    "subscribe": {wire.SUBSCRIBE},
    "suback": {wire.SUBACK},
    "unsubscribe": {wire.UNSUBSCRIBE},
    "unsuback": {wire.UNSUBACK},
    "disconnect": {wire.DISCONNECT},
}


@pytest.mark.parametrize("name", PARSERS)
def test_parser_takes_no_packet_of_another_type(name):
    """Who calls the wrong parser is told, and gets no record made of other fields."""
    parser = getattr(V5, name)
    for raw in [b"", *(case.packet for case in VALID5 if case.packet[0] & wire.TYPE_MASK not in PARSERS[name])]:
        with pytest.raises(wire.MalformedPacket):
            parser(raw)


def test_table_has_a_case_of_every_packet_type_from_both_sides():
    """The tables above are not missing a type."""
    kinds = {case.packet[0] & wire.TYPE_MASK for case in VALID5}
    assert kinds == set(wire.NAMES)
    assert {case.packet[0] & wire.TYPE_MASK for case in HOSTILE5} >= kinds
    assert any(case.sender == CLIENT for case in HOSTILE5)
