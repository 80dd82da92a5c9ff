"""The table of the model test: who sits there at the beginning, and how product and world are compared."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from broker import wire
from tests.e2e.model_player import Player
from tests.e2e.model_world import DEFINITION_RULES, EDGE_RULES, Message, Session, Thing, Token, World
from tests.e2e.process import SPY_RULES, Process

TENANTS = ("m1", "m2")
GROUNDS = ("default", "g1", "g2")
KEYS = ("a", "b", "c", "d", "e", "edge")
MODULES = ("m1", "m2")


class Table:
    """The product and the world side by side, and the questions whether they are still alike."""

    def __init__(self, process: Process, seed: int) -> None:
        self.process = process
        self.dice = random.Random(seed)
        self.world = World()
        self.number = itertools.count(1)
        self.story: list[str] = []
        self.spies: dict[str, Session] = {}
        self.spy_tokens: dict[str, Token] = {}
        self.players: list[Player] = []

    def says(self, text: str) -> None:
        self.story.append(text)

    async def set_up(self) -> None:
        """Two tenants alike, a spy in each that sees everything and publishes anything."""
        post = self.process.post
        await post("/v1/roles", {"key": "spy", "rules": SPY_RULES})
        for tenant in TENANTS:
            at = f"/v1/tenants/{tenant}"
            await post("/v1/tenants", {"key": tenant})
            for ground in GROUNDS[1:]:
                await post(f"{at}/grounds", {"key": ground})
            for key, kind, rules in (("dev", "thing", DEFINITION_RULES[0]), ("edge", "gateway", EDGE_RULES)):
                body = {"key": key, "kind": kind, "rules": rules, "bind_client_id": "never"}
                await post(f"{at}/thing-definitions", body)
            await post(f"{at}/roles", {"key": "more", "rules": []})
            await post(f"{at}/licenses", {"key": "pool", "seats": self.world.seats})
            self.world.definition[tenant] = self.world.role[tenant] = 0
            await post(f"{at}/things", {"key": "edge", "thing_definition": "edge", "ground": "g1"})
            self.world.things[tenant, "edge"] = Thing(tenant, "edge", "edge", "g1")
            for name in ("fleet", "roamer", "edge", "read", "write", "read_write"):
                await self._mint(tenant, name)
            token = await post(f"{at}/app-tokens", {"name": "spy", "roles": ["platform/spy"], "ground": "default"})
            await post(f"{at}/things", {"key": "spy"})
            self.world.things[tenant, "spy"] = Thing(tenant, "spy", "thing", "default")
            self.spy_tokens[tenant] = Token(tenant, "app", "spy", token["id"], [token["token"]])
            await self._spy(tenant)

    async def _spy(self, tenant: str) -> None:
        token = self.spy_tokens[tenant]
        spy = Session(tenant, "spy", "spy", token, "spy", clean=True)
        client = await self.process.client("spy", token.secrets[0])
        spy.player = Player(client, self._judge_spy)
        assert await spy.player.subscribe([(f"{tenant}/#", 2)]) == [2]
        self.players.append(spy.player)
        self.spies[tenant] = spy

    async def _mint(self, tenant: str, name: str) -> None:
        at = f"/v1/tenants/{tenant}"
        if name in ("read", "write", "read_write"):
            made = await self.process.post(f"{at}/grounds/g1/tokens", {"name": name, "access": name})
            token = Token(tenant, "ground", name, made["id"], [made["token"]], ground="g1", access=name)
        elif name == "edge":
            if (tenant, "edge") not in self.world.things:
                return
            made = await self.process.post(f"{at}/things/edge/tokens", {"name": name})
            token = Token(tenant, "device", name, made["id"], [made["token"]], thing="edge")
        else:
            fleet = name == "fleet"
            body: dict[str, Any] = {"name": name, "thing_definition": "dev", "roles": ["more"]}
            if fleet:
                body |= {"ground": "g1", "license": "pool"}
            made = await self.process.post(f"{at}/app-tokens", body)
            token = Token(tenant, "app", name, made["id"], [made["token"]], ground="g1" if fleet else "")
            token.role, token.license, token.registers = True, fleet, True
        self.world.tokens.append(token)

    # --- judging -----------------------------------------------------------------------------------------------------

    def _judge_spy(self, publish: wire.Publish) -> str | None:
        if not publish.payload:
            return None  # a retained message that was cleared
        message = self.world.messages.get(publish.payload)
        if message is None or message.topic != publish.topic:
            return f"{publish.topic} {publish.payload!r} passed, which nobody was allowed to send"
        return None

    def _judge(self, session: Session, publish: wire.Publish) -> str | None:
        if not publish.payload:
            return None if publish.topic.startswith(session.tenant + "/") else f"{publish.topic} crossed the wall"
        message = self.world.messages.get(publish.payload)
        if message is None or message.topic != publish.topic or session not in message.allowed:
            return f"{session.name} got {publish.topic} {publish.payload!r}, which is not for it"
        return None

    async def _must(self, session: Session, message: Message) -> None:
        assert await session.player.arrived(message.payload), (
            f"{session.name} misses {message.topic} {message.payload!r}"
        )

    def check(self) -> None:
        """Fail if anybody got what is not his, or a connection is open that should not be, or the other way round."""
        wrong = [problem for player in self.players for problem in player.wrong]
        assert not wrong, wrong
        closed = [session.name for session in self.world.live() if session.player.closed.is_set()]
        assert not closed, f"closed: {closed}"

    async def settled(self) -> None:
        """Wait until the product lists the sessions that are open, and has nothing left to clear."""

        async def until(what: str, there: Callable[[], Awaitable[Any]], wanted: Any) -> None:
            deadline = time.monotonic() + 10
            while (found := await there()) != wanted:
                assert time.monotonic() < deadline, f"{what}: {found}, not {wanted}"
                await asyncio.sleep(0.005)

        async def clearings() -> int:
            return int(self.process.query("SELECT count(*) FROM clearings")[0][0])

        for tenant in TENANTS:

            async def listed(tenant: str = tenant) -> list[str]:
                return sorted(
                    s["client_id"] + s["token_id"] for s in await self.process.every(f"/v1/tenants/{tenant}/sessions")
                )

            live = [*self.world.live(), self.spies[tenant]]
            wanted = sorted(s.client_id + s.token.id for s in live if s.tenant == tenant)
            await until(f"sessions of {tenant}", listed, wanted)
        await until("clearings", clearings, 0)
