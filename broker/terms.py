"""What the two sides of one connection agreed on by CONNECT and CONNACK, and what the gate says of itself therein.

The levels differ here and in the codecs, and nowhere else: with 3.1 and 3.1.1 the terms are those that 5.0 gives to
absent properties, but for the limits of the gate, which hold for everybody.
"""

from __future__ import annotations

from dataclasses import replace

from authsvc.core.credentials import NEVER_EXPIRES
from authsvc.core.reasons import Reason, connack_code, connack_code5, disconnect_code5
from broker import wire
from broker.limits import Limits
from broker.upstream import Capabilities, Hello
from broker.wire import Codec, Connack, Connect, Disconnect, MalformedPacket

NO_LIMIT = wire.MAX_REMAINING_LENGTH + 5  # the largest packet there is


class Terms:
    """The terms of one connection; those of the upstream are in it from its CONNACK on (`agreed`).

    `codec` reads and writes the client's packets, `upstream_codec` those of the broker. `session_expiry_s` is how
    long the session is kept after the connection, None for ever.
    """

    __slots__ = (
        "codec",
        "expiry_changed",
        "hello",
        "max_aliases",
        "max_from_client",
        "max_to_client",
        "max_to_upstream",
        "maximum_qos",
        "receive_maximum",
        "refuses_publishes",
        "session_expiry_s",
        "starts_without_expiry",
        "upstream_codec",
    )

    def __init__(self, connect: Connect, limits: Limits, peer: tuple[str, int] | None) -> None:
        self.codec: Codec = wire.codec_of(connect.level)
        is5 = connect.level == wire.MQTT_5_0
        self.upstream_codec: Codec = wire.codec_of(connect.level if is5 else wire.MQTT_3_1_1)
        self.refuses_publishes = is5  # a PUBREC can say no and ends the exchange then (4.3.3)
        self.max_to_client = limits.max_client_buffer_bytes
        if connect.maximum_packet_size is not None:
            self.max_to_client = min(self.max_to_client, connect.maximum_packet_size)
        self.max_from_client = limits.max_packet_bytes
        self.max_to_upstream = NO_LIMIT
        self.max_aliases = limits.max_topic_aliases if is5 else 0
        self.receive_maximum = limits.max_open_qos2
        self.maximum_qos = 2
        self.session_expiry_s: int | None = None
        if is5 and connect.session_expiry_s != NEVER_EXPIRES:
            self.session_expiry_s = connect.session_expiry_s
        self.expiry_changed = False  # by the client's DISCONNECT
        self.starts_without_expiry = is5 and connect.session_expiry_s == 0
        self.hello = Hello(
            level=self.upstream_codec.level,
            session_expiry_s=connect.session_expiry_s,
            receive_maximum=connect.receive_maximum,
            maximum_packet_size=self.max_to_client if is5 else None,
            request_problem_information=connect.request_problem_information,
            request_response_information=connect.request_response_information,
            peer=peer,
        )

    @property
    def is5(self) -> bool:
        """Whether the client speaks MQTT 5.0."""
        return self.refuses_publishes

    def agreed(self, upstream: Connack) -> None:
        """Take the broker's own limits."""
        self.receive_maximum = min(self.receive_maximum, upstream.receive_maximum)
        self.maximum_qos = upstream.maximum_qos
        if upstream.maximum_packet_size is not None:
            self.max_to_upstream = upstream.maximum_packet_size
            self.max_from_client = min(self.max_from_client, upstream.maximum_packet_size)
        if upstream.session_expiry_s is not None and self.is5:
            expiry_s = upstream.session_expiry_s
            self.session_expiry_s = None if expiry_s == NEVER_EXPIRES else expiry_s

    def left(self, disconnect: Disconnect) -> None:
        """Take the session expiry of the client's DISCONNECT. Raises MalformedPacket where it must not change it."""
        expiry_s = disconnect.session_expiry_s
        if expiry_s is None:
            return
        if self.starts_without_expiry and expiry_s:
            detail = "a session expiry in DISCONNECT after none in CONNECT"
            raise MalformedPacket("3.14.2.2.2", detail, wire.reason_codes.PROTOCOL_ERROR)
        self.session_expiry_s = None if expiry_s == NEVER_EXPIRES else expiry_s
        self.expiry_changed = True

    def refusal(self, reason: Reason) -> bytes:
        """Return the CONNACK of a refusal."""
        return self.codec.encode_connack(connack_code5(reason) if self.is5 else connack_code(reason))

    def farewell(self, reason: Reason, code: int | None) -> bytes:
        """Return the DISCONNECT that tells the client why it ends, or nothing where it cannot be told."""
        if not self.is5 or reason is Reason.DISCONNECTED:
            return b""
        return self.codec.encode_disconnect(disconnect_code5(reason) if code is None else code)

    def connack(
        self, upstream: Connack, capabilities: Capabilities, *, session_present: bool, assigned_client_id: str | None
    ) -> bytes | None:
        """Return CONNACK 0: the broker's properties, with the gate's where they are less; None if the client takes no
        packet as large as that (3.1.2.11.4).
        """
        if not self.is5:
            # MQTT 3.1 knows no session present flag: that byte is reserved there.
            present = session_present and self.codec.level != wire.MQTT_3_1
            return self.codec.encode_connack(0, session_present=present)
        ours = replace(
            upstream,
            receive_maximum=self.receive_maximum,
            maximum_packet_size=self.max_from_client,
            topic_alias_maximum=self.max_aliases,
            assigned_client_id=assigned_client_id,
            shared_subscriptions=upstream.shared_subscriptions and capabilities.shared_subscriptions,
            server_keep_alive_s=None,  # of the gate's connection to the broker
            server_reference=None,
            authentication_method=None,
            authentication_data=None,
        )
        for said in (ours, replace(ours, reason_string=None, response_information=None, properties=b"")):
            properties = wire.connack_section(said)
            packet = self.codec.encode_connack(0, session_present=session_present, properties=properties)
            if len(packet) <= self.max_to_client:
                return packet
        return None
