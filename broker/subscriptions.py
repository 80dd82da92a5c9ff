"""SUBSCRIBE, UNSUBSCRIBE, SUBACK of one connection: what is asked upstream, answered here, and taken back.

One packet may hold 65,000 filters. What is decided, recorded and remembered of it is bounded by the number of filters
that a session may hold; beyond that the answer is a refusal. Refusals are codes of MQTT 5.0, which the codec of 3.1.1
turns into 0x80.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from authsvc.core.errors import InvalidInput
from authsvc.core.policy import Action, Decision
from authsvc.core.reasons import Reason, suback_code5
from authsvc.core.topics import shared_filter
from broker import wire
from broker.packet_ids import PendingSubscribe
from broker.wire import MalformedPacket

if TYPE_CHECKING:
    from broker.connection import ClientConnection

FILTERS_PER_UNSUBSCRIBE = 100  # of the gate's own
REPEATED = 4  # filters that wait for a SUBACK, over the number that a session may hold: held ones may be asked again


def subscribe(connection: ClientConnection, packet: bytes) -> None:
    """Handle a SUBSCRIBE of the client: forward the filters that it may have, answer at once where it may have none."""
    codec = connection.terms.codec
    asked = codec.subscribe(packet)
    _bounded(connection)
    limit = connection.limits.max_subscriptions
    granted: dict[str, int] = {}  # -> options (3.8.3.1) with the QoS that is granted
    places: dict[str, list[int]] = {}
    codes = bytearray()
    for place, ((filter_, qos), options) in enumerate(zip(asked.filters[:limit], asked.options, strict=False)):
        decision = _decide(connection, filter_, qos, granted)
        if decision.allowed:
            granted.pop(filter_, None)  # a filter that stands twice is asked once, with its last options
            granted[filter_] = options & ~0x03 | min(qos, decision.qos)
            places.setdefault(filter_, []).append(place)
        else:
            connection.denied(Action.SUBSCRIBE, filter_, decision)
        codes.append(_refusal(connection, filter_, decision))
    if len(asked.filters) > limit:
        codes.append(suback_code5(Reason.SUBSCRIPTION_LIMIT))
        connection.denied(Action.SUBSCRIBE, asked.filters[limit][0], _TOO_MANY)
    if not granted:
        _answer(connection, asked.packet_id, PendingSubscribe(len(asked.filters), codes, (), ()))
        return
    forwarded = [(filter_, options & 0x03) for filter_, options in granted.items()]
    known = [filter_ for filter_ in granted if filter_ in connection.state.subscriptions]
    if known and not connection.capabilities.deduplicates_subscriptions:
        unsubscribe_upstream(connection, known)
    pending = PendingSubscribe(len(asked.filters), codes, forwarded, [places[filter_] for filter_ in granted])
    connection.requests.subscribing(asked.packet_id, pending)
    upstream = connection.terms.upstream_codec
    connection.link.write(upstream.encode_subscribe(asked.packet_id, granted.items(), asked.properties))


def _refusal(connection: ClientConnection, filter_: str, decision: Decision) -> int:
    """Return the code (5.0, 3.9.3) of a filter that was denied."""
    if filter_.startswith("$share/"):
        try:
            shared_filter(filter_)
        except InvalidInput:  # 4.8.2
            return wire.reason_codes.TOPIC_FILTER_INVALID
        if not connection.capabilities.shared_subscriptions:
            return wire.reason_codes.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
    return suback_code5(decision.reason)


def _answer(connection: ClientConnection, packet_id: int, pending: PendingSubscribe, properties: bytes = b"") -> None:
    codes = pending.codes + bytes((pending.codes[-1],)) * (pending.size - len(pending.codes))
    codec = connection.terms.codec
    packet = codec.encode_suback(packet_id, codes, properties)
    connection.send(packet, lambda: codec.encode_suback(packet_id, codes))


_TOO_MANY = Decision(allowed=False, reason=Reason.SUBSCRIPTION_LIMIT, rule=None)
_NOT_HERE = Decision(allowed=False, reason=Reason.NO_RULE_MATCHES, rule=None)


def _decide(connection: ClientConnection, filter_: str, qos: int, granted: dict[str, int]) -> Decision:
    if filter_.count("/") >= connection.limits.max_topic_levels:
        return _TOO_MANY
    if filter_.startswith("$share/"):
        if not connection.capabilities.shared_subscriptions:  # never passed on as a literal
            return _NOT_HERE
    elif not connection.capabilities.carries(filter_):
        return _NOT_HERE
    decision = connection.grant.decide(Action.SUBSCRIBE, filter_, qos=qos, deliveries_checked=True)
    if decision.allowed and filter_ not in granted and filter_ not in connection.state.subscriptions:
        held = len(connection.state.subscriptions) + connection.requests.filters
        if held + len(granted) >= connection.limits.max_subscriptions:
            return _TOO_MANY
    return decision


def unsubscribe(connection: ClientConnection, packet: bytes) -> None:
    """Handle an UNSUBSCRIBE of the client."""
    asked = connection.terms.codec.unsubscribe(packet)
    _bounded(connection)
    filters = dict.fromkeys(asked.filters)
    for filter_ in filters:
        connection.state.subscriptions.pop(filter_, None)
    for pending in connection.requests.pending_subscribes():
        pending.unsubscribed.update(filter_ for filter_, _ in pending.forwarded if filter_ in filters)
    forwarded: Sequence[str] = asked.filters  # 5.0: the UNSUBACK has a code for each, so each is asked
    if not connection.terms.is5:
        forwarded = [filter_ for filter_ in filters if connection.capabilities.carries(filter_)]
    if not forwarded:
        connection.write(wire.encode_unsuback(asked.packet_id))
        return
    connection.requests.unsubscribing(asked.packet_id, own=False)
    upstream = connection.terms.upstream_codec
    connection.link.write(upstream.encode_unsubscribe(asked.packet_id, forwarded, asked.properties))


def _bounded(connection: ClientConnection) -> None:
    limit = connection.limits.max_subscriptions
    if connection.requests.count >= limit or connection.requests.filters >= REPEATED * limit:
        raise MalformedPacket("3.8.4", f"more than {limit} SUBSCRIBE and UNSUBSCRIBE packets without answer")


def unsubscribed(connection: ClientConnection, packet: bytes) -> None:
    """Handle an UNSUBACK of the upstream: the client's own goes to it."""
    unsuback = connection.terms.upstream_codec.unsuback(packet)
    if connection.requests.unsubscribed(unsuback.packet_id) is False:
        codec = connection.terms.codec
        connection.send(packet, lambda: codec.encode_unsuback(unsuback.packet_id, unsuback.codes))


def answered(connection: ClientConnection, packet: bytes) -> None:
    """Handle a SUBACK of the upstream: merged with what was answered here it goes to the client."""
    suback = connection.terms.upstream_codec.suback(packet)
    pending = connection.requests.subscribed(suback.packet_id)
    if pending is None:
        return
    if len(suback.codes) != len(pending.forwarded):
        raise MalformedPacket("3.9.3", "the upstream's SUBACK has another number of codes than the SUBSCRIBE")
    live: list[tuple[str, int]] = []
    taken_back: list[str] = []
    for (filter_, _), places, upstream_code in zip(pending.forwarded, pending.places, suback.codes, strict=True):
        code = upstream_code
        if filter_ in pending.withdrawn:
            taken_back.append(filter_)
            code = wire.reason_codes.NOT_AUTHORIZED
        elif code < wire.SUBACK_REFUSED and filter_ not in pending.unsubscribed:
            connection.state.subscriptions[filter_] = code
            live.append((filter_, code))
        for place in places:
            pending.codes[place] = code
    _answer(connection, suback.packet_id, pending, suback.properties)
    if taken_back:
        wanted = _wanted(connection)
        unsubscribe_upstream(connection, [filter_ for filter_ in taken_back if filter_ not in wanted])
    if live and connection.is_open:
        connection.link.subscribed(live)


def _wanted(connection: ClientConnection) -> set[str]:
    """Return the filters that are subscribed again by a SUBSCRIBE that still waits for its answer."""
    return {
        filter_
        for pending in connection.requests.pending_subscribes()
        for filter_, _ in pending.forwarded
        if filter_ not in pending.withdrawn
    }


def unsubscribe_upstream(connection: ClientConnection, filters: Sequence[str]) -> None:
    """Take filters back in the client's name; the answer is swallowed."""
    for filter_ in filters:
        connection.state.subscriptions.pop(filter_, None)
    for first in range(0, len(filters), FILTERS_PER_UNSUBSCRIBE):
        packet_id = connection.requests.free_id(connection.state)
        connection.requests.unsubscribing(packet_id, own=True)
        some = filters[first : first + FILTERS_PER_UNSUBSCRIBE]
        connection.link.write(connection.terms.upstream_codec.encode_unsubscribe(packet_id, some))


def drop_uncovered(connection: ClientConnection) -> None:
    """Take back every filter that the grant does not cover any more, those without a SUBACK yet included."""

    def covered(filter_: str, qos: int) -> bool:
        return connection.grant.decide(Action.SUBSCRIBE, filter_, qos=qos, deliveries_checked=True).allowed

    held = connection.state.subscriptions
    unsubscribe_upstream(connection, [filter_ for filter_, qos in held.items() if not covered(filter_, qos)])
    for pending in connection.requests.pending_subscribes():
        pending.withdrawn.update(filter_ for filter_, qos in pending.forwarded if not covered(filter_, qos))
