"""Packets to send, as bytes. A value that no packet can carry is a mistake of the caller: ValueError."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from authsvc.core.credentials import WillMessage
from broker.wire.framing import MAX_REMAINING_LENGTH
from broker.wire.packets import (
    CONNACK,
    CONNECT,
    DUP,
    MQTT_3_1,
    MQTT_3_1_1,
    PUBLISH,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
)

PINGREQ_PACKET: Final = b"\xc0\x00"
PINGRESP_PACKET: Final = b"\xd0\x00"
DISCONNECT_PACKET: Final = b"\xe0\x00"

_PROTOCOL_NAMES: Final = {MQTT_3_1: b"\x00\x06MQIsdp", MQTT_3_1_1: b"\x00\x04MQTT"}
_MAX_FIELD: Final = 65_535
_MAX_QOS: Final = 2


def encode_connect(
    *,
    client_id: str,
    clean_session: bool = True,
    keep_alive_s: int = 0,
    username: str | None = None,
    password: bytes | None = None,
    will: WillMessage | None = None,
    level: int = MQTT_3_1_1,
) -> bytes:
    if password is not None and username is None:
        raise ValueError("a password needs a username (MQTT-3.1.2-22)")
    flags = 0x02 if clean_session else 0
    payload = _field(client_id.encode())
    if will is not None:
        flags |= 0x04 | _qos(will.qos) << 3 | (0x20 if will.retain else 0)
        payload += _field(will.topic.encode()) + _field(will.payload)
    if username is not None:
        flags |= 0x80
        payload += _field(username.encode())
    if password is not None:
        flags |= 0x40
        payload += _field(password)
    head = _PROTOCOL_NAMES[level] + bytes((level, flags)) + _uint16(keep_alive_s, least=0)
    return _packet(CONNECT, head + payload)


def encode_connack(code: int, *, session_present: bool = False) -> bytes:
    """Return a CONNACK; MQTT 3.1 knows no session present flag: leave it out for such a client."""
    if session_present and code:
        raise ValueError("session present goes with code 0 only (MQTT-3.2.2-4)")
    return bytes((CONNACK, 2, int(session_present), code))


def encode_publish(
    topic: str | bytes,
    payload: bytes,
    *,
    qos: int = 0,
    retain: bool = False,
    dup: bool = False,
    packet_id: int | None = None,
) -> bytes:
    """Return a PUBLISH; the topic is not checked for wildcards here, it comes from a checked source."""
    if (packet_id is None) is not (qos == 0):
        raise ValueError(f"packet id {packet_id} with QoS {qos} (MQTT-2.3.1-5)")
    if dup and not qos:
        raise ValueError("DUP with QoS 0 (MQTT-3.3.1-2)")
    first = PUBLISH | (DUP if dup else 0) | _qos(qos) << 1 | int(retain)
    body = _field(topic.encode() if isinstance(topic, str) else topic)
    if packet_id is not None:
        body += _uint16(packet_id)
    return _packet(first, body + payload)


def encode_subscribe(packet_id: int, filters: Iterable[tuple[str, int]]) -> bytes:
    body = b"".join(_field(filter_.encode()) + bytes((_qos(qos),)) for filter_, qos in filters)
    if not body:
        raise ValueError("a SUBSCRIBE without a filter (MQTT-3.8.3-3)")
    return _packet(SUBSCRIBE | 0x02, _uint16(packet_id) + body)


def encode_suback(packet_id: int, codes: Sequence[int] | bytes) -> bytes:
    if not codes:
        raise ValueError("a SUBACK without a code (MQTT-3.8.4-5)")
    return _packet(SUBACK, _uint16(packet_id) + bytes(codes))


def encode_unsubscribe(packet_id: int, filters: Iterable[str]) -> bytes:
    body = b"".join(_field(filter_.encode()) for filter_ in filters)
    if not body:
        raise ValueError("an UNSUBSCRIBE without a filter (MQTT-3.10.3-2)")
    return _packet(UNSUBSCRIBE | 0x02, _uint16(packet_id) + body)


def encode_unsuback(packet_id: int) -> bytes:
    return encode_ack(UNSUBACK, packet_id)


def encode_ack(type_: int, packet_id: int) -> bytes:
    """Return a PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK; `type_` is the first byte without flags."""
    return bytes((type_ | (0x02 if type_ == PUBREL else 0), 2)) + _uint16(packet_id)  # MQTT-3.6.1-1


def remaining_length(length: int) -> bytes:
    """Return the shortest form of 2.2.3 for 0 ≤ length ≤ 268,435,455."""
    if not 0 <= length <= MAX_REMAINING_LENGTH:
        raise ValueError(f"a packet cannot have {length} bytes (2.2.3)")
    out = bytearray()
    while length > 0x7F:  # seven bits a byte
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + remaining_length(len(body)) + body


def _field(raw: bytes) -> bytes:
    if len(raw) > _MAX_FIELD:
        raise ValueError(f"a field of {len(raw)} bytes is above {_MAX_FIELD} (1.5.3)")
    return len(raw).to_bytes(2, "big") + raw


def _uint16(value: int, *, least: int = 1) -> bytes:
    if not least <= value <= _MAX_FIELD:
        raise ValueError(f"{value} is not within {least}..{_MAX_FIELD} (MQTT-2.3.1-1)")
    return value.to_bytes(2, "big")


def _qos(qos: int) -> int:
    if not 0 <= qos <= _MAX_QOS:
        raise ValueError(f"QoS {qos} does not exist (4.3)")
    return qos
