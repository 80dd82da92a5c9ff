"""The gate: owns the clients' sockets, admits before anything happens, and checks every packet in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from broker.limits import Limits
from broker.listeners import Listener
from broker.upstream import Upstream

if TYPE_CHECKING:
    from authsvc.service import Service

OnDeniedPublish = Literal["drop", "disconnect"]


class Gate:
    """Everything that listens for MQTT clients in this process. `listen` once per address, `close` at the end."""

    def __init__(
        self,
        service: Service,
        upstream: Upstream,
        limits: Limits,
        *,
        on_denied_publish: OnDeniedPublish = "drop",
        name: str = "gate",
    ) -> None:
        raise NotImplementedError

    async def listen(self, listener: Listener) -> tuple[str, int]:
        """Open a listener; return the (host, port) it is bound to. Raises OSError, which names the address."""
        raise NotImplementedError

    async def close(self) -> None:
        """End every connection (wills sent, persistent sessions kept); return within 5 s."""
        raise NotImplementedError
