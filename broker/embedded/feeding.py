"""Whose packets go into amqtt, and when: a bounded portion a turn of the loop, and none while amqtt has enough.

amqtt takes whatever it is given, so that one client could fill the process; here each has its turn.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from authsvc.core.errors import UpstreamUnavailable
from broker.embedded.inbox import SETTLE_TURNS, Fed

if TYPE_CHECKING:
    from broker.embedded.broker import GateBroker
    from broker.embedded.link import EmbeddedLink

log = structlog.get_logger(__name__)

MAX_BACKLOG = 1000  # messages inside amqtt above which nobody is fed
MAX_BACKLOG_BYTES = 8 * 1024 * 1024  # and their payloads
PACKETS_PER_TURN = 128  # over all clients, so that one turn of the loop stays short
CONGESTED_RETRY_S = 0.001


class Feeder:
    """Feeds the links of one broker, from `begin` to `end`."""

    def __init__(self) -> None:
        self._broker: GateBroker | None = None
        self._ready: dict[EmbeddedLink, None] = {}
        self._busy: dict[EmbeddedLink, int] = {}  # links from which amqtt holds messages, and the turn they were fed in
        self._count = 0
        self._due: asyncio.Handle | None = None

    def begin(self, broker: GateBroker) -> None:
        """Feed this broker from now on."""
        self._broker = broker

    def end(self) -> None:
        """Feed nobody any more."""
        self._broker = None
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def schedule(self, link: EmbeddedLink) -> None:
        """Feed the link in the next turn of the loop."""
        self._ready[link] = None
        if self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._turn)

    def forget(self, link: EmbeddedLink) -> None:
        """Let go of a link that has ended."""
        self._ready.pop(link, None)
        self._busy.pop(link, None)

    def congested(self) -> bool:
        """Return whether amqtt has more than it should be given."""
        if self._broker is None:
            return False
        waiting = self._broker._broadcast_queue.qsize()  # noqa: SLF001
        for link, turn in list(self._busy.items()):
            if link.waiting:
                waiting += link.waiting
            elif turn + SETTLE_TURNS < self._count:
                del self._busy[link]
        return waiting > MAX_BACKLOG or self._broker.queued_bytes > MAX_BACKLOG_BYTES

    def _turn(self) -> None:
        self._due = None
        self._count += 1
        if self._broker is None:
            return
        loop = asyncio.get_running_loop()
        if self.congested():
            self._due = loop.call_later(CONGESTED_RETRY_S, self._turn)
            return
        budget, later = PACKETS_PER_TURN, True
        ready, self._ready = self._ready, {}
        again: dict[EmbeddedLink, None] = {}
        while ready and budget > 0:
            link = next(iter(ready))  # who was not reached in this turn is first in the next
            del ready[link]
            fed, given = _feed(link, budget)
            budget -= given
            if given and link.inbox.settling:
                self._busy[link] = self._count
            if fed is Fed.MORE or fed is Fed.LATER:
                again[link] = None
                later = later and fed is Fed.LATER
        self._ready = {**ready, **again, **self._ready}
        if self._ready and self._due is None:
            later = later and not ready
            self._due = loop.call_later(CONGESTED_RETRY_S, self._turn) if later else loop.call_soon(self._turn)


def _feed(link: EmbeddedLink, budget: int) -> tuple[Fed, int]:
    try:
        return link.feed(budget)
    except Exception as problem:  # noqa: BLE001  # the gate passes on nothing such: that link ends, the turn goes on
        log.warning("feeding_failed", upstream_id=link.upstream_id, problem=type(problem).__name__)
        link.abort(UpstreamUnavailable("a packet could not be passed on"))
        return Fed.NOTHING_LEFT, 0
