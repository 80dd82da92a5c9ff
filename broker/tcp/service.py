"""The gate's own connections to a TCP broker: clearing, and whether the broker answers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import structlog

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.upstream import Link, LinkOwner

log = structlog.get_logger(__name__)

T = TypeVar("T")

BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 5.0


class Conversation:
    """What is asked and answered on one connection of the gate's own (`broker.upstream.LinkOwner`)."""

    def __init__(self, answer_within_s: float) -> None:
        self.link: Link | None = None
        self.ended = asyncio.Event()
        self._within_s = answer_within_s
        self._framer = wire.Framer(max_packet=wire.MAX_REMAINING_LENGTH)
        self._answers: dict[int, asyncio.Future[wire.Packet]] = {}
        self._next_id = 0
        self._pongs: list[asyncio.Future[None]] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._retained: set[str] = set()
        self._heard = asyncio.Event()

    # --- asked -----------------------------------------------------------------------------------------------

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Publish; with QoS 1 and 2 return when it is acknowledged. Raises UpstreamUnavailable."""
        await self._within(self._writable.wait())
        if qos == 0:
            self._send(wire.encode_publish(topic, payload, retain=retain))
            return
        packet_id = self._take_id()
        packet = wire.encode_publish(topic, payload, qos=qos, retain=retain, packet_id=packet_id)
        await self._ask(packet_id, packet)

    async def retained_topics(self, filters: Sequence[tuple[str, int]], *, quiet_s: float) -> set[str]:
        """Return the topics of the retained messages under the filters, or part of them if there are many."""
        self._retained = set()
        packet_id = self._take_id()
        answer = await self._ask(packet_id, wire.encode_subscribe(packet_id, filters))
        if isinstance(answer, wire.Suback) and wire.SUBACK_REFUSED in answer.codes:
            raise UpstreamUnavailable("the broker refuses the gate a subscription; it must not restrict it")
        await self.ping()  # brokers that answer in order have sent all before this answer; others get a little time
        while True:
            self._heard.clear()
            try:
                async with asyncio.timeout(quiet_s):
                    await self._heard.wait()
            except TimeoutError:
                break
        packet_id = self._take_id()
        await self._ask(packet_id, wire.encode_unsubscribe(packet_id, [filter_ for filter_, _ in filters]))
        return self._retained

    async def ping(self) -> None:
        """Return when the broker has answered. Raises UpstreamUnavailable."""
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self._send(wire.PINGREQ_PACKET)
        await self._within(pong)

    async def _ask(self, packet_id: int, packet: bytes) -> wire.Packet:
        answer: asyncio.Future[wire.Packet] = asyncio.get_running_loop().create_future()
        self._answers[packet_id] = answer
        try:
            self._send(packet)
            return await self._within(answer)
        finally:
            self._answers.pop(packet_id, None)

    async def _within(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._within_s):
                return await answer
        except TimeoutError as error:
            raise UpstreamUnavailable("the broker does not answer") from error

    def _send(self, packet: bytes) -> None:
        if self.link is None or self.ended.is_set():
            raise UpstreamUnavailable("the connection to the broker is down")
        self.link.write(packet)

    def _take_id(self) -> int:
        for _ in range(65_535):
            self._next_id = self._next_id % 65_535 + 1
            if self._next_id not in self._answers:
                return self._next_id
        raise UpstreamUnavailable("the broker owes too many answers")

    # --- answered --------------------------------------------------------------------------------------------

    def upstream_received(self, data: bytes) -> None:
        """Match answers with what was asked; a broker that breaks the protocol is left."""
        try:
            buffer = self._framer.feed(data)
            position = 0
            while (end := self._framer.cut(buffer, position)) != wire.NEED_MORE:
                self._answered(buffer[position:end])
                position = end
            self._framer.keep(buffer, position)
        except wire.MalformedPacket as error:
            log.warning("upstream_protocol_error", detail=str(error))
            if self.link is not None:
                self.link.abort()

    def _answered(self, packet: bytes) -> None:
        kind = packet[0] & wire.TYPE_MASK
        if kind == wire.PUBLISH:
            if packet[0] & wire.RETAIN:
                self._retained.add(wire.parse_publish(packet).topic)
                self._heard.set()
            return
        answer = wire.parse_from_server(packet)
        if isinstance(answer, wire.Bare):
            if self._pongs:
                _resolve(self._pongs.pop(0), None)
        elif isinstance(answer, wire.Ack) and answer.type == wire.PUBREC:
            self._send(wire.encode_ack(wire.PUBREL, answer.packet_id))  # 4.3.3
        elif isinstance(answer, wire.Ack | wire.Suback):
            waiting = self._answers.get(answer.packet_id)
            if waiting is not None:
                _resolve(waiting, answer)

    def upstream_closed(self, error: Exception | None) -> None:
        """Give up everything that is asked."""
        self.ended.set()
        problem = error or UpstreamUnavailable("the connection to the broker ended")
        asked: list[asyncio.Future[Any]] = [*self._answers.values(), *self._pongs]
        for waiting in asked:
            if not waiting.done():
                waiting.set_exception(problem)
                waiting.exception()

    def pause_client(self) -> None:
        """Publish no more until the broker takes it."""
        self._writable.clear()

    def resume_client(self) -> None:
        """Publish again."""
        self._writable.set()


def _resolve(waiting: asyncio.Future[T], answer: T) -> None:
    if not waiting.done():
        waiting.set_result(answer)


class ServiceConnection:
    """Keeps one connection up, and says whether it is."""

    def __init__(
        self,
        connect: Callable[[LinkOwner, str], Awaitable[Link]],
        address: Callable[[], str],
        *,
        ping_interval_s: float,
        answer_within_s: float,
        connected: Callable[[], Awaitable[None]],
        lost: Callable[[], None],
    ) -> None:
        """`connect` opens a clean session of that id; `connected` is awaited each time one is open, and `lost` called
        each time the broker has ended it.
        """
        self._connect = connect
        self._connected = connected
        self._lost = lost
        self._address = address
        self._again = asyncio.Event()
        self._interval_s = ping_interval_s
        self._within_s = answer_within_s
        self._talk: Conversation | None = None
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    @property
    def up(self) -> bool:
        """Whether it is connected and its last ping was answered in time."""
        return self._talk is not None and not self._talk.ended.is_set()

    @property
    def away(self) -> bool:
        """Whether it was tried, and the broker does not answer: what is asked of it now would be in vain."""
        return self._tried.is_set() and not self.up

    def try_again(self) -> None:
        """Connect now instead of after the back-off: somebody knows that the broker is there."""
        self._again.set()

    async def start(self) -> None:
        """Start to connect; return after the first attempt."""
        self._task = asyncio.create_task(self._run(), name="upstream service connection")
        await self._tried.wait()

    async def stop(self) -> None:
        """End the connection in order."""
        talk, self._talk = self._talk, None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if talk is not None and talk.link is not None and not talk.ended.is_set():
            talk.link.write(wire.DISCONNECT_PACKET)
            talk.link.close()
            await talk.link.wait_closed()

    @staticmethod
    def new_id() -> str:
        """Return a client id of its own: 22 characters, like those of clients' sessions, and as hard to guess."""
        return secrets.token_hex(11)

    async def _run(self) -> None:
        wait_s = BACKOFF_FIRST_S
        while True:
            talk = Conversation(self._within_s)
            try:
                talk.link = await self._connect(talk, self.new_id())
                await self._connected()
            except UpstreamUnavailable as error:
                log.warning("upstream_unreachable", address=self._address(), problem=str(error))
            else:
                self._talk = talk
                wait_s = BACKOFF_FIRST_S
                log.info("upstream_connected", address=self._address())
            self._tried.set()
            if self._talk is talk:
                await self._watch(talk)
                self._talk = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s * random.uniform(0.5, 1.0)):  # noqa: S311 - spreads gates, hides nothing
                    await self._again.wait()
            self._again.clear()
            wait_s = min(wait_s * 2, BACKOFF_MOST_S)

    async def _watch(self, talk: Conversation) -> None:
        """Ping until there is no answer."""
        while not talk.ended.is_set():
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`: in Python 3.11 it swallows a cancellation that comes with the answer.
                async with asyncio.timeout(self._interval_s):
                    await talk.ended.wait()
                break
            try:
                await talk.ping()
            except UpstreamUnavailable:
                break
        log.warning("upstream_lost", address=self._address())
        if talk.ended.is_set():
            self._lost()
        if talk.link is not None:
            talk.link.abort()
