"""Strict parsers for single whole packets of MQTT 3.1 and 3.1.1: a record, or MalformedPacket with the clause broken.

Every parser takes the packet with its fixed header and insists on its exact length. Where MQTT 3.1 (level 3) is
laxer than 3.1.1, the parser is told the level and follows it:
* CONNECT: the flags of the fixed header and the reserved flag are ignored, will QoS and will retain count only with
  the will flag, and user name and password may be missing though their flags are set ("the Remaining Length field
  takes precedence").
* SUBSCRIBE, UNSUBSCRIBE and PUBREL may be repeated with DUP; encoding them anew gives the form of 3.1.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from authsvc.core.credentials import WillMessage
from broker.wire.fields import field
from broker.wire.framing import MAX_REMAINING_LENGTH, frame
from broker.wire.packets import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    DUP,
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5_0,
    NAMES,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    TYPE_MASK,
    UNSUBACK,
    UNSUBSCRIBE,
    Ack,
    Bare,
    Connack,
    Connect,
    MalformedPacket,
    Packet,
    Publish,
    Suback,
    Subscribe,
    Unsubscribe,
    UnsupportedProtocol,
)
from broker.wire.text import check_filter_bytes, check_topic_bytes, utf8

_LEVELS: Final = {b"MQTT": MQTT_3_1_1, b"MQIsdp": MQTT_3_1}
_ACKS: Final = {PUBACK, PUBREC, PUBREL | 0x02, PUBCOMP, UNSUBACK}  # MQTT-3.6.1-1: PUBREL carries 0b0010
_MAX_CONNACK_CODE: Final = 5


def parse_connect(packet: bytes) -> Connect:
    """Return the CONNECT.

    Raises:
        UnsupportedProtocol: another protocol level; what follows the level was not looked at.
        MalformedPacket: as the module says.
    """
    first = packet[0] if packet else 0
    if first & TYPE_MASK != CONNECT:
        raise MalformedPacket("2.2.1", "not a CONNECT")
    pos, end = _open(packet, first, "MQTT-2.2.2-2")
    name, pos = field(packet, pos, end, "MQTT-3.1.2-1")
    level_spoken = _LEVELS.get(name)
    if first != CONNECT and level_spoken != MQTT_3_1:
        raise MalformedPacket("MQTT-2.2.2-2", f"flags {first & 15:#x} are not those of CONNECT")
    if level_spoken is None:
        raise MalformedPacket("MQTT-3.1.2-1", "the protocol name is neither MQTT nor MQIsdp")
    if pos >= end:
        raise MalformedPacket("3.1.2.2", "the CONNECT ends before the protocol level")
    level = packet[pos]
    if name == b"MQTT" and level == MQTT_5_0 and pos + 4 > end:
        raise MalformedPacket("3.1.2", "the CONNECT ends within its variable header")  # the same four bytes in 5.0
    if level != level_spoken:  # MQTT-3.1.2-2; a bridge of 3.x says so by the high bit (0x83, 0x84): not spoken here
        raise UnsupportedProtocol(level=level, name=name.decode())
    if pos + 4 > end:
        raise MalformedPacket("3.1.2", "the CONNECT ends within its variable header")
    flags = packet[pos + 1]
    keep_alive_s = packet[pos + 2] << 8 | packet[pos + 3]
    pos += 4
    lax = level == MQTT_3_1
    if flags & 0x01 and not lax:
        raise MalformedPacket("MQTT-3.1.2-3", "the reserved connect flag is set")
    has_will, will_qos, will_retain = bool(flags & 0x04), flags >> 3 & 3, bool(flags & 0x20)
    if not has_will and will_qos and not lax:
        raise MalformedPacket("MQTT-3.1.2-13", f"will QoS {will_qos} without a will")
    if not has_will and will_retain and not lax:
        raise MalformedPacket("MQTT-3.1.2-15", "will retain without a will")
    if has_will and will_qos == 3:  # the reserved QoS
        raise MalformedPacket("MQTT-3.1.2-14", "will QoS 3")
    has_username, has_password = bool(flags & 0x80), bool(flags & 0x40)
    if has_password and not has_username:
        raise MalformedPacket("MQTT-3.1.2-22", "a password without a user name")

    raw, pos = field(packet, pos, end, "MQTT-3.1.3-3")
    client_id = _text(raw, "MQTT-3.1.3-4")
    will = None
    if has_will:
        raw_topic, pos = field(packet, pos, end, "MQTT-3.1.2-9")
        payload, pos = field(packet, pos, end, "MQTT-3.1.2-9")
        will = WillMessage(topic=check_topic_bytes(raw_topic), payload=payload, qos=will_qos, retain=will_retain)
    username: str | None = None
    password: bytes | None = None
    if has_username and not (lax and pos == end):
        raw, pos = field(packet, pos, end, "MQTT-3.1.2-19")
        username = _text(raw, "MQTT-3.1.3-11")
    if has_password and not (lax and pos == end):
        password, pos = field(packet, pos, end, "MQTT-3.1.2-21")
    _close(pos, end)
    return Connect(
        protocol_name=name.decode(),
        level=level,
        client_id=client_id,
        clean_session=bool(flags & 0x02),
        keep_alive_s=keep_alive_s,
        username=username,
        password=password,
        will=will,
    )


def parse_connack(packet: bytes) -> Connack:
    pos, end = _open(packet, CONNACK, "MQTT-2.2.2-2")
    _exactly(end - pos, 2, "3.2")
    flags, code = packet[pos], packet[pos + 1]
    if flags & 0xFE:
        raise MalformedPacket("3.2.2.1", "reserved acknowledge flags are set")
    if flags and code:
        raise MalformedPacket("MQTT-3.2.2-4", f"session present with return code {code}")
    if code > _MAX_CONNACK_CODE:
        raise MalformedPacket("3.2.2.3", f"return code {code} is reserved")
    return Connack(session_present=bool(flags), code=code)


def parse_publish(packet: bytes) -> Publish:
    first = packet[0] if packet else 0
    if first & TYPE_MASK != PUBLISH:
        raise MalformedPacket("2.2.1", "not a PUBLISH")
    pos, end = _open(packet, first, "MQTT-2.2.2-2")
    qos, dup = first >> 1 & 3, bool(first & DUP)
    raw, pos = field(packet, pos, end, "MQTT-3.3.2-1")
    packet_id = None
    if qos:
        packet_id, pos = _packet_id(packet, pos, end)
    return Publish(
        topic=check_topic_bytes(raw),
        payload=packet[pos:end],
        qos=qos,
        retain=bool(first & 0x01),
        dup=dup,
        packet_id=packet_id,
    )


def parse_subscribe(packet: bytes, *, level: int = MQTT_3_1_1) -> Subscribe:
    pos, end = _open(packet, SUBSCRIBE | 0x02, "MQTT-3.8.1-1", dup_too=level == MQTT_3_1)
    packet_id, pos = _packet_id(packet, pos, end)
    filters = []
    while pos < end:
        raw, pos = field(packet, pos, end, "MQTT-3.8.3-1")
        if pos >= end:
            raise MalformedPacket("MQTT-3.8.3-4", "the last filter has no requested QoS")
        qos = packet[pos]
        pos += 1
        if qos > 2:  # MQTT-3.8.3-4: six reserved bits, and QoS 3 does not exist
            raise MalformedPacket("MQTT-3.8.3-4", f"requested QoS byte {qos:#04x}")
        filters.append((check_filter_bytes(raw), qos))
    if not filters:
        raise MalformedPacket("MQTT-3.8.3-3", "a SUBSCRIBE without a filter")
    return Subscribe(packet_id=packet_id, filters=tuple(filters), options=tuple(qos for _, qos in filters))


def parse_suback(packet: bytes) -> Suback:
    pos, end = _open(packet, SUBACK, "MQTT-2.2.2-2")
    packet_id, pos = _packet_id(packet, pos, end)
    codes = packet[pos:end]
    if not codes:
        raise MalformedPacket("MQTT-3.8.4-5", "a SUBACK without a return code")
    if codes.translate(None, b"\x00\x01\x02\x80"):
        raise MalformedPacket("MQTT-3.9.3-2", "a reserved return code in a SUBACK")
    return Suback(packet_id=packet_id, codes=codes)


def parse_unsubscribe(packet: bytes, *, level: int = MQTT_3_1_1) -> Unsubscribe:
    pos, end = _open(packet, UNSUBSCRIBE | 0x02, "MQTT-3.10.1-1", dup_too=level == MQTT_3_1)
    packet_id, pos = _packet_id(packet, pos, end)
    filters = []
    while pos < end:
        raw, pos = field(packet, pos, end, "MQTT-3.10.3-1")
        filters.append(check_filter_bytes(raw))
    if not filters:
        raise MalformedPacket("MQTT-3.10.3-2", "an UNSUBSCRIBE without a filter")
    return Unsubscribe(packet_id=packet_id, filters=tuple(filters))


def parse_ack(packet: bytes, *, level: int = MQTT_3_1_1) -> Ack:
    """Return a PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK."""
    first = packet[0] if packet else 0
    repeated = level == MQTT_3_1 and first == PUBREL | 0x02 | DUP
    if first not in _ACKS and not repeated:
        raise MalformedPacket("MQTT-2.2.2-2", f"{first:#04x} does not begin an acknowledgement")
    pos, end = _open(packet, first, "MQTT-2.2.2-2")
    _exactly(end - pos, 2, "3.4.2")
    packet_id, _ = _packet_id(packet, pos, end)
    return Ack(type=first & TYPE_MASK, packet_id=packet_id)


def parse_bare(packet: bytes) -> Bare:
    """Return a PINGREQ, PINGRESP or DISCONNECT."""
    first = packet[0] if packet else 0
    if first not in (PINGREQ, PINGRESP, DISCONNECT):
        raise MalformedPacket("MQTT-3.14.1-1", f"{first:#04x} does not begin a packet without content")
    pos, end = _open(packet, first, "MQTT-2.2.2-2")
    _exactly(end - pos, 0, "2.2.3")
    return Bare(type=first)


def parse_from_client(packet: bytes, *, level: int = MQTT_3_1_1) -> Packet:
    """Return any packet that a client may send (table 2.1)."""
    return _dispatch(packet, level, _FROM_CLIENT, "client")


def parse_from_server(packet: bytes) -> Packet:
    """Return any packet that a server may send (table 2.1)."""
    return _dispatch(packet, MQTT_3_1_1, _FROM_SERVER, "server")


def _text(raw: bytes, clause: str) -> str:
    return utf8(raw, clause, "MQTT-1.5.3-2")


def _open(packet: bytes, first: int, clause: str, *, dup_too: bool = False) -> tuple[int, int]:
    """Return begin and end of the body of a packet that begins with `first` and is exactly one packet."""
    if not packet or (packet[0] != first and not (dup_too and packet[0] == first | DUP)):
        raise MalformedPacket(clause, f"expected {first:#04x} as first byte of {NAMES[first & TYPE_MASK]}")
    end = frame(packet, 0, MAX_REMAINING_LENGTH + 5)
    if end != len(packet):
        raise MalformedPacket("2.2.3", "the remaining length is not that of the packet")
    pos = 2
    while packet[pos - 1] & 0x80:
        pos += 1
    return pos, end


def _packet_id(packet: bytes, pos: int, end: int) -> tuple[int, int]:
    if pos + 2 > end:
        raise MalformedPacket("2.3.1", "the packet ends within its packet id")
    packet_id = packet[pos] << 8 | packet[pos + 1]
    if not packet_id:
        raise MalformedPacket("MQTT-2.3.1-1", "packet id 0")
    return packet_id, pos + 2


def _exactly(length: int, expected: int, clause: str) -> None:
    if length != expected:
        raise MalformedPacket(clause, f"remaining length {length}, expected {expected}")


def _close(pos: int, end: int) -> None:
    if pos != end:
        raise MalformedPacket("3.1.3", f"{end - pos} bytes after the last field")


_Parsers = dict[int, Callable[[bytes, int], Packet]]
_BOTH: Final[_Parsers] = {
    PUBLISH: lambda packet, _: parse_publish(packet),
    PUBACK: lambda packet, level: parse_ack(packet, level=level),
    PUBREC: lambda packet, level: parse_ack(packet, level=level),
    PUBREL: lambda packet, level: parse_ack(packet, level=level),
    PUBCOMP: lambda packet, level: parse_ack(packet, level=level),
}
_FROM_CLIENT: Final[_Parsers] = _BOTH | {
    CONNECT: lambda packet, _: parse_connect(packet),
    SUBSCRIBE: lambda packet, level: parse_subscribe(packet, level=level),
    UNSUBSCRIBE: lambda packet, level: parse_unsubscribe(packet, level=level),
    PINGREQ: lambda packet, _: parse_bare(packet),
    DISCONNECT: lambda packet, _: parse_bare(packet),
}
_FROM_SERVER: Final[_Parsers] = _BOTH | {
    CONNACK: lambda packet, _: parse_connack(packet),
    SUBACK: lambda packet, _: parse_suback(packet),
    UNSUBACK: lambda packet, level: parse_ack(packet, level=level),
    PINGRESP: lambda packet, _: parse_bare(packet),
}


def _dispatch(packet: bytes, level: int, parsers: _Parsers, sender: str) -> Packet:
    kind = packet[0] & TYPE_MASK if packet else 0
    parser = parsers.get(kind)
    if parser is None:
        raise MalformedPacket("2.2.1", f"a {sender} does not send {NAMES.get(kind, f'packet type {kind >> 4}')}")
    return parser(packet, level)
