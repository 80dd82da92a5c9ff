"""Packets of MQTT 5.0, written by hand from the specification: valid ones, and some for each rule, with reason codes.

One table in one file, long as it is: the parsers, the framing, the scanner and the fuzzers are all held against it.
"""

from __future__ import annotations

from dataclasses import dataclass

from authsvc.core.credentials import WillMessage
from broker import wire
from tests.broker.wire.cases import CLIENT, SERVER, hexed

BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Valid5:
    id: str
    packet: bytes
    parsed: wire.Packet
    sender: str = CLIENT
    canonical: bool = True  # encoding what was parsed gives these very bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile5:
    id: str
    packet: bytes
    clause: str
    code: int = 0x81
    sender: str = CLIENT


def joined(parts) -> bytes:
    return b"".join(hexed(part) if isinstance(part, str) else part for part in parts)


def packet(first: int, *parts: str | bytes) -> bytes:
    """Return a packet with the right remaining length."""
    body = joined(parts)
    return bytes((first,)) + length_of(body) + body


def props(*parts: str | bytes) -> bytes:
    """Return a property section with its length."""
    body = joined(parts)
    return length_of(body) + body


def length_of(body: bytes) -> bytes:
    """Return the shortest variable byte integer (1.5.5) for up to 16,383 bytes."""
    assert len(body) < 1 << 14
    return bytes((len(body),)) if len(body) < 128 else bytes((len(body) & 0x7F | 0x80, len(body) >> 7))


def connect(flags: int, properties: bytes, *payload: str | bytes, keep: str = "003C") -> bytes:
    return packet(0x10, "0004 'MQTT' 05", bytes((flags,)), keep, properties, *payload)


def connected(**fields) -> wire.Connect:
    given = {"client_id": "c", "clean_session": True, "keep_alive_s": 60, "username": None, "password": None}
    return wire.Connect(protocol_name="MQTT", level=5, **{**given, "will": None, **fields})


USER = "26 0001 'k' 0001 'v'"
USER_AGAIN = "26 0001 'k' 0001 'w'"
NONE = b"\x00"
ID = "0001 'c'"
WILL = WillMessage(topic="w", payload=b"\x00\xff", qos=1, retain=True)
# A property of each type of value, to be cut, repeated and put where it does not belong.
EVERY_PROPERTY = {
    0x01: "01 01",
    0x02: "02 0000003C",
    0x03: "03 0002 'ct'",
    0x08: "08 0003 'r/t'",
    0x09: "09 0002 00FF",
    0x0B: "0B 07",
    0x11: "11 00000E10",
    0x12: "12 0002 'id'",
    0x13: "13 003C",
    0x15: "15 0001 'm'",
    0x16: "16 0001 'd'",
    0x17: "17 00",
    0x18: "18 00000005",
    0x19: "19 01",
    0x1A: "1A 0002 'ri'",
    0x1C: "1C 0002 'sr'",
    0x1F: "1F 0002 'rs'",
    0x21: "21 0014",
    0x22: "22 000A",
    0x23: "23 0003",
    0x24: "24 01",
    0x25: "25 00",
    0x26: USER,
    0x27: "27 00010000",
    0x28: "28 00",
    0x29: "29 00",
    0x2A: "2A 00",
}
# Table 2-4, from the specification and not from the code: where each id may stand.
MESSAGE, ANSWERS = {"publish", "will"}, {"puback", "pubrec", "pubrel", "pubcomp", "suback", "unsuback"}
PLACES = {
    **dict.fromkeys((0x01, 0x02, 0x03, 0x08, 0x09), MESSAGE),
    0x0B: {"publish", "subscribe"},
    0x11: {"connect", "connack", "disconnect"},
    **dict.fromkeys((0x12, 0x13, 0x1A, 0x24, 0x25, 0x28, 0x29, 0x2A), {"connack"}),
    **dict.fromkeys((0x15, 0x16), {"connect", "connack", "auth"}),
    **dict.fromkeys((0x17, 0x19), {"connect"}),
    0x18: {"will"},
    0x1C: {"connack", "disconnect"},
    0x1F: {"connack", "disconnect", "auth"} | ANSWERS,
    **dict.fromkeys((0x21, 0x22, 0x27), {"connect", "connack"}),
    0x23: {"publish"},
    0x26: {"connect", "connack", "disconnect", "auth", "subscribe", "unsubscribe"} | ANSWERS | MESSAGE,
}
ALL_PLACES = sorted(set().union(*PLACES.values()))


def in_place(place: str, section: bytes, *, sender: str = CLIENT) -> bytes:
    """Return a packet of that kind with the section (and its length) in its place, and all else right."""
    match place:
        case "connect":
            return connect(0x02, section, ID)
        case "will":
            return connect(0x06, NONE, ID, section, "0001 'w' 0000")
        case "connack":
            return packet(0x20, "00 00", section)
        case "publish":
            return packet(0x30, "0001 'a'", section, "'x'")
        case "subscribe":
            return packet(0x82, "0001", section, "0001 'a' 00")
        case "unsubscribe":
            return packet(0xA2, "0001", section, "0001 'a'")
        case "suback":
            return packet(0x90, "0001", section, "00")
        case "unsuback":
            return packet(0xB0, "0001", section, "00")
        case "disconnect":
            return packet(0xE0, "00", section)
        case "auth":
            return packet(0xF0, "18", section)
        case ack:
            return packet({"puback": 0x40, "pubrec": 0x50, "pubrel": 0x62, "pubcomp": 0x70}[ack], "0001 00", section)


def sender_of(place: str) -> str:
    return SERVER if place in {"connack", "suback", "unsuback"} else CLIENT


def valid(id_, packet_, parsed, **more) -> Valid5:
    return Valid5(id=id_, packet=packet_ if isinstance(packet_, bytes) else hexed(packet_), parsed=parsed, **more)


def hostile(id_, packet_, clause, code=0x81, **more) -> Hostile5:
    raw = packet_ if isinstance(packet_, bytes) else hexed(packet_)
    return Hostile5(id=id_, packet=raw, clause=clause, code=code, **more)


_MESSAGE_PROPERTIES = joined(EVERY_PROPERTY[id_] for id_ in (0x01, 0x02, 0x03, 0x08, 0x09, 0x26)) + hexed(USER_AGAIN)
_LONG_USER = b"\x26\x00\x01k\x00\xc8" + b"v" * 200

VALID5 = (
    valid("connect-smallest", "10 0E 0004 'MQTT' 05 02 003C 00 0001 'c'", connected()),
    valid("connect-empty-id", connect(0x02, NONE, "0000"), connected(client_id="")),
    valid("connect-empty-id-not-clean", connect(0x00, NONE, "0000"), connected(client_id="", clean_session=False)),
    valid(
        "connect-password-without-username",
        connect(0x42, NONE, ID, "0002 00FF"),
        connected(password=b"\x00\xff"),
    ),
    valid(
        "connect-username-and-password",
        connect(0xC2, NONE, ID, "0001 'u' 0001 'p'"),
        connected(username="u", password=b"p"),
    ),
    valid(
        "connect-all-properties",
        connect(
            0x02,
            props(*(EVERY_PROPERTY[id_] for id_ in (0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x27)), USER, USER_AGAIN),
            ID,
        ),
        connected(
            session_expiry_s=3600,
            receive_maximum=20,
            maximum_packet_size=65_536,
            topic_alias_maximum=10,
            request_response_information=True,
            request_problem_information=False,
            authentication_method="m",
            authentication_data=b"d",
            properties=hexed(USER + USER_AGAIN),
        ),
    ),
    valid(
        "connect-properties-that-say-the-default",
        connect(0x02, props("11 00000000 17 01 19 00 21 FFFF 22 0000"), ID),
        connected(),
        canonical=False,
    ),
    valid("connect-will", connect(0x2E, NONE, ID, NONE, "0001 'w' 0002 00FF"), connected(will=WILL)),
    valid(
        "connect-will-properties",
        connect(0x06, NONE, ID, props("18 00000005", _MESSAGE_PROPERTIES), "0001 'w' 0000"),
        connected(
            will=WillMessage(topic="w", payload=b"", qos=0, retain=False, delay_s=5, properties=_MESSAGE_PROPERTIES)
        ),
    ),
    valid("connack", "20 03 00 00 00", wire.Connack(session_present=False, code=0), sender=SERVER),
    valid("connack-session", "20 03 01 00 00", wire.Connack(session_present=True, code=0), sender=SERVER),
    valid("connack-refused", "20 03 00 86 00", wire.Connack(session_present=False, code=0x86), sender=SERVER),
    valid(
        "connack-all-properties",
        packet(
            0x20,
            "00 00",
            props(
                *(
                    EVERY_PROPERTY[id_]
                    for id_ in (0x11, 0x21, 0x24, 0x25, 0x27, 0x12, 0x22, 0x1F, 0x28, 0x29, 0x2A)
                    + (0x13, 0x1A, 0x1C, 0x15, 0x16, 0x26)
                )
            ),
        ),
        wire.Connack(
            session_present=False,
            code=0,
            session_expiry_s=3600,
            receive_maximum=20,
            maximum_qos=1,
            retain_available=False,
            maximum_packet_size=65_536,
            assigned_client_id="id",
            topic_alias_maximum=10,
            reason_string="rs",
            wildcard_subscriptions=False,
            subscription_identifiers=False,
            shared_subscriptions=False,
            server_keep_alive_s=60,
            response_information="ri",
            server_reference="sr",
            authentication_method="m",
            authentication_data=b"d",
            properties=hexed(USER),
        ),
        sender=SERVER,
    ),
    valid("publish-qos0", packet(0x30, "0001 'a' 00 'x'"), wire.Publish(topic="a", payload=b"x")),
    valid("publish-no-payload", packet(0x31, "0001 'a' 00"), wire.Publish(topic="a", payload=b"", retain=True)),
    valid(
        "publish-qos1-dup",
        packet(0x3A, "0001 'a' 0102 00 'x'"),
        wire.Publish(topic="a", payload=b"x", qos=1, dup=True, packet_id=0x102),
    ),
    valid("publish-qos2", packet(0x34, "0001 'a' 0001 00"), wire.Publish(topic="a", payload=b"", qos=2, packet_id=1)),
    valid(
        "publish-all-properties",
        packet(0x32, "0001 'a' 0001", props(_MESSAGE_PROPERTIES), "'x'"),
        wire.Publish(topic="a", payload=b"x", qos=1, packet_id=1, properties=_MESSAGE_PROPERTIES),
    ),
    valid(
        "publish-alias-with-topic",
        packet(0x30, "0001 'a'", props("23 0003", USER), "'x'"),
        wire.Publish(topic="a", payload=b"x", topic_alias=3, properties=hexed(USER)),
    ),
    valid(
        "publish-alias-alone",
        packet(0x30, "0000", props("23 FFFF"), "'x'"),
        wire.Publish(topic="", payload=b"x", topic_alias=65_535),
    ),
    valid(
        "publish-subscription-identifiers",
        packet(0x30, "0001 'a'", props("0B 01 0B 8001 0B FFFFFF7F"), "'x'"),
        wire.Publish(topic="a", payload=b"x", properties=hexed("0B 01 0B 8001 0B FFFFFF7F")),
        sender=SERVER,
    ),
    valid(
        "publish-long-section",
        b"\x30\xd5\x01\x00\x01a\xce\x01" + _LONG_USER + b"xy",
        wire.Publish(topic="a", payload=b"xy", properties=_LONG_USER),
    ),
    valid(
        "publish-strings-beyond-ascii",
        packet(0x30, "0001 'a'", props("03 0002 C3A9 26 0002 C3BC 0004 F09F9880"), "'x'"),
        wire.Publish(topic="a", payload=b"x", properties=hexed("03 0002 C3A9 26 0002 C3BC 0004 F09F9880")),
    ),
    valid(
        "publish-response-topic-beyond-ascii",
        packet(0x30, "0001 'a'", props("08 0002 C3A9"), "'x'"),
        wire.Publish(topic="a", payload=b"x", properties=hexed("08 0002 C3A9")),
    ),
    valid(
        "publish-empty-strings",
        packet(0x30, "0001 'a'", props("03 0000 09 0000 26 0000 0000"), "'x'"),
        wire.Publish(topic="a", payload=b"x", properties=hexed("03 0000 09 0000 26 0000 0000")),
    ),
    *(
        valid(f"{name}{suffix}", packet(first, body), record(kind, reason, rest), canonical=canonical)
        for name, first, kind, reason_hex in (
            ("puback", 0x40, wire.PUBACK, "87"),
            ("pubrec", 0x50, wire.PUBREC, "10"),
            ("pubrel", 0x62, wire.PUBREL, "92"),
            ("pubcomp", 0x70, wire.PUBCOMP, "92"),
        )
        for record in (lambda k, r, p: wire.Ack(type=k, packet_id=0x102, reason=r, properties=p),)
        for suffix, body, reason, rest, canonical in (
            ("", "0102", 0, b"", True),
            ("-reason-0", "0102 00", 0, b"", False),
            ("-reason", f"0102 {reason_hex}", int(reason_hex, 16), b"", True),
            ("-no-properties", "0102 00 00", 0, b"", False),
            ("-reason-no-properties", f"0102 {reason_hex} 00", int(reason_hex, 16), b"", False),
            (
                "-properties",
                f"0102 {reason_hex} 0C 1F 0002 'rs' {USER}",
                int(reason_hex, 16),
                hexed(f"1F 0002 'rs' {USER}"),
                True,
            ),
        )
    ),
    valid(
        "subscribe",
        packet(0x82, "000A 00 0003 'a/b' 01 0001 '#' 2E"),
        wire.Subscribe(packet_id=10, filters=(("a/b", 1), ("#", 2)), options=(0x01, 0x2E)),
    ),
    valid(
        "subscribe-properties",
        packet(0x82, "000A", props("0B 8001", USER), "0001 'a' 00"),
        wire.Subscribe(
            packet_id=10,
            filters=(("a", 0),),
            options=(0,),
            subscription_identifier=128,
            properties=hexed("0B 8001" + USER),
        ),
    ),
    valid(
        "subscribe-shared",
        packet(0x82, "0001 00 000A '$share/g/a' 09"),
        wire.Subscribe(packet_id=1, filters=(("$share/g/a", 1),), options=(0x09,)),
    ),
    valid(
        "suback",
        packet(0x90, "0001 00 00 01 02 80 83 87 8F 91 97 9E A1 A2"),
        wire.Suback(packet_id=1, codes=hexed("00 01 02 80 83 87 8F 91 97 9E A1 A2")),
        sender=SERVER,
    ),
    valid(
        "suback-properties",
        packet(0x90, "0001", props("1F 0002 'rs'", USER), "87"),
        wire.Suback(packet_id=1, codes=b"\x87", properties=hexed("1F 0002 'rs'" + USER)),
        sender=SERVER,
    ),
    valid(
        "unsubscribe",
        packet(0xA2, "0001", props(USER), "0001 'a' 0001 '+'"),
        wire.Unsubscribe(packet_id=1, filters=("a", "+"), properties=hexed(USER)),
    ),
    valid(
        "unsuback",
        packet(0xB0, "0001 00 00 11 80 83 87 8F 91"),
        wire.Unsuback(packet_id=1, codes=hexed("00 11 80 83 87 8F 91")),
        sender=SERVER,
    ),
    valid("pingreq", "C0 00", wire.Bare(type=wire.PINGREQ)),
    valid("pingresp", "D0 00", wire.Bare(type=wire.PINGRESP), sender=SERVER),
    valid("disconnect", "E0 00", wire.Disconnect()),
    valid("disconnect-reason", "E0 01 04", wire.Disconnect(reason=4)),
    valid("disconnect-reason-0", "E0 01 00", wire.Disconnect(), canonical=False),
    valid("disconnect-no-properties", "E0 02 04 00", wire.Disconnect(reason=4), canonical=False),
    valid(
        "disconnect-properties",
        packet(0xE0, "00", props("11 00000000 1F 0002 'rs'", USER)),
        wire.Disconnect(session_expiry_s=0, properties=hexed("1F 0002 'rs'" + USER)),
    ),
    valid(
        "disconnect-of-server",
        packet(0xE0, "9D", props("1C 0002 'sr'")),
        wire.Disconnect(reason=0x9D, server_reference="sr"),
        sender=SERVER,
    ),
    valid(
        "auth",
        packet(0xF0, "18", props("15 0001 'm' 16 0001 'd' 1F 0002 'rs'", USER)),
        wire.Auth(
            reason=0x18,
            authentication_method="m",
            authentication_data=b"d",
            properties=hexed("1F 0002 'rs'" + USER),
        ),
    ),
    valid(
        "auth-success", packet(0xF0, "00", props("15 0001 'm'")), wire.Auth(authentication_method="m"), sender=SERVER
    ),
)


def _publish(properties: str | bytes, *, first: int = 0x30, topic: str = "0001 'a'") -> bytes:
    section = properties if isinstance(properties, bytes) else props(properties)
    return packet(first, topic, "0001" if first & 6 else "", section, "'x'")


HOSTILE5 = (
    # 1.5.5, 2.1.4, 2.2.2.1: lengths
    hostile("remaining-length-not-shortest", "30 8600 0001 'a' 00 'x'", "MQTT-1.5.5-1"),
    hostile("remaining-length-too-long", "30 8080808001 0001", "1.5.5"),
    hostile("remaining-length-too-much", "30 06 0001 'a' 00 'x'", "2.1.4"),
    hostile("property-length-not-shortest", _publish(b"\x80\x00"), "MQTT-1.5.5-1"),
    hostile("property-length-five-bytes", _publish(b"\x80\x80\x80\x80\x01"), "1.5.5"),
    hostile("property-length-cut", packet(0x30, "0001 'a' 80"), "1.5.5"),
    hostile("property-length-absent", packet(0x30, "0001 'a'"), "1.5.5"),
    hostile("property-length-beyond-packet", packet(0x30, "0001 'a' 03 01 01"), "2.2.2.1"),
    hostile("property-value-beyond-section", packet(0x30, "0001 'a' 01 01 01"), "2.2.2"),
    hostile("property-number-cut", _publish("02 000000"), "2.2.2"),
    hostile("property-string-cut", _publish("03 0003 'ct'"), "2.2.2"),
    hostile("property-pair-cut", _publish("26 0001 'k'"), "2.2.2"),
    hostile("property-pair-half", _publish("26 0001 'k' 0002 'v'"), "2.2.2"),
    hostile("property-variable-cut", _publish("0B 80"), "1.5.5", sender=SERVER),
    hostile("property-variable-not-shortest", _publish("0B 8100"), "MQTT-1.5.5-1", sender=SERVER),
    hostile("property-variable-too-long", _publish("0B 8080808001"), "1.5.5", sender=SERVER),
    hostile("property-id-not-shortest", _publish("8100 01"), "2.2.2.2"),
    *(
        hostile(f"property-id-{id_:#04x}-unknown", _publish(bytes((2, id_, 0))), "2.2.2.2")
        for id_ in (0x00, 0x04, 0x07, 0x0A, 0x10, 0x14, 0x1B, 0x1D, 0x20, 0x2B, 0x7F, 0xFF)
    ),
    # 1.5.4: strings, wherever they stand
    *(
        hostile(f"{name}-{how}", in_place(place, props(before, f"{len(text) // 2:04X} {text}", after)), clause)
        for name, place, before, after in (
            ("content-type", "publish", "03", ""),
            ("user-name", "publish", "26", "0000"),
            ("user-value", "publish", "26 0000", ""),
            ("reason-string", "puback", "1F", ""),
            ("method", "connect", "15", ""),
        )
        for how, text, clause in (
            ("nul", "610062", "MQTT-1.5.4-2"),
            ("surrogate", "EDA080", "MQTT-1.5.4-1"),
            ("overlong", "C0AF", "MQTT-1.5.4-1"),
            ("cut-sequence", "61C3", "MQTT-1.5.4-1"),
            ("not-utf8", "FF", "MQTT-1.5.4-1"),
        )
    ),
    hostile("response-topic-wildcard", _publish("08 0003 'a/+'"), "MQTT-3.3.2-14"),
    hostile("response-topic-hash", _publish("08 0001 '#'"), "MQTT-3.3.2-14"),
    hostile("response-topic-empty", _publish("08 0000"), "MQTT-4.7.3-1"),
    hostile("response-topic-control", _publish("08 0001 0A"), "1.5.4"),
    hostile("response-topic-nul", _publish("08 0001 00"), "MQTT-4.7.3-2"),
    # 2.2.2.2: what belongs where, and how often
    *(
        hostile(
            f"{place}-with-property-{id_:#04x}",
            in_place(place, props(text)),
            "2.2.2.2",
            sender=sender_of(place),
        )
        for id_, text in EVERY_PROPERTY.items()
        for place in ALL_PLACES
        if place not in PLACES[id_]
    ),
    *(
        hostile(
            f"{place}-with-property-{id_:#04x}-twice",
            in_place(place, props(text, text)),
            "2.2.2.2",
            0x82,
            sender=SERVER if id_ == 0x0B and place == "publish" else sender_of(place),
        )
        for id_, text in EVERY_PROPERTY.items()
        for place in sorted(PLACES[id_])
        if id_ != 0x26 and not (id_ == 0x0B and place == "publish")
    ),
    # numbers that are not allowed
    hostile("receive-maximum-0", connect(0x02, props("21 0000"), ID), "3.1.2.11.3", 0x82),
    hostile("maximum-packet-size-0", connect(0x02, props("27 00000000"), ID), "3.1.2.11.4", 0x82),
    hostile("request-response-2", connect(0x02, props("19 02"), ID), "3.1.2.11.6", 0x82),
    hostile("request-problem-2", connect(0x02, props("17 02"), ID), "3.1.2.11.7", 0x82),
    hostile("payload-format-2", _publish("01 02"), "3.3.2.3.2", 0x82),
    hostile("will-payload-format-2", in_place("will", props("01 02")), "3.3.2.3.2", 0x82),
    hostile("topic-alias-0", _publish("23 0000"), "MQTT-3.3.2-8", 0x94),
    hostile("subscription-identifier-0", in_place("subscribe", props("0B 00")), "3.8.2.1.2", 0x82),
    hostile("publish-subscription-identifier-0", _publish("0B 00"), "3.8.2.1.2", 0x82, sender=SERVER),
    hostile("publish-subscription-identifier-of-client", _publish("0B 01"), "MQTT-3.3.4-6", 0x82),
    *(
        hostile(f"connack-{name}", packet(0x20, "00 00", props(text)), clause, 0x82, sender=SERVER)
        for name, text, clause in (
            ("receive-maximum-0", "21 0000", "3.1.2.11.3"),
            ("maximum-packet-size-0", "27 00000000", "3.1.2.11.4"),
            ("maximum-qos-2", "24 02", "3.2.2.3.4"),
            ("retain-available-2", "25 02", "3.2.2.3.5"),
            ("wildcard-available-2", "28 02", "3.2.2.3.11"),
            ("identifiers-available-2", "29 02", "3.2.2.3.12"),
            ("shared-available-2", "2A FF", "3.2.2.3.13"),
        )
    ),
    # 3.1: CONNECT
    hostile("connect-flags-of-header", "11 0E 0004 'MQTT' 05 02 003C 00 0001 'c'", "MQTT-2.2.2-2"),
    hostile("connect-reserved-flag", connect(0x03, NONE, ID), "MQTT-3.1.2-3"),
    hostile("connect-will-qos-without-will", connect(0x0A, NONE, ID), "MQTT-3.1.2-11"),
    hostile("connect-will-qos-3", connect(0x1E, NONE, ID, NONE, "0001 'w' 0000"), "MQTT-3.1.2-12"),
    hostile("connect-will-retain-without-will", connect(0x22, NONE, ID), "MQTT-3.1.2-13"),
    hostile("connect-no-properties", packet(0x10, "0004 'MQTT' 05 02 003C"), "1.5.5"),
    hostile("connect-no-client-id", connect(0x02, NONE), "MQTT-3.1.3-3"),
    hostile("connect-client-id-not-utf8", connect(0x02, NONE, "0001 FF"), "MQTT-3.1.3-4"),
    hostile("connect-client-id-nul", connect(0x02, NONE, "0001 00"), "MQTT-1.5.4-2"),
    hostile("connect-will-without-properties", connect(0x06, NONE, ID), "1.5.5"),
    hostile("connect-will-without-topic", connect(0x06, NONE, ID, NONE), "MQTT-3.1.2-9"),
    hostile("connect-will-without-payload", connect(0x06, NONE, ID, NONE, "0001 'w'"), "MQTT-3.1.2-9"),
    hostile("connect-will-wildcard", connect(0x06, NONE, ID, NONE, "0001 '#' 0000"), "MQTT-3.3.2-2"),
    hostile("connect-will-empty-topic", connect(0x06, NONE, ID, NONE, "0000 0000"), "MQTT-4.7.3-1"),
    hostile("connect-no-username", connect(0x82, NONE, ID), "MQTT-3.1.2-17"),
    hostile("connect-username-not-utf8", connect(0x82, NONE, ID, "0001 FF"), "MQTT-3.1.3-12"),
    hostile("connect-no-password", connect(0x42, NONE, ID), "MQTT-3.1.2-19"),
    hostile("connect-bytes-behind", connect(0x02, NONE, ID, "00"), "2.1.4"),
    hostile("connect-data-without-method", connect(0x02, props("16 0001 'd'"), ID), "3.1.2.11.10", 0x82),
    # 3.2: CONNACK
    hostile("connack-empty", packet(0x20), "3.2.2", sender=SERVER),
    hostile("connack-without-properties", packet(0x20, "00 00"), "1.5.5", sender=SERVER),
    hostile("connack-reserved-flags", packet(0x20, "02 00 00"), "MQTT-3.2.2-1", sender=SERVER),
    hostile("connack-session-and-refusal", packet(0x20, "01 87 00"), "MQTT-3.2.2-6", 0x82, sender=SERVER),
    hostile("connack-return-code-of-3.1.1", packet(0x20, "00 05 00"), "MQTT-3.2.2-8", sender=SERVER),
    hostile("connack-code-of-disconnect", packet(0x20, "00 8B 00"), "MQTT-3.2.2-8", sender=SERVER),
    hostile("connack-bytes-behind", packet(0x20, "00 00 00 00"), "2.1.4", sender=SERVER),
    hostile("connack-of-client", packet(0x20, "00 00 00"), "2.1.2", 0x82),
    # 3.3: PUBLISH
    hostile("publish-qos-3", _publish("", first=0x36), "MQTT-3.3.1-4"),
    hostile("publish-dup-with-qos-0", _publish("", first=0x38), "MQTT-3.3.1-2"),
    hostile("publish-no-topic", packet(0x30, "00"), "MQTT-3.3.2-1"),
    hostile("publish-topic-beyond-packet", packet(0x30, "0003 'a' 00"), "MQTT-3.3.2-1"),
    hostile("publish-empty-topic", _publish("", topic="0000"), "3.3.2.1", 0x82),
    hostile("publish-wildcard", _publish("", topic="0003 'a/+'"), "MQTT-3.3.2-2"),
    hostile("publish-topic-nul", _publish("", topic="0001 00"), "MQTT-4.7.3-2"),
    hostile("publish-topic-control", _publish("", topic="0001 1F"), "1.5.4"),
    hostile("publish-topic-not-utf8", _publish("", topic="0001 FF"), "MQTT-1.5.4-1"),
    hostile("publish-packet-id-0", packet(0x32, "0001 'a' 0000 00"), "2.2.1", 0x82),
    hostile("publish-packet-id-cut", packet(0x32, "0001 'a' 00"), "2.2.1"),
    # 3.4 to 3.7: acknowledgements
    *(
        hostile(f"{name}-{how}", packet(first, body), clause, code)
        for name, first, bad, own in (
            ("puback", 0x40, "92", "MQTT-3.4.2-1"),
            ("pubrec", 0x50, "01", "MQTT-3.5.2-1"),
            ("pubrel", 0x62, "10", "MQTT-3.6.2-1"),
            ("pubcomp", 0x70, "87", "MQTT-3.7.2-1"),
        )
        for how, body, clause, code in (
            ("empty", "", "2.2.1", 0x81),
            ("half-id", "01", "2.2.1", 0x81),
            ("id-0", "0000", "2.2.1", 0x82),
            ("id-0-with-reason", "0000 00", "2.2.1", 0x82),
            ("code-of-another-packet", f"0001 {bad}", own, 0x81),
            ("bytes-behind", "0001 00 00 00", "2.1.4", 0x81),
            ("properties-beyond", "0001 00 01", "2.2.2.1", 0x81),
        )
    ),
    hostile("pubrel-flags", "60 02 0001", "MQTT-2.1.3-1"),
    hostile("pubrel-dup", "6A 02 0001", "MQTT-2.1.3-1"),
    hostile("puback-flags", "42 02 0001", "MQTT-2.1.3-1"),
    # 3.8 to 3.11: subscriptions
    hostile("subscribe-flags", "80 07 0001 00 0001 'a' 00", "MQTT-2.1.3-1"),
    hostile("subscribe-dup", "8A 07 0001 00 0001 'a' 00", "MQTT-2.1.3-1"),
    hostile("subscribe-no-filter", packet(0x82, "0001 00"), "MQTT-3.8.3-2", 0x82),
    hostile("subscribe-no-options", packet(0x82, "0001 00 0001 'a'"), "3.8.3"),
    hostile("subscribe-reserved-bits", packet(0x82, "0001 00 0001 'a' 40"), "MQTT-3.8.3-5"),
    hostile("subscribe-reserved-bit-7", packet(0x82, "0001 00 0001 'a' 80"), "MQTT-3.8.3-5"),
    hostile("subscribe-qos-3", packet(0x82, "0001 00 0001 'a' 03"), "3.8.3.1", 0x82),
    hostile("subscribe-retain-handling-3", packet(0x82, "0001 00 0001 'a' 30"), "3.8.3.1", 0x82),
    hostile("subscribe-no-local-shared", packet(0x82, "0001 00 000A '$share/g/a' 04"), "MQTT-3.8.3-4", 0x82),
    hostile("subscribe-hash-not-last", packet(0x82, "0001 00 0003 '#/a' 00"), "MQTT-4.7.1-1"),
    hostile("subscribe-plus-in-level", packet(0x82, "0001 00 0002 'a+' 00"), "MQTT-4.7.1-2"),
    hostile("subscribe-empty-filter", packet(0x82, "0001 00 0000 00"), "MQTT-4.7.3-1"),
    hostile("subscribe-packet-id-0", packet(0x82, "0000 00 0001 'a' 00"), "2.2.1", 0x82),
    hostile("suback-empty", packet(0x90, "0001 00"), "MQTT-3.8.4-6", sender=SERVER),
    hostile("suback-reserved-code", packet(0x90, "0001 00 03"), "MQTT-3.9.3-2", sender=SERVER),
    hostile("suback-code-of-unsuback", packet(0x90, "0001 00 11"), "MQTT-3.9.3-2", sender=SERVER),
    hostile("unsubscribe-no-filter", packet(0xA2, "0001 00"), "MQTT-3.10.3-2", 0x82),
    hostile("unsubscribe-flags", "A0 06 0001 00 0001 'a'", "MQTT-2.1.3-1"),
    hostile("unsubscribe-filter-malformed", packet(0xA2, "0001 00 0002 '##'"), "MQTT-4.7.1-1"),
    hostile("unsuback-of-3.1.1", packet(0xB0, "0001"), "1.5.5", sender=SERVER),
    hostile("unsuback-empty", packet(0xB0, "0001 00"), "MQTT-3.11.3-1", sender=SERVER),
    hostile("unsuback-reserved-code", packet(0xB0, "0001 00 10"), "MQTT-3.11.3-2", sender=SERVER),
    # 3.12 to 3.15
    hostile("pingreq-with-body", "C0 01 00", "2.1.4"),
    hostile("pingresp-of-client", "D0 00", "2.1.2", 0x82),
    *(
        hostile(f"disconnect-{code:#04x}-of-client", packet(0xE0, bytes((code,))), "MQTT-3.14.2-1", 0x82)
        for code in (0x01, 0x84, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x9A, 0x9D, 0xA0, 0xA2, 0xFF)
    ),
    hostile("disconnect-with-will-of-server", "E0 01 04", "MQTT-3.14.2-1", 0x82, sender=SERVER),
    hostile(
        "disconnect-expiry-of-server", packet(0xE0, "8B", props("11 00000001")), "MQTT-3.14.2-2", 0x82, sender=SERVER
    ),
    hostile("disconnect-server-reference-of-client", packet(0xE0, "00", props("1C 0001 's'")), "3.14.2.2.5", 0x82),
    hostile("disconnect-bytes-behind", packet(0xE0, "00 00 00"), "2.1.4"),
    hostile("auth-empty-of-client", "F0 00", "MQTT-3.15.2-1", 0x82),
    hostile("auth-without-properties", "F0 01 18", "1.5.5"),
    hostile("auth-without-method", packet(0xF0, "18 00"), "3.15.2.2.2", 0x82),
    hostile("auth-again-of-server", packet(0xF0, "19", props("15 0001 'm'")), "MQTT-3.15.2-1", 0x82, sender=SERVER),
    hostile("auth-flags", "F1 00", "MQTT-2.1.3-1"),
    hostile("type-0", "00 00", "2.1.2"),
)
