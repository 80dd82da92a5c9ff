"""The scanner: a run holds exactly what may go on unchanged, and nothing that the strict parsers would refuse."""

from __future__ import annotations

import pytest

from broker import wire
from tests.broker.wire.cases import CLIENT, HOSTILE, VALID, hexed
from tests.fuzz.invariants import EVERYTHING, MAX_PACKET, check_scanner, is_for_the_run

OPEN, SHUT = b"t/open", b"t/shut"
TABLES = [{OPEN: True, SHUT: False} for _ in range(8)]

QOS0 = wire.encode_publish(OPEN, b"x")
QOS1 = wire.encode_publish(OPEN, b"x", qos=1, packet_id=256)
QOS1_AGAIN = wire.encode_publish(OPEN, b"x", qos=1, packet_id=255, dup=True)
PUBACK = wire.encode_ack(wire.PUBACK, 1)
LONG = wire.encode_publish(OPEN, bytes(300))
LONGER = wire.encode_publish(OPEN, bytes(20_000), qos=1, packet_id=1)
RUN = (QOS0, QOS1, QOS1_AGAIN, PUBACK, LONG, LONGER)
RETAINED = (
    wire.encode_publish(OPEN, b"x", retain=True),
    wire.encode_publish(OPEN, b"x", qos=1, packet_id=1, retain=True),
    wire.encode_publish(OPEN, b"x", qos=1, packet_id=1, retain=True, dup=True),
)


def scan(data: bytes, pos: int = 0, **options) -> wire.Run:
    return wire.scan_run(data, pos, TABLES, **{"max_packet": 262_144, **options})


def test_run_of_permitted_packets_reaches_the_end():
    """All kinds that belong into a run, one after the other, in each size of header."""
    stream = b"".join(RUN)
    assert scan(stream) == (len(stream), len(RUN), wire.END)


def test_run_begins_where_it_is_told():
    """What lies before `pos` is not looked at."""
    assert scan(b"\xff\xff" + QOS0 + PUBACK, 2) == (2 + len(QOS0 + PUBACK), 2, wire.END)
    assert scan(QOS0, len(QOS0)) == (len(QOS0), 0, wire.END)


@pytest.mark.parametrize("packet", RUN, ids=["qos0", "qos1", "dup", "puback", "two-byte-length", "three-byte-length"])
def test_packet_cut_anywhere_ends_the_run_before_it(packet):
    """Every prefix of a packet is `CUT`, never in the run and never taken for malformed."""
    cuts = range(1, len(packet)) if len(packet) < 400 else [*range(1, 40), len(packet) - 1]
    for cut in cuts:
        assert scan(QOS0 + packet[:cut]) == (len(QOS0), 1, wire.CUT)


SLOW_PACKETS = {
    "denied-topic": wire.encode_publish(SHUT, b"x"),
    "unknown-topic": wire.encode_publish("t/other", b"x"),
    "denied-topic-qos1": wire.encode_publish(SHUT, b"x", qos=1, packet_id=1),
    "qos2": wire.encode_publish(OPEN, b"x", qos=2, packet_id=1),
    "pubrec": wire.encode_ack(wire.PUBREC, 1),
    "pubrel": wire.encode_ack(wire.PUBREL, 1),
    "subscribe": wire.encode_subscribe(1, [("a", 0)]),
    "pingreq": wire.PINGREQ_PACKET,
    "disconnect": wire.DISCONNECT_PACKET,
    "connect": wire.encode_connect(client_id="c"),
    "empty-publish": hexed("30 00"),
    "one-byte-publish": hexed("30 01 00"),
    "topic-beyond-packet": hexed("30 07 0006 't/ope'"),
    "qos0-dup": hexed("38 08 0006 't/open'"),
    "qos3": hexed("36 0A 0006 't/open' 0001"),
    "qos1-id-0": hexed("32 0A 0006 't/open' 0000"),
    "qos1-no-id": hexed("32 08 0006 't/open'"),
    "qos1-half-id": hexed("32 09 0006 't/open' 01"),
    "puback-id-0": hexed("40 02 0000"),
    "puback-empty": hexed("40 00"),
    "puback-short": hexed("40 01 01"),
    "puback-long": hexed("40 03 000100"),
    "not-shortest-length": hexed("30 8800 0006 't/open'"),
    "not-shortest-length-3": hexed("30 888000 0006 't/open'"),
}


@pytest.mark.parametrize("behind", [b"", QOS0], ids=["last", "followed"])
@pytest.mark.parametrize("packet", SLOW_PACKETS.values(), ids=SLOW_PACKETS.keys())
def test_packet_that_needs_a_closer_look_ends_the_run(packet, behind):
    """Denied, unknown, other and malformed packets stay out, whatever follows that could be mistaken for theirs."""
    assert scan(QOS1 + packet + behind) == (len(QOS1), 1, wire.SLOW)


def test_topic_does_not_reach_into_the_next_packet():
    """A topic length that runs past its packet does not find an allowed topic made of the bytes behind."""
    forged = hexed("30 07 0006 't/ope'") + b"n"
    assert scan(forged + QOS0).packets == 0


@pytest.mark.parametrize("packet", RETAINED, ids=["qos0", "qos1", "dup"])
def test_retain_flag_is_in_the_run_only_where_it_is_asked_for(packet):
    """An upstream that keeps no retained messages needs the flag taken off, so such a packet leaves the run."""
    assert scan(packet) == (0, 0, wire.SLOW)
    assert scan(packet, retain=True) == (len(packet), 1, wire.END)


@pytest.mark.parametrize(("packet", "index"), [(QOS0, 0), (RETAINED[0], 1), (QOS1, 2), (RETAINED[1], 3)])
def test_topic_is_looked_up_under_its_own_flags(packet, index):
    """A permission for one QoS and retain flag is none for another; DUP makes no difference."""
    tables = [{OPEN: False} for _ in range(8)]
    tables[index] = {OPEN: True}
    assert wire.scan_run(packet, 0, tables, max_packet=1000, retain=True).packets == 1
    tables[index] = {OPEN: False}
    for other in set(range(8)) - {index}:
        tables[other] = {OPEN: True}
    assert wire.scan_run(packet, 0, tables, max_packet=1000, retain=True).packets == 0


def test_run_ends_when_it_is_full():
    """At most `max_count` packets; what follows is `FULL`, nothing is `END`."""
    stream = QOS0 * 5
    assert scan(stream, max_count=3) == (3 * len(QOS0), 3, wire.FULL)
    assert scan(stream, max_count=5) == (len(stream), 5, wire.END)
    assert scan(stream, max_count=0) == (0, 0, wire.FULL)


def test_packet_above_the_limit_is_not_in_the_run():
    """The limit counts the whole packet, also where it arrived whole."""
    assert scan(LONG, max_packet=len(LONG)).packets == 1
    assert scan(LONG, max_packet=len(LONG) - 1) == (0, 0, wire.SLOW)
    assert scan(LONGER, max_packet=len(LONGER) - 1) == (0, 0, wire.SLOW)


@pytest.mark.parametrize("retain", [False, True], ids=["flag-off", "flag-on"])
@pytest.mark.parametrize("case", [*VALID, *HOSTILE], ids=lambda case: case.id)
def test_scanner_and_strict_parsers_agree_on_every_packet_of_the_table(case, retain):
    """With every strictly valid topic allowed, the run is what the parsers accept of the kinds that may be in it."""
    if len(case.packet) <= MAX_PACKET:
        check_scanner(case.packet, retain=retain)
        check_scanner(QOS0 + case.packet + QOS1, retain=retain)


def test_run_of_the_whole_table_never_passes_a_hostile_packet():
    """Behind any valid packet, none of the hostile ones gets into a run."""
    for case in HOSTILE:
        run = wire.scan_run(QOS0 + case.packet, 0, EVERYTHING, max_packet=MAX_PACKET, retain=True)
        assert run.end == len(QOS0), case.id


def test_table_holds_packets_for_the_run_from_both_sides():
    """The comparison above is not empty."""
    wanted = [case for case in VALID if case.sender == CLIENT and is_for_the_run(case.packet, retain=True)]
    assert len(wanted) >= 7
