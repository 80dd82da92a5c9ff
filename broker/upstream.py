"""What stands behind the gate, in one interface: amqtt in this process (`embedded`), any broker by TCP (`tcp`).

The gate writes whole packets into a `Link` and is called back with whatever bytes the broker sends. It never blocks on
either: backpressure is passed on by `pause_client`/`resume_client` and `pause`/`resume`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from broker.wire import MQTT_3_1_1, Connack


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the broker behind the gate can do, and what the gate must do in its place."""

    name: str
    retained: bool  # keeps retained messages itself; otherwise the gate takes the flag off and keeps them
    shared_subscriptions: bool  # understands `$share/group/filter`; otherwise such a filter is refused
    durable: bool  # persistent sessions survive a restart of the broker
    mqtt5: bool
    answers_pubrel: bool  # answers a PUBREL whose id it does not know; otherwise the gate does
    dollar_topics: bool = True  # a PUBLISH to a `$` topic is routed; otherwise the gate must not pass one on
    deduplicates_subscriptions: bool  # a repeated filter replaces the old one; otherwise UNSUBSCRIBE goes before it

    def carries(self, topic: str) -> bool:
        """Whether a topic, or a filter that is not shared, may be passed on: not a `$` one where none are routed."""
        return self.dollar_topics or not topic.startswith("$")


class Hello(NamedTuple):
    """What of a client's CONNECT goes upstream beside the upstream id and clean session (clean start).

    Everything but `level` and `peer` is for MQTT 5.0 only. No topic alias is ever offered to the broker: aliases are
    hop-local (3.3.2.3.4), and the gate resolves the client's own.
    """

    level: int = MQTT_3_1_1  # the protocol level to speak: 5 where the client and the broker do, else 4
    session_expiry_s: int = 0  # 3.1.2.11.2; 0xFFFFFFFF is never
    receive_maximum: int = 65_535  # 3.1.2.11.3, the client's
    maximum_packet_size: int | None = None  # 3.1.2.11.4, the client's, or what fits its buffer if that is less
    request_problem_information: bool = True  # 3.1.2.11.7
    request_response_information: bool = False  # 3.1.2.11.6
    peer: tuple[str, int] | None = None  # address and port of the client, for the PROXY protocol


HELLO = Hello()


class LinkOwner(Protocol):
    """The side of the client connection that a link calls back; all calls are synchronous and on the loop."""

    def upstream_received(self, data: bytes) -> None:
        """Take bytes from the broker; packets may be cut anywhere."""

    def upstream_closed(self, error: Exception | None) -> None:
        """The broker's side has ended; called exactly once, also after `Link.close` and `Link.abort`."""

    def pause_client(self) -> None:
        """The link has enough to send: stop reading from the client."""

    def resume_client(self) -> None:
        """Read from the client again."""


class Link(Protocol):
    """One upstream connection, past its CONNACK, which `connack` is as parsed; `session_present` is its flag."""

    session_present: bool
    connack: Connack
    used: bool  # False while the broker has not heard of the session: it ends with `close`, at once

    def write(self, data: bytes) -> None:
        """Send whole packets; never waits."""

    def pause(self) -> None:
        """Stop delivering to the owner (the client is slow)."""

    def resume(self) -> None:
        """Deliver again."""

    def subscribed(self, filters: Sequence[tuple[str, int]]) -> None:
        """Tell the link that the SUBACK for these granted (filter, qos) went to the client: an upstream without
        retained messages now sends those that match, as PUBLISH packets with the retain flag through the owner.
        """

    def close(self) -> None:
        """End in order: what was written is still sent, then the connection closes. No DISCONNECT is added."""

    def abort(self) -> None:
        """End now; what is buffered may be lost."""

    async def wait_closed(self) -> None:
        """Return when the broker has let go of the session: only then may its id be connected again."""


class Upstream(Protocol):
    """The broker. `start` before use; `stop` ends every link."""

    capabilities: Capabilities

    @property
    def reachable(self) -> bool:
        """Whether a new link can be expected to work (service connection up)."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def connect(self, owner: LinkOwner, upstream_id: str, *, clean: bool, hello: Hello = HELLO) -> Link:
        """Connect one session: no will, no credentials of the client, keep-alive 0.

        `hello.level` is 5 only where `capabilities.mqtt5` is true.

        Raises:
            UpstreamUnavailable: not reachable, refused, or no CONNACK within the time limit.
        """

    def postponed(self, owner: LinkOwner, upstream_id: str, *, hello: Hello = HELLO) -> Link | None:
        """Return a link of a clean session that ends with its connection, which connects when it is first written to.

        None where such a session must be connected first: the broker is not known to be there, or what it will answer
        is not known.
        """

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, properties: bytes = b"") -> None:
        """Publish on the gate's own service connection (wills whose link is gone). Raises UpstreamUnavailable.

        `properties` is the property section of an MQTT 5.0 PUBLISH without its length; a broker or a service
        connection that speaks 3.1.1 goes without it.
        """

    def retain(self, topic: str, payload: bytes, *, qos: int) -> None:
        """Keep (or, with an empty payload, clear) a retained message in place of the broker.

        Called by the gate only where `capabilities.retained` is false; the PUBLISH itself then goes on without flag.
        """

    async def clear_session(self, upstream_id: str) -> None:
        """Wipe a persistent session and its queue: clean CONNECT, DISCONNECT. Raises UpstreamUnavailable."""

    async def clear_retained(self, place: str) -> None:
        """Clear every retained message at `place`, a topic without wildcards, and below it.

        Raises:
            UpstreamUnavailable: not reachable, or not all could be cleared; call it again.
        """
