"""Cuts a byte stream into packets in linear time, however it trickles in, and refuses what cannot become one at once.

    buffer = framer.feed(data)              what starts at a packet boundary, or b"" while one packet is still cut
    while (end := framer.cut(buffer, pos)) is not NEED_MORE: …packet is buffer[pos:end]…; pos = end
    framer.keep(buffer, pos)                the cut tail waits for the next feed

The scanner's run goes between: what it let through is simply skipped by moving `pos`. Clauses are those of 3.1.1, or
of 5.0 on a connection of that level.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from broker.wire.packets import (
    AUTH,
    CONNECT,
    MQTT_3_1_1,
    MQTT_5_0,
    NAMES,
    PUBLISH,
    PUBREL,
    SUBSCRIBE,
    TYPE_MASK,
    UNSUBSCRIBE,
    MalformedPacket,
    PacketTooLarge,
)

NEED_MORE: Final = -1
MAX_REMAINING_LENGTH: Final = 268_435_455  # 2.2.3, table 2.4: four bytes of seven bits
_LENGTH_BYTES: Final = 4


def _legal_first_bytes() -> bytes:
    """Return 256 flags: first bytes that some packet of MQTT 3.1 or 3.1.1 can begin with (2.2.1, 2.2.2)."""
    legal = bytearray(256)
    for kind in NAMES:
        legal[kind] = kind != AUTH
    for kind in (0x60, 0x80, 0xA0):  # 2.2.2: PUBREL, SUBSCRIBE, UNSUBSCRIBE carry 0b0010; 3.1 repeats them with DUP
        legal[kind] = 0
        legal[kind | 0x02] = legal[kind | 0x0A] = 1
    for flags in range(16):
        legal[CONNECT | flags] = 1  # 3.1 gives the flags of a CONNECT no meaning; its parser sees which level it is
        qos, dup = (flags >> 1) & 3, flags & 8
        legal[PUBLISH | flags] = qos < 3 and not (dup and qos == 0)  # MQTT-3.3.1-4, MQTT-3.3.1-2
    return bytes(legal)


def _legal_first_bytes5() -> bytes:
    """Return the same for MQTT 5.0: no repetitions by DUP but of PUBLISH, and AUTH (2.1.2, 2.1.3)."""
    legal = bytearray(_LEGAL_FIRST)
    for kind in NAMES:
        if kind != PUBLISH:
            legal[kind : kind + 16] = bytes(16)
            legal[kind | (0x02 if kind in {PUBREL, SUBSCRIBE, UNSUBSCRIBE} else 0)] = 1
    return bytes(legal)


_LEGAL_FIRST: Final = _legal_first_bytes()
_LEGAL_FIRST_5: Final = _legal_first_bytes5()


def legal_first_bytes(level: int) -> bytes:
    """Return 256 flags, by first byte: whether a packet of this protocol level can begin with it."""
    return _LEGAL_FIRST_5 if level == MQTT_5_0 else _LEGAL_FIRST


def packet_size(buffer: bytes | bytearray, pos: int, max_packet: int, legal: bytes = _LEGAL_FIRST) -> int:
    """Return the whole size in bytes of the packet that begins at `pos`, or NEED_MORE while its header is cut.

    `legal` are the `legal_first_bytes` of the connection's level.

    Raises:
        MalformedPacket: impossible first byte, or a remaining length that is over-long or not the shortest form.
        PacketTooLarge: larger than `max_packet`; raised at the first byte that settles it.
    """
    have = len(buffer) - pos
    if have <= 0:
        return NEED_MORE
    if not legal[buffer[pos]]:
        raise _illegal_first(buffer[pos], legal)
    length = 0
    for i in range(_LENGTH_BYTES):
        if have <= i + 1:
            return NEED_MORE
        byte = buffer[pos + 1 + i]
        length |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:  # the continuation bit
            if i and not byte:
                clause = "MQTT-1.5.5-1" if legal is _LEGAL_FIRST_5 else "2.2.3"
                raise MalformedPacket(clause, "the remaining length is not in its shortest form")
            size = 2 + i + length
            if size > max_packet:
                raise PacketTooLarge("4.13", f"a packet of {size} bytes is above the limit of {max_packet}")
            return size
        # Another length byte follows and is not zero, so the packet is at least this long.
        least = 3 + i + length + (1 << (7 * (i + 1)))
        if least > max_packet and i + 1 < _LENGTH_BYTES:
            raise PacketTooLarge("4.13", f"a packet of at least {least} bytes is above the limit of {max_packet}")
    clause = "1.5.5" if legal is _LEGAL_FIRST_5 else "2.2.3"
    raise MalformedPacket(clause, "the remaining length has more than four bytes")


def _illegal_first(first: int, legal: bytes) -> MalformedPacket:
    kind = first & TYPE_MASK
    if kind == PUBLISH:
        if first & 0x06 == 0x06:
            return MalformedPacket("MQTT-3.3.1-4", "a PUBLISH with QoS 3")
        return MalformedPacket("MQTT-3.3.1-2", "a PUBLISH with DUP and QoS 0")
    five = legal is _LEGAL_FIRST_5
    if kind in NAMES and (five or kind != AUTH):
        clause = "MQTT-2.1.3-1" if five else "MQTT-2.2.2-2"
        return MalformedPacket(clause, f"flags {first & 15:#x} are not those of {NAMES[kind]}")
    return MalformedPacket("2.1.2" if five else "2.2.1", f"packet type {first >> 4} is reserved")


def frame(buffer: bytes | bytearray, pos: int, max_packet: int, legal: bytes = _LEGAL_FIRST) -> int:
    """Return where the packet that begins at `pos` ends, or NEED_MORE while it is cut. Raises as `packet_size`."""
    size = packet_size(buffer, pos, max_packet, legal)
    if size == NEED_MORE or pos + size > len(buffer):
        return NEED_MORE
    return pos + size


class Framer:
    """The receiving side of one connection. After it raised, the connection is over and it must not be fed again.

    Args:
        max_packet: whole packet in bytes, fixed header included.
        max_connect: the same for the first packet, which then must be a CONNECT (MQTT-3.1.0-1); None for the side of
            a connection where no CONNECT comes first.
        level: the protocol level, where it is known: it says which first bytes are possible.
    """

    __slots__ = ("_expects_connect", "_legal", "_max_connect", "_max_packet", "_need", "_tail")

    def __init__(self, max_packet: int, *, max_connect: int | None = None, level: int = MQTT_3_1_1) -> None:
        self._max_packet = max_packet
        self._legal = legal_first_bytes(level)
        self._max_connect = max_packet if max_connect is None else max_connect
        self._expects_connect = max_connect is not None
        self._tail: bytes | bytearray = b""
        self._need = NEED_MORE

    @property
    def limit(self) -> int:
        """The size limit in bytes of the packet that comes next."""
        return self._max_connect if self._expects_connect else self._max_packet

    @property
    def held(self) -> int:
        """How many bytes wait for the rest of their packet."""
        return len(self._tail)

    def feed(self, data: bytes) -> bytes:
        """Return all bytes from the last packet boundary on, or b"" while the packet begun is not whole.

        What is returned is no longer held: give back what was not used by `keep`. Raises as `packet_size`.
        """
        tail = self._tail
        if not tail:
            if self._expects_connect and data:
                self._check_first(data[0])
            return data
        tail += data
        if self._need == NEED_MORE:
            self._need = packet_size(tail, 0, self.limit, self._legal)
        if self._need == NEED_MORE or len(tail) < self._need:
            return b""
        buffer = bytes(tail)
        self._tail = b""
        self._need = NEED_MORE
        return buffer

    def cut(self, buffer: bytes, pos: int) -> int:
        """Return where the packet at `pos` ends, or NEED_MORE; the first one found ends the rules for a CONNECT."""
        if self._expects_connect and pos < len(buffer):
            self._check_first(buffer[pos])
        end = frame(buffer, pos, self.limit, self._legal)
        if end != NEED_MORE:
            self._expects_connect = False
        return end

    def keep(self, buffer: bytes, pos: int) -> None:
        """Hold `buffer[pos:]` for the next `feed`. Whole packets may be kept too: `feed(b"")` returns them.

        The copy is of the whole rest: who stops in the middle of a buffer again and again should hold (buffer, pos).
        """
        if pos < len(buffer):
            if self._expects_connect:
                self._check_first(buffer[pos])
            self._need = packet_size(buffer, pos, self.limit, self._legal)
            self._tail = bytearray(memoryview(buffer)[pos:])

    def packets(self, data: bytes) -> Iterator[bytes]:
        """Yield every packet that `data` completes; the iterator must be used up. For paths that are not hot."""
        buffer, pos = self.feed(data), 0
        while (end := self.cut(buffer, pos)) != NEED_MORE:
            yield buffer[pos:end]
            pos = end
        self.keep(buffer, pos)

    def _check_first(self, first: int) -> None:
        if first & TYPE_MASK != CONNECT:
            raise MalformedPacket("MQTT-3.1.0-1", f"the first packet begins with {first:#04x}; it must be a CONNECT")
