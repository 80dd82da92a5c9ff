"""What every packet of MQTT 5.0 is made of: its fixed header, fields, packet ids. Clause numbers are those of 5.0."""

from __future__ import annotations

from typing import Final

from broker.wire.framing import MAX_REMAINING_LENGTH, frame, legal_first_bytes
from broker.wire.packets import MQTT_5_0, NAMES, TYPE_MASK, MalformedPacket
from broker.wire.reason_codes import PROTOCOL_ERROR

_LEGAL: Final = legal_first_bytes(MQTT_5_0)


def open_packet(packet: bytes, first: int) -> tuple[int, int]:
    """Return begin and end of the body of a packet that begins with `first` and is exactly one packet."""
    if not packet or packet[0] != first:
        raise MalformedPacket("MQTT-2.1.3-1", f"expected {first:#04x} as first byte of {NAMES[first & TYPE_MASK]}")
    if packet[1:2] < b"\x80":  # one length byte: most packets
        if len(packet) < 2 or len(packet) != 2 + packet[1] or not _LEGAL[first]:
            frame(packet, 0, MAX_REMAINING_LENGTH + 5, _LEGAL)  # says what else is wrong
            raise MalformedPacket("2.1.4", "the remaining length is not that of the packet")
        return 2, len(packet)
    end = frame(packet, 0, MAX_REMAINING_LENGTH + 5, _LEGAL)
    if end != len(packet):
        raise MalformedPacket("2.1.4", "the remaining length is not that of the packet")
    pos = 2
    while packet[pos - 1] & 0x80:
        pos += 1
    return pos, end


def packet_id(packet: bytes, pos: int, end: int) -> tuple[int, int]:
    """Return the packet id (2.2.1), which is never 0, and where it ends."""
    if pos + 2 > end:
        raise MalformedPacket("2.2.1", "the packet ends within its packet id")
    number = packet[pos] << 8 | packet[pos + 1]
    if not number:
        raise MalformedPacket("2.2.1", "packet id 0", PROTOCOL_ERROR)
    return number, pos + 2


def close(pos: int, end: int) -> None:
    """Refuse what is left behind the last field."""
    if pos != end:
        raise MalformedPacket("2.1.4", f"{end - pos} bytes after the last field")
