"""Any MQTT broker behind the gate, on a private listener: `authsvc up --upstream HOST:PORT`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import structlog

from authsvc.core.errors import UpstreamUnavailable
from broker import proxy_protocol, wire
from broker.tcp.dial import Dial, open_link
from broker.tcp.lazy import LazyLink
from broker.tcp.link import TcpLink
from broker.tcp.publisher import Publisher
from broker.tcp.service import Conversation, ServiceConnection
from broker.upstream import HELLO, Capabilities, Hello, Link, LinkOwner

log = structlog.get_logger(__name__)

MOSQUITTO = Capabilities(
    name="tcp",
    retained=True,
    shared_subscriptions=True,
    durable=True,
    mqtt5=False,
    answers_pubrel=True,
    deduplicates_subscriptions=True,
)
CLEAR_ROUNDS = 100  # a broker may send only part of what it retains in one go
QUIET_S = 0.1  # without another retained message: that was all of this round
# Links that are being opened at once: when a broker is back, thousands of clients come in the same second.
OPENS_AT_ONCE = 128
CONNACK = wire.Connack(session_present=False, code=0)  # of 3.1.1, where it says no more


UNKNOWN_PROTOCOL = (0x01, 0x84)  # unacceptable protocol version: of 3.1.1 (3.2.2.3) and of 5.0 (3.2.2.2)


class _Refused(UpstreamUnavailable):
    """The broker answered CONNECT with this code."""

    def __init__(self, address: str, code: int) -> None:
        super().__init__(f"the broker at `{address}` refused the session with code {code}")
        self.code = code


class TcpUpstream:
    """A broker reached by `dial` (or, shorter, by `host` and `port`, or by the Unix socket `path`).

    `capabilities` says what that broker does; those of Mosquitto are the default. `mqtt5` ``auto`` asks the broker
    whenever the service connection is made, ``yes`` and ``no`` are believed. `dial5` is where it speaks MQTT 5.0, if
    that is another address.

    While the service connection knows the broker to be away, a session is refused at once.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 1883,
        *,
        path: Path | None = None,
        dial: Dial | None = None,
        dial5: Dial | None = None,
        capabilities: Capabilities = MOSQUITTO,
        mqtt5: Literal["auto", "yes", "no"] = "auto",
        connect_timeout_s: float = 5.0,
        ping_interval_s: float = 5.0,
        opens_at_once: int = OPENS_AT_ONCE,
    ) -> None:
        self.capabilities = capabilities if mqtt5 == "auto" else replace(capabilities, mqtt5=mqtt5 == "yes")
        self._asks = mqtt5 == "auto"
        self._dial = dial or Dial(host=host, port=port, path=path)
        self._dial5 = dial5
        self._timeout_s = connect_timeout_s
        self._links: dict[str, TcpLink] = {}
        self._opening = asyncio.Semaphore(opens_at_once)
        self._connack5: wire.Connack | None = None  # what the broker last said of itself in 5.0
        self._postponed: set[LazyLink] = set()  # those that nothing was written to
        self._opens = True  # whether the last link that was opened could be
        self._service = ServiceConnection(
            self._connect_service,
            lambda: self.address,
            ping_interval_s=ping_interval_s,
            answer_within_s=connect_timeout_s,
            connected=self._ask_mqtt5,
            lost=self._end_postponed,
        )
        self._publishers = {
            level: Publisher(self._connect_publisher, level, answer_within_s=connect_timeout_s)
            for level in (wire.MQTT_3_1_1, wire.MQTT_5_0)
        }

    @property
    def address(self) -> str:
        """Where the broker is, for messages."""
        return self._dial.address

    @property
    def reachable(self) -> bool:
        """Whether the service connection is up and its last ping was answered."""
        return self._service.up

    async def start(self) -> None:
        """Start the service connection; return after its first attempt, whether it succeeded or not."""
        await self._service.start()

    async def stop(self) -> None:
        """End every link and the service connection."""
        for publisher in self._publishers.values():
            await publisher.stop()
        await self._service.stop()
        self._end_postponed()
        links = list(self._links.values())
        for link in links:
            link.abort()
        for link in links:
            await link.wait_closed()

    async def connect(self, owner: LinkOwner, upstream_id: str, *, clean: bool, hello: Hello = HELLO) -> Link:
        """Connect one session. When it raises, the owner is not called."""
        self._raise_if_away()
        while (old := self._links.get(upstream_id)) is not None:
            old.abort()
            await old.wait_closed()
        async with self._opening:
            self._raise_if_away()  # while it waited for its turn
            return await self._connect(owner, upstream_id, clean=clean, hello=hello)

    def postponed(self, owner: LinkOwner, upstream_id: str, *, hello: Hello = HELLO) -> Link | None:
        """Return a link that connects when it is first written to, or None where that is not possible."""
        connack = self._connack5 if hello.level == wire.MQTT_5_0 else CONNACK
        if connack is None or not (self._service.up and self._opens) or hello.request_response_information:
            return None

        connect = partial(self.connect, owner, upstream_id, clean=True, hello=hello)
        within_s = 2 * self._timeout_s  # its turn, then the opening
        link = LazyLink(owner, connack, connect, within_s=within_s, decided=self._postponed.discard)
        self._postponed.add(link)
        return link

    def _end_postponed(self) -> None:
        """The broker has gone, and with it all sessions: also those that it had not heard of yet."""
        for link in list(self._postponed):
            link.abort(UpstreamUnavailable("the broker went away"))

    def _raise_if_away(self) -> None:
        if self._service.away:
            raise UpstreamUnavailable(f"no broker at `{self.address}`; it is tried again within seconds")

    async def _connect_service(self, owner: LinkOwner, upstream_id: str) -> Link:
        """Connect the gate's own session: past the queue, and also while the broker is thought to be away."""
        return await self._connect(owner, upstream_id, clean=True, hello=HELLO)

    async def _connect_publisher(self, owner: LinkOwner, hello: Hello) -> Link:
        self._raise_if_away()
        return await self._connect(owner, ServiceConnection.new_id(), clean=True, hello=hello)

    async def _connect(self, owner: LinkOwner, upstream_id: str, *, clean: bool, hello: Hello) -> TcpLink:
        dial = self._dial5 if self._dial5 is not None and hello.level == wire.MQTT_5_0 else self._dial
        header = proxy_protocol.encode(hello.peer) if dial.proxy_protocol else b""
        before_tls, begin = (header, b"") if dial.tls is not None else (b"", header)
        link = TcpLink(owner, upstream_id, clean=clean, gone=self._gone, hello=hello, login=dial.login, begin=begin)
        self._links[upstream_id] = link
        connected = answered = False
        try:
            async with asyncio.timeout(self._timeout_s):
                await open_link(dial, link, before_tls)
                connected = True
                code = (await link.answer).code
            answered = True
        except OSError as error:  # TimeoutError and TLS among them
            self._opens = False
            raise UpstreamUnavailable(f"no broker at `{dial.address}`: {error or 'no answer in time'}") from error
        finally:
            if not connected:
                self._gone(link)
            elif not answered:  # or cancelled in the turn in which the answer came
                link.abort()
        if code != 0:
            link.abort()
            raise _Refused(dial.address, code)
        if (
            hello.level == wire.MQTT_5_0
            and clean
            and not hello.session_expiry_s
            and not hello.request_response_information
        ):
            self._connack5 = link.connack  # the same for every such session
        self._opens = True
        link.opened()
        return link

    async def _ask_mqtt5(self) -> None:
        """Learn whether the broker speaks MQTT 5.0: one that does not answers 5.0 with a refusal, or by closing."""
        if not self._asks:
            return
        talk = Conversation(self._timeout_s)
        try:
            link = await self._connect(talk, ServiceConnection.new_id(), clean=True, hello=Hello(level=wire.MQTT_5_0))
        except UpstreamUnavailable as error:
            if isinstance(error.__cause__, OSError):  # no answer is no answer: what was known stays
                return
            if isinstance(error, _Refused) and error.code not in UNKNOWN_PROTOCOL:  # full, or busy: it said nothing
                return
            speaks = False
        else:
            speaks = True
            link.write(wire.DISCONNECT_PACKET)  # 3.14.2.1: without a reason, that of 3.1.1 and 5.0 are one
            link.close()
        if speaks != self.capabilities.mqtt5:
            self.capabilities = replace(self.capabilities, mqtt5=speaks)
        log.info("upstream_mqtt5", address=self.address, spoken=speaks)

    def _gone(self, link: TcpLink) -> None:
        if self._links.get(link.upstream_id) is link:
            del self._links[link.upstream_id]

    # --- in the gate's own name ------------------------------------------------------------------------------

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool,
        properties: bytes = b"",
    ) -> None:
        """Publish on a connection of the gate's own; return when the broker has taken it."""
        level = wire.MQTT_5_0 if properties and self.capabilities.mqtt5 else wire.MQTT_3_1_1
        await self._publishers[level].publish(topic, payload, qos=qos, retain=retain, properties=properties)

    def retain(self, topic: str, payload: bytes, *, qos: int) -> None:
        """Nothing to do: the broker keeps retained messages itself."""

    async def clear_session(self, upstream_id: str) -> None:
        """Connect clean, which deletes the session (MQTT-3.1.2-6), and disconnect."""
        talk = Conversation(self._timeout_s)
        link = await self.connect(talk, upstream_id, clean=True)
        link.write(wire.DISCONNECT_PACKET)
        link.close()
        await link.wait_closed()

    async def clear_retained(self, place: str) -> None:
        """Clear what is retained at `place` and below: ask for it, and answer each topic with an empty message.

        Live subscribers see the empty messages: MQTT 3.1.1 knows no other way to clear one.
        """
        talk = Conversation(self._timeout_s)
        talk.link = await self.connect(talk, self._service.new_id(), clean=True)
        try:
            filters = ((place, 0), (f"{place}/#", 0))
            for _ in range(CLEAR_ROUNDS):
                topics = await talk.retained_topics(filters, quiet_s=QUIET_S)
                if not topics:
                    return
                for topic in topics:
                    await talk.publish(topic, b"", qos=1, retain=True)
            raise UpstreamUnavailable(f"the broker at `{self.address}` still retains messages below `{place}`")
        finally:
            talk.link.write(wire.DISCONNECT_PACKET)
            talk.link.close()
