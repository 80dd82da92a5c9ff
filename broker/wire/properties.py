"""The properties of MQTT 5.0 (2.2.2.2): one table of what each id is, where it may stand and what it may say."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple

from broker.wire.packets import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
)
from broker.wire.reason_codes import PROTOCOL_ERROR, TOPIC_ALIAS_INVALID

# Table 2-4.
PAYLOAD_FORMAT: Final = 0x01
MESSAGE_EXPIRY: Final = 0x02
CONTENT_TYPE: Final = 0x03
RESPONSE_TOPIC: Final = 0x08
CORRELATION_DATA: Final = 0x09
SUBSCRIPTION_IDENTIFIER: Final = 0x0B
SESSION_EXPIRY: Final = 0x11
ASSIGNED_CLIENT_ID: Final = 0x12
SERVER_KEEP_ALIVE: Final = 0x13
AUTHENTICATION_METHOD: Final = 0x15
AUTHENTICATION_DATA: Final = 0x16
REQUEST_PROBLEM_INFORMATION: Final = 0x17
WILL_DELAY: Final = 0x18
REQUEST_RESPONSE_INFORMATION: Final = 0x19
RESPONSE_INFORMATION: Final = 0x1A
SERVER_REFERENCE: Final = 0x1C
REASON_STRING: Final = 0x1F
RECEIVE_MAXIMUM: Final = 0x21
TOPIC_ALIAS_MAXIMUM: Final = 0x22
TOPIC_ALIAS: Final = 0x23
MAXIMUM_QOS: Final = 0x24
RETAIN_AVAILABLE: Final = 0x25
USER_PROPERTY: Final = 0x26
MAXIMUM_PACKET_SIZE: Final = 0x27
WILDCARD_SUBSCRIPTION_AVAILABLE: Final = 0x28
SUBSCRIPTION_IDENTIFIER_AVAILABLE: Final = 0x29
SHARED_SUBSCRIPTION_AVAILABLE: Final = 0x2A

WILL: Final = 0x01  # stands for the will's section of a CONNECT where a packet type is asked for

Value = int | str | bytes | tuple[str, str]


class Type(Enum):
    """How a value is written (1.5)."""

    BYTE = auto()
    UINT16 = auto()
    UINT32 = auto()
    VARIABLE = auto()
    BINARY = auto()
    STRING = auto()
    TOPIC = auto()  # a string that is a topic name
    PAIR = auto()


class Property(NamedTuple):
    """One line of table 2-4. Numbers outside `least` to `most` are an error of `code` against `clause`."""

    name: str
    type: Type
    packets: frozenset[int]
    clause: str = "2.2.2.2"
    least: int = 0
    most: int = 0xFFFFFFFF
    code: int = PROTOCOL_ERROR
    repeats_in: frozenset[int] = frozenset()


_MESSAGE: Final = frozenset({PUBLISH, WILL})
_OPENING: Final = frozenset({CONNECT, CONNACK})
_ACKS: Final = frozenset({PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK})
_REASONED: Final = _ACKS | {CONNACK, DISCONNECT, AUTH}
_ALL: Final = _REASONED | {CONNECT, WILL, PUBLISH, SUBSCRIBE, UNSUBSCRIBE}
_IN_CONNECT: Final = frozenset({CONNECT})
_IN_CONNACK: Final = frozenset({CONNACK})
_IN_AUTHENTICATION: Final = frozenset({CONNECT, CONNACK, AUTH})

PROPERTIES: Final[dict[int, Property]] = {
    PAYLOAD_FORMAT: Property("payload format indicator", Type.BYTE, _MESSAGE, "3.3.2.3.2", most=1),
    MESSAGE_EXPIRY: Property("message expiry interval", Type.UINT32, _MESSAGE),
    CONTENT_TYPE: Property("content type", Type.STRING, _MESSAGE),
    RESPONSE_TOPIC: Property("response topic", Type.TOPIC, _MESSAGE),
    CORRELATION_DATA: Property("correlation data", Type.BINARY, _MESSAGE),
    SUBSCRIPTION_IDENTIFIER: Property(
        "subscription identifier",
        Type.VARIABLE,
        frozenset({PUBLISH, SUBSCRIBE}),
        "3.8.2.1.2",
        least=1,
        repeats_in=frozenset({PUBLISH}),  # 3.3.2.3.8: one for each subscription that matches
    ),
    SESSION_EXPIRY: Property("session expiry interval", Type.UINT32, _OPENING | {DISCONNECT}),
    ASSIGNED_CLIENT_ID: Property("assigned client identifier", Type.STRING, _IN_CONNACK),
    SERVER_KEEP_ALIVE: Property("server keep alive", Type.UINT16, _IN_CONNACK),
    AUTHENTICATION_METHOD: Property("authentication method", Type.STRING, _IN_AUTHENTICATION),
    AUTHENTICATION_DATA: Property("authentication data", Type.BINARY, _IN_AUTHENTICATION),
    REQUEST_PROBLEM_INFORMATION: Property("request problem information", Type.BYTE, _IN_CONNECT, "3.1.2.11.7", most=1),
    WILL_DELAY: Property("will delay interval", Type.UINT32, frozenset({WILL})),
    REQUEST_RESPONSE_INFORMATION: Property(
        "request response information", Type.BYTE, _IN_CONNECT, "3.1.2.11.6", most=1
    ),
    RESPONSE_INFORMATION: Property("response information", Type.STRING, _IN_CONNACK),
    SERVER_REFERENCE: Property("server reference", Type.STRING, frozenset({CONNACK, DISCONNECT})),
    REASON_STRING: Property("reason string", Type.STRING, _REASONED),
    RECEIVE_MAXIMUM: Property("receive maximum", Type.UINT16, _OPENING, "3.1.2.11.3", least=1),
    TOPIC_ALIAS_MAXIMUM: Property("topic alias maximum", Type.UINT16, _OPENING),
    TOPIC_ALIAS: Property(
        "topic alias", Type.UINT16, frozenset({PUBLISH}), "MQTT-3.3.2-8", least=1, code=TOPIC_ALIAS_INVALID
    ),
    MAXIMUM_QOS: Property("maximum QoS", Type.BYTE, _IN_CONNACK, "3.2.2.3.4", most=1),
    RETAIN_AVAILABLE: Property("retain available", Type.BYTE, _IN_CONNACK, "3.2.2.3.5", most=1),
    USER_PROPERTY: Property("user property", Type.PAIR, _ALL, repeats_in=_ALL),
    MAXIMUM_PACKET_SIZE: Property("maximum packet size", Type.UINT32, _OPENING, "3.1.2.11.4", least=1),
    WILDCARD_SUBSCRIPTION_AVAILABLE: Property(
        "wildcard subscription available", Type.BYTE, _IN_CONNACK, "3.2.2.3.11", most=1
    ),
    SUBSCRIPTION_IDENTIFIER_AVAILABLE: Property(
        "subscription identifier available", Type.BYTE, _IN_CONNACK, "3.2.2.3.12", most=1
    ),
    SHARED_SUBSCRIPTION_AVAILABLE: Property(
        "shared subscription available", Type.BYTE, _IN_CONNACK, "3.2.2.3.13", most=1
    ),
}
