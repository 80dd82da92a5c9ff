"""amqtt in this process, behind the gate: through `ListenerType.EXTERNAL` and `Broker.external_connected`, in memory.

What is relied on in amqtt 0.12 and what is done about the rest is tested line by line in
``tests/broker/embedded/``. What it cannot promise stands in ``docs/brokers/amqtt.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

import structlog
from amqtt.errors import AMQTTError

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.config_file import check_amqtt_config
from broker.embedded.bounds import BoundedQueue, LogFilter
from broker.embedded.broker import GATE_AUTH, GateBroker
from broker.embedded.feeding import CONGESTED_RETRY_S, Feeder
from broker.embedded.link import EmbeddedLink
from broker.retained import Retained, RetainedStore
from broker.upstream import HELLO, Capabilities, Hello, LinkOwner

log = structlog.get_logger(__name__)

LISTENER = "default"
CONNECT_WITHIN_S = 5.0
END_WITHIN_S = 5.0  # after its end of file; then the task of a session is cancelled
MANY_FILTERS = 500  # some hundred devices: what one process without a disk is meant for


class _Nobody:
    """Owner of a connection that is made only to wipe a session."""

    def upstream_received(self, data: bytes) -> None: ...

    def upstream_closed(self, error: Exception | None) -> None: ...

    def pause_client(self) -> None: ...

    def resume_client(self) -> None: ...


class AmqttUpstream:
    """amqtt, reachable through the gate only. `config` is its configuration without listeners of its own.

    `dropped` counts QoS 0 messages not delivered to slow clients, `unacknowledged` deliveries of QoS 1 and 2 that got
    no answer in time and are not sent again.
    """

    capabilities: Capabilities = Capabilities(
        name="amqtt",
        retained=False,
        shared_subscriptions=False,
        durable=False,
        mqtt5=False,
        answers_pubrel=False,
        deduplicates_subscriptions=True,  # `replace_subscription` sees to it
        dollar_topics=False,
    )

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        max_retained: int = 10_000,
        max_retained_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self._config = dict(config or {})
        check_amqtt_config(self._config, where="amqtt configuration")
        self._kept = RetainedStore(max_messages=max_retained, max_bytes=max_retained_bytes)
        self._broker: GateBroker | None = None
        self._links: dict[str, EmbeddedLink] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.feeder = Feeder()
        self._lines = LogFilter()
        self._warned = False
        self.dropped = 0

    @property
    def unacknowledged(self) -> int:
        """Deliveries that were given up after 5 s without an answer."""
        return self._lines.unacknowledged + (0 if self._broker is None else self._broker.given_up)

    @property
    def reachable(self) -> bool:
        """Whether amqtt runs."""
        return self._broker is not None

    @property
    def broker(self) -> GateBroker:
        """The broker itself, for tests and measurements. Raises UpstreamUnavailable before `start`."""
        if self._broker is None:
            raise UpstreamUnavailable("amqtt is not running")
        return self._broker

    # --- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start amqtt with one external listener and our plugin in front of those configured."""
        self._lines.install()
        plugins = self._config.get("plugins") or {}
        config = {
            **self._config,
            "listeners": {LISTENER: {"type": "external", "bind": "gate"}},
            "plugins": {GATE_AUTH: {}, **plugins},
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of amqtt about its own plugins
            broker = GateBroker(config)
        await broker.start()
        self._broker = broker
        self.feeder.begin(broker)

    async def stop(self) -> None:
        """End every link, then amqtt. Sessions, queues and retained messages are gone."""
        broker, self._broker = self._broker, None
        for link in list(self._links.values()):
            link.abort()
        self.feeder.end()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=END_WITHIN_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if broker is not None:
            with contextlib.suppress(TimeoutError, AMQTTError):
                await asyncio.wait_for(broker.shutdown(), END_WITHIN_S)
        self._lines.remove()

    # --- sessions --------------------------------------------------------------------------------------------

    async def connect(
        self,
        owner: LinkOwner,
        upstream_id: str,
        *,
        clean: bool,
        hello: Hello = HELLO,  # noqa: ARG002 - nothing of it says anything to a broker of 3.1.1 in this process
    ) -> EmbeddedLink:
        """Connect one session, after an older connection of its id has gone. When it raises the owner is not called."""
        while (old := self._links.get(upstream_id)) is not None:
            old.abort()
            await old.wait_closed()
        broker = self.broker
        broker.retained_messages.clear()  # a plugin may have put one there; it would go to whoever connects
        link = EmbeddedLink(self, owner, upstream_id, clean=clean)
        self._links[upstream_id] = link
        self._own(asyncio.create_task(self._serve(broker, link), name=f"amqtt session {upstream_id}"))
        link.reader.feed(wire.encode_connect(client_id=upstream_id, clean_session=clean))
        try:
            code = (await asyncio.wait_for(asyncio.shield(link.answer), CONNECT_WITHIN_S)).code
            session, handler = broker.sessions[upstream_id]
        except (TimeoutError, KeyError) as error:
            link.abort()
            raise UpstreamUnavailable("amqtt did not answer the connection in time") from error
        except BaseException:
            link.abort()
            raise
        if code != 0:
            link.abort()
            raise UpstreamUnavailable(f"amqtt refused the session with code {code}")
        if not isinstance(session.retained_messages, BoundedQueue):
            session.retained_messages = BoundedQueue()
        link.opened(session, handler)
        return link

    def postponed(self, owner: LinkOwner, upstream_id: str, *, hello: Hello = HELLO) -> None:
        """Nothing is postponed: amqtt is here, and keeps count of its sessions."""

    async def _serve(self, broker: GateBroker, link: EmbeddedLink) -> None:
        """Run one connection of amqtt's to its end, whichever way that comes, and leave nothing of it behind."""
        error: Exception | None = None
        serving = link.serving = asyncio.ensure_future(broker.external_connected(link.reader, link.writer, LISTENER))
        try:
            await asyncio.wait({serving})
            if serving.cancelled():
                error = UpstreamUnavailable("amqtt did not end the session")
                log.warning("amqtt_session_stuck", upstream_id=link.upstream_id)
            elif (problem := serving.exception()) is not None:
                error = UpstreamUnavailable(f"amqtt failed on the session: {type(problem).__name__}")
                log.warning("amqtt_session_failed", upstream_id=link.upstream_id, problem=type(problem).__name__)
        except asyncio.CancelledError:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            raise
        finally:
            link.reader.feed_eof()
            await self._let_go(broker, link)
            self._links.pop(link.upstream_id, None)
            self.feeder.forget(link)
            if not link.answer.done():
                link.answer.set_exception(UpstreamUnavailable("amqtt ended the connection before its CONNACK"))
                link.answer.exception()
            link.over(error)

    async def _let_go(self, broker: GateBroker, link: EmbeddedLink) -> None:
        session, handler = broker.sessions.get(link.upstream_id, (None, None))
        if session is None or handler is None:
            return
        if session.transitions.state == "connected":  # amqtt left its loop without ending the session
            with contextlib.suppress(Exception):
                await asyncio.wait_for(handler.stop(), END_WITHIN_S)
            session.transitions.disconnect()
        if link.clean:
            broker.sessions.pop(link.upstream_id, None)
            session.clear_queues()
            for filter_ in link.filters:
                entries = broker.subscriptions.get(filter_, [])
                entries[:] = [entry for entry in entries if entry[0].client_id != link.upstream_id]
                self.forget_empty(filter_)

    def end_again(self, upstream_id: str) -> None:
        """Tell amqtt once more that a connection has ended."""
        _, handler = self.broker.sessions.get(upstream_id, (None, None)) if self._broker else (None, None)
        if handler is not None:
            self._own(asyncio.create_task(handler.handle_connection_closed(), name=f"amqtt end {upstream_id}"))

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def clear_session(self, upstream_id: str) -> None:
        """Connect clean and end: amqtt deletes session, subscriptions and queue."""
        link = await self.connect(_Nobody(), upstream_id, clean=True)
        link.close()
        await link.wait_closed()

    # --- messages of the gate's own --------------------------------------------------------------------------

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool,
        properties: bytes = b"",  # noqa: ARG002 - amqtt speaks 3.1.1
    ) -> None:
        """Route a message; amqtt delivers it with the QoS of each subscription. `$` topics go nowhere."""
        if topic.startswith("$"):
            return
        deadline = asyncio.get_running_loop().time() + CONNECT_WITHIN_S
        while self.feeder.congested():
            if asyncio.get_running_loop().time() > deadline:
                raise UpstreamUnavailable("amqtt is too busy to take a message")
            await asyncio.sleep(CONGESTED_RETRY_S)
        if retain:
            self.retain(topic, payload, qos=qos)
        await self.broker.internal_message_broadcast(topic, payload)

    def retain(self, topic: str, payload: bytes, *, qos: int) -> None:
        """Keep a retained message, or clear it with an empty payload."""
        self._kept.set(topic, payload, qos)

    async def clear_retained(self, place: str) -> None:
        """Clear what is retained at `place` and below."""
        self._kept.clear_below(place)

    def retained(self, filter_: str) -> list[Retained]:
        """Return the retained messages that match."""
        return self._kept.match(filter_)

    # --- subscriptions ---------------------------------------------------------------------------------------

    def replace_subscription(self, upstream_id: str, filter_: str, qos: int) -> None:
        """Let a repeated filter take its new QoS (MQTT-3.8.4-3), which amqtt answers but does not do."""
        entries = self.broker.subscriptions.get(filter_, [])
        for index, (session, old) in enumerate(entries):
            if session.client_id == upstream_id:
                if old != qos:
                    entries[index] = (session, qos)
                break
        if not self._warned and len(self.broker.subscriptions) > MANY_FILTERS:
            self._warned = True
            log.warning(
                "amqtt_many_filters",
                filters=len(self.broker.subscriptions),
                advice="amqtt keeps nothing over a restart; for many devices use another broker: --upstream HOST:PORT",
            )

    def forget_empty(self, filter_: str) -> None:
        """Remove a filter that nobody holds any more; amqtt goes on comparing every message with it."""
        if self._broker is not None and self._broker.subscriptions.get(filter_) == []:
            del self._broker.subscriptions[filter_]
