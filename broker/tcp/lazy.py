"""A link that connects with the first packet for the broker: a client that says nothing costs the broker nothing.

For sessions that end with their connection, while the gate's own connection says that the broker is there: all that
such a CONNECT would learn is known beforehand (no session is present, and what a broker of MQTT 5.0 says of itself it
says to every client). What is written meanwhile is kept, in order and bounded: a client that sends more waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from authsvc.core.errors import UpstreamUnavailable
from broker.upstream import Link, LinkOwner
from broker.wire import Connack

KEPT_BYTES = 65_536  # from then on nothing is read from the client; what one read brings comes on top
# What a broker may say in its CONNACK and a client has to keep to: it was told already.
_TERMS = (
    "receive_maximum",
    "maximum_qos",
    "retain_available",
    "maximum_packet_size",
    "wildcard_subscriptions",
    "subscription_identifiers",
    "shared_subscriptions",
)


class _Write(Protocol):
    def __call__(self, data: bytes) -> None: ...


class LazyLink:
    """A session of the broker behind that is opened when it is needed (`broker.upstream.Link`).

    `connack` is what the broker is known to answer, `connect` opens the session for the owner, `within_s` is its time.
    `decided` is told when the link is to be opened, or never will be.
    """

    __slots__ = (
        "_closed",
        "_connect",
        "_decided",
        "_holds",
        "_kept",
        "_leaving",
        "_link",
        "_opening",
        "_owner",
        "_paused",
        "_size",
        "_within_s",
        "connack",
        "used",
        "write",
    )

    session_present: bool = False

    def __init__(
        self,
        owner: LinkOwner,
        connack: Connack,
        connect: Callable[[], Awaitable[Link]],
        *,
        within_s: float,
        decided: Callable[[LazyLink], None],
    ) -> None:
        self.connack = connack
        self.used = False  # once anything was to be said to the broker
        self.write: _Write = self._keep  # the opened link's own from then on
        self._owner = owner
        self._connect = connect
        self._within_s = within_s
        self._decided = decided
        self._kept: list[bytes] = []
        self._size = 0
        self._holds = False  # the client, because enough is kept
        self._paused = False
        self._leaving = False
        self._closed = False
        self._opening: asyncio.Task[None] | None = None
        self._link: Link | None = None

    def _keep(self, data: bytes) -> None:
        if self._leaving:
            return
        if self._opening is None:
            self.used = True
            self._decided(self)
            self._opening = asyncio.get_running_loop().create_task(self._open(), name="opening upstream")
        self._kept.append(data)
        self._size += len(data)
        if self._size >= KEPT_BYTES and not self._holds:
            self._holds = True
            self._owner.pause_client()

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(self._within_s):
                link = await self._connect()
        except UpstreamUnavailable as error:
            self._ended(error)
            return
        except TimeoutError:
            self._ended(UpstreamUnavailable("the broker did not answer in time"))
            return
        except BaseException:  # aborted, or an accident that the loop will tell
            self._ended(None)
            raise
        self._link = link
        if any(getattr(link.connack, term) != getattr(self.connack, term) for term in _TERMS):
            link.abort()  # it is another broker by now; the owner hears of the end from the link
            self.write = _drop
            return
        if self._paused:
            link.pause()
        self.write = link.write
        link.write(b"".join(self._kept))
        self._kept.clear()
        if self._holds:
            self._owner.resume_client()  # a link that is full says so itself
        if self._leaving:
            link.close()

    def pause(self) -> None:
        """Read no more from the broker."""
        self._paused = True
        if self._link is not None:
            self._link.pause()

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        if self._link is not None:
            self._link.resume()

    def subscribed(self, filters: Sequence[tuple[str, int]]) -> None:
        """Pass it on: what was subscribed was answered, so the link is open."""
        if self._link is not None:
            self._link.subscribed(filters)

    def close(self) -> None:
        """Send what was written, which may have to wait for the opening, then close."""
        if self._link is not None:
            self._link.close()
        elif self._opening is None:
            self._ended(None)
        self._leaving = True

    def abort(self, error: Exception | None = None) -> None:
        """End now: what is kept is dropped."""
        self._leaving = True
        if self._link is not None:
            self._link.abort()
        elif self._opening is None:
            self._ended(error)
        else:
            self._opening.cancel()
            self._ended(None)  # a task that never ran would not

    async def wait_closed(self) -> None:
        """Return when the broker has let go of the session, if there was one."""
        if self._opening is not None:
            await asyncio.wait({self._opening})
        if self._link is not None:
            await self._link.wait_closed()

    def _ended(self, error: Exception | None) -> None:
        """There is no link and will be none: tell the owner, once."""
        self.write = _drop
        self._kept.clear()
        if not self._closed:
            self._closed = True
            self._decided(self)
            self._owner.upstream_closed(error)


def _drop(data: bytes) -> None:
    """Nobody is there any more."""
