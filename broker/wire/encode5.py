"""Packets of MQTT 5.0 to send, as bytes. A value that no packet can carry is a mistake of the caller: ValueError.

`properties` arguments are sections as `broker.wire.sections` makes them, without their length; their ids are not
checked again here, they come from a checked source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Final

from authsvc.core.credentials import WillMessage
from broker.wire import properties as props
from broker.wire import sections
from broker.wire.packets import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    DUP,
    MQTT_5_0,
    PUBLISH,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    Connack,
)
from broker.wire.sections import (
    field,
    variable_bytes,
    with_length,
)

_MAX_ID: Final = 65_535
_MAX_QOS: Final = 2


def encode_connect(
    *,
    client_id: str,
    clean_session: bool = True,
    keep_alive_s: int = 0,
    username: str | None = None,
    password: bytes | None = None,
    will: WillMessage | None = None,
    session_expiry_s: int = 0,
    receive_maximum: int = 65_535,
    maximum_packet_size: int | None = None,
    topic_alias_maximum: int = 0,
    request_response_information: bool = False,
    request_problem_information: bool = True,
    authentication_method: str | None = None,
    authentication_data: bytes | None = None,
    properties: bytes = b"",
) -> bytes:
    """Return a CONNECT; what has the value of an absent property is left out. `properties`: user properties."""
    section = sections.encode(
        (id_, value)
        for id_, value, absent in (
            (props.SESSION_EXPIRY, session_expiry_s, 0),
            (props.AUTHENTICATION_METHOD, authentication_method, None),
            (props.AUTHENTICATION_DATA, authentication_data, None),
            (props.REQUEST_PROBLEM_INFORMATION, int(request_problem_information), 1),
            (props.REQUEST_RESPONSE_INFORMATION, int(request_response_information), 0),
            (props.RECEIVE_MAXIMUM, receive_maximum, 65_535),
            (props.TOPIC_ALIAS_MAXIMUM, topic_alias_maximum, 0),
            (props.MAXIMUM_PACKET_SIZE, maximum_packet_size, None),
        )
        if value is not None and value != absent
    )
    flags = 0x02 if clean_session else 0
    payload = field(client_id.encode())
    if will is not None:
        flags |= 0x04 | _qos(will.qos) << 3 | (0x20 if will.retain else 0)
        delay = sections.encode([(props.WILL_DELAY, will.delay_s)]) if will.delay_s else b""
        payload += with_length(delay + will.properties) + field(will.topic.encode()) + field(will.payload)
    if username is not None:
        flags |= 0x80
        payload += field(username.encode())
    if password is not None:
        flags |= 0x40
        payload += field(password)
    head = b"\x00\x04MQTT" + bytes((MQTT_5_0, flags)) + _uint16(keep_alive_s, least=0)
    return _packet(CONNECT, head + with_length(section + properties) + payload)


def encode_connack(code: int, *, session_present: bool = False, properties: bytes = b"") -> bytes:
    if session_present and code:
        raise ValueError("session present goes with code 0 only (MQTT-3.2.2-6)")
    return _packet(CONNACK, bytes((int(session_present), code)) + with_length(properties))


def connack_section(connack: Connack) -> bytes:
    """Return the property section that says what the record's fields say; nothing for those that are as absent."""
    named = (
        (props.SESSION_EXPIRY, connack.session_expiry_s, None),
        (props.RECEIVE_MAXIMUM, connack.receive_maximum, 65_535),
        (props.MAXIMUM_QOS, connack.maximum_qos, 2),
        (props.RETAIN_AVAILABLE, int(connack.retain_available), 1),
        (props.MAXIMUM_PACKET_SIZE, connack.maximum_packet_size, None),
        (props.ASSIGNED_CLIENT_ID, connack.assigned_client_id, None),
        (props.TOPIC_ALIAS_MAXIMUM, connack.topic_alias_maximum, 0),
        (props.REASON_STRING, connack.reason_string, None),
        (props.WILDCARD_SUBSCRIPTION_AVAILABLE, int(connack.wildcard_subscriptions), 1),
        (props.SUBSCRIPTION_IDENTIFIER_AVAILABLE, int(connack.subscription_identifiers), 1),
        (props.SHARED_SUBSCRIPTION_AVAILABLE, int(connack.shared_subscriptions), 1),
        (props.SERVER_KEEP_ALIVE, connack.server_keep_alive_s, None),
        (props.RESPONSE_INFORMATION, connack.response_information, None),
        (props.SERVER_REFERENCE, connack.server_reference, None),
        (props.AUTHENTICATION_METHOD, connack.authentication_method, None),
        (props.AUTHENTICATION_DATA, connack.authentication_data, None),
    )
    assert len(named) == len(fields(connack)) - 3  # all but the flag, the code and the user properties
    present = ((id_, value) for id_, value, absent in named if value is not None and value != absent)
    return sections.encode(present) + connack.properties


def encode_publish(
    topic: str | bytes,
    payload: bytes,
    *,
    qos: int = 0,
    retain: bool = False,
    dup: bool = False,
    packet_id: int | None = None,
    properties: bytes = b"",
) -> bytes:
    """Return a PUBLISH; the topic is not checked for wildcards here, it comes from a checked source.

    A topic alias is one of the `properties`; without it the topic must not be empty (3.3.2.1).
    """
    if (packet_id is None) is not (qos == 0):
        raise ValueError(f"packet id {packet_id} with QoS {qos} (MQTT-2.2.1-2)")
    if dup and not qos:
        raise ValueError("DUP with QoS 0 (MQTT-3.3.1-2)")
    if not topic and not properties:
        raise ValueError("an empty topic without a topic alias (3.3.2.1)")
    first = PUBLISH | (DUP if dup else 0) | _qos(qos) << 1 | int(retain)
    body = field(topic.encode() if isinstance(topic, str) else topic)
    if packet_id is not None:
        body += _uint16(packet_id)
    return _packet(first, body + with_length(properties) + payload)


def encode_ack(type_: int, packet_id: int, reason: int = 0, properties: bytes = b"") -> bytes:
    """Return a PUBACK, PUBREC, PUBREL or PUBCOMP in its shortest form (3.4.2.1, 3.4.2.2.1)."""
    first = type_ | (0x02 if type_ == PUBREL else 0)  # MQTT-3.6.1-1
    if properties:
        return _packet(first, _uint16(packet_id) + bytes((reason,)) + with_length(properties))
    if reason:
        return bytes((first, 3)) + _uint16(packet_id) + bytes((reason,))
    return bytes((first, 2)) + _uint16(packet_id)


def encode_subscribe(packet_id: int, filters: Iterable[tuple[str, int]], properties: bytes = b"") -> bytes:
    """Return a SUBSCRIBE of (filter, options byte of 3.8.3.1)."""
    body = b"".join(field(filter_.encode()) + bytes((_options(options),)) for filter_, options in filters)
    if not body:
        raise ValueError("a SUBSCRIBE without a filter (MQTT-3.8.3-2)")
    return _packet(SUBSCRIBE | 0x02, _uint16(packet_id) + with_length(properties) + body)


def encode_unsubscribe(packet_id: int, filters: Iterable[str], properties: bytes = b"") -> bytes:
    body = b"".join(field(filter_.encode()) for filter_ in filters)
    if not body:
        raise ValueError("an UNSUBSCRIBE without a filter (MQTT-3.10.3-2)")
    return _packet(UNSUBSCRIBE | 0x02, _uint16(packet_id) + with_length(properties) + body)


def encode_suback(packet_id: int, codes: Sequence[int] | bytes, properties: bytes = b"") -> bytes:
    return _answer(SUBACK, packet_id, codes, properties)


def encode_unsuback(packet_id: int, codes: Sequence[int] | bytes, properties: bytes = b"") -> bytes:
    return _answer(UNSUBACK, packet_id, codes, properties)


def encode_disconnect(reason: int = 0, properties: bytes = b"") -> bytes:
    """Return a DISCONNECT in its shortest form (3.14.2.1, 3.14.2.2.1)."""
    if properties:
        return _packet(DISCONNECT, bytes((reason,)) + with_length(properties))
    return bytes((DISCONNECT, 1, reason)) if reason else bytes((DISCONNECT, 0))


def encode_auth(reason: int = 0, properties: bytes = b"") -> bytes:
    return _packet(AUTH, bytes((reason,)) + with_length(properties))


def _answer(first: int, packet_id: int, codes: Sequence[int] | bytes, properties: bytes) -> bytes:
    if not codes:
        raise ValueError("an answer without a reason code (3.9.3, 3.11.3)")
    return _packet(first, _uint16(packet_id) + with_length(properties) + bytes(codes))


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + variable_bytes(len(body)) + body


def _uint16(value: int, *, least: int = 1) -> bytes:
    if not least <= value <= _MAX_ID:
        raise ValueError(f"{value} is not within {least}..{_MAX_ID} (2.2.1)")
    return value.to_bytes(2, "big")


def _qos(qos: int) -> int:
    if not 0 <= qos <= _MAX_QOS:
        raise ValueError(f"QoS {qos} does not exist (4.3)")
    return qos


def _options(options: int) -> int:
    if options & ~0x3F or options & 0x03 == 0x03 or options & 0x30 == 0x30:
        raise ValueError(f"subscription options {options:#04x} do not exist (3.8.3.1)")
    return options
