"""The owner of a link, as a test sees it: what arrived, packet by packet, and how often it was told the end."""

from __future__ import annotations

import asyncio

from broker import wire
from broker.upstream import Link, Upstream


class Owner:
    """Collects what a link delivers; `link` is set by the test after connect."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.closed: list[Exception | None] = []
        self.client_paused: list[bool] = []
        self._framer = wire.Framer(wire.MAX_REMAINING_LENGTH)
        self._changed = asyncio.Event()

    def upstream_received(self, data: bytes) -> None:
        buffer = self._framer.feed(data)
        position = 0
        while (end := self._framer.cut(buffer, position)) != wire.NEED_MORE:
            self.packets.append(buffer[position:end])
            position = end
        self._framer.keep(buffer, position)
        self._changed.set()

    def upstream_closed(self, error: Exception | None) -> None:
        self.closed.append(error)
        self._changed.set()

    def pause_client(self) -> None:
        self.client_paused.append(True)
        self._changed.set()

    def resume_client(self) -> None:
        self.client_paused.append(False)
        self._changed.set()

    @property
    def publishes(self) -> list[wire.Publish]:
        return [wire.parse_publish(packet) for packet in self.packets if packet[0] & 0xF0 == wire.PUBLISH]

    def of(self, kind: int) -> list[bytes]:
        return [packet for packet in self.packets if packet[0] & 0xF0 == kind]

    async def until(self, condition, *, within_s: float = 5.0) -> None:
        """Wait until the condition holds; it is asked again whenever something arrives."""
        async with asyncio.timeout(within_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def published(self, count: int = 1, *, within_s: float = 5.0) -> list[wire.Publish]:
        await self.until(lambda: len(self.publishes) >= count, within_s=within_s)
        return self.publishes

    async def ended(self, *, within_s: float = 5.0) -> Exception | None:
        await self.until(lambda: bool(self.closed), within_s=within_s)
        return self.closed[0]


async def connected(upstream: Upstream, upstream_id: str = "A" * 22, *, clean: bool = True) -> tuple[Link, Owner]:
    """Connect and return the link with its owner."""
    owner = Owner()
    return await upstream.connect(owner, upstream_id, clean=clean), owner


async def turns(count: int = 20) -> None:
    """Let the loop turn: what was due has then happened."""
    for _ in range(count):
        await asyncio.sleep(0)


async def subscribe(link, owner: Owner, *filters: tuple[str, int], packet_id: int = 1) -> bytes:
    """Subscribe and return the codes of the SUBACK."""
    before = len(owner.of(wire.SUBACK))
    link.write(wire.encode_subscribe(packet_id, filters))
    await owner.until(lambda: len(owner.of(wire.SUBACK)) > before)
    return wire.parse_suback(owner.of(wire.SUBACK)[-1]).codes


async def unsubscribe(link, owner: Owner, *filters: str, packet_id: int = 2) -> None:
    before = len(owner.of(wire.UNSUBACK))
    link.write(wire.encode_unsubscribe(packet_id, filters))
    await owner.until(lambda: len(owner.of(wire.UNSUBACK)) > before)
