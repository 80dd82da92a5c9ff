"""Where packets end in what the gate wrote, and which of them are answers to amqtt."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

_ANSWERS = (4, 5, 7)  # PUBACK, PUBREC, PUBCOMP: to what amqtt itself has sent


def packet_end(data: bytes, start: int) -> int:
    """Return where the packet at `start` ends; the gate has checked it (MQTT-2.2.3)."""
    length = shift = 0
    position = start + 1
    while True:
        byte = data[position]
        length |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return position + length
        shift += 7


def take_answers(chunks: Iterable[bytes], position: int) -> tuple[bytes, deque[bytes]]:
    """Return the acknowledgements among whole packets, and the rest in its order; `position` is in the first chunk."""
    answers = bytearray()
    kept: deque[bytes] = deque()
    for chunk in chunks:
        start = position
        while position < len(chunk):
            end = packet_end(chunk, position)
            if chunk[position] >> 4 in _ANSWERS:
                answers += chunk[position:end]
                if position > start:
                    kept.append(chunk[start:position])
                start = end
            position = end
        if start < len(chunk):
            kept.append(chunk[start:])
        position = 0
    return bytes(answers), kept
