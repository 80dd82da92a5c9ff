"""Strict parsers for single whole packets of MQTT 5.0: a record, or MalformedPacket with clause and reason code.

As `decode`, every parser takes the packet with its fixed header and insists on its exact length. Clause numbers are
those of MQTT 5.0 (OASIS, 2019). What cannot be parsed has code 0x81; what can be, and is not allowed, 0x82 or the code
that the specification gives to it (1.2, "Malformed Packet", "Protocol Error"; 4.13).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from broker.wire import fields5, properties, reason_codes, sections
from broker.wire.fields import field
from broker.wire.opening5 import parse_auth, parse_connack, parse_connect, parse_disconnect
from broker.wire.packets import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    DUP,
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
    MalformedPacket,
    Packet,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from broker.wire.reason_codes import PROTOCOL_ERROR
from broker.wire.text import OF_5_0, check_filter_bytes, check_topic_bytes

_ALIAS: Final = frozenset({properties.TOPIC_ALIAS})
_ACK_CODES: Final = {
    PUBACK: reason_codes.PUBACK_CODES,
    PUBREC: reason_codes.PUBACK_CODES,
    PUBREL: reason_codes.PUBREL_CODES,
    PUBCOMP: reason_codes.PUBREL_CODES,
}


def parse_publish(packet: bytes, *, from_server: bool = False) -> Publish:
    """Return the PUBLISH; a subscription identifier is only a server's to send (MQTT-3.3.4-6)."""
    first = packet[0] if packet else 0
    if first & TYPE_MASK != PUBLISH:
        raise MalformedPacket("2.1.2", "not a PUBLISH")
    pos, end = fields5.open_packet(packet, first)
    qos = first >> 1 & 3
    raw, pos = field(packet, pos, end, "MQTT-3.3.2-1")
    packet_id = None
    if qos:
        packet_id, pos = fields5.packet_id(packet, pos, end)
    section, pos = sections.read(packet, pos, end, PUBLISH, _ALIAS, most=None if from_server else sections.MOST)
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
    pos, end = fields5.open_packet(packet, first)
    packet_id, pos = fields5.packet_id(packet, pos, end)
    if pos == end:
        return Ack(type=kind, packet_id=packet_id)
    reason = packet[pos]
    if reason not in codes:
        raise MalformedPacket(_CODE_CLAUSES[kind], f"reason code {reason:#04x} in a {NAMES[kind]}")
    pos += 1
    if pos == end:
        return Ack(type=kind, packet_id=packet_id, reason=reason)
    section, pos = sections.read(packet, pos, end, kind, most=sections.MOST)
    fields5.close(pos, end)
    return Ack(type=kind, packet_id=packet_id, reason=reason, properties=section.rest)


_CODE_CLAUSES: Final = {PUBACK: "MQTT-3.4.2-1", PUBREC: "MQTT-3.5.2-1", PUBREL: "MQTT-3.6.2-1", PUBCOMP: "MQTT-3.7.2-1"}


def parse_subscribe(packet: bytes) -> Subscribe:
    pos, end = fields5.open_packet(packet, SUBSCRIBE | 0x02)
    packet_id, pos = fields5.packet_id(packet, pos, end)
    section, pos = sections.read(packet, pos, end, SUBSCRIBE, most=sections.MOST)
    filters, options = [], []
    while pos < end:
        raw, pos = field(packet, pos, end, "MQTT-3.8.3-1")
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
    pos, end = fields5.open_packet(packet, SUBACK)
    packet_id, pos = fields5.packet_id(packet, pos, end)
    section, pos = sections.read(packet, pos, end, SUBACK)
    codes = packet[pos:end]
    if not codes:
        raise MalformedPacket("MQTT-3.8.4-6", "a SUBACK without a reason code")
    if codes.translate(None, reason_codes.SUBACK_CODES):
        raise MalformedPacket("MQTT-3.9.3-2", "a reserved reason code in a SUBACK")
    return Suback(packet_id=packet_id, codes=codes, properties=section.rest)


def parse_unsubscribe(packet: bytes) -> Unsubscribe:
    pos, end = fields5.open_packet(packet, UNSUBSCRIBE | 0x02)
    packet_id, pos = fields5.packet_id(packet, pos, end)
    section, pos = sections.read(packet, pos, end, UNSUBSCRIBE, most=sections.MOST)
    filters = []
    while pos < end:
        raw, pos = field(packet, pos, end, "MQTT-3.10.3-1")
        filters.append(check_filter_bytes(raw, OF_5_0))
    if not filters:
        raise MalformedPacket("MQTT-3.10.3-2", "an UNSUBSCRIBE without a filter", PROTOCOL_ERROR)
    return Unsubscribe(packet_id=packet_id, filters=tuple(filters), properties=section.rest)


def parse_unsuback(packet: bytes) -> Unsuback:
    pos, end = fields5.open_packet(packet, UNSUBACK)
    packet_id, pos = fields5.packet_id(packet, pos, end)
    section, pos = sections.read(packet, pos, end, UNSUBACK)
    codes = packet[pos:end]
    if not codes:
        raise MalformedPacket("MQTT-3.11.3-1", "an UNSUBACK without a reason code")
    if codes.translate(None, reason_codes.UNSUBACK_CODES):
        raise MalformedPacket("MQTT-3.11.3-2", "a reserved reason code in an UNSUBACK")
    return Unsuback(packet_id=packet_id, codes=codes, properties=section.rest)


def parse_bare(packet: bytes) -> Bare:
    """Return a PINGREQ or PINGRESP."""
    first = packet[0] if packet else 0
    if first not in (PINGREQ, PINGRESP):
        raise MalformedPacket("MQTT-2.1.3-1", f"{first:#04x} does not begin a packet without content")
    fields5.close(*fields5.open_packet(packet, first))
    return Bare(type=first)


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
