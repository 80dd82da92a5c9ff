"""What clients do in the model test: each move is made in the product and in the world before the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from authsvc.core.credentials import WillMessage
from broker import wire
from tests.broker.raw_client import RawClient
from tests.e2e.model_player import Player
from tests.e2e.model_table import GROUNDS, KEYS, MODULES, TENANTS, Table
from tests.e2e.model_world import Message, Session, Thing

WORDS = ("state", "event", "command", "command/x")


class Clients(Table):
    """Moves of clients."""

    def _topic(self, tenant: str) -> str:
        if self.dice.random() < 0.1:
            tenant = self.dice.choice(TENANTS)
        return f"{tenant}/{self.dice.choice(GROUNDS)}/{self.dice.choice(KEYS + MODULES)}/{self.dice.choice(WORDS)}"

    def _own_topic(self, session: Session) -> str:
        thing = self.world.things.get((session.tenant, session.thing))
        if thing is None or self.dice.random() < 0.3:
            return self._topic(session.tenant)
        key = self.dice.choice([thing.key, thing.key, *sorted(thing.modules)])
        return f"{thing.tenant}/{thing.ground}/{key}/{self.dice.choice(WORDS)}"

    def _filter(self, session: Session) -> str:
        levels = self._own_topic(session).split("/")
        for place in range(1, len(levels)):
            if self.dice.random() < 0.25:
                levels[place] = "+"
        if self.dice.random() < 0.4:
            levels[self.dice.randint(1, len(levels) - 1) :] = ["#"]
        return "/".join(levels)

    def _message(self, topic: str, qos: int) -> Message:
        return Message(topic, b"%d" % next(self.number), qos)

    async def connect(self) -> None:
        token = self.dice.choice(self.world.tokens[-16:])
        secret = self.dice.choice(token.secrets[-3:])
        key = {"device": token.thing, "ground": ""}.get(token.kind) if self.dice.random() < 0.9 else None
        if key is None:
            key = self.dice.choice(KEYS)
        client_id, clean = self.dice.choice("xy"), self.dice.random() < 0.4
        wanted = self.world.admitted_thing(token, secret, key)
        will = None
        if self.dice.random() < 0.4:
            thing = wanted if isinstance(wanted, Thing) else None
            place = f"{token.tenant}/{thing.ground}/{thing.key}" if thing else f"{token.tenant}/g1/a"
            will = (f"{place}/{self.dice.choice(WORDS)}", self.dice.randint(0, 2), self.dice.random() < 0.3)
            if not isinstance(wanted, str) and not self.world.rights(token, wanted).publishes(
                will[0], qos=will[1], retain=will[2]
            ):
                wanted = "the will is not allowed"
        refused = wanted if isinstance(wanted, str) else ""
        self.says(
            f"connect {token.tenant} {token.name} {token.id} {key} {client_id} clean={clean} will={will}"
            f" -> {refused or 'admitted'}"
        )
        payload = b"%d" % next(self.number)
        last = WillMessage(topic=will[0], payload=payload, qos=will[1], retain=will[2]) if will else None
        client = await RawClient.open(self.process.address)
        # what the old connection's end brings is told before the new CONNACK, so the world changes first
        principal = f"ground {token.id}" if token.kind == "ground" else key
        name = (token.tenant, principal, client_id)
        before = self.world.sessions.get(name)
        taken_over = None
        if not refused:
            if isinstance(wanted, Thing) and (token.tenant, key) not in self.world.things:
                self.world.things[token.tenant, key] = wanted
                self.world.changed()
            if before is not None and before.player is not None:
                taken_over = self._will_of(before)
                if taken_over:
                    self.world.messages[taken_over[0].payload] = taken_over[0]
                    must = self.world.route(taken_over[0], retain=taken_over[1], not_live=before)
                    must.append(self.spies[token.tenant])
        code = await client.connect(client_id, secret, username=key, clean=clean, will=last)
        assert (code != 0) is bool(refused), f"CONNACK {code}: {refused or 'should be admitted'}"
        assert code in (0, 4, 5) or token.dead or secret not in token.secrets, f"CONNACK {code}"
        if refused:
            client.cut()
            return
        if before is not None and before.player is not None:
            await before.player.end()
            before.player = None
        if taken_over:
            for one in must:
                await self._must(one, taken_over[0])
        kept = before is not None and not before.clean and not clean
        assert client.session_present is kept, f"session present: {client.session_present}"
        if before is not None and kept:
            session = before
            session.token = token
        else:
            session = Session(
                token.tenant, principal, client_id, token, key if token.kind != "ground" else "", clean=clean
            )
            self.world.sessions[name] = session
        session.will = (last.topic, last.payload, last.qos, last.retain) if last else None
        due = self.world.resume(session)
        session.player = Player(client, lambda publish: self._judge(session, publish))
        self.players.append(session.player)
        for message in due:
            await self._must(session, message)

    def _will_of(self, session: Session) -> tuple[Message, bool] | None:
        """Take the session's will; return it, and whether it is retained, if it may be sent."""
        will, session.will = session.will, None
        if will is None or not self.world.rights_of(session).publishes(will[0], qos=will[2], retain=will[3]):
            return None
        return Message(will[0], will[1], will[2]), will[3]

    def _somebody(self) -> Session | None:
        live = self.world.live()
        return self.dice.choice(live) if live else None

    async def subscribe(self) -> None:
        if (session := self._somebody()) is None:
            return
        asked = list({self._filter(session): self.dice.randint(0, 2) for _ in range(self.dice.randint(1, 3))}.items())
        rights = self.world.rights_of(session)
        codes = [rights.subscribes(filter_, qos) for filter_, qos in asked]
        self.says(f"subscribe {session.name} {asked} -> {codes}")
        due = []
        for (filter_, _), code in zip(asked, codes, strict=True):
            if code != 0x80:
                session.filters[filter_] = code
                session.lapsed.discard(filter_)
                due += self.world.found(session, filter_)
        session.player.seen -= {message.payload for message in due}
        assert await session.player.subscribe(asked) == codes
        for message in due:
            await self._must(session, message)

    async def unsubscribe(self) -> None:
        if (session := self._somebody()) is None:
            return
        filter_ = self.dice.choice([*sorted(session.filters), self._filter(session)])
        self.says(f"unsubscribe {session.name} {filter_}")
        session.filters.pop(filter_, None)
        session.lapsed.discard(filter_)
        await session.player.unsubscribe(filter_)

    async def publish(self) -> None:
        if (session := self._somebody()) is None or self.dice.random() < 0.2:
            session = self.spies[self.dice.choice(TENANTS)]
        topic, qos = self._own_topic(session), self.dice.randint(0, 2)
        retain, dup = self.dice.random() < 0.25, self.dice.random() < 0.2
        message = self._message(topic, qos)
        if retain and self.dice.random() < 0.3:
            message.payload = b""
        spy = session.principal == "spy"
        allowed = spy or self.world.rights_of(session).publishes(topic, qos=qos, retain=retain)
        self.says(
            f"publish {session.name} {topic} {message.payload!r} qos={qos} retain={retain} dup={dup} -> {allowed}"
        )
        must = []
        tenant = topic.split("/")[0]
        if allowed:
            must = self.world.route(message, retain=retain)
            must += [self.spies[tenant]] if message.payload else []
        await session.player.publish(topic, message.payload, qos=qos, retain=retain, dup=dup)
        for one in must:
            await self._must(one, message)
        if allowed and not message.payload:  # nobody tells when an empty one has passed, but one that follows it
            await self._fence(session, tenant)

    async def _fence(self, session: Session, tenant: str) -> None:
        message = self._message(f"{tenant}/fence", 1)
        self.world.route(message, retain=False)
        await self.spies[tenant].player.publish(message.topic, message.payload, qos=1, retain=False)
        await self._must(self.spies[tenant], message)

    async def leave(self) -> None:
        """DISCONNECT, or a cut, which brings the will."""
        if (session := self._somebody()) is None:
            return
        cut = self.dice.random() < 0.6
        self.says(f"{'cut' if cut else 'disconnect'} {session.name}")
        will = self._will_of(session) if cut else None
        player, session.player, session.will = session.player, None, None
        if session.clean:
            del self.world.sessions[session.name]
        await self._with_will(session, will, self._left(player, cut))
        await self.settled()

    async def _with_will(self, session: Session, will: tuple[Message, bool] | None, act: Awaitable[Any]) -> None:
        """Do what brings a will: the world knows it before, since it may arrive at once."""
        must: list[Session] = []
        if will:  # whether its own session gets it depends on the broker
            must = [*self.world.route(will[0], retain=will[1], not_live=session), self.spies[session.tenant]]
        await act
        if will:
            for one in must:
                await self._must(one, will[0])

    async def _left(self, player: Player, cut: bool) -> None:
        if not cut:
            await player.client.send(wire.DISCONNECT_PACKET)
            async with asyncio.timeout(5):
                await player.closed.wait()
        await player.end()

    async def kick(self) -> None:
        if (session := self._somebody()) is None:
            return
        self.says(f"kick {session.name}")
        at = f"/v1/tenants/{session.tenant}/sessions"
        listed = await self.process.every(at)
        (one,) = [
            s
            for s in listed
            if (s["client_id"], s["thing"] or "", s["token_id"]) == (session.client_id, session.thing, session.token.id)
        ]
        will = self._will_of(session)
        player, session.player = session.player, None
        if session.clean:
            del self.world.sessions[session.name]
        await self._with_will(session, will, self.process.delete(f"{at}/{one['id']}"))
        await player.end()
        await self.settled()
