"""The vocabulary of MQTT 3.1 and 3.1.1: packet types, the records that strict parsers return, and the two ways to fail.

Clause numbers are those of MQTT 3.1.1 (OASIS, 2014); "3.1" is the IBM/Eurotech specification of 2010, protocol level 3.

    MalformedPacket        the peer broke the protocol: close the connection, answer nothing
    └── PacketTooLarge     well-formed as far as it was read, but longer than this server takes
    UnsupportedProtocol    a CONNECT of another protocol level: send `.answer`, then close
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from authsvc.core.credentials import WillMessage

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
}


class MalformedPacket(Exception):  # noqa: N818 - named for what arrived, as the specification does
    """The peer broke the protocol. `clause` is the rule it broke; `detail` never quotes bytes of the packet.

    What was received may hold a token, so neither this nor its cause ever carries it.
    """

    def __init__(self, clause: str, detail: str) -> None:
        super().__init__(clause, detail)
        self.clause = clause
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.detail} ({self.clause})"


class PacketTooLarge(MalformedPacket):
    """The remaining length promises more than this server takes; raised before the packet has arrived."""


class UnsupportedProtocol(Exception):  # noqa: N818 - as above
    """A CONNECT of a protocol level that is not spoken here. Send `answer`, then close (MQTT-3.1.2-2)."""

    def __init__(self, *, level: int, name: str) -> None:
        super().__init__(level, name)
        self.level = level
        self.name = name

    @property
    def answer(self) -> bytes:
        """The CONNACK this client understands: MQTT 5.0 reason 0x84 to level 5, else return code 1."""
        if self.name == "MQTT" and self.level == MQTT_5_0:
            return b"\x20\x03\x00\x84\x00"
        return b"\x20\x02\x00\x01"

    def __str__(self) -> str:
        return f"protocol level {self.level} of {self.name} is not supported"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Connect:
    """A well-formed CONNECT. Whether it is admitted is for others to say; the repr shows no secret."""

    protocol_name: str
    level: int
    client_id: str
    clean_session: bool
    keep_alive_s: int
    username: str | None
    password: bytes | None
    will: WillMessage | None

    @property
    def client_id_refused(self) -> bool:
        """Whether the protocol itself wants CONNACK 2: an empty id without clean session, or with MQTT 3.1.

        MQTT-3.1.3-8 for 3.1.1. MQTT 3.1 asks for 1 to 23 characters; longer ones are in wide use and are taken.
        """
        return not self.client_id and (self.level == MQTT_3_1 or not self.clean_session)

    def __repr__(self) -> str:
        return (
            f"Connect(level={self.level}, client_id={_shown(self.client_id)}, clean_session={self.clean_session}, "
            f"keep_alive_s={self.keep_alive_s}, username={_shown(self.username)}, "
            f"password={'absent' if self.password is None else 'hidden'}, "
            f"will={'absent' if self.will is None else 'present'})"
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
    session_present: bool
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """One PUBLISH; `packet_id` is None exactly when `qos` is 0."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    """One SUBSCRIBE: (filter, requested QoS) in the packet's order, never empty; a filter may occur twice."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suback:
    """Return codes in the order of the SUBSCRIBE: granted QoS or 0x80."""

    packet_id: int
    codes: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK; `type` is the first byte without flags."""

    type: int
    packet_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """PINGREQ, PINGRESP or DISCONNECT: a packet that is its type and nothing else."""

    type: int


Packet = Connect | Connack | Publish | Subscribe | Suback | Unsubscribe | Ack | Bare
