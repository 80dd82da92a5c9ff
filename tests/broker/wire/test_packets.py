"""Single packets: the valid ones are read and written exactly, each hostile one is refused with its clause."""

from __future__ import annotations

from dataclasses import replace

import pytest

from authsvc.core.credentials import WillMessage
from broker import wire
from tests.broker.wire.cases import CLIENT, HOSTILE, UNSUPPORTED, VALID, Hostile, Valid, connect_body, connected
from tests.fuzz.invariants import encode


def parse(case: Valid | Hostile) -> wire.Packet:
    if case.sender == CLIENT:
        return wire.parse_from_client(case.packet, level=case.level)
    return wire.parse_from_server(case.packet)


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.id)
def test_valid_packet_is_read_as_what_it_says(case):
    """Every field of a well-formed packet arrives."""
    assert parse(case) == case.parsed


@pytest.mark.parametrize("case", [case for case in VALID if case.canonical], ids=lambda case: case.id)
def test_valid_packet_is_written_as_it_was_read(case):
    """Encoding the record gives the bytes of the packet again."""
    assert encode(case.parsed) == case.packet


@pytest.mark.parametrize("case", [case for case in VALID if not case.canonical], ids=lambda case: case.id)
def test_lax_packet_of_3_1_is_written_strictly(case):
    """What only MQTT 3.1 allows is translated into a packet that says the same without it."""
    again = encode(case.parsed)
    assert again != case.packet
    assert wire.parse_from_client(again, level=case.level) == case.parsed


@pytest.mark.parametrize("case", [case for case in VALID if not case.canonical], ids=lambda case: case.id)
def test_lax_packet_of_3_1_is_malformed_under_3_1_1(case):
    """The allowances of MQTT 3.1 are for a level 3 connection only."""
    packet = case.packet.replace(b"\x00\x06MQIsdp\x03", b"\x00\x04MQTT\x04")
    if packet != case.packet:
        packet = bytes((packet[0], packet[1] - 2)) + packet[2:]
    with pytest.raises(wire.MalformedPacket):
        wire.parse_from_client(packet)


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.id)
def test_hostile_packet_is_refused_with_its_clause(case):
    """The refusal names the clause that was broken."""
    with pytest.raises(wire.MalformedPacket) as refusal:
        parse(case)
    assert refusal.value.clause == case.clause


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.id)
def test_packet_cut_at_any_byte_is_malformed(case):
    """No parser takes the beginning of a packet for the packet."""
    for end in range(min(len(case.packet), 300)):
        with pytest.raises(wire.MalformedPacket):
            parse(replace(case, packet=case.packet[:end]))


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.id)
def test_packet_with_a_byte_too_many_is_malformed(case):
    """Trailing bytes are refused, even a whole packet."""
    for tail in (b"\x00", b"\xc0\x00"):
        with pytest.raises(wire.MalformedPacket):
            parse(replace(case, packet=case.packet + tail))


@pytest.mark.parametrize(("packet", "answer"), [pytest.param(p, a, id=i) for i, p, a in UNSUPPORTED])
def test_other_protocol_level_gets_the_answer_its_client_reads(packet, answer):
    """MQTT 5 is answered in MQTT 5, every other unknown level with return code 1 (MQTT-3.1.2-2)."""
    with pytest.raises(wire.UnsupportedProtocol) as refusal:
        wire.parse_connect(packet)
    assert refusal.value.answer == answer


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        pytest.param("0004 'MQTT' 04 02 003C 0000", False, id="3.1.1-clean"),
        pytest.param("0004 'MQTT' 04 00 003C 0000", True, id="3.1.1-kept"),
        pytest.param("0006 'MQIsdp' 03 02 003C 0000", True, id="3.1-clean"),
        pytest.param("0006 'MQIsdp' 03 02 003C 0001 'c'", False, id="3.1-with-id"),
    ],
)
def test_empty_client_id_is_refused_by_the_protocol_only_where_it_says_so(body, refused):
    """MQTT-3.1.3-8 answers 2 to an empty id that asks for a kept session; MQTT 3.1 has no empty ids."""
    assert wire.parse_connect(connect_body(body)).client_id_refused is refused


def test_decoded_bom_is_another_client_id():
    """U+FEFF is never stripped (MQTT-1.5.3-3), so it cannot be used to pass as somebody else."""
    plain = wire.parse_connect(wire.encode_connect(client_id="sensor"))
    marked = wire.parse_connect(wire.encode_connect(client_id="\ufeffsensor"))
    assert plain.client_id != marked.client_id


SECRET = "asapp_" + "s3cretS3cret" * 4 + "x"


@pytest.mark.parametrize("field", ["password", "username", "client_id"])
def test_no_token_is_in_the_repr_of_a_connect(field):
    """Whichever field a client puts its token in, printing the record does not show it."""
    values = {"client_id": "c", "username": "gw", "password": b"p", field: SECRET}
    if field == "password":
        values["password"] = SECRET.encode()
    shown = repr(wire.parse_connect(wire.encode_connect(**values)))
    assert "s3cret" not in shown


def test_no_token_is_in_the_refusal_of_a_connect():
    """Neither the exception nor anything chained to it holds the bytes that were refused."""
    with pytest.raises(wire.MalformedPacket) as refusal:
        wire.parse_connect(connect_body("0004 'MQTT' 04 82 003C 0001 'c' 000F FF 's3cret-s3crets'"))
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__
    assert "s3cret" not in str(refusal.value) + repr(refusal.value)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: wire.encode_publish("a", b"", qos=1), id="qos-1-without-id"),
        pytest.param(lambda: wire.encode_publish("a", b"", packet_id=1), id="qos-0-with-id"),
        pytest.param(lambda: wire.encode_publish("a", b"", qos=3, packet_id=1), id="qos-3"),
        pytest.param(lambda: wire.encode_publish("a", b"", dup=True), id="dup-with-qos-0"),
        pytest.param(lambda: wire.encode_publish("a" * 65_536, b""), id="topic-too-long"),
        pytest.param(lambda: wire.encode_publish("a", bytes(268_435_453)), id="packet-too-long"),
        pytest.param(lambda: wire.encode_ack(wire.PUBACK, 0), id="id-0"),
        pytest.param(lambda: wire.encode_ack(wire.PUBACK, 65_536), id="id-65536"),
        pytest.param(lambda: wire.encode_subscribe(1, []), id="subscribe-nothing"),
        pytest.param(lambda: wire.encode_unsubscribe(1, []), id="unsubscribe-nothing"),
        pytest.param(lambda: wire.encode_suback(1, b""), id="suback-nothing"),
        pytest.param(lambda: wire.encode_connack(5, session_present=True), id="refused-with-session"),
        pytest.param(lambda: wire.encode_connect(client_id="c", password=b"p"), id="password-without-username"),
        pytest.param(
            lambda: wire.encode_connect(client_id="c", will=WillMessage(topic="w", payload=b"", qos=3, retain=False)),
            id="will-qos-3",
        ),
        pytest.param(lambda: wire.remaining_length(-1), id="negative-length"),
    ],
)
def test_impossible_packet_is_not_written(call):
    """A packet that the peer would have to refuse is a ValueError of the one who asked for it."""
    with pytest.raises(ValueError, match=r"."):
        call()


@pytest.mark.parametrize(
    ("length", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
    ],
)
def test_remaining_length_is_that_of_table_2_4(length, encoded):
    """The bounds of each size of 2.2.3."""
    assert wire.remaining_length(length).hex() == encoded


PARSERS = (
    (wire.parse_connect, {wire.CONNECT}),
    (wire.parse_connack, {wire.CONNACK}),
    (wire.parse_publish, {wire.PUBLISH}),
    (wire.parse_subscribe, {wire.SUBSCRIBE}),
    (wire.parse_suback, {wire.SUBACK}),
    (wire.parse_unsubscribe, {wire.UNSUBSCRIBE}),
    (wire.parse_ack, {wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP, wire.UNSUBACK}),
    (wire.parse_bare, {wire.PINGREQ, wire.PINGRESP, wire.DISCONNECT}),
)


@pytest.mark.parametrize(("parser", "kinds"), PARSERS, ids=[parser.__name__ for parser, _ in PARSERS])
def test_parser_takes_no_packet_of_another_type(parser, kinds):
    """Who calls the wrong parser is told, and gets no record made of other fields."""
    for packet in [b"", *(case.packet for case in VALID if case.packet[0] & wire.TYPE_MASK not in kinds)]:
        with pytest.raises(wire.MalformedPacket):
            parser(packet)


def test_refusals_say_what_and_why():
    """An operator reads the clause, or the level and name; a CONNECT without secrets shows what it holds."""
    assert str(wire.MalformedPacket("MQTT-1.2-3", "something")) == "something (MQTT-1.2-3)"
    assert str(wire.UnsupportedProtocol(level=5, name="MQTT")) == "protocol level 5 of MQTT is not supported"
    assert "username=absent, password=absent" in repr(connected())
    assert "client_id='gw-1'" in repr(connected(client="gw-1"))
    assert len(repr(connected(client="x" * 10_000))) < 300


def test_client_id_cannot_forge_a_line_of_a_log():
    """A line break in a client id is shown escaped."""
    assert "\n" not in repr(connected(client="a\nsession_opened client=b"))


def test_unsuback_is_written_as_acknowledgement():
    """The two ways to write an UNSUBACK agree."""
    assert wire.encode_unsuback(7) == wire.encode_ack(wire.UNSUBACK, 7) == b"\xb0\x02\x00\x07"
