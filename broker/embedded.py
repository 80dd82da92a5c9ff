"""amqtt in this process, behind the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from broker.upstream import Capabilities, LinkOwner


class EmbeddedLink:
    """One session of amqtt, fed and read in memory."""

    session_present: bool = False

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    def pause(self) -> None:
        raise NotImplementedError

    def resume(self) -> None:
        raise NotImplementedError

    def subscribed(self, filters: Sequence[tuple[str, int]]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    async def wait_closed(self) -> None:
        raise NotImplementedError


class AmqttUpstream:
    """amqtt in this process, reachable through the gate only."""

    capabilities: Capabilities = Capabilities(
        name="amqtt",
        retained=False,
        shared_subscriptions=False,
        durable=False,
        mqtt5=False,
        answers_pubrel=False,
        deduplicates_subscriptions=True,  # the link puts the UNSUBSCRIBE before a repeated filter itself
    )

    def __init__(
        self, config: Mapping[str, Any] | None = None, *, max_retained: int = 10_000, max_retained_bytes: int = 16 << 20
    ) -> None:
        self.config = dict(config or {})

    @property
    def reachable(self) -> bool:
        return False

    async def start(self) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError

    async def connect(self, owner: LinkOwner, upstream_id: str, *, clean: bool) -> EmbeddedLink:
        raise NotImplementedError

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        raise NotImplementedError

    def retain(self, topic: str, payload: bytes, *, qos: int) -> None:
        raise NotImplementedError

    async def clear_session(self, upstream_id: str) -> None:
        raise NotImplementedError

    async def clear_retained(self, place: str) -> None:
        raise NotImplementedError
