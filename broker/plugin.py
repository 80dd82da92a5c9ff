"""The plugin for a stock amqtt: authentication and topic filtering, as far as amqtt asks. The gate promises more.

In amqtt's configuration::

    plugins:
      broker.plugin.AuthsvcPlugin:
        data: /var/lib/authsvc          # of an `authsvc serve` on this machine
        allow_stock_broker: true

Nothing but a plain True or False leaves a method here: an exception in amqtt's broadcast would cost all later
subscribers the message, and a None would ask another plugin.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from amqtt.contexts import Action as AmqttAction
from amqtt.contexts import BaseContext
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session as AmqttSession

from authsvc.core.credentials import ConnectRequest, WillMessage
from authsvc.core.errors import AuthsvcError, StoreUnavailable
from authsvc.core.facts import Refusal
from authsvc.core.policy import Action, Grant
from authsvc.core.reasons import Reason
from authsvc.service import Service
from authsvc.sessions import Session, Will
from authsvc.store import Store

log = structlog.get_logger(__name__)

DATABASE = "authsvc.db"
KEY = "authsvc.connection"  # of `amqtt.session.Session.attributes`
ADMISSIONS = 3

NOT_PROMISED = (
    "a stock amqtt cannot keep the promises of authsvc: whoever knows a client id can end its connection and delete "
    "its session with a wrong password; wills, retained and queued messages reach clients unchecked; there are no "
    "limits of time or size before authentication. `authsvc up --broker-config FILE` runs amqtt behind a gate "
    "that keeps them. To use the plugin all the same, set `allow_stock_broker: true`"
)

_ACTIONS = {
    AmqttAction.PUBLISH: Action.PUBLISH,
    AmqttAction.SUBSCRIBE: Action.SUBSCRIBE,
    AmqttAction.RECEIVE: Action.DELIVER,
}


class StockBrokerError(AuthsvcError):
    """The configuration does not say that it knows what a stock amqtt cannot promise."""


class _Connection:
    """A connection of amqtt's in the registry of sessions: it ends by its handler, and its rights end at once."""

    def __init__(self, plugin: AuthsvcPlugin, grant: Grant, client_id: str) -> None:
        self.grant: Grant | None = grant
        self.session: Session | None = None
        self._plugin = plugin
        self._client_id = client_id

    def end(self, reason: Reason, will: Will) -> None:  # noqa: ARG002 - amqtt alone decides about the will
        """Allow nothing any more, and ask amqtt to end the connection."""
        self.grant = None
        self._plugin.end(self._client_id, self)

    def swap(self, grant: Grant) -> None:
        """Judge by the new grant from now on; what is subscribed stays subscribed and is judged per delivery."""
        self.grant = grant

    async def wait_ended(self) -> None:
        """Return at once: amqtt tells no end."""


class AuthsvcPlugin(BaseAuthPlugin, BaseTopicPlugin):  # type: ignore[misc]
    """One authentication and topic plugin around a `Service` of its own on the data directory of `authsvc serve`."""

    @dataclass
    class Config:
        """Its section of amqtt's configuration."""

        data: str = "var"
        """Data directory, made by `authsvc serve`."""
        allow_stock_broker: bool = False
        """Whether the operator knows what a stock amqtt cannot promise."""

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        if self.config.allow_stock_broker is not True:
            log.error("stock_broker_not_allowed", problem=NOT_PROMISED)
            raise StockBrokerError(NOT_PROMISED)
        log.warning("stock_broker", problem=NOT_PROMISED)
        self.service: Service | None = None
        self._store: Store | None = None
        self._running: asyncio.Task[None] | None = None
        self._ends: set[asyncio.Task[None]] = set()

    # --- life ------------------------------------------------------------------------------------------------

    async def on_broker_pre_start(self) -> None:
        """Open the store; until that has succeeded everybody is refused."""
        path = Path(self.config.data) / DATABASE
        try:
            self._store = await Store.open(path, now_us=_now_us, create=False)
            service = Service(store=self._store, now_us=_now_us)
            await service.start()
        except StoreUnavailable as error:
            log.critical("store_unavailable", data=self.config.data, problem=str(error))
            return
        self._running = asyncio.create_task(service.run(), name="authsvc plugin")
        self.service = service

    async def close(self) -> None:
        """Stop what was started; nobody is admitted from now on."""
        self.service = None
        for task in (self._running, *self._ends):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._store is not None:
            await self._store.close()

    # --- amqtt asks ------------------------------------------------------------------------------------------

    async def authenticate(self, *, session: AmqttSession) -> bool:
        """Return whether the CONNECT is admitted; whatever goes wrong is a no."""
        session.is_anonymous = False
        former = session.attributes.pop(KEY, None)  # a no leaves no rights of whoever was here before
        try:
            connection = await self._admitted(session)
        except Exception as error:  # noqa: BLE001 - never a yes by accident, never an exception into amqtt
            log.critical("admission_failed", problem=type(error).__name__)
            connection = None
        if isinstance(former, _Connection) and self.service is not None and former.session is not None:
            self.service.sessions.closed(former.session, Reason.TAKEN_OVER)
        if connection is None:
            return False
        session.attributes[KEY] = connection
        return True

    async def topic_filtering(
        self, *, session: AmqttSession | None = None, topic: str | None = None, action: AmqttAction | None = None
    ) -> bool:
        """Return whether the grant allows it. amqtt tells neither QoS nor retain flag; they are taken as 0 and off."""
        connection = session.attributes.get(KEY) if session is not None else None
        grant = connection.grant if isinstance(connection, _Connection) else None
        asked = _ACTIONS.get(action) if action is not None else None
        if grant is None or asked is None or not topic or self.service is None or connection is None:
            return False
        live = connection.session
        if live is not None and live.expires_at_us is not None and live.expires_at_us <= _now_us():
            return False
        try:
            # Retained and queued messages are not asked about: so no filter that only deliveries would narrow
            decision = grant.decide(asked, topic, deliveries_checked=False)
            if not decision.allowed and live is not None:
                self.service.denied(live, asked.value, topic, decision)
        except Exception as error:  # noqa: BLE001 - as above
            log.critical("decision_failed", problem=type(error).__name__)
            return False
        return bool(decision.allowed)

    async def on_broker_client_disconnected(self, *, client_id: str, client_session: AmqttSession) -> None:  # noqa: ARG002
        """Forget the session in the registry; its grant stays for what amqtt queues."""
        connection = client_session.attributes.get(KEY)
        if isinstance(connection, _Connection) and connection.session is not None and self.service is not None:
            self.service.sessions.closed(connection.session, Reason.CONNECTION_LOST)

    # --- how -------------------------------------------------------------------------------------------------

    async def _admitted(self, session: AmqttSession) -> _Connection | None:
        service = self.service
        if service is None:
            return None
        peer = f"{session.remote_address}:{session.remote_port}"
        request = _request(session)
        for _ in range(ADMISSIONS):
            admitted = await service.admit(request, peer=peer, broker="amqtt")
            if isinstance(admitted, Refusal):
                return None
            # amqtt shares client ids: the holder keeps his, another principal is refused
            if any(s.client_id == session.client_id and s.principal != admitted.principal for s in service.sessions):
                service.refuse(
                    Refusal(reason=Reason.CLIENT_ID_TAKEN), request=request, peer=peer, tenant=admitted.tenant
                )
                return None
            connection = _Connection(self, admitted.grant, str(session.client_id))
            live = service.sessions.open(admitted, connection, broker="amqtt", peer=peer)
            if live is not None:
                connection.session = live
                return connection
        return None

    def end(self, client_id: str, connection: _Connection) -> None:
        """End amqtt's connection of this client id, if it is still the one."""
        found: tuple[Any, Any] = self._sessions().get(client_id, (None, None))
        session, handler = found
        if session is None or handler is None or session.attributes.get(KEY) is not connection:
            return
        task = asyncio.get_running_loop().create_task(handler.handle_connection_closed(), name=f"end of {client_id}")
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    def _sessions(self) -> dict[str, Any]:
        # amqtt's contexts show sessions but no handlers, without which nothing can be ended
        sessions: dict[str, Any] = self.context._broker_instance.sessions  # noqa: SLF001
        return sessions


def _request(session: AmqttSession) -> ConnectRequest:
    will = None
    if session.will_flag and session.will_topic is not None:
        will = WillMessage(
            topic=session.will_topic,
            payload=bytes(session.will_message or b""),
            qos=session.will_qos or 0,
            retain=bool(session.will_retain),
        )
    return ConnectRequest(
        client_id=session.client_id or "",
        clean_session=bool(session.clean_session),
        username=session.username,
        password=None if session.password is None else session.password.encode("utf-8", "surrogateescape"),
        will=will,
        keep_alive_s=session.keep_alive,
    )


def _now_us() -> int:
    return time.time_ns() // 1000
