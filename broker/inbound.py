"""Client to upstream: every packet of a client that leaves the run, decided against its grant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authsvc.core.policy import Action, Decision, Memo
from authsvc.core.reasons import Reason
from authsvc.sessions import Will
from broker import subscriptions, wire
from broker.aliases import Aliases
from broker.stream import Stream
from broker.wire import Codec, MalformedPacket, PacketTooLarge

if TYPE_CHECKING:
    from broker.connection import ClientConnection


class Inbound(Stream):
    """The client's packets, checked. Answers go through the connection, what is permitted to its link."""

    __slots__ = ("_aliases", "_connection", "in_flight")

    def __init__(self, connection: ClientConnection, memo: Memo) -> None:
        terms = connection.terms
        super().__init__(
            memo,
            terms.codec,
            max_packet=terms.max_from_client,
            max_in_run=terms.max_from_client,
            retain_in_run=connection.capabilities.retained,
        )
        self._connection = connection
        self._aliases: Aliases | None = None  # from the first on
        # QoS 2 ids of this connection's exchanges without an end (5.0, 4.9: not preserved across connections)
        self.in_flight: dict[int, None] = {}  # as those of `packet_ids.SessionState`

    @property
    def open(self) -> bool:
        return self._connection.is_open

    @property
    def full(self) -> bool:
        return self._connection.waits_for_upstream  # a PUBLISH of 8 bytes with an alias may have a topic of 64 KiB

    def forward(self, run: bytes) -> None:
        self._connection.link.write(run)

    def handle(self, packet: bytes) -> None:
        kind = packet[0] & wire.TYPE_MASK
        if kind == wire.PUBLISH:
            self._publish(packet)
        elif kind == wire.PINGREQ:
            wire.parse_bare(packet)
            self._connection.write(wire.PINGRESP_PACKET)
        elif kind == wire.SUBSCRIBE:
            subscriptions.subscribe(self._connection, packet)
        elif kind == wire.UNSUBSCRIBE:
            subscriptions.unsubscribe(self._connection, packet)
        elif kind in {wire.PUBACK, wire.PUBREC, wire.PUBCOMP}:
            self.codec.ack(packet)
            self._connection.link.write(packet)
        elif kind == wire.PUBREL:
            self._pubrel(packet)
        elif kind == wire.DISCONNECT:
            self._connection.disconnected(self.codec.disconnect(packet))
        else:  # a second CONNECT too (MQTT-3.1.0-2), and AUTH, of which the CONNECT said nothing (MQTT-4.12.0-6)
            detail = f"a second CONNECT or a packet out of place: {wire.NAMES[kind]}"
            raise MalformedPacket("MQTT-3.1.0-2", detail, wire.reason_codes.PROTOCOL_ERROR)

    # PUBLISH

    def _publish(self, packet: bytes) -> None:
        connection = self._connection
        publish = self.codec.publish(packet)
        if publish.topic_alias is not None:
            if self._aliases is None:
                self._aliases = Aliases(connection.terms.max_aliases)
            publish = self._aliases.resolve(publish)
            packet = _encoded(self.codec, publish)
            if len(packet) > connection.terms.max_to_upstream:
                raise PacketTooLarge("3.3.4", "a packet too large for the broker with its whole topic")
        most = connection.terms.receive_maximum
        if publish.qos and len(self.in_flight) >= most and publish.packet_id not in self.in_flight:
            code = wire.reason_codes.RECEIVE_MAXIMUM_EXCEEDED
            raise MalformedPacket("MQTT-3.3.4-9", f"more than {most} exchanges in flight", code)
        if not connection.capabilities.carries(publish.topic):
            # Not to be remembered as allowed: the next one would be in the run.
            decision = Decision(allowed=False, reason=Reason.NO_RULE_MATCHES, rule=None)
        else:
            decision = self.memo.decide(packet[0] & 0x07, publish.topic.encode(), publish.topic)
        if publish.qos == 2:
            self._publish_exactly_once(packet, publish, decision)
        elif decision.allowed:
            self._pass_on(packet, publish)
        else:
            self._denied(publish, decision)
            if publish.qos == 1 and connection.is_open:
                connection.write(self.codec.encode_ack(wire.PUBACK, _id(publish), wire.reason_codes.NOT_AUTHORIZED))

    def _publish_exactly_once(self, packet: bytes, publish: wire.Publish, decision: Decision) -> None:
        """4.3.3, method B: an id that is open is a repetition, whatever the packet says now.

        A denial of 5.0 says so and ends the exchange (4.3.3); that of 3.1.1 can only go through with it.
        """
        connection = self._connection
        state = connection.state
        packet_id = _id(publish)
        if packet_id in state.answered:
            connection.write(self.codec.encode_ack(wire.PUBREC, packet_id))
            return
        repeated = packet_id in state.passed
        if not repeated and state.open_qos2 >= connection.limits.max_open_qos2:
            detail = f"more than {connection.limits.max_open_qos2} open QoS 2 packet ids"
            raise MalformedPacket("4.3.3", detail, wire.reason_codes.RECEIVE_MAXIMUM_EXCEEDED)
        if decision.allowed:
            state.passed[packet_id] = None
            if connection.terms.is5:
                self.in_flight[packet_id] = None
            self._pass_on(packet, publish)
            return
        self._denied(publish, decision)
        if not connection.is_open:
            return
        if repeated:  # its PUBREL belongs to the upstream
            connection.write(self.codec.encode_ack(wire.PUBREC, packet_id))
        elif connection.terms.refuses_publishes:
            connection.write(self.codec.encode_ack(wire.PUBREC, packet_id, wire.reason_codes.NOT_AUTHORIZED))
        else:
            state.answered[packet_id] = None
            connection.write(self.codec.encode_ack(wire.PUBREC, packet_id))

    def _pass_on(self, packet: bytes, publish: wire.Publish) -> None:
        connection = self._connection
        if publish.retain and not connection.capabilities.retained:
            connection.gate.upstream.retain(publish.topic, publish.payload, qos=publish.qos)
            packet = bytes((packet[0] & 0xFE,)) + packet[1:]
        connection.link.write(packet)

    def _denied(self, publish: wire.Publish, decision: Decision) -> None:
        connection = self._connection
        connection.denied(Action.PUBLISH, publish.topic, decision)
        if connection.gate.disconnects_on_denied_publish:
            connection.end(decision.reason, Will.SEND, in_order=True)

    def _pubrel(self, packet: bytes) -> None:
        connection = self._connection
        state = connection.state
        pubrel = self.codec.ack(packet)
        packet_id = pubrel.packet_id
        if packet_id in state.answered:
            del state.answered[packet_id]
            connection.write(self.codec.encode_ack(wire.PUBCOMP, packet_id))
        elif packet_id in state.passed or connection.capabilities.answers_pubrel:
            state.passed.pop(packet_id, None)
            # Anew: MQTT 3.1 repeats it with DUP.
            anew = self.codec.encode_ack(wire.PUBREL, packet_id, pubrel.reason, pubrel.properties)
            connection.link.write(anew)
        else:  # 4.3.3: a PUBREL is always answered, and this upstream does not
            connection.write(self.codec.encode_ack(wire.PUBCOMP, packet_id, wire.reason_codes.PACKET_ID_NOT_FOUND))


def _encoded(codec: Codec, publish: wire.Publish) -> bytes:
    return codec.encode_publish(
        publish.topic,
        publish.payload,
        qos=publish.qos,
        retain=publish.retain,
        dup=publish.dup,
        packet_id=publish.packet_id,
        properties=publish.properties,
    )


def _id(publish: wire.Publish) -> int:
    assert publish.packet_id is not None  # 2.3.1-1: QoS 1 and 2 have one; the parser has seen to it
    return publish.packet_id
