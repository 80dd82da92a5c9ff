"""Client to upstream: every packet of a client that leaves the run, decided against its grant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authsvc.core.policy import Action, Decision, Memo
from authsvc.core.reasons import Reason
from authsvc.sessions import Will
from broker import subscriptions, wire
from broker.stream import Stream
from broker.wire import MalformedPacket

if TYPE_CHECKING:
    from broker.connection import ClientConnection


class Inbound(Stream):
    """The client's packets, checked. Answers go through the connection, what is permitted to its link."""

    __slots__ = ("_connection",)

    def __init__(self, connection: ClientConnection, memo: Memo) -> None:
        super().__init__(memo, connection.limits.max_packet_bytes, retain_in_run=connection.capabilities.retained)
        self._connection = connection

    @property
    def open(self) -> bool:
        return self._connection.is_open

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
            wire.parse_ack(packet)
            self._connection.link.write(packet)
        elif kind == wire.PUBREL:
            self._pubrel(packet)
        elif kind == wire.DISCONNECT:
            wire.parse_bare(packet)
            self._connection.disconnected()
        else:  # a second CONNECT too: MQTT-3.1.0-2
            raise MalformedPacket("MQTT-3.1.0-2", f"a second CONNECT or a packet of a server: {wire.NAMES[kind]}")

    # PUBLISH

    def _publish(self, packet: bytes) -> None:
        connection = self._connection
        publish = wire.parse_publish(packet)
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
                connection.write(wire.encode_ack(wire.PUBACK, _id(publish)))

    def _publish_exactly_once(self, packet: bytes, publish: wire.Publish, decision: Decision) -> None:
        """4.3.3, method B: an id that is open is a repetition, whatever the packet says now."""
        connection = self._connection
        state = connection.state
        packet_id = _id(publish)
        if packet_id in state.answered:
            connection.write(wire.encode_ack(wire.PUBREC, packet_id))
            return
        if packet_id not in state.passed and state.open_qos2 >= connection.limits.max_open_qos2:
            raise MalformedPacket("4.3.3", f"more than {connection.limits.max_open_qos2} open QoS 2 packet ids")
        if decision.allowed:
            state.passed.add(packet_id)
            self._pass_on(packet, publish)
            return
        self._denied(publish, decision)
        if connection.is_open:
            if packet_id not in state.passed:  # else its PUBREL belongs to the upstream
                state.answered.add(packet_id)
            connection.write(wire.encode_ack(wire.PUBREC, packet_id))

    def _pass_on(self, packet: bytes, publish: wire.Publish) -> None:
        connection = self._connection
        if publish.retain and not connection.capabilities.retained:
            connection.retain(publish.topic, publish.payload, qos=publish.qos)
            packet = bytes((packet[0] & 0xFE,)) + packet[1:]
        connection.link.write(packet)

    def _denied(self, publish: wire.Publish, decision: Decision) -> None:
        connection = self._connection
        connection.denied(Action.PUBLISH, publish.topic, decision)
        if connection.disconnects_on_denied_publish:
            connection.end(decision.reason, Will.SEND, in_order=True)

    def _pubrel(self, packet: bytes) -> None:
        connection = self._connection
        state = connection.state
        packet_id = wire.parse_ack(packet, level=connection.level).packet_id
        if packet_id in state.answered:
            state.answered.discard(packet_id)
            connection.write(wire.encode_ack(wire.PUBCOMP, packet_id))
        elif packet_id in state.passed or connection.capabilities.answers_pubrel:
            state.passed.discard(packet_id)
            connection.link.write(wire.encode_ack(wire.PUBREL, packet_id))  # anew: MQTT 3.1 repeats it with DUP
        else:  # 4.3.3: a PUBREL is always answered, and this upstream does not
            connection.write(wire.encode_ack(wire.PUBCOMP, packet_id))


def _id(publish: wire.Publish) -> int:
    assert publish.packet_id is not None  # 2.3.1-1: QoS 1 and 2 have one; the parser has seen to it
    return publish.packet_id
