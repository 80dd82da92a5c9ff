"""Upstream to client: every delivery decided again, and the answers to what the gate itself sent swallowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from authsvc.core.policy import Action, Memo
from broker import subscriptions, wire
from broker.stream import Stream
from broker.wire import MalformedPacket

if TYPE_CHECKING:
    from broker.connection import ClientConnection


class Outbound(Stream):
    """The upstream's packets, checked. `swallow` takes all of them once the client has gone and a will is under way."""

    __slots__ = ("_connection", "_subscribed_once", "swallow")

    def __init__(self, connection: ClientConnection, memo: Memo) -> None:
        # A broker behind the gate may have other publishers: what fits the client's buffer may be delivered, unless
        # the client itself takes less (5.0, 3.1.2.11.4): such a delivery is handled, and dropped.
        super().__init__(
            memo,
            connection.terms.upstream_codec,
            max_packet=connection.limits.max_client_buffer_bytes,
            max_in_run=connection.terms.max_to_client,
            retain_in_run=connection.capabilities.retained,
            from_server=True,
        )
        self._connection = connection
        self._subscribed_once = False
        self.swallow: Callable[[bytes], None] | None = None

    @property
    def open(self) -> bool:
        return self.swallow is not None or self._connection.is_open

    def forward(self, run: bytes) -> None:
        if self.swallow is None:
            self._connection.write(run)
            return
        position = 0
        while position < len(run):  # a PUBACK that the farewell waits for may be among them
            end = wire.frame(run, position, self._max_packet, self._legal)
            self.swallow(run[position:end])
            position = end

    def handle(self, packet: bytes) -> None:
        kind = packet[0] & wire.TYPE_MASK
        if self.swallow is not None:
            self.swallow(packet)
        elif kind == wire.PUBLISH:
            self._publish(packet)
        elif kind in {wire.PUBACK, wire.PUBREC, wire.PUBCOMP}:
            self._ack(packet)
        elif kind == wire.PUBREL:
            self._pubrel(packet)
        elif kind == wire.SUBACK:
            subscriptions.answered(self._connection, packet)
            self._subscribed_once = True
        elif kind == wire.UNSUBACK:
            subscriptions.unsubscribed(self._connection, packet)
        elif kind == wire.DISCONNECT and self._connection.terms.is5:
            self._connection.upstream_said(self.codec.disconnect(packet, from_server=True))
        elif kind != wire.PINGRESP:
            raise MalformedPacket("2.2.1", f"{wire.NAMES[kind]} from the upstream")

    def _publish(self, packet: bytes) -> None:
        connection = self._connection
        publish = self.codec.publish(packet, from_server=True)
        if publish.topic_alias is not None:
            raise MalformedPacket("MQTT-3.1.2-26", "a topic alias from the upstream, which was offered none")
        flags = packet[0] & 0x07
        topic = publish.topic.encode()
        known = self.memo.tables[flags].get(topic)
        if known is None:
            decision = self.memo.decide(flags, topic, publish.topic)
            known = decision.allowed
            if not known:  # once per topic and memo: a subscription wider than its set levels denies all day long
                connection.denied(Action.DELIVER, publish.topic, decision)
        if known and len(packet) <= connection.terms.max_to_client:
            if publish.retain and not self._subscribed_once and not connection.capabilities.retained:
                # Such an upstream's retained messages come after a SUBACK: this one was queued, and 3.3.1-9 says 0.
                packet = bytes((packet[0] & 0xFE,)) + packet[1:]
            if publish.qos == 2 and publish.packet_id is not None:
                connection.state.withheld.pop(publish.packet_id, None)
            connection.write(packet)
        elif publish.packet_id is not None:
            if publish.qos == 1:
                connection.link.write(self.codec.encode_ack(wire.PUBACK, publish.packet_id))
            else:
                connection.state.withheld[publish.packet_id] = None
                connection.link.write(self.codec.encode_ack(wire.PUBREC, publish.packet_id))

    def _ack(self, packet: bytes) -> None:
        """An answer to the client's PUBLISH or PUBREL; one that ends a QoS 2 exchange is noted (5.0, 4.3.3)."""
        connection = self._connection
        ack = self.codec.ack(packet)
        if ack.type == wire.PUBCOMP or (ack.type == wire.PUBREC and ack.reason >= wire.reason_codes.UNSPECIFIED):
            connection.inbound.in_flight.pop(ack.packet_id, None)
            if ack.reason:
                connection.state.passed.pop(ack.packet_id, None)
        connection.send(packet, lambda: self.codec.encode_ack(ack.type, ack.packet_id, ack.reason))

    def _pubrel(self, packet: bytes) -> None:
        connection = self._connection
        pubrel = self.codec.ack(packet)
        packet_id = pubrel.packet_id
        if packet_id in connection.state.withheld:
            del connection.state.withheld[packet_id]
            connection.link.write(self.codec.encode_ack(wire.PUBCOMP, packet_id))
        else:
            connection.send(packet, lambda: self.codec.encode_ack(wire.PUBREL, packet_id, pubrel.reason))
