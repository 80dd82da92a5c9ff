"""Any MQTT 3.1.1 broker behind the gate, by TCP or Unix socket."""

from __future__ import annotations

from pathlib import Path

from broker.upstream import Capabilities, Link, LinkOwner

MOSQUITTO = Capabilities(
    name="tcp",
    retained=True,
    shared_subscriptions=True,
    durable=True,
    mqtt5=False,
    answers_pubrel=True,
    deduplicates_subscriptions=True,
)


class TcpUpstream:
    """A broker reached by `host` and `port`, or by the Unix socket `path`."""

    def __init__(
        self,
        host: str | None = None,
        port: int = 1883,
        *,
        path: Path | None = None,
        capabilities: Capabilities = MOSQUITTO,
        connect_timeout_s: float = 5.0,
        ping_interval_s: float = 5.0,
    ) -> None:
        self.capabilities = capabilities
        self.host = host
        self.port = port
        self.path = path

    @property
    def reachable(self) -> bool:
        return False

    async def start(self) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError

    async def connect(self, owner: LinkOwner, upstream_id: str, *, clean: bool) -> Link:
        raise NotImplementedError

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        raise NotImplementedError

    def retain(self, topic: str, payload: bytes, *, qos: int) -> None:
        raise NotImplementedError

    async def clear_session(self, upstream_id: str) -> None:
        raise NotImplementedError

    async def clear_retained(self, place: str) -> None:
        raise NotImplementedError
