"""What amqtt gets from us: the one authentication plugin, answers that are known without asking, and shorter ways.

amqtt makes a task of every packet, another of every delivery, waits for four futures per message and compares each
with every filter. `GateBroker` takes the messages of QoS 0 and 1 past that, by amqtt's own tables of sessions and
subscriptions and through its queue, so that they keep their order with all others. Everything else, and every message
as soon as a loaded plugin listens to messages or packets, goes amqtt's way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.errors import AMQTTError, NoDataError
from amqtt.events import BrokerEvents, MQTTEvents
from amqtt.mqtt.connect import ConnectPacket
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from broker import wire
from broker.embedded.filters import FilterTable
from broker.embedded.session import GateHandler, GateSession

GATE_AUTH = "broker.embedded.broker.GateAuth"
DELIVERIES_PER_TURN = 256  # then others get a turn of the loop

_HEARD = (
    BrokerEvents.MESSAGE_RECEIVED,
    BrokerEvents.MESSAGE_BROADCAST,
    MQTTEvents.PACKET_RECEIVED,
    MQTTEvents.PACKET_SENT,
)
_log = logging.getLogger("amqtt.broker")


class GateAuth(BaseAuthPlugin):  # type: ignore[misc]
    """Says yes: whoever reaches amqtt came through the gate. Leaves `is_anonymous` false, or there were no queue."""

    async def authenticate(self, *, session: Session) -> bool:  # noqa: ARG002
        """Return True."""
        return True


class GateBroker(Broker):  # type: ignore[misc]
    """amqtt with shorter ways; `short` says whether messages take them. `given_up` counts deliveries without answer,
    `queued_bytes` is the size of the payloads that wait.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._subscriptions = FilterTable()
        callbacks = self.plugins_manager._event_plugin_callbacks  # noqa: SLF001
        self.short = not any(callbacks.get(event) for event in _HEARD)
        self.given_up = 0
        self.queued_bytes = 0

    # --- answers without asking ------------------------------------------------------------------------------

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:  # noqa: ARG002
        """Return True: the gate has decided, and no topic plugin is loaded."""
        return True

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Send nothing: amqtt holds no retained message. Its own would go to whoever connects, subscribed or not."""

    # --- sessions --------------------------------------------------------------------------------------------

    async def _publish_session_retained_messages(self, session: Session) -> None:
        """Send a resumed session its queue, and wait for no answer.

        amqtt routes nothing of what the client publishes before the whole queue is acknowledged, or given up after 5 s:
        of a client that goes meanwhile it would lose messages that it has acknowledged, the will among them.
        """
        waiting = session.retained_messages
        handler = self._get_handler(session)
        while handler is not None and not waiting.empty():
            message = waiting.get_nowait()
            if self.short and message.qos == 1:
                handler.deliver_acknowledged(_head(message.topic, message.data), message.data)
            else:
                self._start_delivery(handler, message.topic, message.data, message.qos)

    def _start_delivery(self, handler: GateHandler, topic: str, payload: bytes, qos: int) -> None:
        """Deliver amqtt's way: a task, of which the loop that broadcasts asks what became of it."""
        delivery = handler.mqtt_publish(topic, payload, qos, retain=False)
        self._tasks_queue.append(asyncio.ensure_future(delivery))

    async def _initialize_client_session(
        self,
        reader: ReaderAdapter,
        writer: WriterAdapter,  # noqa: ARG002
        remote_address: str,
        remote_port: int,
    ) -> tuple[GateHandler, Session]:
        """Make or find the session of a CONNECT, which the gate has written: no will, no credentials, keep-alive 0."""
        try:
            connect = await ConnectPacket.from_stream(reader)
        except NoDataError as error:
            raise AMQTTError("the connection ended before its CONNECT") from error
        await self.plugins_manager.fire_event(MQTTEvents.PACKET_RECEIVED, packet=connect)
        session, _ = self._sessions.get(connect.client_id, (None, None))
        if connect.clean_session_flag and session is not None:
            await self._delete_session(connect.client_id)
            session = None
        parent = 0 if session is None else 1
        if session is None:
            session = GateSession()
            session.client_id = connect.client_id
            session.clean_session = connect.clean_session_flag
            session.remote_address, session.remote_port = remote_address, remote_port
        session.parent = parent
        handler = GateHandler(self.plugins_manager, loop=self._loop)
        handler.given_up = self._count_given_up
        return handler, session

    def _count_given_up(self, count: int) -> None:
        self.given_up += count

    # --- messages --------------------------------------------------------------------------------------------

    def route(self, session: Session | None, topic: str, payload: bytes) -> None:
        """Queue a message behind those that wait; it goes out with the QoS of each subscription."""
        self.queued_bytes += len(payload)
        self._broadcast_queue.put_nowait({"session": session, "topic": topic, "data": payload})

    async def _broadcast_message(
        self, session: Session | None, topic: str | None, data: bytes | bytearray | None, force_qos: int | None = None
    ) -> None:
        """Queue a message that came amqtt's way, or from a plugin."""
        self.queued_bytes += len(data or b"")
        await super()._broadcast_message(session, topic, data, force_qos)

    async def _run_broadcast(self, running_tasks: deque[asyncio.Task[Any]]) -> None:
        """Deliver the next message, and those that wait behind it as far as one turn of the loop should."""
        if not self.short:
            await super()._run_broadcast(running_tasks)
            self.queued_bytes = 0  # not known message by message; their number is
            return
        message = await self._broadcast_queue.get()
        left = DELIVERIES_PER_TURN
        while True:
            left -= 1
            self.queued_bytes -= len(message["data"] or b"")
            targets = self._subscriptions.matching(message["topic"])
            if targets:
                left = await self._deliver(message, [entry for entries in targets for entry in entries], left)
            if left <= 0 or self._broadcast_queue.empty():
                return
            message = self._broadcast_queue.get_nowait()

    async def _deliver(self, message: dict[str, Any], targets: list[tuple[Session, int]], left: int) -> int:
        """Deliver to each target, and pause when none of this turn's deliveries is `left`; return what is left."""
        topic, payload, forced = message["topic"], message["data"], message.get("qos")
        plain = head = b""  # the QoS 0 packet, and the QoS 1 packet up to its packet id
        for session, subscribed in targets:
            if left <= 0:
                await asyncio.sleep(0)
                left = DELIVERIES_PER_TURN
            left -= 1
            qos = subscribed if forced is None else forced
            try:
                if session.transitions.state != "connected":
                    if qos and not session.clean_session and not session.is_anonymous:
                        await self._retain_broadcast_message(message, qos, session)
                    continue
                handler = self._get_handler(session)
                if not isinstance(handler, GateHandler) or qos > 1:
                    if handler is not None:
                        self._start_delivery(handler, topic, payload, qos)
                elif qos:
                    head = head or _head(topic, payload)
                    handler.deliver_acknowledged(head, payload)
                else:
                    plain = plain or wire.encode_publish(topic, payload, qos=0)
                    handler.deliver(plain)
            except Exception:  # noqa: BLE001  # of one receiver: the others get the message all the same
                _log.exception("amqtt_delivery_failed")
        return left


def _head(topic: str, payload: bytes) -> bytes:
    """Return a QoS 1 PUBLISH up to its packet id."""
    packet = wire.encode_publish(topic, payload, qos=1, packet_id=1)
    return packet[: len(packet) - len(payload) - 2]
