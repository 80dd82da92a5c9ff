"""The hot path of MQTT 5.0: `scan_run5` is to 5.0 what `scanner.scan_run` is to 3.1.1, with the same result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from broker.scanner import CUT, END, FULL, SLOW, Run

_NOTHING: Final[Mapping[bytes, bool]] = {}


def scan_run5(
    data: bytes,
    pos: int,
    tables: Sequence[Mapping[bytes, bool]],
    *,
    max_packet: int,
    retain: bool = False,
    max_count: int = -1,
) -> Run:
    """Return the longest run of permitted packets from `pos`; arguments as `scan_run`.

    In a run: PUBLISH of QoS 0 and 1 without properties, PUBACK without reason code.
    """
    size = len(data)
    plain = tables[0].get
    plain_retain = tables[1].get if retain else _NOTHING.get
    acked = tables[2].get
    acked_retain = tables[3].get if retain else _NOTHING.get
    count = 0
    try:
        while count != max_count:
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
            if first == 0x30 or first == 0x31:  # noqa: PLR1714 - two comparisons are faster than a set
                topic_end = body + 2 + (data[body] << 8) + data[body + 1]
                if (
                    topic_end >= after
                    or data[topic_end]  # the length of the properties
                    or not (plain if first == 0x30 else plain_retain)(data[body + 2 : topic_end])
                ):
                    return Run(pos, count, SLOW)
            elif first == 0x32 or first == 0x3A or first == 0x33 or first == 0x3B:  # noqa: PLR1714
                topic_end = body + 2 + (data[body] << 8) + data[body + 1]
                if (
                    topic_end + 2 >= after
                    or data[topic_end + 2]
                    or not (acked_retain if first & 1 else acked)(data[body + 2 : topic_end])
                    or not (data[topic_end] or data[topic_end + 1])  # 2.2.1: packet id 0
                ):
                    return Run(pos, count, SLOW)
            elif first == 0x40:
                if length != 2 or not (data[body] or data[body + 1]):
                    return Run(pos, count, SLOW)
            else:
                return Run(pos, count, SLOW)
            pos = after
            count += 1
    except IndexError:
        if pos >= size:
            return Run(pos, count, END)
        return Run(pos, count, SLOW if _is_whole(data, pos) else CUT)
    return Run(pos, count, FULL if pos < size else END)


def _is_whole(data: bytes, pos: int) -> bool:
    if pos + 2 > len(data):
        return False
    length = data[pos + 1]
    return length < 128 and pos + 2 + length <= len(data)  # longer ones have all their fields
