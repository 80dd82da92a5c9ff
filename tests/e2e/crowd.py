"""Many clients at small cost: protocols that note when they were closed, and one that pings without a break."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from broker import wire
from broker.wire import Framer
from tests.broker.raw_client import RawClient


class Member(asyncio.Protocol):
    """One client: sends CONNECT, notes the CONNACK's code and the moment of the end. Deliveries are counted."""

    def __init__(self, connect: bytes) -> None:
        self._connect = connect
        self._framer = Framer(wire.MAX_REMAINING_LENGTH)
        self.transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self.answered: asyncio.Future[int | None] = loop.create_future()
        self.closed: asyncio.Future[float] = loop.create_future()
        self.packets: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.transport.write(self._connect)

    def data_received(self, data: bytes) -> None:
        for packet in self._framer.packets(data):
            if not self.answered.done():
                self.answered.set_result(wire.parse_connack(packet).code)
            else:
                self.packets.append(bytes(packet))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_result(None)
        if not self.closed.done():
            self.closed.set_result(time.perf_counter())

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()


@dataclass(frozen=True)
class Login:
    thing: str
    secret: str = field(repr=False)
    client_id: str = ""
    clean: bool = True

    def packet(self) -> bytes:
        return wire.encode_connect(
            client_id=self.client_id or self.thing,
            clean_session=self.clean,
            username=self.thing,
            password=self.secret.encode(),
        )


async def join(address: tuple[str, int], logins: Sequence[Login], *, at_once: int = 32) -> list[Member]:
    """Connect everybody and wait for all answers, `at_once` at a time; a socket that cannot open counts as refused."""
    gate = asyncio.Semaphore(at_once)
    loop = asyncio.get_running_loop()

    async def one(login: Login) -> Member:
        async with gate:
            member = Member(login.packet())
            try:
                await loop.create_connection(lambda: member, *address)
                await asyncio.wait_for(asyncio.shield(member.answered), 20)
            except OSError:
                member.connection_lost(None)
            return member

    return list(await asyncio.gather(*map(one, logins)))


def codes(members: Iterable[Member]) -> list[int | None]:
    return [member.answered.result() for member in members]


async def leave(members: Iterable[Member]) -> None:
    """Cut all connections and wait until they are gone."""
    members = list(members)
    for member in members:
        member.cut()
    await asyncio.gather(*(member.closed for member in members if member.transport is not None))


@dataclass
class Pulse:
    """What the continuous PING has seen: round trips in seconds, without what the test's own loop was late."""

    trips: list[float] = field(default_factory=list)

    @property
    def worst_s(self) -> float:
        return max(self.trips)


@asynccontextmanager
async def pulse_of(client: RawClient) -> AsyncIterator[Pulse]:
    """Ping every 10 ms while the block runs: a service whose loop stalls answers late. The connection must live."""
    pulse = Pulse()
    lag = 0.0

    async def watch_ourselves() -> None:
        nonlocal lag
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            lag += max(0.0, time.perf_counter() - began - 0.007)

    async def beat() -> None:
        while True:
            before, began = lag, time.perf_counter()
            await client.ping()
            pulse.trips.append(time.perf_counter() - began - (lag - before))
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(watch_ourselves()), asyncio.create_task(beat())]
    try:
        await asyncio.sleep(0.05)
        yield pulse
        assert not tasks[1].done(), tasks[1].exception()
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
    assert pulse.trips


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
