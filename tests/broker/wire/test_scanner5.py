"""The scanner of MQTT 5.0: a run holds exactly what may go on unchanged, and nothing that the parsers would refuse."""

from __future__ import annotations

import pytest

from broker import wire
from tests.broker.wire.cases import CLIENT, hexed
from tests.broker.wire.cases5 import HOSTILE5, VALID5, packet, props
from tests.fuzz.invariants import EVERYTHING, MAX_PACKET
from tests.fuzz.invariants5 import V5, check_scanner5, is_for_the_run5

OPEN, SHUT = b"t/open", b"t/shut"
TABLES = [{OPEN: True, SHUT: False} for _ in range(8)]
P = wire.properties
MESSAGE = wire.sections.encode(
    [
        (P.PAYLOAD_FORMAT, 1),
        (P.MESSAGE_EXPIRY, 60),
        (P.CONTENT_TYPE, "application/json"),
        (P.RESPONSE_TOPIC, "t/reply"),
        (P.CORRELATION_DATA, b"\x00\xff"),
        (P.USER_PROPERTY, ("k", "v")),
        (P.USER_PROPERTY, ("k", "ü")),
    ]
)
LONG_SECTION = wire.sections.encode([(P.USER_PROPERTY, ("k", "v" * 500))])


def message(**fields) -> bytes:
    return V5.encode_publish(fields.pop("topic", OPEN), fields.pop("payload", b"x"), **fields)


RUN = {
    "qos0": message(),
    "no-payload": message(payload=b""),
    "qos1": message(qos=1, packet_id=256),
    "dup": message(qos=1, packet_id=255, dup=True),
    "properties": message(properties=MESSAGE),
    "properties-qos1": message(properties=MESSAGE, qos=1, packet_id=1),
    "long-section": message(properties=LONG_SECTION),
    "long-payload": message(payload=bytes(300)),
    "longer-payload": message(payload=bytes(20_000), qos=1, packet_id=1, properties=MESSAGE),
    "puback": hexed("40 02 0001"),
    "puback-reason": hexed("40 03 0001 10"),
    "puback-no-properties": hexed("40 04 0001 87 00"),
}


def scan(data: bytes, pos: int = 0, **options) -> wire.Run:
    return wire.scan_run5(data, pos, TABLES, **{"max_packet": 262_144, **options})


def test_run_of_permitted_packets_reaches_the_end():
    """All kinds that belong into a run, one after the other, in each size of header and section."""
    stream = b"".join(RUN.values())
    assert scan(stream) == (len(stream), len(RUN), wire.END)
    assert scan(b"\xff\xff" + stream, 2) == (2 + len(stream), len(RUN), wire.END)


@pytest.mark.parametrize("name", RUN)
def test_packet_cut_anywhere_ends_the_run_before_it(name):
    """Every prefix of a packet is `CUT`, never in the run and never taken for malformed."""
    raw = RUN[name]
    for cut in range(1, len(raw)) if len(raw) < 700 else [*range(1, 80), len(raw) - 1]:
        assert scan(RUN["qos0"] + raw[:cut]) == (len(RUN["qos0"]), 1, wire.CUT)


SLOW_PACKETS = {
    "denied-topic": message(topic=SHUT),
    "unknown-topic": message(topic="t/other", properties=MESSAGE),
    "denied-topic-qos1": message(topic=SHUT, qos=1, packet_id=1),
    "qos2": message(qos=2, packet_id=1),
    "alias-with-topic": message(properties=wire.sections.encode([(P.TOPIC_ALIAS, 1)])),
    "alias-alone": V5.encode_publish("", b"x", properties=wire.sections.encode([(P.TOPIC_ALIAS, 1)])),
    "alias-behind-others": message(properties=MESSAGE + wire.sections.encode([(P.TOPIC_ALIAS, 1)])),
    "identifier-of-client": message(properties=wire.sections.encode([(P.SUBSCRIPTION_IDENTIFIER, 1)])),
    "no-property-length": packet(0x30, "0006 't/open'"),
    "no-property-length-qos1": packet(0x32, "0006 't/open' 0001"),
    "expiry-twice": packet(0x30, "0006 't/open'", props("02 00000001 02 00000001"), "'x'"),
    "section-beyond-packet": packet(0x30, "0006 't/open' 03 01 01"),
    "section-beyond-long-packet": b"\x30\x8a\x01\x00\x06t/open\x80\x01\x26\x00\x7f" + bytes(127),
    "value-beyond-section": packet(0x30, "0006 't/open' 01 01 01"),
    "value-beyond-chunk": packet(0x30, "0006 't/open' 03 26 FFFF"),
    "property-length-not-shortest": packet(0x30, "0006 't/open' 8000"),
    "property-id-not-shortest": packet(0x30, "0006 't/open' 03 8100 01"),
    "property-of-connect": packet(0x30, "0006 't/open' 03 21 0001"),
    "qos1-id-0": packet(0x32, "0006 't/open' 0000 00"),
    "puback-id-0": hexed("40 02 0000"),
    "puback-id-0-reason": hexed("40 03 0000 00"),
    "puback-reserved-reason": hexed("40 03 0001 92"),
    "puback-properties": packet(0x40, "0001 00", props("1F 0002 'rs'")),
    "puback-broken-properties": hexed("40 04 0001 00 01"),
    "puback-short": hexed("40 01 01"),
    "puback-empty": hexed("40 00"),
    "pubrec": hexed("50 02 0001"),
    "pingreq": hexed("C0 00"),
    "disconnect": hexed("E0 00"),
    "auth": hexed("F0 00"),
    "not-shortest-length": hexed("30 8900 0006 't/open' 00"),
}


@pytest.mark.parametrize("behind", [b"", RUN["properties"], b"\x00\x00"], ids=["last", "followed", "zeros"])
@pytest.mark.parametrize("name", SLOW_PACKETS)
def test_packet_that_needs_a_closer_look_ends_the_run(name, behind):
    """Denied, unknown, other and malformed packets stay out, whatever follows that could be mistaken for theirs."""
    assert scan(RUN["qos1"] + SLOW_PACKETS[name] + behind) == (len(RUN["qos1"]), 1, wire.SLOW)


def test_subscription_identifiers_are_in_the_run_downwards_only():
    """MQTT-3.3.4-6: a server says which subscriptions matched, a client never."""
    raw = message(properties=wire.sections.encode([(P.SUBSCRIPTION_IDENTIFIER, n) for n in (1, 128, 268_435_455)]))
    assert scan(raw, from_server=True) == (len(raw), 1, wire.END)
    assert scan(raw) == (0, 0, wire.SLOW)
    for wrong in ("0B 00", "0B 8000", "0B 8080808001", "0B 80"):
        assert scan(packet(0x30, "0006 't/open'", props(wrong), "'x'"), from_server=True).packets == 0


@pytest.mark.parametrize("fields", [{}, {"qos": 1, "packet_id": 1}], ids=["qos0", "qos1"])
def test_retain_flag_is_in_the_run_only_where_it_is_asked_for(fields):
    """An upstream that keeps no retained messages needs the flag taken off, so such a packet leaves the run."""
    raw = message(retain=True, **fields)
    assert scan(raw) == (0, 0, wire.SLOW)
    assert scan(raw, retain=True) == (len(raw), 1, wire.END)


@pytest.mark.parametrize(("qos", "retain"), [(0, False), (0, True), (1, False), (1, True)])
def test_topic_is_looked_up_under_its_own_flags(qos, retain):
    """A permission for one QoS and retain flag is none for another."""
    raw = message(qos=qos, retain=retain, packet_id=1 if qos else None)
    for index in range(8):
        tables = [{OPEN: index == own} for own in range(8)]
        run = wire.scan_run5(raw, 0, tables, max_packet=1000, retain=True)
        assert run.packets == (index == (qos << 1 | retain))


def test_run_ends_when_it_is_full():
    """At most `max_count` packets; what follows is `FULL`, nothing is `END`."""
    one = RUN["properties"]
    assert scan(one * 5, max_count=3) == (3 * len(one), 3, wire.FULL)
    assert scan(one * 5, max_count=5) == (5 * len(one), 5, wire.END)


def test_packet_above_the_limit_is_not_in_the_run():
    """The limit counts the whole packet, also where it arrived whole."""
    raw = RUN["long-section"]
    assert scan(raw, max_packet=len(raw)).packets == 1
    assert scan(raw, max_packet=len(raw) - 1) == (0, 0, wire.SLOW)


@pytest.mark.parametrize("from_server", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("case", [*VALID5, *HOSTILE5], ids=lambda case: case.id)
def test_scanner_and_strict_parsers_agree_on_every_packet_of_the_table(case, from_server):
    """With every strictly valid topic allowed, the run is what the parsers accept of the kinds that may be in it."""
    for retain in (False, True):
        check_scanner5(case.packet, retain=retain, from_server=from_server)
        check_scanner5(RUN["qos0"] + case.packet + RUN["qos1"], retain=retain, from_server=from_server)


def test_any_byte_of_a_message_changed_to_any_other_is_judged_as_the_parsers_do():
    """Every byte of a packet with all properties, set to every value: the two never disagree."""
    raw = bytearray(message(properties=MESSAGE, qos=1, packet_id=1, payload=b""))
    for at in range(len(raw)):
        kept = raw[at]
        for value in range(256):
            raw[at] = value
            check_scanner5(bytes(raw), retain=True, from_server=bool(value & 1))
        raw[at] = kept


def test_no_hostile_packet_gets_into_a_run():
    """Behind any valid packet, none of the hostile ones of its side."""
    for case in HOSTILE5:
        run = wire.scan_run5(
            RUN["qos0"] + case.packet,
            0,
            EVERYTHING,
            max_packet=MAX_PACKET,
            retain=True,
            from_server=case.sender != CLIENT,
        )
        assert run.end == len(RUN["qos0"]), case.id


def test_table_holds_packets_for_the_run_from_both_sides():
    """The comparison above is not empty."""
    for from_server in (False, True):
        wanted = [c for c in VALID5 if is_for_the_run5(c.packet, retain=True, from_server=from_server)]
        assert len(wanted) >= 10
