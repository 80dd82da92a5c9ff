"""One attached broker: the same verbs as the gate's, for every adapter. See `Attached`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authsvc.adapters.adapter import Adapter, AttachedConfig
from authsvc.adapters.connection import HookConnection
from authsvc.adapters.management import Management
from authsvc.core.credentials import ConnectRequest
from authsvc.core.facts import Refusal
from authsvc.core.policy import Action, Decision, Grant
from authsvc.core.reasons import Reason
from authsvc.sessions import Session, Will

if TYPE_CHECKING:
    from authsvc.service import Service

ATTEMPTS = 3
NO_SESSION = Decision(allowed=False, reason=Reason.NO_RULE_MATCHES)


class Attached:
    """One broker that asks by hooks; made by `routes` for each section ``[brokers.NAME]``."""

    def __init__(
        self, service: Service, config: AttachedConfig, adapter: Adapter, management: Management | None
    ) -> None:
        self.service = service
        self.config = config
        self.adapter = adapter
        self.management = management
        self.name = config.name
        self.kind = config.kind
        self.deliveries_checked = adapter.deliveries_checked
        self._connections: dict[str, HookConnection] = {}

    async def connect(self, request: ConnectRequest, *, peer: str) -> Session | Refusal:
        """Admit a CONNECT that the broker asks about and open its session; a refusal has changed nothing.

        A client id belongs to the principal that used it first, for as long as the broker may keep a session of it:
        another one is refused as ``client_id_taken``. An empty client id is ``client_id_invalid``: these brokers find
        sessions by it. Never raises. The refusal is recorded already.
        """
        if not request.client_id:
            refusal = Refusal(reason=Reason.CLIENT_ID_INVALID, detail="an attached broker must send the client id")
            self.service.refuse(refusal, request=request, peer=peer)
            return refusal
        for _ in range(ATTEMPTS):
            admitted = await self.service.admit(request, peer=peer, broker=self.name)
            if isinstance(admitted, Refusal):
                return admitted
            connection = HookConnection(self, admitted.client_id, admitted.grant, request.username or "")
            session = self.service.sessions.open(admitted, connection, broker=self.name, peer=peer)
            if session is not None:
                connection.session = session
                self._connections[admitted.client_id] = connection
                return session
        refusal = Refusal(reason=Reason.STORE_UNAVAILABLE, detail="what the credential rests on keeps changing")
        self.service.refuse(refusal, request=request, peer=peer)
        return refusal

    def session(self, client_id: str) -> Session | None:
        """Return the open session of the client id on this broker."""
        connection = self._connections.get(client_id)
        return None if connection is None else connection.session

    def decide(self, client_id: str, action: Action, topic: str, *, qos: int = 0, retain: bool = False) -> Decision:
        """Return the decision of the client's grant; without a session a denial. Denials are recorded."""
        session = self.session(client_id)
        if session is None:
            return NO_SESSION
        decision = session.grant.decide(
            action, topic, qos=qos, retain=retain, deliveries_checked=self.deliveries_checked
        )
        if not decision.allowed:
            self.service.denied(session, action.value, topic, decision)
        return decision

    async def gone(self, client_id: str, *, keeps_session: bool) -> None:  # noqa: ARG002
        """Take from the broker that the client left, and whether something is kept there for it."""
        connection = self._connections.pop(client_id, None)
        if connection is not None and connection.session is not None:
            self.service.sessions.closed(connection.session, Reason.DISCONNECTED)

    def ended(self, connection: HookConnection, reason: Reason, will: Will) -> None:  # noqa: ARG002
        """Called by the registry through the connection: the service ended the session."""
        if self._connections.get(connection.client_id) is connection:
            del self._connections[connection.client_id]

    def swapped(self, connection: HookConnection, grant: Grant) -> None:
        """Called by the registry through the connection: the session has a new grant."""
        connection.held = grant
