"""What operators do in the model test: each move is made in the product and in the world before the next one."""

from __future__ import annotations

import asyncio

from tests.e2e.model_clients import Clients
from tests.e2e.model_table import GROUNDS, MODULES, TENANTS
from tests.e2e.model_world import DEFINITION_RULES, ROLE_RULES, Session, Thing, Token


class Operators(Clients):
    """Moves of operators."""

    async def _ended(self, sessions: list[Session], *, wiped: bool) -> None:
        """These have been ended by the service: without a will."""
        for session in sessions:
            session.will = None
            if session.player is not None:
                player, session.player = session.player, None
                async with asyncio.timeout(1):
                    await player.closed.wait()
                await player.end()
            if wiped or session.clean:
                self.world.sessions.pop(session.name, None)

    def _thing(self) -> Thing | None:
        things = [thing for thing in self.world.things.values() if thing.key != "spy"]
        return self.dice.choice(things) if things else None

    def _at(self, thing: Thing) -> str:
        return f"/v1/tenants/{thing.tenant}/things/{thing.key}"

    async def move(self) -> None:
        if (thing := self._thing()) is None:
            return
        ground = self.dice.choice(GROUNDS)
        self.says(f"move {thing.tenant} {thing.key} {thing.ground} -> {ground}")
        await self.process.patch(self._at(thing), {"ground": ground})
        thing.ground = ground
        out = [
            session
            for session in self.world.live()
            if (session.tenant, session.thing) == (thing.tenant, thing.key)
            and isinstance(self.world.admitted_thing(session.token, session.token.secrets[-1], thing.key), str)
        ]
        await self._ended(out, wiped=False)  # their token does not admit it any more
        self.world.changed()

    async def _out(self, thing: Thing) -> None:
        sessions = [s for s in self.world.sessions.values() if (s.tenant, s.thing) == (thing.tenant, thing.key)]
        await self._ended(sessions, wiped=True)
        self.world.clear_below(f"{thing.tenant}/{thing.ground}/{thing.key}")

    async def block(self) -> None:
        blocked = [thing for thing in self.world.things.values() if thing.blocked]
        thing = self.dice.choice(blocked) if blocked else self._thing()
        if thing is None:
            return
        self.says(f"{'unblock' if thing.blocked else 'block'} {thing.tenant} {thing.key}")
        await self.process.patch(self._at(thing), {"state": "active" if thing.blocked else "blocked"})
        thing.blocked = not thing.blocked
        if thing.blocked:
            await self._out(thing)
        self.world.changed()
        await self.settled()

    async def delete(self) -> None:
        """Delete a thing, or revive a deleted one."""
        if self.world.retired and self.dice.random() < 0.6:
            tenant, key = self.dice.choice(sorted(self.world.retired))
            definition = {"edge": "edge", "m1": "module", "m2": "module"}.get(key, "dev")
            ground = self.dice.choice(GROUNDS)
            self.says(f"revive {tenant} {key} in {ground}")
            await self.process.post(
                f"/v1/tenants/{tenant}/things", {"key": key, "thing_definition": definition, "ground": ground}
            )
            self.world.retired.discard((tenant, key))
            self.world.things[tenant, key] = Thing(tenant, key, definition, ground)
            if key == "edge":
                await self._mint(tenant, "edge")
        elif (thing := self._thing()) is not None:
            self.says(f"delete {thing.tenant} {thing.key}")
            await self.process.delete(self._at(thing) + ("?cascade=true" if thing.modules else ""))
            for token in self.world.tokens:
                if (token.tenant, token.thing) == (thing.tenant, thing.key):
                    token.dead = True
            await self._out(thing)
            for key in thing.modules:
                module = self.world.things.pop((thing.tenant, key))
                await self._out(module)
                self.world.retired.add((thing.tenant, key))
            del self.world.things[thing.tenant, thing.key]
            self.world.retired.add((thing.tenant, thing.key))
            if (gateway := self.world.things.get((thing.tenant, "edge"))) is not None:
                gateway.modules.discard(thing.key)
        self.world.changed()
        await self.settled()

    async def change_rules(self) -> None:
        tenant = self.dice.choice(TENANTS)
        number = self.dice.randrange(len(DEFINITION_RULES))
        self.says(f"definition {tenant} {number}")
        await self.process.patch(f"/v1/tenants/{tenant}/thing-definitions/dev", {"rules": DEFINITION_RULES[number]})
        self.world.definition[tenant] = number
        self.world.changed()

    async def change_role(self) -> None:
        tenant = self.dice.choice(TENANTS)
        number = self.dice.randrange(len(ROLE_RULES))
        self.says(f"role {tenant} {number}")
        await self.process.patch(f"/v1/tenants/{tenant}/roles/more", {"rules": ROLE_RULES[number]})
        self.world.role[tenant] = number
        self.world.changed()

    def _token(self) -> Token | None:
        tokens = [token for token in self.world.tokens if not token.dead]
        return self.dice.choice(tokens) if tokens else None

    async def revoke(self) -> None:
        """Revoke a token and make another one of its sort."""
        if (token := self._token()) is None:
            return
        self.says(f"revoke {token.tenant} {token.name} {token.id}")
        at = f"/v1/tenants/{token.tenant}"
        place = {"app": "app-tokens", "device": "things/edge/tokens", "ground": "grounds/g1/tokens"}[token.kind]
        await self.process.delete(f"{at}/{place}/{token.id}")
        token.dead = True
        await self._ended([s for s in self.world.sessions.values() if s.token is token], wiped=True)
        await self._mint(token.tenant, token.name)
        await self.settled()

    async def regenerate(self) -> None:
        token = self._token()
        if token is None or token.kind != "app":
            return
        overlap = self.dice.choice([0, 3600])
        self.says(f"regenerate {token.tenant} {token.name} {token.id} overlap={overlap}")
        path = f"/v1/tenants/{token.tenant}/app-tokens/{token.id}/regenerate"
        made = await self.process.post(path, {"overlap_s": overlap}, status=200)
        if overlap:
            token.secrets.append(made["token"])
        else:
            token.secrets = [made["token"]]
            await self._ended([s for s in self.world.sessions.values() if s.token is token], wiped=True)
        await self.settled()

    async def modules(self) -> None:
        tenant = self.dice.choice(TENANTS)
        gateway = self.world.things.get((tenant, "edge"))
        if gateway is None:
            return
        key = self.dice.choice(MODULES)
        at = f"{self._at(gateway)}/modules"
        if key in gateway.modules:
            self.says(f"unbind {tenant} {key}")
            await self.process.delete(f"{at}/{key}")
            gateway.modules.discard(key)
        else:
            self.says(f"bind {tenant} {key}")
            if (tenant, key) in self.world.retired:
                return
            new = (tenant, key) not in self.world.things
            made = await self.process.post(at, {"key": key, "thing_definition": "module"} if new else {"key": key})
            if new:
                self.world.things[tenant, key] = Thing(tenant, key, "module", made["ground"])
            self.world.things[tenant, key].ground = made["ground"]
            gateway.modules.add(key)
        self.world.changed()

    async def suspend(self) -> None:
        tenant = "m2"
        self.says(f"suspend and activate {tenant}")
        await self.process.patch(f"/v1/tenants/{tenant}", {"state": "suspended"})
        self.world.suspended.add(tenant)
        await self._ended([s for s in self.world.sessions.values() if s.tenant == tenant], wiped=True)
        self.players.remove(self.spies[tenant].player)
        async with asyncio.timeout(1):
            await self.spies[tenant].player.closed.wait()
        for _ in range(3):
            await self.connect()
        await self.process.patch(f"/v1/tenants/{tenant}", {"state": "active"})
        self.world.suspended.discard(tenant)
        await self._spy(tenant)
        await self.settled()
