"""A broker in this process: routes, keeps and queues as every broker does; what it may do, its `Policy` says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.conformance.driver import PATIENCE_S, Closed, Hello, Message

ADMINISTRATIVE, TAKEN_OVER = 0x98, 0x8E  # MQTT 5.0 3.14.2.1


@dataclass(eq=False)
class Link:
    """One connection. `state` is the policy's."""

    client_id: str
    level: int
    hello: Hello
    inbox: asyncio.Queue[Message | Closed] = field(default_factory=asyncio.Queue)
    state: object = None
    aliases: dict[int, str] = field(default_factory=dict)
    over: Closed | None = None


@dataclass(eq=False)
class Kept:
    """A session: what is subscribed, and what waits while nobody is connected."""

    client_id: str
    persistent: bool
    filters: dict[str, int] = field(default_factory=dict)
    queue: list[Message] = field(default_factory=list)
    link: Link | None = None
    last: Link | None = None  # the connection that has the session, or had it last
    will: tuple[Link, asyncio.TimerHandle] | None = None  # delayed


class Policy(Protocol):
    """What one kind of broker does in its own way. Its docstrings hold the sources."""

    takes_over_before_asking: bool
    will_on_kick: bool
    delayed_will_on_kick: bool  # of a session at rest
    will_delays: bool
    denies_silently: frozenset[int]  # levels whose SUBACK says of a denied filter what was asked for

    async def admit(self, link: Link) -> int:
        """Ask about a CONNECT; return the CONNACK's code. An admitted link's `state` is set."""

    async def admit_will(self, link: Link) -> int:
        """Ask about the will of an admitted link, after the take-over; return the CONNACK's code."""

    async def may_publish(self, link: Link, topic: str, payload: str, *, qos: int, retain: bool) -> bool: ...

    def denied(self, link: Link) -> int | None:
        """Return what a denied publish is acknowledged with; None: the connection ends."""

    async def subscribe(self, link: Link, filters: Sequence[tuple[str, int]]) -> list[int]: ...

    async def may_receive(self, link: Link, topic: str) -> bool:
        """Ask about one delivery to the session that the link has, or had last."""

    async def will_may_fire(self, link: Link) -> bool: ...

    async def left(self, link: Link, *, keeps: bool) -> None:
        """Tell the service, where the broker does."""


class MiniBroker:
    """Sessions are by client id, whoever connects: so do all brokers but our gate."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.sessions: dict[str, Kept] = {}
        self.retained: dict[str, Message] = {}
        self._turns: dict[str, int] = {}  # of shared subscriptions
        self.tasks: set[asyncio.Task[None]] = set()

    # --- connections ---------------------------------------------------------------------------------------------

    async def connect(self, link: Link) -> tuple[int, bool]:
        """Return the CONNACK's code and session present."""
        if self.policy.takes_over_before_asking:
            await self._take_over(link.client_id)
        code = await self.policy.admit(link)
        if code:
            return code, False
        await self._take_over(link.client_id)
        former = self.sessions.get(link.client_id)
        if former is not None and former.will is not None:
            former.will[1].cancel()
            former.will = None
        hello = link.hello
        persistent = hello.expiry_s > 0 if link.level == 5 else not hello.clean
        present = former is not None and not hello.clean
        kept = former if former is not None and present else Kept(link.client_id, persistent)
        kept.persistent = persistent
        kept.link = kept.last = link
        self.sessions[link.client_id] = kept
        code = await self.policy.admit_will(link) if hello.will is not None else 0
        if code:
            kept.link = None
            if not persistent:
                self.sessions.pop(link.client_id, None)
            await self.policy.left(link, keeps=persistent)
            return code, False
        while kept.queue:
            message = kept.queue.pop(0)
            if await self.policy.may_receive(link, message.topic):
                link.inbox.put_nowait(message)
        return 0, present

    async def _take_over(self, client_id: str) -> None:
        kept = self.sessions.get(client_id)
        if kept is not None and kept.link is not None:
            await self.end(kept.link, code=TAKEN_OVER, will=True, told=False)

    async def end(self, link: Link, *, code: int | None, will: bool, told: bool = True, wipe: bool = False) -> None:
        """End a connection, by whomever. `told`: the policy tells the service."""
        if link.over is not None:
            return
        link.over = Closed(code if link.level == 5 else None)
        link.inbox.put_nowait(link.over)
        kept = self.sessions.get(link.client_id)
        if kept is None or kept.link is not link:
            return
        kept.link = None
        keeps = kept.persistent and not wipe
        if not keeps:
            self.sessions.pop(link.client_id)
        if will and link.hello.will is not None:
            delay_s = min(link.hello.will[4], link.hello.expiry_s) if self.policy.will_delays else 0
            if delay_s and keeps and code is None:
                loop = asyncio.get_running_loop()
                kept.will = (link, loop.call_later(delay_s, self._later, link))
            else:
                await self._fire(link)
        if told:
            await self.policy.left(link, keeps=keeps)

    def _later(self, link: Link) -> None:
        kept = self.sessions.get(link.client_id)
        if kept is not None:
            kept.will = None
        self.spawn(self._fire(link))

    def spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _fire(self, link: Link) -> None:
        assert link.hello.will is not None
        topic, payload, qos, retain, _ = link.hello.will
        if await self.policy.will_may_fire(link):
            await self.route(topic, payload, qos=qos, retain=retain)

    async def kick(self, client_id: str, *, wipe: bool) -> bool:
        """End a client by the management; return whether there was one."""
        kept = self.sessions.get(client_id)
        if kept is None:
            return False
        if kept.link is not None:
            await self.end(kept.link, code=ADMINISTRATIVE, will=self.policy.will_on_kick, wipe=wipe)
        elif wipe:
            self.sessions.pop(client_id, None)
            if kept.will is not None:
                link, timer = kept.will
                timer.cancel()
                if self.policy.delayed_will_on_kick:
                    await self._fire(link)
        return True

    # --- messages ------------------------------------------------------------------------------------------------

    async def route(self, topic: str, payload: str, *, qos: int, retain: bool) -> None:
        """Give a message to whoever subscribed it and may receive it, and keep it if it is retained."""
        if retain:
            self.retained[topic] = Message(topic, payload, qos, retain=True)
        groups: dict[str, list[tuple[Kept, int]]] = {}
        for kept in list(self.sessions.values()):
            granted = [q for f, q in kept.filters.items() if not f.startswith("$share/") and matches(f, topic)]
            if granted:
                await self._deliver(kept, Message(topic, payload, min(qos, max(granted)), retain=False))
            for shared, q in kept.filters.items():
                if shared.startswith("$share/") and matches(shared.split("/", 2)[2], topic):
                    groups.setdefault(shared, []).append((kept, q))
        for shared, members in groups.items():
            self._turns[shared] = turn = self._turns.get(shared, -1) + 1
            kept, q = members[turn % len(members)]
            await self._deliver(kept, Message(topic, payload, min(qos, q), retain=False))

    async def _deliver(self, kept: Kept, message: Message) -> None:
        assert kept.last is not None
        if not await self.policy.may_receive(kept.last, message.topic):
            return
        if kept.link is not None:
            kept.link.inbox.put_nowait(message)
        elif message.qos:
            kept.queue.append(message)

    async def subscribed(self, link: Link, topic_filter: str, qos: int) -> None:
        """Note a granted filter and send what is retained, not to a shared one (MQTT 5.0 4.8.2)."""
        kept = self.sessions[link.client_id]
        kept.filters[topic_filter] = qos
        if not topic_filter.startswith("$share/"):
            for topic, message in list(self.retained.items()):
                if matches(topic_filter, topic) and await self.policy.may_receive(link, topic):
                    link.inbox.put_nowait(message)

    async def close(self) -> None:
        for kept in list(self.sessions.values()):
            if kept.will is not None:
                kept.will[1].cancel()
        if self.tasks:
            await asyncio.gather(*self.tasks, return_exceptions=True)


def matches(topic_filter: str, topic: str) -> bool:
    """MQTT 3.1.1 4.7: `+` one level, `#` the rest and the parent, none of them a first level that begins with `$`."""
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(levels) or level not in ("+", levels[at]):
            return False
    return len(wanted) == len(levels)


class ModelClient:
    """A client of a model; what a socket does is done by a queue."""

    def __init__(self, broker: MiniBroker, level: int) -> None:
        self._broker = broker
        self._level = level
        self._link: Link | None = None
        self.session_present = False

    @property
    def gone(self) -> bool:
        return self._link is None or self._link.over is not None

    @property
    def link(self) -> Link:
        if self._link is None:
            raise Closed
        if self._link.over is not None:
            raise self._link.over
        return self._link

    async def connect(self, hello: Hello) -> int:
        link = Link(hello.client_id, self._level, hello)
        code, self.session_present = await self._broker.connect(link)
        if code == 0:
            self._link = link
        return code

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> list[int]:
        link = self.link
        codes = await self._broker.policy.subscribe(link, filters)
        for (topic_filter, _), code in zip(filters, codes, strict=True):
            if code < 0x80:
                await self._broker.subscribed(link, topic_filter, code)
        if self._level in self._broker.policy.denies_silently:
            return [qos for _, qos in filters]
        return codes

    async def unsubscribe(self, topic_filter: str) -> None:
        self._broker.sessions[self.link.client_id].filters.pop(topic_filter, None)

    async def publish(self, topic: str, payload: str, *, qos: int, retain: bool, alias: int = 0) -> int:
        link = self.link
        if alias and topic:
            link.aliases[alias] = topic
        elif alias:
            topic = link.aliases[alias]
        if await self._broker.policy.may_publish(link, topic, payload, qos=qos, retain=retain):
            if link.over is None:
                await self._broker.route(topic, payload, qos=qos, retain=retain)
            return 0
        code = self._broker.policy.denied(link)
        if code is None:
            await self._broker.end(link, code=0x87, will=True)
            raise link.over or Closed
        return code

    async def message(self, patience_s: float) -> Message:
        if self._link is None:
            raise Closed
        async with asyncio.timeout(patience_s):
            got = await self._link.inbox.get()
        if isinstance(got, Closed):
            self._link.inbox.put_nowait(got)
            raise got
        return got

    async def closed(self, patience_s: float) -> int | None:
        if self._link is None:
            return None
        async with asyncio.timeout(patience_s):
            while self._link.over is None:
                await asyncio.sleep(0.01)
        return self._link.over.code

    def cut(self) -> None:
        if self._link is not None:
            self._broker.spawn(self._broker.end(self._link, code=None, will=True))

    async def disconnect(self) -> None:
        if self._link is not None:
            await self._broker.end(self._link, code=None, will=False)


__all__ = ["PATIENCE_S", "Kept", "Link", "MiniBroker", "ModelClient", "Policy", "matches"]
