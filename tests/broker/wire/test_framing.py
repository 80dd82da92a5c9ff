"""The framer: any split gives the same packets, what cannot become a packet is refused at once, and time is linear."""

from __future__ import annotations

import time

import pytest

from broker import wire
from tests.broker.wire.cases import CLIENT, HOSTILE, VALID, hexed
from tests.fuzz.invariants import events

LIMIT, CONNECT_LIMIT = 262_144, 65_536
SMALL = [case.packet for case in VALID if len(case.packet) < 300]


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.id)
def test_packet_cut_in_two_anywhere_is_the_same_packet(case):
    """Every cut of every valid packet: the packet comes out once, whole, with its second part."""
    packet = case.packet
    for cut in [*range(1, min(len(packet), 300)), len(packet) - 1]:
        framer = wire.Framer(LIMIT)
        assert list(framer.packets(packet[:cut])) == []
        assert framer.held == cut
        assert list(framer.packets(packet[cut:])) == [packet]
        assert framer.held == 0


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 64])
def test_stream_of_all_packets_in_equal_pieces_gives_all_packets(step):
    """A stream of every valid packet, fed byte by byte or in pieces that fall anywhere, gives those packets."""
    stream = b"".join(SMALL)
    assert events([stream[i : i + step] for i in range(0, len(stream), step)]) == [*SMALL, 0]


def test_stream_cut_twice_anywhere_gives_all_packets():
    """Both cuts at every place of a stream: the second may fall into the tail of the first."""
    stream = b"".join(SMALL[:12])
    for first in range(len(stream)):
        for second in range(first, min(first + 40, len(stream))):
            assert events([stream[:first], stream[first:second], stream[second:]]) == [*SMALL[:12], 0]


@pytest.mark.parametrize("case", [case for case in HOSTILE if case.packet], ids=lambda case: case.id)
def test_hostile_packet_byte_by_byte_is_what_it_is_at_once(case):
    """How a malformed packet trickles in changes nothing about what comes before it and how it is refused."""
    stream = SMALL[-1] + case.packet
    assert events([stream]) == events([bytes((byte,)) for byte in stream])


@pytest.mark.parametrize(
    ("start", "clause"),
    [
        pytest.param("00", "2.2.1", id="type-0"),
        pytest.param("F0", "2.2.1", id="type-15"),
        pytest.param("36", "MQTT-3.3.1-4", id="qos-3"),
        pytest.param("38", "MQTT-3.3.1-2", id="dup-with-qos-0"),
        pytest.param("C1", "MQTT-2.2.2-2", id="flags"),
        pytest.param("30 8000", "2.2.3", id="not-shortest"),
        pytest.param("30 FFFFFF", "4.13", id="three-bytes-are-enough-for-2-MiB"),
        pytest.param("30 818010", "4.13", id="one-byte-above-the-limit"),
        pytest.param("30 FFFF FF FF 7F", "4.13", id="five-length-bytes"),
    ],
)
def test_beginning_that_cannot_become_a_packet_is_refused_at_once(start, clause):
    """Nothing is waited for, and nothing held, once the header cannot be right."""
    framer = wire.Framer(LIMIT)
    with pytest.raises(wire.MalformedPacket) as refusal:
        list(framer.packets(hexed(start)))
    assert refusal.value.clause == clause
    assert framer.held <= 5


def test_five_length_bytes_are_refused_whatever_the_limit():
    """The fourth byte is the last (2.2.3)."""
    with pytest.raises(wire.MalformedPacket) as refusal:
        wire.packet_size(hexed("30 FFFFFFFF 7F"), 0, wire.MAX_REMAINING_LENGTH + 5)
    assert refusal.value.clause == "2.2.3"
    assert wire.packet_size(hexed("30 FFFFFF7F"), 0, wire.MAX_REMAINING_LENGTH + 5) == wire.MAX_REMAINING_LENGTH + 5


@pytest.mark.parametrize("size", [CONNECT_LIMIT, LIMIT])
def test_packet_of_exactly_the_limit_is_taken_and_one_more_refused(size):
    """The limit counts the whole packet."""
    publish = wire.encode_publish("a", bytes(size - 7))
    assert len(publish) == size
    assert list(wire.Framer(size).packets(publish)) == [publish]
    with pytest.raises(wire.PacketTooLarge):
        list(wire.Framer(size - 1).packets(publish[:4]))


def test_connect_has_its_own_limit_and_later_packets_theirs():
    """64 KiB for the first packet, then 256 KiB, also when both come in one piece."""
    connect = wire.encode_connect(client_id="c", username="u", password=bytes(60_000))
    publish = wire.encode_publish("a", bytes(200_000))
    framer = wire.Framer(LIMIT, max_connect=CONNECT_LIMIT)
    assert framer.limit == CONNECT_LIMIT
    assert list(framer.packets(connect + publish)) == [connect, publish]
    assert framer.limit == LIMIT

    large = wire.encode_connect(client_id="x" * 60_000, username="u", password=bytes(6_000))
    with pytest.raises(wire.PacketTooLarge):
        list(wire.Framer(LIMIT, max_connect=CONNECT_LIMIT).packets(large[:4]))


@pytest.mark.parametrize("first", [byte for byte in range(256) if byte >> 4 != 1], ids=lambda byte: f"{byte:02x}")
def test_first_packet_that_is_no_connect_is_refused_from_its_first_byte(first):
    """MQTT-3.1.0-1, by one byte and nothing held."""
    framer = wire.Framer(LIMIT, max_connect=CONNECT_LIMIT)
    with pytest.raises(wire.MalformedPacket) as refusal:
        framer.feed(bytes((first,)))
    assert refusal.value.clause == "MQTT-3.1.0-1"
    assert framer.held == 0


def test_kept_whole_packets_come_back_with_nothing_fed():
    """Who stops in the middle of a buffer gets the rest by feeding nothing."""
    framer = wire.Framer(LIMIT)
    buffer = framer.feed(SMALL[0] + SMALL[1] + SMALL[2][:3])
    framer.keep(buffer, len(SMALL[0]))
    assert framer.feed(b"") == SMALL[1] + SMALL[2][:3]


def trickle_s(size: int) -> float:
    packet = wire.encode_publish("a", bytes(size))
    pieces = [packet[i : i + 1] for i in range(len(packet))]
    best = float("inf")
    for _ in range(5):
        framer = wire.Framer(LIMIT)
        start = time.perf_counter()
        for piece in pieces:
            out = list(framer.packets(piece))
        best = min(best, time.perf_counter() - start)
        assert out == [packet]
    return best


def test_trickled_packet_costs_linear_time():
    """64 KiB in single bytes takes about four times as long as 16 KiB, not sixteen times."""
    assert trickle_s(65_536) < 8 * trickle_s(16_384)


def many_small_s(count: int) -> float:
    stream = wire.PINGREQ_PACKET * count
    best = float("inf")
    for _ in range(5):
        framer = wire.Framer(LIMIT)
        start = time.perf_counter()
        assert sum(1 for _ in framer.packets(stream)) == count
        best = min(best, time.perf_counter() - start)
    return best


def test_chunk_of_many_packets_costs_linear_time():
    """Cutting packets off a chunk does not copy the rest each time."""
    assert many_small_s(40_000) < 8 * many_small_s(10_000)


def test_every_client_packet_of_the_table_is_framed_as_one_packet():
    """The table of legal first bytes refuses nothing that the parsers accept."""
    for case in VALID:
        limit = len(case.packet)
        assert wire.frame(case.packet, 0, max(limit, 5)) == limit, (case.id, case.sender == CLIENT)
