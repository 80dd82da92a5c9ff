"""What the gate asks of a protocol level: `codec_of(level)` reads and writes single packets as that level has them.

The callers are written once, for 5.0. What 3.1 and 3.1.1 cannot say is left out there: properties everywhere, the
reasons of acknowledgements and DISCONNECT, the codes of an UNSUBACK, the options of a SUBSCRIBE but the QoS; refusals
in a SUBACK become 0x80. Return codes of a CONNACK are those of the level: the caller chooses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from authsvc.core.credentials import WillMessage
from broker.wire import decode, decode5, encode, encode5, opening5, scanner, scanner5
from broker.wire.packets import (
    DISCONNECT,
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5_0,
    SUBACK_REFUSED,
    UNSUBACK,
    Ack,
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
from broker.wire.scanner import Scan


class Codec(Protocol):
    """One protocol level. The readers take one whole packet and raise MalformedPacket, the writers ValueError.

    `from_server` says who sent the packet, where 5.0 allows the two sides different things.
    `scan` is the level's `scan_run`. `from_client` and `from_server` read any packet of that side.
    """

    level: int
    scan: Scan

    def connack(self, packet: bytes) -> Connack: ...
    def publish(self, packet: bytes, *, from_server: bool = False) -> Publish: ...
    def ack(self, packet: bytes) -> Ack: ...
    def subscribe(self, packet: bytes) -> Subscribe: ...
    def suback(self, packet: bytes) -> Suback: ...
    def unsubscribe(self, packet: bytes) -> Unsubscribe: ...
    def unsuback(self, packet: bytes) -> Unsuback: ...
    def disconnect(self, packet: bytes, *, from_server: bool = False) -> Disconnect: ...
    def from_client(self, packet: bytes) -> Packet: ...
    def from_server(self, packet: bytes) -> Packet: ...

    def encode_connect(
        self,
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
        properties: bytes = b"",
    ) -> bytes: ...
    def encode_connack(self, code: int, *, session_present: bool = False, properties: bytes = b"") -> bytes: ...
    def encode_publish(
        self,
        topic: str | bytes,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        packet_id: int | None = None,
        properties: bytes = b"",
    ) -> bytes: ...
    def encode_ack(self, type_: int, packet_id: int, reason: int = 0, properties: bytes = b"") -> bytes: ...
    def encode_subscribe(
        self, packet_id: int, filters: Iterable[tuple[str, int]], properties: bytes = b""
    ) -> bytes: ...
    def encode_suback(self, packet_id: int, codes: Sequence[int] | bytes, properties: bytes = b"") -> bytes: ...
    def encode_unsubscribe(self, packet_id: int, filters: Iterable[str], properties: bytes = b"") -> bytes: ...
    def encode_unsuback(self, packet_id: int, codes: Sequence[int] | bytes, properties: bytes = b"") -> bytes: ...
    def encode_disconnect(self, reason: int = 0, properties: bytes = b"") -> bytes: ...


class Codec3:
    """MQTT 3.1 and 3.1.1."""

    scan: Scan = staticmethod(scanner.scan_run)

    def __init__(self, level: int) -> None:
        self.level = level

    def connack(self, packet: bytes) -> Connack:
        return decode.parse_connack(packet)

    def publish(self, packet: bytes, *, from_server: bool = False) -> Publish:  # noqa: ARG002 - either side the same
        return decode.parse_publish(packet)

    def ack(self, packet: bytes) -> Ack:
        ack = decode.parse_ack(packet, level=self.level)
        if ack.type == UNSUBACK:
            raise MalformedPacket("2.2.1", "an UNSUBACK where an acknowledgement of a PUBLISH was read")
        return ack

    def subscribe(self, packet: bytes) -> Subscribe:
        return decode.parse_subscribe(packet, level=self.level)

    def suback(self, packet: bytes) -> Suback:
        return decode.parse_suback(packet)

    def unsubscribe(self, packet: bytes) -> Unsubscribe:
        return decode.parse_unsubscribe(packet, level=self.level)

    def unsuback(self, packet: bytes) -> Unsuback:
        ack = decode.parse_ack(packet, level=self.level)
        if ack.type != UNSUBACK:
            raise MalformedPacket("2.2.1", "not an UNSUBACK")
        return Unsuback(packet_id=ack.packet_id, codes=b"")

    def disconnect(self, packet: bytes, *, from_server: bool = False) -> Disconnect:
        if from_server or decode.parse_bare(packet).type != DISCONNECT:
            raise MalformedPacket("2.2.1", "a DISCONNECT is a client's packet, and nothing but its type")
        return Disconnect()

    def from_client(self, packet: bytes) -> Packet:
        return decode.parse_from_client(packet, level=self.level)

    def from_server(self, packet: bytes) -> Packet:
        return decode.parse_from_server(packet)

    def encode_connect(
        self,
        *,
        client_id: str,
        clean_session: bool = True,
        keep_alive_s: int = 0,
        username: str | None = None,
        password: bytes | None = None,
        will: WillMessage | None = None,
        session_expiry_s: int = 0,  # noqa: ARG002 - this and what follows: not to be said in 3.1.1
        receive_maximum: int = 65_535,  # noqa: ARG002
        maximum_packet_size: int | None = None,  # noqa: ARG002
        topic_alias_maximum: int = 0,  # noqa: ARG002
        request_response_information: bool = False,  # noqa: ARG002
        request_problem_information: bool = True,  # noqa: ARG002
        properties: bytes = b"",  # noqa: ARG002
    ) -> bytes:
        return encode.encode_connect(
            client_id=client_id,
            clean_session=clean_session,
            keep_alive_s=keep_alive_s,
            username=username,
            password=password,
            will=will,
            level=self.level,
        )

    def encode_connack(self, code: int, *, session_present: bool = False, properties: bytes = b"") -> bytes:  # noqa: ARG002
        return encode.encode_connack(code, session_present=session_present)

    def encode_publish(
        self,
        topic: str | bytes,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        packet_id: int | None = None,
        properties: bytes = b"",  # noqa: ARG002
    ) -> bytes:
        return encode.encode_publish(topic, payload, qos=qos, retain=retain, dup=dup, packet_id=packet_id)

    def encode_ack(self, type_: int, packet_id: int, reason: int = 0, properties: bytes = b"") -> bytes:  # noqa: ARG002
        return encode.encode_ack(type_, packet_id)

    def encode_subscribe(self, packet_id: int, filters: Iterable[tuple[str, int]], properties: bytes = b"") -> bytes:  # noqa: ARG002
        return encode.encode_subscribe(packet_id, [(filter_, options & 0x03) for filter_, options in filters])

    def encode_suback(self, packet_id: int, codes: Sequence[int] | bytes, properties: bytes = b"") -> bytes:  # noqa: ARG002
        return encode.encode_suback(packet_id, [min(code, SUBACK_REFUSED) for code in codes])

    def encode_unsubscribe(self, packet_id: int, filters: Iterable[str], properties: bytes = b"") -> bytes:  # noqa: ARG002
        return encode.encode_unsubscribe(packet_id, filters)

    def encode_unsuback(self, packet_id: int, codes: Sequence[int] | bytes, properties: bytes = b"") -> bytes:  # noqa: ARG002
        return encode.encode_unsuback(packet_id)

    def encode_disconnect(self, reason: int = 0, properties: bytes = b"") -> bytes:  # noqa: ARG002
        return encode.DISCONNECT_PACKET


class Codec5:
    """MQTT 5.0."""

    level = MQTT_5_0
    scan: Scan = staticmethod(scanner5.scan_run5)
    connack = staticmethod(opening5.parse_connack)
    publish = staticmethod(decode5.parse_publish)
    ack = staticmethod(decode5.parse_ack)
    subscribe = staticmethod(decode5.parse_subscribe)
    suback = staticmethod(decode5.parse_suback)
    unsubscribe = staticmethod(decode5.parse_unsubscribe)
    unsuback = staticmethod(decode5.parse_unsuback)
    disconnect = staticmethod(opening5.parse_disconnect)
    from_client = staticmethod(decode5.parse_from_client)
    from_server = staticmethod(decode5.parse_from_server)
    encode_connect = staticmethod(encode5.encode_connect)
    encode_connack = staticmethod(encode5.encode_connack)
    encode_publish = staticmethod(encode5.encode_publish)
    encode_ack = staticmethod(encode5.encode_ack)
    encode_subscribe = staticmethod(encode5.encode_subscribe)
    encode_suback = staticmethod(encode5.encode_suback)
    encode_unsubscribe = staticmethod(encode5.encode_unsubscribe)
    encode_unsuback = staticmethod(encode5.encode_unsuback)
    encode_disconnect = staticmethod(encode5.encode_disconnect)


_CODECS: Final[dict[int, Codec]] = {MQTT_3_1: Codec3(MQTT_3_1), MQTT_3_1_1: Codec3(MQTT_3_1_1), MQTT_5_0: Codec5()}


def codec_of(level: int) -> Codec:
    """Return the codec of protocol level 3, 4 or 5; KeyError for any other."""
    return _CODECS[level]


def parse_connect(packet: bytes, *, mqtt5: bool = False) -> Connect:
    """Return the CONNECT of MQTT 3.1, 3.1.1 or, with `mqtt5`, 5.0.

    Raises:
        UnsupportedProtocol: another protocol level, or 5.0 without `mqtt5`.
        MalformedPacket: as the parsers of the level say; `code` is for a client of level 5.
    """
    try:
        return decode.parse_connect(packet)
    except UnsupportedProtocol as other:
        if not mqtt5 or other.level != MQTT_5_0 or other.name != "MQTT":
            raise
    return opening5.parse_connect(packet)
