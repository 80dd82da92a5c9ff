"""Property sections of MQTT 5.0 (2.2.2), taken out of packets and made, by the table in `properties`.

A section on the wire is its length, as variable byte integer, and that many bytes of (id, value). Elsewhere in this
package a section is those bytes without the length: `read` takes one out of a packet and checks it, `encode` makes one
of pairs, `without` takes properties out of one, `with_length` puts the length in front.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final

from broker.wire.framing import MAX_REMAINING_LENGTH
from broker.wire.packets import NAMES, MalformedPacket
from broker.wire.properties import PROPERTIES, WILL, Property, Type, Value
from broker.wire.reason_codes import MALFORMED, PROTOCOL_ERROR, QUOTA_EXCEEDED
from broker.wire.text import OF_5_0, check_topic_bytes, utf8

# The specification bounds user properties by the size of the packet alone: 50,000 of them hold the loop for 0.2 s.
MOST: Final = 1_000
_NUMBERS: Final = {Type.BYTE: 1, Type.UINT16: 2, Type.UINT32: 4}
_MAX_FIELD: Final = 65_535
_NONE: Final[frozenset[int]] = frozenset()


class Section:
    """A checked property section: the values that occur once, by id, and as bytes all but the named ones."""

    __slots__ = ("_values", "rest")

    def __init__(self, values: dict[int, int | str | bytes], rest: bytes) -> None:
        self._values = values
        self.rest = rest

    def __contains__(self, id_: int) -> bool:
        return id_ in self._values

    def number(self, id_: int) -> int | None:
        """Return the value of a numeric property, or None when it is absent."""
        value = self._values.get(id_)
        assert value is None or isinstance(value, int)
        return value

    def text(self, id_: int) -> str | None:
        """Return the value of a string property, or None when it is absent."""
        value = self._values.get(id_)
        assert value is None or isinstance(value, str)
        return value

    def data(self, id_: int) -> bytes | None:
        """Return the value of a binary property, or None when it is absent."""
        value = self._values.get(id_)
        assert value is None or isinstance(value, bytes)
        return value


EMPTY: Final = Section({}, b"")


def read(
    packet: bytes, pos: int, end: int, kind: int, named: Container[int] = _NONE, *, most: int | None = None
) -> tuple[Section, int]:
    """Return the section whose length is at `pos`, and where it ends.

    Args:
        packet: what holds the section.
        pos: where its length begins.
        end: where the packet ends.
        kind: the packet type, or WILL.
        named: ids that are left out of `Section.rest`.
        most: how many properties at most; None for as many as the packet holds.

    Raises:
        MalformedPacket: against 2.2.2, or with code 0x97 for `most` properties and more; the exception names the
            property and never shows what it says.
    """
    length, pos = variable(packet, pos, end)
    if not length:
        return EMPTY, pos
    stop = pos + length
    if stop > end:
        raise MalformedPacket("2.2.2.1", "the packet ends within its properties")
    values: dict[int, int | str | bytes] = {}
    kept: list[bytes] = []
    count = 0
    while pos < stop:
        start = pos
        count += 1
        if count == most:
            raise MalformedPacket("4.13", f"{most:,} properties or more in one packet", QUOTA_EXCEEDED)
        id_ = packet[pos]  # a variable byte integer too, but all ids are below 128: more is unknown or not shortest
        rule = PROPERTIES.get(id_)
        if rule is None or kind not in rule.packets:
            name = rule.name if rule else f"id {id_:#04x}"
            where = "a will" if kind == WILL else NAMES[kind]
            raise MalformedPacket("2.2.2.2", f"property {name} does not belong to {where}")
        value, pos = _value(packet, pos + 1, stop, rule)
        if id_ in values:
            if kind not in rule.repeats_in:
                raise MalformedPacket("2.2.2.2", f"property {rule.name} occurs twice", PROTOCOL_ERROR)
        else:
            values[id_] = value
        if id_ not in named:
            kept.append(packet[start:pos])
    return Section(values, b"".join(kept)), stop


def _value(packet: bytes, pos: int, end: int, rule: Property) -> tuple[int | str | bytes, int]:
    kind = rule.type
    width = _NUMBERS.get(kind)
    if width is not None or kind is Type.VARIABLE:
        if width is None:
            number, pos = variable(packet, pos, end)
        else:
            if pos + width > end:
                raise _cut(rule)
            number = int.from_bytes(packet[pos : pos + width], "big")
            pos += width
        if not rule.least <= number <= rule.most:
            raise MalformedPacket(rule.clause, f"property {rule.name} is {number}", rule.code)
        return number, pos
    raw, pos = _field(packet, pos, end, rule)
    if kind is Type.BINARY:
        return raw, pos
    if kind is Type.TOPIC:
        try:
            return check_topic_bytes(raw, OF_5_0), pos
        except MalformedPacket as malformed:
            clause = "MQTT-3.3.2-14" if malformed.clause == "MQTT-3.3.2-2" else malformed.clause
            raise MalformedPacket(clause, f"property {rule.name}: {malformed.detail}") from None
    text = utf8(raw, OF_5_0.utf8, OF_5_0.nul)
    if kind is Type.PAIR:
        raw, pos = _field(packet, pos, end, rule)
        utf8(raw, OF_5_0.utf8, OF_5_0.nul)
    return text, pos


def _field(packet: bytes, pos: int, end: int, rule: Property) -> tuple[bytes, int]:
    start = pos + 2
    if start <= end:
        stop = start + (packet[pos] << 8 | packet[pos + 1])
        if stop <= end:
            return packet[start:stop], stop
    raise _cut(rule)


def _cut(rule: Property) -> MalformedPacket:
    return MalformedPacket("2.2.2", f"the properties end within {rule.name}", MALFORMED)


def variable(packet: bytes, pos: int, end: int) -> tuple[int, int]:
    """Return the variable byte integer at `pos` (1.5.5) and where it ends; MalformedPacket if it is not well-formed."""
    if pos < end and packet[pos] < 0x80:
        return packet[pos], pos + 1
    number = 0
    for i in range(4):
        if pos + i >= end:
            break
        byte = packet[pos + i]
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if i and not byte:
                raise MalformedPacket("MQTT-1.5.5-1", "a variable byte integer is not in its shortest form")
            return number, pos + i + 1
    else:
        raise MalformedPacket("1.5.5", "a variable byte integer has more than four bytes")
    raise MalformedPacket("1.5.5", "the packet ends within a variable byte integer")


def encode(pairs: Iterable[tuple[int, Value]]) -> bytes:
    """Return a section without its length; the order is kept. ValueError: a value that its property cannot have."""
    out = bytearray()
    for id_, value in pairs:
        rule = PROPERTIES[id_]
        out.append(id_)
        match rule.type, value:
            case ((Type.BYTE | Type.UINT16 | Type.UINT32), int()):
                if not rule.least <= value <= min(rule.most, 256 ** _NUMBERS[rule.type] - 1):
                    raise ValueError(f"property {rule.name} cannot be {value} ({rule.clause})")
                out += value.to_bytes(_NUMBERS[rule.type], "big")
            case Type.VARIABLE, int():
                if value < rule.least:
                    raise ValueError(f"property {rule.name} cannot be {value} ({rule.clause})")
                out += variable_bytes(value)
            case Type.BINARY, bytes():
                out += field(value)
            case ((Type.STRING | Type.TOPIC), str()):
                out += field(value.encode())
            case Type.PAIR, (str() as name, str() as text):
                out += field(name.encode()) + field(text.encode())
            case _:
                raise ValueError(f"property {rule.name} is no {type(value).__name__}")
    return bytes(out)


def without(section: bytes, kind: int, ids: Container[int]) -> bytes:
    """Return the section of a packet of type `kind` without the properties of those ids. Raises as `read`."""
    return read(with_length(section), 0, len(section) + 4, kind, ids)[0].rest if section else b""


def with_length(section: bytes) -> bytes:
    """Return the section as it stands in a packet: its length in front."""
    return variable_bytes(len(section)) + section


def variable_bytes(number: int) -> bytes:
    """Return the shortest form of 1.5.5 for 0 ≤ number ≤ 268,435,455; ValueError for others."""
    if 0 <= number < 0x80:
        return bytes((number,))
    if not 0 <= number <= MAX_REMAINING_LENGTH:
        raise ValueError(f"{number} is no variable byte integer (1.5.5)")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(raw: bytes) -> bytes:
    """Return a string or binary field: two bytes of length, then the bytes. ValueError above 65,535 bytes."""
    if len(raw) > _MAX_FIELD:
        raise ValueError(f"a field of {len(raw)} bytes is above {_MAX_FIELD} (1.5.4)")
    return len(raw).to_bytes(2, "big") + raw
