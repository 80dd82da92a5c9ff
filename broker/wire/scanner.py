"""The hot path: how far may this chunk be forwarded as it is?

`scan_run` walks the packets of a chunk with integer arithmetic and stops at the first that needs more than a look into
the memo of decisions. What lies before it goes on in one write, nothing copied, no object built per packet.

In a run, both ways: PUBLISH with QoS 0, PUBLISH with QoS 1 (first or repeated with DUP), with the retain flag only if
asked for, each with a topic that `tables` holds as allowed; and PUBACK. All of them are valid to the last byte, which
the tests hold against the strict parsers: only strictly checked topics are in the tables, and lengths and packet ids
are checked here. Open QoS 1 ids are not recorded: both ends of the run keep their own, MQTT 3.1.1 gives an
acknowledgement for an id that is not open no meaning, and the gate has no in-flight window of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

# Why a run ended.
END: Final = 0  # at the end of the chunk, on a packet boundary
CUT: Final = 1  # the next packet has not arrived whole: `Framer.keep`, which also refuses what can never be one
SLOW: Final = 2  # the next packet is whole and needs the strict parsers: `Framer.cut`
FULL: Final = 3  # `max_count` packets are in the run; more may follow

MIN_MAX_PACKET: Final = 129  # below this `max_packet` would have to be compared for one-byte lengths too

_NOTHING: Final[Mapping[bytes, bool]] = {}


class Run(NamedTuple):
    """`data[pos:end]` goes on unchanged; it is `packets` whole packets. `stop` says what is at `end`."""

    end: int
    packets: int
    stop: int


class Scan(Protocol):
    """The signature of `scan_run`, which each protocol level has one of."""

    def __call__(
        self,
        data: bytes,
        pos: int,
        tables: Sequence[Mapping[bytes, bool]],
        *,
        max_packet: int,
        retain: bool = False,
        max_count: int = -1,
        from_server: bool = False,
    ) -> Run: ...


def scan_run(
    data: bytes,
    pos: int,
    tables: Sequence[Mapping[bytes, bool]],
    *,
    max_packet: int,
    retain: bool = False,
    max_count: int = -1,
    from_server: bool = False,  # noqa: ARG001 - either side may send the same in 3.1.1
) -> Run:
    """Return the longest run of permitted packets from `pos`, which is a packet boundary.

    Args:
        data: the chunk, as received.
        pos: where to begin.
        tables: topic bytes → allowed, indexed by the header's retain and QoS bits (`Memo.tables`); what is not found,
            or found False, ends the run. Indexes 0 to 3 are read.
        max_packet: limit in bytes of a whole packet, at least MIN_MAX_PACKET.
        retain: whether publishes with the retain flag may be in the run (the upstream keeps retained messages, or
            this is the way down and the flag stays).
        max_count: how many packets at most; negative for no limit.
        from_server: whether this is the way down; 5.0 has what only a server may send.
    """
    size = len(data)
    plain = tables[0].get
    plain_retain = tables[1].get if retain else _NOTHING.get
    acked = tables[2].get
    acked_retain = tables[3].get if retain else _NOTHING.get
    count = 0
    try:
        while pos < size:
            if count == max_count:
                return Run(pos, count, FULL)
            first = data[pos]
            length = data[pos + 1]
            body = pos + 2
            if length > 127:
                byte = data[body]
                body += 1
                length += (byte << 7) - 128
                if byte > 127:
                    byte = data[body]
                    body += 1
                    length += (byte << 14) - 16384
                # byte 0: not the shortest form; above 127: a fourth byte, at least 2 MiB: both for the strict side
                if not byte or byte > 127 or body + length - pos > max_packet:
                    return Run(pos, count, SLOW)
            after = body + length
            if after > size:
                return Run(pos, count, CUT)
            if first == 0x30:
                topic_end = body + 2 + (data[body] << 8) + data[body + 1]
                if topic_end > after or not plain(data[body + 2 : topic_end]):
                    return Run(pos, count, SLOW)
            elif first == 0x32 or first == 0x3A:  # noqa: PLR1714 - two comparisons are faster than a set
                topic_end = body + 2 + (data[body] << 8) + data[body + 1]
                if (
                    topic_end + 2 > after
                    or not acked(data[body + 2 : topic_end])
                    or not (data[topic_end] or data[topic_end + 1])  # MQTT-2.3.1-1: packet id 0
                ):
                    return Run(pos, count, SLOW)
            elif first == 0x40:
                if length != 2 or not (data[body] or data[body + 1]):
                    return Run(pos, count, SLOW)
            elif first == 0x31:
                topic_end = body + 2 + (data[body] << 8) + data[body + 1]
                if topic_end > after or not plain_retain(data[body + 2 : topic_end]):
                    return Run(pos, count, SLOW)
            elif first == 0x33 or first == 0x3B:  # noqa: PLR1714
                topic_end = body + 2 + (data[body] << 8) + data[body + 1]
                if (
                    topic_end + 2 > after
                    or not acked_retain(data[body + 2 : topic_end])
                    or not (data[topic_end] or data[topic_end + 1])
                ):
                    return Run(pos, count, SLOW)
            else:
                return Run(pos, count, SLOW)
            pos = after
            count += 1
    except IndexError:
        # The chunk ended where a byte was looked for: in a header, or in a packet too short for its fields. Asking
        # here is cheaper than asking before every byte.
        return Run(pos, count, SLOW if _is_whole(data, pos) else CUT)
    return Run(pos, count, END)


def _is_whole(data: bytes, pos: int) -> bool:
    if pos + 2 > len(data):
        return False
    length = data[pos + 1]
    return length < 128 and pos + 2 + length <= len(data)  # longer ones have all their fields
