"""The composition root: the only place that owns clocks, opens things and starts tasks."""

from __future__ import annotations

from authsvc.settings import Settings


async def run(settings: Settings, *, with_broker: bool, upstream: str | None = None) -> None:
    """Run the service until SIGTERM or SIGINT, then end in order within 5 s.

    `upstream` (``host:port`` or a Unix socket path) replaces the embedded broker. Raises `StartError` with a message
    for the operator when it cannot start.
    """


def main(settings: Settings, *, with_broker: bool, upstream: str | None = None) -> int:
    """Run the service in its own event loop and return the exit status: 0 ended by a signal, 1 failed."""
    raise NotImplementedError
