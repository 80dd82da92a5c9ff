"""The hot path of MQTT 5.0: `scan_run5` is to 5.0 what `scanner.scan_run` is to 3.1.1, with the same result.

In a run, both ways: PUBLISH of QoS 0 and 1 with an allowed topic and any well-formed properties but a topic alias,
which is a matter of one hop and is resolved outside; and PUBACK with any reason code and without properties. Sections
are checked where they stand by `has_harmless_properties`: 0.3 to 0.7 µs a property, where the strict parser alone takes
3 µs for a packet and 1 to 2 µs for each property, and the way through it as much again. Remembering the sections
already checked was measured and left out: a third of that where all messages have the same section, more where each
has its own, and a table that has to be bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from broker.wire.properties import (
    CONTENT_TYPE,
    CORRELATION_DATA,
    MESSAGE_EXPIRY,
    PAYLOAD_FORMAT,
    RESPONSE_TOPIC,
    SUBSCRIPTION_IDENTIFIER,
    USER_PROPERTY,
)
from broker.wire.reason_codes import PUBACK_CODES
from broker.wire.scanner import CUT, END, FULL, SLOW, Run

_NOTHING: Final[Mapping[bytes, bool]] = {}


def scan_run5(
    data: bytes,
    pos: int,
    tables: Sequence[Mapping[bytes, bool]],
    *,
    max_packet: int,
    retain: bool = False,
    max_count: int = -1,
    from_server: bool = False,
) -> Run:
    """Return the longest run of permitted packets from `pos`; arguments as `scan_run`.

    `from_server`: whether subscription identifiers may be in it (MQTT-3.3.4-6).
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
                if (
                    topic_end >= after
                    or not plain(data[body + 2 : topic_end])
                    or (data[topic_end] and not has_harmless_properties(data, topic_end, after, from_server))
                ):
                    return Run(pos, count, SLOW)
            elif first == 0x32 or first == 0x3A:  # noqa: PLR1714 - two comparisons are faster than a set
                topic_end = body + 2 + (data[body] << 8) + data[body + 1]
                if (
                    topic_end + 2 >= after
                    or not acked(data[body + 2 : topic_end])
                    or not (data[topic_end] or data[topic_end + 1])  # 2.2.1: packet id 0
                    or (data[topic_end + 2] and not has_harmless_properties(data, topic_end + 2, after, from_server))
                ):
                    return Run(pos, count, SLOW)
            elif first == 0x40:
                # 3.4.2.1: without reason code, with it, and with an empty section behind it
                if not (
                    (length == 2 or (2 < length < 5 and data[body + 2] in PUBACK_CODES))
                    and (length != 4 or not data[body + 3])
                    and (data[body] or data[body + 1])
                ):
                    return Run(pos, count, SLOW)
            elif first == 0x31:
                topic_end = body + 2 + (data[body] << 8) + data[body + 1]
                if (
                    topic_end >= after
                    or not plain_retain(data[body + 2 : topic_end])
                    or (data[topic_end] and not has_harmless_properties(data, topic_end, after, from_server))
                ):
                    return Run(pos, count, SLOW)
            elif first == 0x33 or first == 0x3B:  # noqa: PLR1714
                topic_end = body + 2 + (data[body] << 8) + data[body + 1]
                if (
                    topic_end + 2 >= after
                    or not acked_retain(data[body + 2 : topic_end])
                    or not (data[topic_end] or data[topic_end + 1])
                    or (data[topic_end + 2] and not has_harmless_properties(data, topic_end + 2, after, from_server))
                ):
                    return Run(pos, count, SLOW)
            else:
                return Run(pos, count, SLOW)
            pos = after
            count += 1
    except IndexError:  # as in `scan_run`
        return Run(pos, count, SLOW if _is_whole(data, pos) else CUT)
    return Run(pos, count, END)


def has_harmless_properties(data: bytes, pos: int, after: int, from_server: bool) -> bool:
    """Return whether the section whose length is at `pos` is that of a valid PUBLISH without topic alias.

    What it has no short way for (a response topic beyond ASCII, a section of 16 KiB) is answered no, and left to the
    strict parser; the tests hold both against each other. `after` is the end of the packet.
    """
    try:
        length = data[pos]
        pos += 1
        if length > 127:
            length += (data[pos] << 7) - 128
            if length < 128 or length > 16_383:
                return False
            pos += 1
        stop = pos + length
        if stop > after:
            return False
        ascii_ = data[pos:stop].isascii()
        find = data.find
        seen = 0
        while pos < stop:
            id_ = data[pos]
            if id_ == USER_PROPERTY:  # any number; two strings
                middle = pos + 3 + (data[pos + 1] << 8) + data[pos + 2]
                end = middle + 2 + (data[middle] << 8) + data[middle + 1]
                if (
                    end > stop
                    or find(0, pos + 3, middle) >= 0  # MQTT-1.5.4-2
                    or find(0, middle + 2, end) >= 0
                    or not (ascii_ or (_is_utf8(data[pos + 3 : middle]) and _is_utf8(data[middle + 2 : end])))
                ):
                    return False
                pos = end
            elif id_ == SUBSCRIPTION_IDENTIFIER:  # any number
                byte = data[pos + 1]
                pos += 2
                width = 1
                while byte > 127 and width < 4:
                    byte = data[pos]
                    pos += 1
                    width += 1
                # 0 (3.8.2.1.2) or not the shortest form; a fifth byte; a client's (MQTT-3.3.4-6)
                if not byte or byte > 127 or not from_server:
                    return False
            elif id_ > CORRELATION_DATA or seen >> id_ & 1:  # a topic alias, unknown, or twice
                return False
            else:
                seen |= 1 << id_
                if id_ == MESSAGE_EXPIRY:
                    pos += 5
                elif id_ == PAYLOAD_FORMAT:
                    if data[pos + 1] > 1:  # 3.3.2.3.2
                        return False
                    pos += 2
                elif id_ == CORRELATION_DATA:
                    pos += 3 + (data[pos + 1] << 8) + data[pos + 2]
                elif id_ == CONTENT_TYPE:
                    end = pos + 3 + (data[pos + 1] << 8) + data[pos + 2]
                    if end > stop or find(0, pos + 3, end) >= 0 or not (ascii_ or _is_utf8(data[pos + 3 : end])):
                        return False
                    pos = end
                elif id_ == RESPONSE_TOPIC:
                    end = pos + 3 + (data[pos + 1] << 8) + data[pos + 2]
                    if end > stop or not _is_plain_topic(data[pos + 3 : end]):
                        return False
                    pos = end
                else:
                    return False
    except IndexError:  # the section promises more than the chunk holds
        return False
    return pos == stop


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:  # MQTT-1.5.4-1
        return False
    return True


def _is_plain_topic(raw: bytes) -> bool:
    """Return whether the bytes are a topic name of printable ASCII (MQTT-3.3.2-14, MQTT-4.7.3-1)."""
    return bool(raw) and raw.isascii() and raw.decode().isprintable() and b"+" not in raw and b"#" not in raw


def _is_whole(data: bytes, pos: int) -> bool:
    if pos + 2 > len(data):
        return False
    length = data[pos + 1]
    return length < 128 and pos + 2 + length <= len(data)  # longer ones have all their fields
