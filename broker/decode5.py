"""Strict parsers for single whole packets of MQTT 5.0: a record, or MalformedPacket with clause and reason code.

As `decode`, every parser takes the packet with its fixed header and insists on its exact length. Clause numbers are
those of MQTT 5.0 (OASIS, 2019). What cannot be parsed has code 0x81; what can be, and is not allowed, 0x82 or the code
that the specification gives to it (1.2, "Malformed Packet", "Protocol Error"; 4.13).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from authsvc.core.credentials import WillMessage
from broker import properties, reason_codes
from broker.framing import MAX_REMAINING_LENGTH, frame, legal_first_bytes
from broker.packets import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    DUP,
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
    Auth,
    Bare,
    Connack,
    Connect,
    Disconnect,
    MalformedPacket,
    Packet,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    UnsupportedProtocol,
)
from broker.properties import Section
from broker.reason_codes import PROTOCOL_ERROR
from broker.text import OF_5_0, check_filter_bytes, check_topic_bytes, utf8

_LEGAL: Final = legal_first_bytes(MQTT_5_0)
_ALIAS: Final = frozenset({properties.TOPIC_ALIAS})
_DELAY: Final = frozenset({properties.WILL_DELAY})
_NOT_USER: Final = frozenset(properties.PROPERTIES) - {properties.USER_PROPERTY}
_OF_DISCONNECT: Final = frozenset({properties.SESSION_EXPIRY, properties.SERVER_REFERENCE})
_OF_AUTH: Final = frozenset({properties.AUTHENTICATION_METHOD, properties.AUTHENTICATION_DATA})
_ACK_CODES: Final = {
    PUBACK: reason_codes.PUBACK_CODES,
    PUBREC: reason_codes.PUBACK_CODES,
    PUBREL: reason_codes.PUBREL_CODES,
    PUBCOMP: reason_codes.PUBREL_CODES,
}


def parse_connect(packet: bytes) -> Connect:
    """Return the CONNECT, which `decode.parse_connect` found to be of level 5.

    Raises:
        UnsupportedProtocol: another protocol level after all.
        MalformedPacket: as the module says.
    """
    pos, end = _open(packet, CONNECT)
    name, pos = _field(packet, pos, end, "3.1.2.1")
    if name != b"MQTT":
        raise MalformedPacket(
            "MQTT-3.1.2-1", "the protocol name is not MQTT", reason_codes.UNSUPPORTED_PROTOCOL_VERSION
        )
    if pos + 4 > end:
        raise MalformedPacket("3.1.2", "the CONNECT ends within its variable header")
    level, flags, keep_alive_s = packet[pos], packet[pos + 1], packet[pos + 2] << 8 | packet[pos + 3]
    pos += 4
    if level != MQTT_5_0:
        raise UnsupportedProtocol(level=level, name="MQTT")
    if flags & 0x01:
        raise MalformedPacket("MQTT-3.1.2-3", "the reserved connect flag is set")
    has_will, will_qos, will_retain = bool(flags & 0x04), flags >> 3 & 3, bool(flags & 0x20)
    if will_qos == 3:
        raise MalformedPacket("MQTT-3.1.2-12", "will QoS 3")
    if not has_will and will_qos:
        raise MalformedPacket("MQTT-3.1.2-11", f"will QoS {will_qos} without a will")
    if not has_will and will_retain:
        raise MalformedPacket("MQTT-3.1.2-13", "will retain without a will")
    section, pos = properties.read(packet, pos, end, CONNECT, _NOT_USER)
    method = _authentication(section)

    raw, pos = _field(packet, pos, end, "MQTT-3.1.3-3")
    client_id = utf8(raw, "MQTT-3.1.3-4", OF_5_0.nul)
    will = None
    if has_will:
        will_section, pos = properties.read(packet, pos, end, properties.WILL, _DELAY)
        raw_topic, pos = _field(packet, pos, end, "MQTT-3.1.2-9")
        payload, pos = _field(packet, pos, end, "MQTT-3.1.2-9")
        will = WillMessage(
            topic=check_topic_bytes(raw_topic, OF_5_0),
            payload=payload,
            qos=will_qos,
            retain=will_retain,
            delay_s=will_section.number(properties.WILL_DELAY) or 0,
            properties=will_section.rest,
        )
    username: str | None = None
    password: bytes | None = None
    if flags & 0x80:
        raw, pos = _field(packet, pos, end, "MQTT-3.1.2-17")
        username = utf8(raw, "MQTT-3.1.3-12", OF_5_0.nul)
    if flags & 0x40:  # 3.1.2.9: a password without a user name is allowed in 5.0
        password, pos = _field(packet, pos, end, "MQTT-3.1.2-19")
    _close(pos, end)
    return Connect(
        protocol_name="MQTT",
        level=level,
        client_id=client_id,
        clean_session=bool(flags & 0x02),
        keep_alive_s=keep_alive_s,
        username=username,
        password=password,
        will=will,
        session_expiry_s=section.number(properties.SESSION_EXPIRY) or 0,
        receive_maximum=_or(section.number(properties.RECEIVE_MAXIMUM), 65_535),
        maximum_packet_size=section.number(properties.MAXIMUM_PACKET_SIZE),
        topic_alias_maximum=section.number(properties.TOPIC_ALIAS_MAXIMUM) or 0,
        request_response_information=bool(section.number(properties.REQUEST_RESPONSE_INFORMATION)),
        request_problem_information=bool(_or(section.number(properties.REQUEST_PROBLEM_INFORMATION), 1)),
        authentication_method=method,
        authentication_data=section.data(properties.AUTHENTICATION_DATA),
        properties=section.rest,
    )


def parse_connack(packet: bytes) -> Connack:
    pos, end = _open(packet, CONNACK)
    if pos + 2 > end:
        raise MalformedPacket("3.2.2", "the CONNACK ends within its variable header")
    flags, code = packet[pos], packet[pos + 1]
    if flags & 0xFE:
        raise MalformedPacket("MQTT-3.2.2-1", "reserved acknowledge flags are set")
    if flags and code:
        raise MalformedPacket("MQTT-3.2.2-6", f"session present with reason code {code:#04x}", PROTOCOL_ERROR)
    if code not in reason_codes.CONNACK_CODES:
        raise MalformedPacket("MQTT-3.2.2-8", f"reason code {code:#04x} in a CONNACK")
    section, pos = properties.read(packet, pos + 2, end, CONNACK, _NOT_USER)
    method = _authentication(section)
    _close(pos, end)
    return Connack(
        session_present=bool(flags),
        code=code,
        session_expiry_s=section.number(properties.SESSION_EXPIRY),
        receive_maximum=_or(section.number(properties.RECEIVE_MAXIMUM), 65_535),
        maximum_qos=_or(section.number(properties.MAXIMUM_QOS), 2),
        retain_available=bool(_or(section.number(properties.RETAIN_AVAILABLE), 1)),
        maximum_packet_size=section.number(properties.MAXIMUM_PACKET_SIZE),
        assigned_client_id=section.text(properties.ASSIGNED_CLIENT_ID),
        topic_alias_maximum=section.number(properties.TOPIC_ALIAS_MAXIMUM) or 0,
        reason_string=section.text(properties.REASON_STRING),
        wildcard_subscriptions=bool(_or(section.number(properties.WILDCARD_SUBSCRIPTION_AVAILABLE), 1)),
        subscription_identifiers=bool(_or(section.number(properties.SUBSCRIPTION_IDENTIFIER_AVAILABLE), 1)),
        shared_subscriptions=bool(_or(section.number(properties.SHARED_SUBSCRIPTION_AVAILABLE), 1)),
        server_keep_alive_s=section.number(properties.SERVER_KEEP_ALIVE),
        response_information=section.text(properties.RESPONSE_INFORMATION),
        server_reference=section.text(properties.SERVER_REFERENCE),
        authentication_method=method,
        authentication_data=section.data(properties.AUTHENTICATION_DATA),
        properties=section.rest,
    )


def parse_publish(packet: bytes, *, from_server: bool = False) -> Publish:
    """Return the PUBLISH; a subscription identifier is only a server's to send (MQTT-3.3.4-6)."""
    first = packet[0] if packet else 0
    if first & TYPE_MASK != PUBLISH:
        raise MalformedPacket("2.1.2", "not a PUBLISH")
    pos, end = _open(packet, first)
    qos = first >> 1 & 3
    raw, pos = _field(packet, pos, end, "MQTT-3.3.2-1")
    packet_id = None
    if qos:
        packet_id, pos = _packet_id(packet, pos, end)
    section, pos = properties.read(packet, pos, end, PUBLISH, _ALIAS)
    alias = section.number(properties.TOPIC_ALIAS)
    if not from_server and properties.SUBSCRIPTION_IDENTIFIER in section:
        raise MalformedPacket("MQTT-3.3.4-6", "a subscription identifier from a client", PROTOCOL_ERROR)
    if not raw and alias is None:
        raise MalformedPacket("3.3.2.1", "an empty topic without a topic alias", PROTOCOL_ERROR)
    return Publish(
        topic=check_topic_bytes(raw, OF_5_0) if raw else "",
        payload=packet[pos:end],
        qos=qos,
        retain=bool(first & 0x01),
        dup=bool(first & DUP),
        packet_id=packet_id,
        topic_alias=alias,
        properties=section.rest,
    )


def parse_ack(packet: bytes) -> Ack:
    """Return a PUBACK, PUBREC, PUBREL or PUBCOMP; without reason code or properties too (3.4.2.1, 3.4.2.2.1)."""
    first = packet[0] if packet else 0
    kind = first & TYPE_MASK
    codes = _ACK_CODES.get(kind)
    if codes is None:
        raise MalformedPacket("2.1.2", f"{first:#04x} does not begin an acknowledgement of a PUBLISH")
    pos, end = _open(packet, first)
    packet_id, pos = _packet_id(packet, pos, end)
    if pos == end:
        return Ack(type=kind, packet_id=packet_id)
    reason = packet[pos]
    if reason not in codes:
        raise MalformedPacket(_CODE_CLAUSES[kind], f"reason code {reason:#04x} in a {NAMES[kind]}")
    pos += 1
    if pos == end:
        return Ack(type=kind, packet_id=packet_id, reason=reason)
    section, pos = properties.read(packet, pos, end, kind)
    _close(pos, end)
    return Ack(type=kind, packet_id=packet_id, reason=reason, properties=section.rest)


_CODE_CLAUSES: Final = {PUBACK: "MQTT-3.4.2-1", PUBREC: "MQTT-3.5.2-1", PUBREL: "MQTT-3.6.2-1", PUBCOMP: "MQTT-3.7.2-1"}


def parse_subscribe(packet: bytes) -> Subscribe:
    pos, end = _open(packet, SUBSCRIBE | 0x02)
    packet_id, pos = _packet_id(packet, pos, end)
    section, pos = properties.read(packet, pos, end, SUBSCRIBE)
    filters, options = [], []
    while pos < end:
        raw, pos = _field(packet, pos, end, "MQTT-3.8.3-1")
        if pos >= end:
            raise MalformedPacket("3.8.3", "the last filter has no subscription options")
        option = packet[pos]
        pos += 1
        if option & 0xC0:
            raise MalformedPacket("MQTT-3.8.3-5", f"reserved bits of subscription options {option:#04x}")
        if option & 0x03 == 0x03:
            raise MalformedPacket("3.8.3.1", "a subscription with maximum QoS 3", PROTOCOL_ERROR)
        if option & 0x30 == 0x30:
            raise MalformedPacket("3.8.3.1", "a subscription with retain handling 3", PROTOCOL_ERROR)
        if option & 0x04 and raw.startswith(b"$share/"):
            raise MalformedPacket("MQTT-3.8.3-4", "no local on a shared subscription", PROTOCOL_ERROR)
        filters.append((check_filter_bytes(raw, OF_5_0), option & 0x03))
        options.append(option)
    if not filters:
        raise MalformedPacket("MQTT-3.8.3-2", "a SUBSCRIBE without a filter", PROTOCOL_ERROR)
    return Subscribe(
        packet_id=packet_id,
        filters=tuple(filters),
        options=tuple(options),
        subscription_identifier=section.number(properties.SUBSCRIPTION_IDENTIFIER),
        properties=section.rest,
    )


def parse_suback(packet: bytes) -> Suback:
    pos, end = _open(packet, SUBACK)
    packet_id, pos = _packet_id(packet, pos, end)
    section, pos = properties.read(packet, pos, end, SUBACK)
    codes = packet[pos:end]
    if not codes:
        raise MalformedPacket("MQTT-3.8.4-6", "a SUBACK without a reason code")
    if codes.translate(None, reason_codes.SUBACK_CODES):
        raise MalformedPacket("MQTT-3.9.3-2", "a reserved reason code in a SUBACK")
    return Suback(packet_id=packet_id, codes=codes, properties=section.rest)


def parse_unsubscribe(packet: bytes) -> Unsubscribe:
    pos, end = _open(packet, UNSUBSCRIBE | 0x02)
    packet_id, pos = _packet_id(packet, pos, end)
    section, pos = properties.read(packet, pos, end, UNSUBSCRIBE)
    filters = []
    while pos < end:
        raw, pos = _field(packet, pos, end, "MQTT-3.10.3-1")
        filters.append(check_filter_bytes(raw, OF_5_0))
    if not filters:
        raise MalformedPacket("MQTT-3.10.3-2", "an UNSUBSCRIBE without a filter", PROTOCOL_ERROR)
    return Unsubscribe(packet_id=packet_id, filters=tuple(filters), properties=section.rest)


def parse_unsuback(packet: bytes) -> Unsuback:
    pos, end = _open(packet, UNSUBACK)
    packet_id, pos = _packet_id(packet, pos, end)
    section, pos = properties.read(packet, pos, end, UNSUBACK)
    codes = packet[pos:end]
    if not codes:
        raise MalformedPacket("MQTT-3.11.3-1", "an UNSUBACK without a reason code")
    if codes.translate(None, reason_codes.UNSUBACK_CODES):
        raise MalformedPacket("MQTT-3.11.3-2", "a reserved reason code in an UNSUBACK")
    return Unsuback(packet_id=packet_id, codes=codes, properties=section.rest)


def parse_disconnect(packet: bytes, *, from_server: bool = False) -> Disconnect:
    """Return the DISCONNECT of either side; a client may not send the codes and properties of servers (3.14.2)."""
    pos, end = _open(packet, DISCONNECT)
    if pos == end:  # 3.14.2.1: remaining length 0 is reason code 0
        return Disconnect()
    reason = packet[pos]
    pos += 1
    if reason not in (reason_codes.DISCONNECT_BY_SERVER if from_server else reason_codes.DISCONNECT_BY_CLIENT):
        raise MalformedPacket(
            "MQTT-3.14.2-1", f"reason code {reason:#04x} in a DISCONNECT of this side", PROTOCOL_ERROR
        )
    if pos == end:  # 3.14.2.2.1
        return Disconnect(reason=reason)
    section, pos = properties.read(packet, pos, end, DISCONNECT, _OF_DISCONNECT)
    _close(pos, end)
    if from_server and properties.SESSION_EXPIRY in section:
        raise MalformedPacket("MQTT-3.14.2-2", "a session expiry interval from a server", PROTOCOL_ERROR)
    if not from_server and properties.SERVER_REFERENCE in section:
        raise MalformedPacket("3.14.2.2.5", "a server reference from a client", PROTOCOL_ERROR)
    return Disconnect(
        reason=reason,
        session_expiry_s=section.number(properties.SESSION_EXPIRY),
        server_reference=section.text(properties.SERVER_REFERENCE),
        properties=section.rest,
    )


def parse_auth(packet: bytes, *, from_server: bool = False) -> Auth:
    pos, end = _open(packet, AUTH)
    if pos == end:  # 3.15.2.1: remaining length 0 is reason code 0
        reason, section = reason_codes.SUCCESS, properties.EMPTY
    else:
        reason = packet[pos]
        section, pos = properties.read(packet, pos + 1, end, AUTH, _OF_AUTH)
    _close(pos, end)
    if reason not in (reason_codes.AUTH_BY_SERVER if from_server else reason_codes.AUTH_BY_CLIENT):
        raise MalformedPacket("MQTT-3.15.2-1", f"reason code {reason:#04x} in an AUTH of this side", PROTOCOL_ERROR)
    method = _authentication(section)
    if method is None:
        raise MalformedPacket("3.15.2.2.2", "an AUTH without authentication method", PROTOCOL_ERROR)
    return Auth(
        reason=reason,
        authentication_method=method,
        authentication_data=section.data(properties.AUTHENTICATION_DATA),
        properties=section.rest,
    )


def parse_bare(packet: bytes) -> Bare:
    """Return a PINGREQ or PINGRESP."""
    first = packet[0] if packet else 0
    if first not in (PINGREQ, PINGRESP):
        raise MalformedPacket("MQTT-2.1.3-1", f"{first:#04x} does not begin a packet without content")
    _close(*_open(packet, first))
    return Bare(type=first)


def _authentication(section: Section) -> str | None:
    method = section.text(properties.AUTHENTICATION_METHOD)
    if method is None and properties.AUTHENTICATION_DATA in section:
        raise MalformedPacket("3.1.2.11.10", "authentication data without a method", PROTOCOL_ERROR)
    return method


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _open(packet: bytes, first: int) -> tuple[int, int]:
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


def _field(packet: bytes, pos: int, end: int, clause: str) -> tuple[bytes, int]:
    start = pos + 2
    if start <= end:
        stop = start + (packet[pos] << 8 | packet[pos + 1])
        if stop <= end:
            return packet[start:stop], stop
    raise MalformedPacket(clause, "the packet ends within a field")


def _packet_id(packet: bytes, pos: int, end: int) -> tuple[int, int]:
    if pos + 2 > end:
        raise MalformedPacket("2.2.1", "the packet ends within its packet id")
    packet_id = packet[pos] << 8 | packet[pos + 1]
    if not packet_id:
        raise MalformedPacket("2.2.1", "packet id 0", PROTOCOL_ERROR)
    return packet_id, pos + 2


def _close(pos: int, end: int) -> None:
    if pos != end:
        raise MalformedPacket("2.1.4", f"{end - pos} bytes after the last field")


_Parsers = dict[int, Callable[[bytes], Packet]]
_BY_EITHER: Final[_Parsers] = {PUBACK: parse_ack, PUBREC: parse_ack, PUBREL: parse_ack, PUBCOMP: parse_ack}
_FROM_CLIENT: Final[_Parsers] = _BY_EITHER | {
    CONNECT: parse_connect,
    PUBLISH: parse_publish,
    SUBSCRIBE: parse_subscribe,
    UNSUBSCRIBE: parse_unsubscribe,
    PINGREQ: parse_bare,
    DISCONNECT: parse_disconnect,
    AUTH: parse_auth,
}
_FROM_SERVER: Final[_Parsers] = _BY_EITHER | {
    CONNACK: parse_connack,
    PUBLISH: partial(parse_publish, from_server=True),
    SUBACK: parse_suback,
    UNSUBACK: parse_unsuback,
    PINGRESP: parse_bare,
    DISCONNECT: partial(parse_disconnect, from_server=True),
    AUTH: partial(parse_auth, from_server=True),
}


def parse_from_client(packet: bytes) -> Packet:
    """Return any packet that a client may send (table 2-1)."""
    return _dispatch(packet, _FROM_CLIENT, "client")


def parse_from_server(packet: bytes) -> Packet:
    """Return any packet that a server may send (table 2-1)."""
    return _dispatch(packet, _FROM_SERVER, "server")


def _dispatch(packet: bytes, parsers: _Parsers, sender: str) -> Packet:
    kind = packet[0] & TYPE_MASK if packet else 0
    parser = parsers.get(kind)
    if parser is None:
        if kind in NAMES:
            raise MalformedPacket("2.1.2", f"a {sender} does not send {NAMES[kind]}", PROTOCOL_ERROR)
        raise MalformedPacket("2.1.2", f"packet type {kind >> 4} is reserved")
    return parser(packet)
