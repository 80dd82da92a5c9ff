"""Packets of 3.1.1 as 5.0 and back, for clients of 3.1.1 whose link to rumqttd speaks 5.0.

Its own 3.1.1 cannot write a message that came with properties: it panics, and the subscriber's connection is gone.
What has no properties in 5.0 is the same packet with one byte more, the length 0 of their section; acknowledgements
are alike.
"""

from __future__ import annotations

from broker import wire
from broker.wire.fields import field
from broker.wire.sections import (
    variable,
    variable_bytes,
)


def as_5(packet: bytes) -> bytes:
    """Return one packet that a client of 3.1.1 sent as 5.0 has it."""
    first = packet[0]
    kind = first & wire.TYPE_MASK
    if kind not in {wire.PUBLISH, wire.SUBSCRIBE, wire.UNSUBSCRIBE}:
        return packet
    at = start = _body(packet)
    if kind == wire.PUBLISH:
        _, at = field(packet, start, len(packet), "3.3.2.1")
    if kind != wire.PUBLISH or first & 0x06:
        at += 2
    return first.to_bytes(1, "big") + variable_bytes(len(packet) - start + 1) + packet[start:at] + b"\0" + packet[at:]


def as_3(packet: bytes) -> bytes:
    """Return one packet of rumqttd's as 3.1.1 has it; nothing where it has none for that. Raises MalformedPacket."""
    first = packet[0]
    kind = first & wire.TYPE_MASK
    start = _body(packet)
    if kind in {wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP}:
        return bytes((first, 2)) + packet[start : start + 2]
    if kind == wire.DISCONNECT:  # it ends the connection with it
        return b""
    if kind not in {wire.PUBLISH, wire.SUBACK}:
        return packet
    at = start
    if kind == wire.PUBLISH:
        _, at = field(packet, start, len(packet), "3.3.2.1")
    if kind != wire.PUBLISH or first & 0x06:
        at += 2
    length, behind = variable(packet, at, len(packet))
    rest = packet[behind + length :]
    if kind == wire.SUBACK:
        rest = bytes(min(code, wire.SUBACK_REFUSED) for code in rest)
    return first.to_bytes(1, "big") + variable_bytes(at - start + len(rest)) + packet[start:at] + rest


def _body(packet: bytes) -> int:
    position = 2
    while packet[position - 1] & 0x80:
        position += 1
    return position
