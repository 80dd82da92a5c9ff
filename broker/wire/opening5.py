"""Strict parsers of MQTT 5.0, as in `decode5`, for CONNECT, CONNACK, AUTH and DISCONNECT."""

from __future__ import annotations

from typing import Final

from authsvc.core.credentials import WillMessage
from broker.wire import fields5, properties, reason_codes, sections
from broker.wire.fields import field
from broker.wire.packets import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    MQTT_5_0,
    Auth,
    Connack,
    Connect,
    Disconnect,
    MalformedPacket,
    UnsupportedProtocol,
)
from broker.wire.reason_codes import PROTOCOL_ERROR
from broker.wire.sections import (
    Section,
)
from broker.wire.text import OF_5_0, check_topic_bytes, utf8

_NOT_USER: Final = frozenset(properties.PROPERTIES) - {properties.USER_PROPERTY}
_OF_DISCONNECT: Final = frozenset({properties.SESSION_EXPIRY, properties.SERVER_REFERENCE})
_OF_AUTH: Final = frozenset({properties.AUTHENTICATION_METHOD, properties.AUTHENTICATION_DATA})
_DELAY: Final = frozenset({properties.WILL_DELAY})


def parse_connect(packet: bytes) -> Connect:
    """Return the CONNECT, which `decode.parse_connect` found to be of level 5.

    Raises:
        UnsupportedProtocol: another protocol level after all.
        MalformedPacket: as the module says.
    """
    pos, end = fields5.open_packet(packet, CONNECT)
    name, pos = field(packet, pos, end, "3.1.2.1")
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
    section, pos = sections.read(packet, pos, end, CONNECT, _NOT_USER, most=sections.MOST)
    method = _authentication(section)

    raw, pos = field(packet, pos, end, "MQTT-3.1.3-3")
    client_id = utf8(raw, "MQTT-3.1.3-4", OF_5_0.nul)
    will = None
    if has_will:
        will_section, pos = sections.read(packet, pos, end, properties.WILL, _DELAY, most=sections.MOST)
        raw_topic, pos = field(packet, pos, end, "MQTT-3.1.2-9")
        payload, pos = field(packet, pos, end, "MQTT-3.1.2-9")
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
        raw, pos = field(packet, pos, end, "MQTT-3.1.2-17")
        username = utf8(raw, "MQTT-3.1.3-12", OF_5_0.nul)
    if flags & 0x40:  # 3.1.2.9: a password without a user name is allowed in 5.0
        password, pos = field(packet, pos, end, "MQTT-3.1.2-19")
    fields5.close(pos, end)
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
    pos, end = fields5.open_packet(packet, CONNACK)
    if pos + 2 > end:
        raise MalformedPacket("3.2.2", "the CONNACK ends within its variable header")
    flags, code = packet[pos], packet[pos + 1]
    if flags & 0xFE:
        raise MalformedPacket("MQTT-3.2.2-1", "reserved acknowledge flags are set")
    if flags and code:
        raise MalformedPacket("MQTT-3.2.2-6", f"session present with reason code {code:#04x}", PROTOCOL_ERROR)
    if code not in reason_codes.CONNACK_CODES:
        raise MalformedPacket("MQTT-3.2.2-8", f"reason code {code:#04x} in a CONNACK")
    section, pos = sections.read(packet, pos + 2, end, CONNACK, _NOT_USER)
    method = _authentication(section)
    fields5.close(pos, end)
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


def parse_disconnect(packet: bytes, *, from_server: bool = False) -> Disconnect:
    """Return the DISCONNECT of either side; a client may not send the codes and properties of servers (3.14.2)."""
    pos, end = fields5.open_packet(packet, DISCONNECT)
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
    section, pos = sections.read(packet, pos, end, DISCONNECT, _OF_DISCONNECT, most=sections.MOST)
    fields5.close(pos, end)
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
    pos, end = fields5.open_packet(packet, AUTH)
    if pos == end:  # 3.15.2.1: remaining length 0 is reason code 0
        reason, section = reason_codes.SUCCESS, sections.EMPTY
    else:
        reason = packet[pos]
        section, pos = sections.read(packet, pos + 1, end, AUTH, _OF_AUTH, most=sections.MOST)
    fields5.close(pos, end)
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


def _authentication(section: Section) -> str | None:
    method = section.text(properties.AUTHENTICATION_METHOD)
    if method is None and properties.AUTHENTICATION_DATA in section:
        raise MalformedPacket("3.1.2.11.10", "authentication data without a method", PROTOCOL_ERROR)
    return method


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
