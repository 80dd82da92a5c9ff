"""The vocabulary of MQTT 3.1, 3.1.1 and 5.0: packet types, the records of strict parsers, and the two ways to fail.

One set of records for all levels: what 5.0 added has the default that means the same in 3.1.1. A `properties` field is
the packet's property section as raw bytes, without its length and without what has a field of its own; it was checked
(ids of the packet type, types, repetitions: MQTT 5.0, 2.2.2) and may be sent again as it is.

Clause numbers are those of MQTT 3.1.1 (OASIS, 2014) where the parsers of 3.1 and 3.1.1 refuse, those of MQTT 5.0
(OASIS, 2019) where the parsers of 5.0 do; "3.1" is the IBM/Eurotech specification of 2010, protocol level 3.

    MalformedPacket        the peer broke the protocol: close the connection, answer nothing
    └── PacketTooLarge     well-formed as far as it was read, but longer than this server takes
    UnsupportedProtocol    a CONNECT of another protocol level: send `.answer`, then close
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from authsvc.core.credentials import WillMessage
from broker.wire.reason_codes import MALFORMED, PACKET_TOO_LARGE

# First byte of the fixed header without its flags (MQTT 3.1.1, table 2.1).
CONNECT: Final = 0x10
CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
PUBREC: Final = 0x50
PUBREL: Final = 0x60
PUBCOMP: Final = 0x70
SUBSCRIBE: Final = 0x80
SUBACK: Final = 0x90
UNSUBSCRIBE: Final = 0xA0
UNSUBACK: Final = 0xB0
PINGREQ: Final = 0xC0
PINGRESP: Final = 0xD0
DISCONNECT: Final = 0xE0
AUTH: Final = 0xF0  # MQTT 5.0, 3.15

TYPE_MASK: Final = 0xF0
DUP: Final = 0x08
RETAIN: Final = 0x01

MQTT_3_1: Final = 3
MQTT_3_1_1: Final = 4
MQTT_5_0: Final = 5

SUBACK_REFUSED: Final = 0x80

NAMES: Final[dict[int, str]] = {
    CONNECT: "CONNECT",
    CONNACK: "CONNACK",
    PUBLISH: "PUBLISH",
    PUBACK: "PUBACK",
    PUBREC: "PUBREC",
    PUBREL: "PUBREL",
    PUBCOMP: "PUBCOMP",
    SUBSCRIBE: "SUBSCRIBE",
    SUBACK: "SUBACK",
    UNSUBSCRIBE: "UNSUBSCRIBE",
    UNSUBACK: "UNSUBACK",
    PINGREQ: "PINGREQ",
    PINGRESP: "PINGRESP",
    DISCONNECT: "DISCONNECT",
    AUTH: "AUTH",
}


class MalformedPacket(Exception):  # noqa: N818 - named for what arrived, as the specification does
    """The peer broke the protocol. `clause` is the rule it broke; `detail` never quotes bytes of the packet.

    `code` is the reason code to DISCONNECT or refuse a peer of level 5 with (MQTT 5.0, 4.13); 3.1.1 has none.
    What was received may hold a token, so neither this nor its cause ever carries it.
    """

    def __init__(self, clause: str, detail: str, code: int = MALFORMED) -> None:
        super().__init__(clause, detail)
        self.clause = clause
        self.detail = detail
        self.code = code

    def __str__(self) -> str:
        return f"{self.detail} ({self.clause})"


class PacketTooLarge(MalformedPacket):
    """The remaining length promises more than this server takes; raised before the packet has arrived."""

    def __init__(self, clause: str, detail: str, code: int = PACKET_TOO_LARGE) -> None:
        super().__init__(clause, detail, code)


class UnsupportedProtocol(Exception):  # noqa: N818 - as above
    """A CONNECT of a protocol level that is not spoken here. Send `answer`, then close (MQTT-3.1.2-2)."""

    def __init__(self, *, level: int, name: str) -> None:
        super().__init__(level, name)
        self.level = level
        self.name = name

    @property
    def is_5_0(self) -> bool:
        """Whether the client speaks MQTT 5.0."""
        return self.name == "MQTT" and self.level == MQTT_5_0

    @property
    def answer(self) -> bytes:
        """The CONNACK this client understands: MQTT 5.0 reason 0x84 to level 5, else return code 1."""
        if self.is_5_0:
            return b"\x20\x03\x00\x84\x00"
        return b"\x20\x02\x00\x01"

    def __str__(self) -> str:
        return f"protocol level {self.level} of {self.name} is not supported"


class Connect(NamedTuple):
    """A well-formed CONNECT. Whether it is admitted is for others to say; the repr shows no secret.

    A tuple, for there is one in every connection: a frozen dataclass of so many fields takes several times as long.

    `clean_session` is "clean start" in 5.0, where it says nothing about how long the session is kept: that is
    `session_expiry_s`. `properties` holds the user properties.
    """

    protocol_name: str
    level: int
    client_id: str
    clean_session: bool
    keep_alive_s: int
    username: str | None
    password: bytes | None
    will: WillMessage | None
    # 5.0, 3.1.2.11; the defaults are those that the specification gives to an absent property.
    session_expiry_s: int = 0
    receive_maximum: int = 65_535
    maximum_packet_size: int | None = None
    topic_alias_maximum: int = 0
    request_response_information: bool = False
    request_problem_information: bool = True
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    properties: bytes = b""

    @property
    def client_id_refused(self) -> bool:
        """Whether the protocol itself wants CONNACK 2: an empty id without clean session, or with MQTT 3.1.

        MQTT-3.1.3-8 for 3.1.1. MQTT 3.1 asks for 1 to 23 characters; longer ones are in wide use and are taken.
        5.0 lets the server assign one in any case (3.1.3.1).
        """
        if self.client_id or self.level == MQTT_5_0:
            return False
        return self.level == MQTT_3_1 or not self.clean_session

    def __repr__(self) -> str:
        return (
            f"Connect(level={self.level}, client_id={_shown(self.client_id)}, clean_session={self.clean_session}, "
            f"keep_alive_s={self.keep_alive_s}, username={_shown(self.username)}, "
            f"password={'absent' if self.password is None else 'hidden'}, "
            f"will={'absent' if self.will is None else 'present'}, session_expiry_s={self.session_expiry_s}, "
            f"authentication_method={_shown(self.authentication_method)})"
        )


# A token in the wrong field must not reach a log by way of a repr: opaque tokens and JWTs are told by their beginnings.
_TOKEN_LIKE = re.compile(r"as[a-z]{3}_|eyJ")
_SHOWN_CHARACTERS = 64


def _shown(text: str | None) -> str:
    if text is None:
        return "absent"
    if _TOKEN_LIKE.search(text):
        return "hidden"
    return ascii(text[:_SHOWN_CHARACTERS]) + ("…" if len(text) > _SHOWN_CHARACTERS else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connack:
    """`code` is a return code of 3.1.1 or a reason code of 5.0. The defaults are those of an absent property (3.2.2.3).

    `properties` holds the user properties; `properties.connack_section` writes all fields as a section again.
    """

    session_present: bool
    code: int
    session_expiry_s: int | None = None  # None: as the CONNECT asked
    receive_maximum: int = 65_535
    maximum_qos: int = 2
    retain_available: bool = True
    maximum_packet_size: int | None = None
    assigned_client_id: str | None = None
    topic_alias_maximum: int = 0
    reason_string: str | None = field(default=None, repr=False)
    wildcard_subscriptions: bool = True
    subscription_identifiers: bool = True
    shared_subscriptions: bool = True
    server_keep_alive_s: int | None = None
    response_information: str | None = field(default=None, repr=False)
    server_reference: str | None = None
    authentication_method: str | None = field(default=None, repr=False)
    authentication_data: bytes | None = field(default=None, repr=False)
    properties: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """One PUBLISH; `packet_id` is None exactly when `qos` is 0.

    In 5.0 the topic may be empty when there is a `topic_alias`, which is never 0 and never within `properties`.
    """

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int | None = None
    topic_alias: int | None = None
    properties: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    """One SUBSCRIBE: (filter, requested QoS) in the packet's order, never empty; a filter may occur twice.

    `options` has the options byte of each filter (5.0, 3.8.3.1: QoS, no local, retain as published, retain handling);
    in 3.1.1 that byte is the QoS. `subscription_identifier` is within `properties` too.
    """

    packet_id: int
    filters: tuple[tuple[str, int], ...]
    options: tuple[int, ...] = ()
    subscription_identifier: int | None = None
    properties: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suback:
    """Return codes in the order of the SUBSCRIBE: granted QoS or a refusal (3.1.1: 0x80; 5.0: any from 0x80 on)."""

    packet_id: int
    codes: bytes
    properties: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[str, ...]
    properties: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsuback:
    """Reason codes in the order of the UNSUBSCRIBE; 3.1.1 has none, so `codes` is empty there."""

    packet_id: int
    codes: bytes
    properties: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """PUBACK, PUBREC, PUBREL or PUBCOMP, and UNSUBACK of 3.1.1; `type` is the first byte without flags.

    `reason` is 0 in 3.1.1, and in 5.0 where the packet leaves it out (3.4.2.1).
    """

    type: int
    packet_id: int
    reason: int = 0
    properties: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """PINGREQ, PINGRESP or DISCONNECT of 3.1.1: a packet that is its type and nothing else."""

    type: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """DISCONNECT of either side in 5.0; of 3.1.1 it is always the default. `session_expiry_s` None: not changed."""

    reason: int = 0
    session_expiry_s: int | None = None
    server_reference: str | None = None
    properties: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """AUTH of 5.0 (3.15)."""

    reason: int = 0
    authentication_method: str | None = field(default=None, repr=False)
    authentication_data: bytes | None = field(default=None, repr=False)
    properties: bytes = field(default=b"", repr=False)


Packet = Connect | Connack | Publish | Subscribe | Suback | Unsubscribe | Unsuback | Ack | Bare | Disconnect | Auth
