"""What amqtt gets from us: the one authentication plugin, and the answers that are known without asking."""

from __future__ import annotations

from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

GATE_AUTH = "broker.embedded_broker.GateAuth"


class GateAuth(BaseAuthPlugin):  # type: ignore[misc]
    """Says yes: whoever reaches amqtt came through the gate. Leaves `is_anonymous` false, or there were no queue."""

    async def authenticate(self, *, session: Session) -> bool:  # noqa: ARG002
        """Return True."""
        return True


class GateBroker(Broker):  # type: ignore[misc]
    """Without two questions that amqtt asks for every message, and for every filter at every CONNECT."""

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:  # noqa: ARG002
        """Return True: the gate has decided, and no topic plugin is loaded."""
        return True

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Send nothing: amqtt holds no retained message. Its own would go to whoever connects, subscribed or not."""
