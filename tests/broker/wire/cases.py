"""Packets of MQTT 3.1 and 3.1.1, written by hand from the specification: valid ones, and some for each clause.

One table in one file, long as it is: the parsers, the framing, the scanner and the fuzzers are all held against it.
"""

from __future__ import annotations

from dataclasses import dataclass

from authsvc.core.credentials import WillMessage
from broker import wire

CLIENT, SERVER = "client", "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Valid:
    id: str
    packet: bytes
    parsed: wire.Packet
    sender: str = CLIENT
    level: int = 4
    canonical: bool = True  # encoding what was parsed gives these very bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    id: str
    packet: bytes
    clause: str
    sender: str = CLIENT
    level: int = 4


def hexed(text: str) -> bytes:
    """Return bytes of hex digits and 'quoted ASCII', blanks ignored."""
    out = bytearray()
    for number, part in enumerate(text.split("'")):
        out += part.encode() if number % 2 else bytes.fromhex(part)
    return bytes(out)


def connect_body(body: str) -> bytes:
    """Return a CONNECT with the right remaining length around a body below 128 bytes."""
    raw = hexed(body)
    assert len(raw) < 128
    return bytes((0x10, len(raw))) + raw


def connected(*, level=4, name="MQTT", clean=True, keep=60, client="c", user=None, password=None, will=None):
    return wire.Connect(
        protocol_name=name,
        level=level,
        client_id=client,
        clean_session=clean,
        keep_alive_s=keep,
        username=user,
        password=password,
        will=will,
    )


def valid(id_, packet, parsed, **more) -> Valid:
    return Valid(id=id_, packet=packet if isinstance(packet, bytes) else hexed(packet), parsed=parsed, **more)


def hostile(id_, packet, clause, **more) -> Hostile:
    return Hostile(id=id_, packet=packet if isinstance(packet, bytes) else hexed(packet), clause=clause, **more)


_WILL = WillMessage(topic="a/b", payload=b"\x00\xff", qos=1, retain=True)
_LONG = b"t" * 65_535
_BODY_200 = b"x" * 200

VALID = (
    valid("connect-smallest", "10 0D 0004 'MQTT' 04 02 003C 0001 'c'", connected()),
    valid("connect-empty-id-clean", "10 0C 0004 'MQTT' 04 02 003C 0000", connected(client="")),
    valid(
        "connect-empty-id-kept-is-wellformed", "10 0C 0004 'MQTT' 04 00 003C 0000", connected(client="", clean=False)
    ),
    valid("connect-no-keep-alive", "10 0D 0004 'MQTT' 04 02 0000 0001 'c'", connected(keep=0)),
    valid(
        "connect-everything",
        connect_body("0004 'MQTT' 04 EE FFFF 0001 'c' 0003 'a/b' 0002 00FF 0002 'gw' 0003 'tok'"),
        connected(keep=65_535, user="gw", password=b"tok", will=_WILL),
    ),
    valid("connect-username-only", connect_body("0004 'MQTT' 04 82 003C 0001 'c' 0001 'u'"), connected(user="u")),
    valid(
        "connect-empty-username-and-password",
        connect_body("0004 'MQTT' 04 C2 003C 0001 'c' 0000 0000"),
        connected(user="", password=b""),
    ),
    valid(
        "connect-password-is-any-bytes",
        connect_body("0004 'MQTT' 04 C2 003C 0001 'c' 0000 0003 00FFFE"),
        connected(user="", password=b"\x00\xff\xfe"),
    ),
    valid(
        "connect-will-without-payload",
        connect_body("0004 'MQTT' 04 06 003C 0001 'c' 0001 'w' 0000"),
        connected(will=WillMessage(topic="w", payload=b"", qos=0, retain=False)),
    ),
    valid(
        "connect-bom-in-id-is-kept",
        connect_body("0004 'MQTT' 04 02 003C 0004 EFBBBF 'c'"),
        connected(client="\ufeffc"),
    ),
    valid(
        "connect-astral-and-noncharacter-id",
        connect_body("0004 'MQTT' 04 02 003C 0007 F0AA9B94 EFBFBF"),
        connected(client="\U0002a6d4\uffff"),
    ),
    valid("connect-control-character-in-id", connect_body("0004 'MQTT' 04 02 003C 0001 0A"), connected(client="\n")),
    valid(
        "connect-3.1",
        "10 0F 0006 'MQIsdp' 03 02 003C 0001 'c'",
        connected(level=3, name="MQIsdp"),
        level=3,
    ),
    valid(
        "connect-3.1-id-above-23-characters",
        connect_body("0006 'MQIsdp' 03 02 003C 0018 'abcdefghijklmnopqrstuvwx'"),
        connected(level=3, name="MQIsdp", client="abcdefghijklmnopqrstuvwx"),
        level=3,
    ),
    valid(
        "connect-3.1-fixed-header-flags",
        "14 0F 0006 'MQIsdp' 03 02 003C 0001 'c'",
        connected(level=3, name="MQIsdp"),
        level=3,
        canonical=False,
    ),
    valid(
        "connect-3.1-reserved-flag",
        "10 0F 0006 'MQIsdp' 03 03 003C 0001 'c'",
        connected(level=3, name="MQIsdp"),
        level=3,
        canonical=False,
    ),
    valid(
        "connect-3.1-will-qos-and-retain-without-will",
        "10 0F 0006 'MQIsdp' 03 3A 003C 0001 'c'",
        connected(level=3, name="MQIsdp"),
        level=3,
        canonical=False,
    ),
    valid(
        "connect-3.1-username-flag-without-username",
        "10 0F 0006 'MQIsdp' 03 C2 003C 0001 'c'",
        connected(level=3, name="MQIsdp"),
        level=3,
        canonical=False,
    ),
    valid(
        "connect-3.1-password-flag-without-password",
        connect_body("0006 'MQIsdp' 03 C2 003C 0001 'c' 0001 'u'"),
        connected(level=3, name="MQIsdp", user="u"),
        level=3,
        canonical=False,
    ),
    valid("connack-accepted", "20 02 00 00", wire.Connack(session_present=False, code=0), sender=SERVER),
    valid("connack-session-present", "20 02 01 00", wire.Connack(session_present=True, code=0), sender=SERVER),
    valid("connack-refused", "20 02 00 05", wire.Connack(session_present=False, code=5), sender=SERVER),
    valid("publish-qos0", "30 06 0003 'a/b' 'x'", wire.Publish(topic="a/b", payload=b"x")),
    valid("publish-empty-payload", "30 03 0001 'a'", wire.Publish(topic="a", payload=b"")),
    valid("publish-retain", "31 04 0001 'a' 'x'", wire.Publish(topic="a", payload=b"x", retain=True)),
    valid("publish-qos1", "32 06 0001 'a' 000A 'x'", wire.Publish(topic="a", payload=b"x", qos=1, packet_id=10)),
    valid(
        "publish-qos1-dup-retain",
        "3B 06 0001 'a' FFFF 'x'",
        wire.Publish(topic="a", payload=b"x", qos=1, packet_id=65_535, dup=True, retain=True),
    ),
    valid("publish-qos2", "34 05 0001 'a' 0100", wire.Publish(topic="a", payload=b"", qos=2, packet_id=256)),
    valid(
        "publish-qos2-dup", "3C 05 0001 'a' 0001", wire.Publish(topic="a", payload=b"", qos=2, packet_id=1, dup=True)
    ),
    valid("publish-slash-topic", "30 03 0001 '/'", wire.Publish(topic="/", payload=b"")),
    valid("publish-bom-topic-is-kept", "30 05 0003 EFBBBF", wire.Publish(topic="\ufeff", payload=b"")),
    valid(
        "publish-two-length-bytes", hexed("30 CB01 0001 'a'") + _BODY_200, wire.Publish(topic="a", payload=_BODY_200)
    ),
    valid(
        "publish-three-length-bytes-longest-topic",
        hexed("30 818004 FFFF") + _LONG,
        wire.Publish(topic=_LONG.decode(), payload=b""),
    ),
    valid("puback", "40 02 0001", wire.Ack(type=wire.PUBACK, packet_id=1)),
    valid("pubrec", "50 02 0100", wire.Ack(type=wire.PUBREC, packet_id=256)),
    valid("pubrel", "62 02 FFFF", wire.Ack(type=wire.PUBREL, packet_id=65_535)),
    valid("pubcomp", "70 02 0001", wire.Ack(type=wire.PUBCOMP, packet_id=1)),
    valid("pubrel-3.1-repeated", "6A 02 0001", wire.Ack(type=wire.PUBREL, packet_id=1), level=3, canonical=False),
    valid("subscribe", "82 08 000A 0003 'a/b' 01", wire.Subscribe(packet_id=10, filters=(("a/b", 1),), options=(1,))),
    valid(
        "subscribe-wildcards-and-repeats",
        "82 19 0001 0001 '#' 00 0001 '+' 01 0003 '+/#' 02 0002 '/#' 00 0001 '#' 02",
        wire.Subscribe(
            packet_id=1, filters=(("#", 0), ("+", 1), ("+/#", 2), ("/#", 0), ("#", 2)), options=(0, 1, 2, 0, 2)
        ),
    ),
    valid(
        "subscribe-share-is-a-filter-like-any",
        "82 10 0001 000B '$share/g/a' 'b' 00",
        wire.Subscribe(packet_id=1, filters=(("$share/g/ab", 0),), options=(0,)),
    ),
    valid(
        "subscribe-3.1-repeated",
        "8A 06 0001 0001 'a' 02",
        wire.Subscribe(packet_id=1, filters=(("a", 2),), options=(2,)),
        level=3,
        canonical=False,
    ),
    valid("suback", "90 06 0001 00 01 02 80", wire.Suback(packet_id=1, codes=b"\x00\x01\x02\x80"), sender=SERVER),
    valid("unsubscribe", "A2 08 0001 0001 'a' 0001 '#'", wire.Unsubscribe(packet_id=1, filters=("a", "#"))),
    valid(
        "unsubscribe-3.1-repeated",
        "AA 05 0001 0001 'a'",
        wire.Unsubscribe(packet_id=1, filters=("a",)),
        level=3,
        canonical=False,
    ),
    valid("unsuback", "B0 02 0001", wire.Ack(type=wire.UNSUBACK, packet_id=1), sender=SERVER),
    valid("pingreq", "C0 00", wire.Bare(type=wire.PINGREQ)),
    valid("pingresp", "D0 00", wire.Bare(type=wire.PINGRESP), sender=SERVER),
    valid("disconnect", "E0 00", wire.Bare(type=wire.DISCONNECT)),
)

_C = "0004 'MQTT' 04"  # how a body of 3.1.1 begins; flags, keep-alive and payload follow
_ILL_FORMED = {
    "overlong-nul": "C080",
    "overlong-slash": "C0AF",
    "overlong-3": "E0809B",
    "surrogate": "EDA080",
    "surrogate-pair": "EDA081EDB080",
    "above-10ffff": "F4908080",
    "five-bytes": "F888808080",
    "lone-continuation": "80",
    "cut-sequence": "E282",
    "fe-ff": "FFFE",
}


def _sized(text: str) -> str:
    return f"{len(bytes.fromhex(text)):04x} {text}"


def _packet(first: int, body: str) -> bytes:
    raw = hexed(body)
    return bytes((first,)) + wire.remaining_length(len(raw)) + raw


HOSTILE = (
    # The fixed header.
    hostile("type-0", "00 00", "2.2.1"),
    hostile("type-15", "F0 00", "2.2.1"),
    hostile("remaining-length-too-short", "C0 00 00", "2.2.3"),
    hostile("remaining-length-too-long", "30 05 0001 'a'", "2.2.3"),
    hostile("remaining-length-five-bytes", "30 80808080 01", "2.2.3"),
    hostile("remaining-length-five-bytes-ff", "30 FFFFFFFF 7F", "2.2.3"),
    hostile("remaining-length-not-shortest-2", "C0 80 00", "2.2.3"),
    hostile("remaining-length-not-shortest-3", "30 838000 0001 'a'", "2.2.3"),
    hostile("header-only", "30", "2.2.3"),
    hostile("nothing", b"", "2.2.1"),
    *(
        hostile(f"flags-of-{name}", bytes((first,)) + hexed(rest), clause, sender=sender)
        for name, first, rest, clause, sender in (
            ("connect", 0x11, "0D 0004 'MQTT' 04 02 003C 0001 'c'", "MQTT-2.2.2-2", CLIENT),
            ("connack", 0x21, "02 00 00", "MQTT-2.2.2-2", SERVER),
            ("puback", 0x42, "02 0001", "MQTT-2.2.2-2", CLIENT),
            ("pubrec", 0x52, "02 0001", "MQTT-2.2.2-2", CLIENT),
            ("pubrel-0", 0x60, "02 0001", "MQTT-2.2.2-2", CLIENT),
            ("pubrel-dup", 0x6A, "02 0001", "MQTT-2.2.2-2", CLIENT),
            ("pubcomp", 0x71, "02 0001", "MQTT-2.2.2-2", CLIENT),
            ("subscribe-0", 0x80, "06 0001 0001 'a' 00", "MQTT-3.8.1-1", CLIENT),
            ("subscribe-dup", 0x8A, "06 0001 0001 'a' 00", "MQTT-3.8.1-1", CLIENT),
            ("suback", 0x92, "03 0001 00", "MQTT-2.2.2-2", SERVER),
            ("unsubscribe-0", 0xA0, "05 0001 0001 'a'", "MQTT-3.10.1-1", CLIENT),
            ("unsubscribe-dup", 0xAA, "05 0001 0001 'a'", "MQTT-3.10.1-1", CLIENT),
            ("unsuback", 0xB2, "02 0001", "MQTT-2.2.2-2", SERVER),
            ("pingreq", 0xC1, "00", "MQTT-3.14.1-1", CLIENT),
            ("pingresp", 0xD8, "00", "MQTT-3.14.1-1", SERVER),
            ("disconnect", 0xE4, "00", "MQTT-3.14.1-1", CLIENT),
        )
    ),
    *(
        hostile(f"client-sends-{name}", packet, "2.2.1")
        for name, packet in (
            ("connack", "20 02 00 00"),
            ("suback", "90 03 0001 00"),
            ("unsuback", "B0 02 0001"),
            ("pingresp", "D0 00"),
        )
    ),
    *(
        hostile(f"server-sends-{name}", packet, "2.2.1", sender=SERVER)
        for name, packet in (
            ("connect", "10 0D 0004 'MQTT' 04 02 003C 0001 'c'"),
            ("subscribe", "82 06 0001 0001 'a' 00"),
            ("unsubscribe", "A2 05 0001 0001 'a'"),
            ("pingreq", "C0 00"),
            ("disconnect", "E0 00"),
        )
    ),
    # CONNECT.
    hostile("connect-name-wrong", connect_body("0004 'mqtt' 04 02 003C 0001 'c'"), "MQTT-3.1.2-1"),
    hostile("connect-name-empty", connect_body("0000 04 02 003C 0001 'c'"), "MQTT-3.1.2-1"),
    hostile("connect-name-longer", connect_body("0005 'MQTT' 00 04 02 003C 0001 'c'"), "MQTT-3.1.2-1"),
    hostile("connect-empty", "10 00", "MQTT-3.1.2-1"),
    hostile("connect-ends-before-level", connect_body("0004 'MQTT'"), "3.1.2.2"),
    hostile("connect-ends-before-flags", connect_body(_C), "3.1.2"),
    hostile("connect-ends-in-keep-alive", connect_body(_C + "02 00"), "3.1.2"),
    hostile("connect-5-ends-in-keep-alive", connect_body("0004 'MQTT' 05 02 00"), "3.1.2"),
    hostile("connect-5-with-flags", "1F 0D 0004 'MQTT' 05 02 003C 0001 'c'", "MQTT-2.2.2-2"),
    hostile("connect-without-client-id", connect_body(_C + "02 003C"), "MQTT-3.1.3-3"),
    hostile("connect-client-id-cut", connect_body(_C + "02 003C 0002 'c'"), "MQTT-3.1.3-3"),
    hostile("connect-reserved-flag", connect_body(_C + "03 003C 0001 'c'"), "MQTT-3.1.2-3"),
    hostile("connect-will-qos-without-will", connect_body(_C + "0A 003C 0001 'c'"), "MQTT-3.1.2-13"),
    hostile("connect-will-retain-without-will", connect_body(_C + "22 003C 0001 'c'"), "MQTT-3.1.2-15"),
    hostile("connect-will-qos-3", connect_body(_C + "1E 003C 0001 'c' 0001 'w' 0000"), "MQTT-3.1.2-14"),
    hostile("connect-will-missing", connect_body(_C + "06 003C 0001 'c'"), "MQTT-3.1.2-9"),
    hostile("connect-will-payload-missing", connect_body(_C + "06 003C 0001 'c' 0001 'w'"), "MQTT-3.1.2-9"),
    hostile("connect-will-topic-empty", connect_body(_C + "06 003C 0001 'c' 0000 0000"), "MQTT-4.7.3-1"),
    hostile("connect-will-topic-plus", connect_body(_C + "06 003C 0001 'c' 0003 'a/+' 0000"), "MQTT-3.3.2-2"),
    hostile("connect-will-topic-hash", connect_body(_C + "06 003C 0001 'c' 0001 '#' 0000"), "MQTT-3.3.2-2"),
    hostile("connect-will-topic-nul", connect_body(_C + "06 003C 0001 'c' 0001 00 0000"), "MQTT-4.7.3-2"),
    hostile("connect-password-without-username", connect_body(_C + "42 003C 0001 'c' 0001 'p'"), "MQTT-3.1.2-22"),
    hostile(
        "connect-3.1-password-without-username",
        connect_body("0006 'MQIsdp' 03 42 003C 0001 'c' 0001 'p'"),
        "MQTT-3.1.2-22",
        level=3,
    ),
    hostile("connect-username-missing", connect_body(_C + "82 003C 0001 'c'"), "MQTT-3.1.2-19"),
    hostile("connect-username-cut", connect_body(_C + "82 003C 0001 'c' 0002 'u'"), "MQTT-3.1.2-19"),
    hostile("connect-3.1-username-cut", connect_body("0006 'MQIsdp' 03 82 003C 0001 'c' 00"), "MQTT-3.1.2-19", level=3),
    hostile("connect-password-missing", connect_body(_C + "C2 003C 0001 'c' 0001 'u'"), "MQTT-3.1.2-21"),
    hostile("connect-trailing-byte", connect_body(_C + "02 003C 0001 'c' 00"), "3.1.3"),
    hostile("connect-username-without-its-flag", connect_body(_C + "02 003C 0001 'c' 0001 'u'"), "3.1.3"),
    hostile(
        "connect-will-qos-3-of-3.1", connect_body("0006 'MQIsdp' 03 1E 003C 0001 'c' 0001 'w' 0000"), "MQTT-3.1.2-14"
    ),
    hostile("connect-client-id-nul", connect_body(_C + "02 003C 0003 'a' 00 'b'"), "MQTT-1.5.3-2"),
    hostile("connect-username-nul", connect_body(_C + "82 003C 0001 'c' 0002 'u' 00"), "MQTT-1.5.3-2"),
    # Strings, in every place where one stands.
    *(
        hostile(f"{place}-{what}", _packet(first, before + _sized(raw) + after), clause)
        for what, raw in _ILL_FORMED.items()
        for place, first, before, after, clause in (
            ("client-id", 0x10, _C + "02 003C", "", "MQTT-3.1.3-4"),
            ("username", 0x10, _C + "82 003C 0001 'c'", "", "MQTT-3.1.3-11"),
            ("will-topic", 0x10, _C + "06 003C 0001 'c'", "0000", "MQTT-1.5.3-1"),
            ("topic", 0x30, "", "", "MQTT-1.5.3-1"),
            ("subscribed", 0x82, "0001", "00", "MQTT-1.5.3-1"),
            ("unsubscribed", 0xA2, "0001", "", "MQTT-1.5.3-1"),
        )
    ),
    *(
        hostile(f"topic-control-{character:04x}", _packet(0x30, _sized(chr(character).encode().hex())), "1.5.3")
        for character in (0x01, 0x0A, 0x1F, 0x7F, 0x80, 0x9F)
    ),
    hostile("filter-control-character", "82 06 0001 0001 0A 00", "1.5.3"),
    # PUBLISH.
    hostile("publish-qos-3", "36 05 0001 'a' 0001", "MQTT-3.3.1-4"),
    hostile("publish-qos-3-dup-retain", "3F 05 0001 'a' 0001", "MQTT-3.3.1-4"),
    hostile("publish-dup-with-qos-0", "38 03 0001 'a'", "MQTT-3.3.1-2"),
    hostile("publish-dup-retain-with-qos-0", "39 03 0001 'a'", "MQTT-3.3.1-2"),
    hostile("publish-empty", "30 00", "MQTT-3.3.2-1"),
    hostile("publish-one-byte", "30 01 00", "MQTT-3.3.2-1"),
    hostile("publish-topic-empty", "30 02 0000", "MQTT-4.7.3-1"),
    hostile("publish-topic-beyond-packet", "30 03 0002 'a'", "MQTT-3.3.2-1"),
    hostile("publish-topic-plus", "30 05 0003 'a/+'", "MQTT-3.3.2-2"),
    hostile("publish-topic-plus-inside", "30 04 0002 'a+'", "MQTT-3.3.2-2"),
    hostile("publish-topic-hash", "30 03 0001 '#'", "MQTT-3.3.2-2"),
    hostile("publish-topic-nul", "30 05 0003 'a' 00 'b'", "MQTT-4.7.3-2"),
    hostile("publish-qos1-id-0", "32 05 0001 'a' 0000", "MQTT-2.3.1-1"),
    hostile("publish-qos2-id-0", "34 05 0001 'a' 0000", "MQTT-2.3.1-1"),
    hostile("publish-qos1-without-id", "32 03 0001 'a'", "2.3.1"),
    hostile("publish-qos1-half-id", "32 04 0001 'a' 00", "2.3.1"),
    # SUBSCRIBE, UNSUBSCRIBE.
    hostile("subscribe-empty", "82 00", "2.3.1"),
    hostile("subscribe-without-filter", "82 02 0001", "MQTT-3.8.3-3"),
    hostile("subscribe-id-0", "82 06 0000 0001 'a' 00", "MQTT-2.3.1-1"),
    hostile("subscribe-qos-3", "82 06 0001 0001 'a' 03", "MQTT-3.8.3-4"),
    hostile("subscribe-qos-reserved-bits", "82 06 0001 0001 'a' 80", "MQTT-3.8.3-4"),
    hostile("subscribe-mqtt-5-options", "82 06 0001 0001 'a' 04", "MQTT-3.8.3-4"),
    hostile("subscribe-qos-missing", "82 05 0001 0001 'a'", "MQTT-3.8.3-4"),
    hostile("subscribe-filter-cut", "82 06 0001 0003 'a' 00", "MQTT-3.8.3-1"),
    hostile("subscribe-second-bad", "82 0A 0001 0001 'a' 00 0001 'b' 03", "MQTT-3.8.3-4"),
    hostile("subscribe-filter-empty", "82 05 0001 0000 00", "MQTT-4.7.3-1"),
    hostile("unsubscribe-without-filter", "A2 02 0001", "MQTT-3.10.3-2"),
    hostile("unsubscribe-id-0", "A2 05 0000 0001 'a'", "MQTT-2.3.1-1"),
    hostile("unsubscribe-filter-cut", "A2 05 0001 0002 'a'", "MQTT-3.10.3-1"),
    hostile("unsubscribe-half-length", "A2 06 0001 0001 'a' 00", "MQTT-3.10.3-1"),
    *(
        hostile(f"filter-{name}", _packet(first, f"0001 {len(filter_):04x} '{filter_}' {after}"), clause)
        for first, after in ((0x82, "00"), (0xA2, ""))
        for name, filter_, clause in (
            (f"{first:x}-hash-inside", "a/#/b", "MQTT-4.7.1-2"),
            (f"{first:x}-hash-glued", "a#", "MQTT-4.7.1-2"),
            (f"{first:x}-hash-first-glued", "#a", "MQTT-4.7.1-2"),
            (f"{first:x}-two-hashes", "#/#", "MQTT-4.7.1-2"),
            (f"{first:x}-plus-glued", "a+", "MQTT-4.7.1-3"),
            (f"{first:x}-plus-prefix", "+a/b", "MQTT-4.7.1-3"),
            (f"{first:x}-two-pluses", "a/++/b", "MQTT-4.7.1-3"),
            (f"{first:x}-plus-hash", "+#", "MQTT-4.7.1-2"),
            (f"{first:x}-plus-inside-share", "$share/g+/a", "MQTT-4.7.1-3"),
        )
    ),
    # Acknowledgements and packets without content.
    *(
        hostile(f"ack-{first:02x}-{name}", bytes((first,)) + hexed(rest), clause, sender=sender)
        for first, sender in ((0x40, CLIENT), (0x50, CLIENT), (0x62, CLIENT), (0x70, CLIENT), (0xB0, SERVER))
        for name, rest, clause in (
            ("id-0", "02 0000", "MQTT-2.3.1-1"),
            ("empty", "00", "3.4.2"),
            ("half", "01 01", "3.4.2"),
            ("mqtt-5-reason", "03 0001 00", "3.4.2"),
        )
    ),
    hostile("pingreq-with-content", "C0 01 00", "2.2.3"),
    hostile("disconnect-with-mqtt-5-reason", "E0 01 00", "2.2.3"),
    hostile("connack-short", "20 01 00", "3.2", sender=SERVER),
    hostile("connack-long", "20 03 00 00 00", "3.2", sender=SERVER),
    hostile("connack-reserved-flags", "20 02 02 00", "3.2.2.1", sender=SERVER),
    hostile("connack-refused-with-session", "20 02 01 05", "MQTT-3.2.2-4", sender=SERVER),
    hostile("connack-reserved-code", "20 02 00 06", "3.2.2.3", sender=SERVER),
    hostile("suback-without-code", "90 02 0001", "MQTT-3.8.4-5", sender=SERVER),
    hostile("suback-reserved-code", "90 03 0001 03", "MQTT-3.9.3-2", sender=SERVER),
    hostile("suback-id-0", "90 03 0000 00", "MQTT-2.3.1-1", sender=SERVER),
)

# (id, CONNECT, answer): levels that are refused with a CONNACK of their own.
UNSUPPORTED = (
    ("mqtt-5", connect_body("0004 'MQTT' 05 02 003C 00 0001 'c'"), hexed("20 03 00 84 00")),
    ("mqtt-5-ill-formed-behind", connect_body("0004 'MQTT' 05 FF 003C FF"), hexed("20 03 00 84 00")),
    ("mqtt-6-nothing-behind", connect_body("0004 'MQTT' 06"), hexed("20 02 00 01")),
    ("mqtt-0", connect_body("0004 'MQTT' 00 02 003C 0001 'c'"), hexed("20 02 00 01")),
    ("mqtt-3", connect_body("0004 'MQTT' 03 02 003C 0001 'c'"), hexed("20 02 00 01")),
    ("mqtt-6", connect_body("0004 'MQTT' 06 02 003C 0001 'c'"), hexed("20 02 00 01")),
    ("mqtt-255", connect_body("0004 'MQTT' FF 02 003C 0001 'c'"), hexed("20 02 00 01")),
    ("bridge-3.1.1", connect_body("0004 'MQTT' 84 02 003C 0001 'c'"), hexed("20 02 00 01")),
    ("bridge-3.1", connect_body("0006 'MQIsdp' 83 02 003C 0001 'c'"), hexed("20 02 00 01")),
    ("mqisdp-4", connect_body("0006 'MQIsdp' 04 02 003C 0001 'c'"), hexed("20 02 00 01")),
    ("mqisdp-5", connect_body("0006 'MQIsdp' 05 02 003C 0001 'c'"), hexed("20 02 00 01")),
)
