"""The field that all packets of all versions are made of."""

from __future__ import annotations

from broker.wire.packets import MalformedPacket


def field(packet: bytes, pos: int, end: int, clause: str) -> tuple[bytes, int]:
    """Return a field of two length bytes and that many bytes (3.1.1: 1.5.3; 5.0: 1.5.4, 1.5.6), and where it ends.

    Raises MalformedPacket with `clause` where the packet ends within it.
    """
    start = pos + 2
    if start <= end:
        stop = start + (packet[pos] << 8 | packet[pos + 1])
        if stop <= end:
            return packet[start:stop], stop
    raise MalformedPacket(clause, "the packet ends within a field")
