"""The product without its HTTP part, in this process: real store, service, broker and gate, and the cast of the tests.

A1 and A2 are things in ground g1 of tenant t1, B1 in g2, Z1 in t2; GT1 is a ground token of g1; SPY may see everything
by a platform role. `own(X)` is X's place. Whoever changes something does so by the repositories, as the API does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from authsvc.core import tokens
from authsvc.core.facts import BindClientId, Effect, GroundAccess, Rule, RuleAction, TokenKind
from authsvc.core.reasons import Reason
from authsvc.service import Service
from authsvc.store import Store
from authsvc.store.database import Written
from broker.gate import Gate
from broker.limits import Limits
from broker.listeners import Listener
from broker.upstream import Upstream
from tests.broker.raw_client import RawClient, close_all

Value = TypeVar("Value")


def allow(action: RuleAction, topic: str, **conditions: Any) -> Rule:
    return Rule(effect=Effect.ALLOW, action=action, topic=topic, **conditions)


def deny(action: RuleAction, topic: str) -> Rule:
    return Rule(effect=Effect.DENY, action=action, topic=topic)


PUBLISH, SUBSCRIBE = RuleAction.PUBLISH, RuleAction.SUBSCRIBE
OWN = (allow(PUBLISH, "{tenant}/{ground}/{thing}/#"), allow(SUBSCRIBE, "{tenant}/{ground}/{thing}/#"))
ALL = (allow(PUBLISH, "#"), allow(SUBSCRIBE, "#"))

PLACES = {"A1": ("t1", "g1"), "A2": ("t1", "g1"), "B1": ("t1", "g2"), "Z1": ("t2", "default")}


def own(thing: str) -> str:
    """Return a thing's place, without a slash at its end."""
    tenant, ground = PLACES[thing]
    return f"{tenant}/{ground}/{thing}"


class System:
    """Everything a test holds in its hands. `secret[name]` is a token, `token_id[name]` its id."""

    def __init__(self, store: Store, service: Service, upstream: Upstream, gate: Gate) -> None:
        self.store = store
        self.service = service
        self.upstream = upstream
        self.gate = gate
        self.address = ("", 0)
        self.secret: dict[str, str] = {}
        self.token_id: dict[str, str] = {}

    async def do(self, work: Awaitable[Written[Value]]) -> Value:
        """Write, and return when the change is applied here: as an API call answers."""
        written = await work
        await self.service.feed.settle(written.position)
        return written.value

    async def app_token(self, name: str, tenant: str, **fields: Any) -> str:
        """Create an app token that registers things."""
        secret = tokens.mint(TokenKind.APP)
        fields = {"definition": "dev", "auto_register": True, **fields}
        token = await self.do(
            self.store.app_tokens.create(
                tenant, name=name, digest=tokens.digest(secret), prefix=tokens.prefix(secret), **fields
            )
        )
        self.secret[name], self.token_id[name] = secret, token.id
        return secret

    async def device_token(self, name: str, tenant: str, thing: str, **fields: Any) -> str:
        """Create a device token."""
        secret = tokens.mint(TokenKind.DEVICE)
        token = await self.do(
            self.store.device_tokens.create(
                tenant, thing, name=name, digest=tokens.digest(secret), prefix=tokens.prefix(secret), **fields
            )
        )
        self.secret[name], self.token_id[name] = secret, token.id
        return secret

    async def ground_token(self, name: str, tenant: str, ground: str, access: GroundAccess, **fields: Any) -> str:
        """Create a ground token."""
        secret = tokens.mint(TokenKind.GROUND)
        token = await self.do(
            self.store.ground_tokens.create(
                tenant,
                ground,
                name=name,
                access=access,
                digest=tokens.digest(secret),
                prefix=tokens.prefix(secret),
                **fields,
            )
        )
        self.secret[name], self.token_id[name] = secret, token.id
        return secret

    async def cast(self) -> None:
        """Create the tenants, grounds, things and tokens that every test knows."""
        for tenant in ("t1", "t2"):
            await self.do(self.store.tenants.create(tenant))
            await self.do(self.store.definitions.create(tenant, "dev", rules=OWN, bind_client_id=BindClientId.NEVER))
        for ground in ("g1", "g2"):
            await self.do(self.store.grounds.create("t1", ground))
        for thing, (tenant, ground) in PLACES.items():
            await self.do(self.store.things.create(tenant, thing, definition="dev", ground=ground))
            await self.device_token(thing, tenant, thing)
        await self.ground_token("GT1", "t1", "g1", GroundAccess.READ_WRITE)
        await self.do(self.store.roles.create("", "spy", rules=ALL))
        await self.do(self.store.things.create("t2", "SPY", definition="dev"))
        await self.app_token("SPY", "t2", definition="", auto_register=False, roles=("platform/spy",))

    # --- clients ---------------------------------------------------------------------------------------------

    async def open(self) -> RawClient:
        return await RawClient.open(self.address)

    async def client(self, who: str, client_id: str | None = None, **fields: Any) -> RawClient:
        """Connect as one of the cast."""
        username = fields.pop("username", who)
        return await RawClient.connected(
            self.address, client_id if client_id is not None else who, self.secret[who], username=username, **fields
        )

    async def code(self, client_id: str, password: str | bytes | None, **fields: Any) -> int | None:
        """Try to connect; return the code. A connection that is refused must be closed within a second."""
        client = await self.open()
        code = await client.connect(client_id, password, **fields)
        if code != 0:
            assert await client.closed(1.5), "refused, but not closed"
        return code

    async def spy(self) -> RawClient:
        """Connect the client that sees everything."""
        spy = await self.client("SPY")
        assert await spy.subscribe(("t1/#", 2), ("t2/#", 2)) == [2, 2]
        return spy

    async def seen_by(self, spy: RawClient) -> list[tuple[str, bytes]]:
        """Return what the spy got until now: a message that comes last makes sure of it."""
        await spy.publish("t2/default/SPY/sentinel", qos=1)
        return [(p.topic, p.payload) for p in await spy.deliveries_until("t2/default/SPY/sentinel")]

    def reasons(self, tenant: str = "t1") -> list[Reason]:
        """Return why the tenant's last refusals were, newest first."""
        return [record.reason for record in self.service.refusals.last(tenant)]

    async def sound(self) -> None:
        """Every case ends with it: a fresh client gets a QoS 1 round trip within a second."""
        async with asyncio.timeout(2):
            client = await self.client("A2", "sound")
            assert await client.subscribe((f"{own('A2')}/sound", 1)) == [1]
            await client.publish(f"{own('A2')}/sound", b"ok", qos=1)
            assert (await client.delivery()).payload == b"ok"
            await client.disconnect()

    async def lost(self, client: RawClient, thing: str) -> None:
        """Cut the only connection of a thing of t1, and wait until the broker has let go of its session.

        amqtt does not send again what it sent to a connection that was gone already.
        """
        (session,) = self.service.sessions.find("t1", thing=thing)
        client.cut()
        await self.until(lambda: not self.service.sessions.find("t1", thing=thing))
        await session.connection.wait_ended()

    async def until(self, condition: Any, patience_s: float = 5.0) -> None:
        """Wait until `condition()` is true."""
        async with asyncio.timeout(patience_s):
            while not condition():
                await asyncio.sleep(0.001)


@asynccontextmanager
async def system_on(
    upstream: Upstream, folder: Path, *, limits: Limits | None = None, **options: Any
) -> AsyncIterator[System]:
    """Compose the product in front of a started upstream, with its cast."""
    limits = limits or Limits()
    store = await Store.open(folder / "authsvc.db", now_us=lambda: time.time_ns() // 1000)
    service = Service(
        store=store,
        now_us=lambda: time.time_ns() // 1000,
        max_persistent_sessions=limits.max_persistent_sessions,
        max_client_id_bytes=limits.max_client_id_bytes,
    )
    await service.start()
    running = asyncio.create_task(service.run(), name="service")
    gate = Gate(service, upstream, limits, **options)
    try:
        system = System(store, service, upstream, gate)
        system.address = await gate.listen(Listener(name="default", host="127.0.0.1", port=0))
        await system.cast()
        yield system
    finally:
        await close_all()
        await gate.close()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await store.close()
