"""A broker that we run ourselves, behind the gate like any other by TCP or Unix socket."""

from __future__ import annotations

from typing import Any

from authsvc.core.errors import UpstreamUnavailable
from broker.managed.child import Child
from broker.tcp import TcpUpstream
from broker.tcp.link import TcpLink
from broker.upstream import Hello, LinkOwner


class ManagedUpstream(TcpUpstream):
    """Starts the child before it connects, and stops it after the last connection has gone."""

    child: Child

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)

    def came_or_went(self, is_there: bool) -> None:
        """The child serves: connect at once instead of after the back-off."""
        if is_there:
            self._service.try_again()

    async def _connect(self, owner: LinkOwner, upstream_id: str, *, clean: bool, hello: Hello) -> TcpLink:
        """Connect to the child, and to nobody who has taken its place at the address."""
        if not self.child.serves:
            raise UpstreamUnavailable(f"{self.child.name} does not run just now; it is restarted")
        return await super()._connect(owner, upstream_id, clean=clean, hello=hello)

    async def start(self) -> None:
        """Start the broker, then connect. Raises BrokerNotStarted."""
        await self.child.start()
        await super().start()

    async def stop(self) -> None:
        """End every link, then the broker."""
        await super().stop()
        await self.child.stop()
