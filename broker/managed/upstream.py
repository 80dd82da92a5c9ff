"""A broker that we run ourselves, behind the gate like any other by TCP or Unix socket."""

from __future__ import annotations

from typing import Any

from broker.managed.child import Child
from broker.tcp import TcpUpstream


class ManagedUpstream(TcpUpstream):
    """Starts the child before it connects, and stops it after the last connection has gone."""

    child: Child

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)

    def came_or_went(self, is_there: bool) -> None:
        """The child serves: connect at once instead of after the back-off."""
        if is_there:
            self._service.try_again()

    async def start(self) -> None:
        """Start the broker, then connect. Raises BrokerNotStarted."""
        await self.child.start()
        await super().start()

    async def stop(self) -> None:
        """End every link, then the broker."""
        await super().stop()
        await self.child.stop()
