"""A service and an Aedes attached to it, each a process of its own, and who connects to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests.adapters.aedes_broker import AedesBroker, aedes_broker
from tests.broker.raw_client import RawClient
from tests.e2e.process import SPY_RULES, Process, running

SECRET = "a-secret-that-only-aedes-knows"


class Rig:
    """`service` answers, `broker` asks; things and tokens are made by the API, clients talk to Aedes.

    Tests that share the two have a tenant each, whose key begins every client id.
    """

    def __init__(self, service: Process, broker: AedesBroker, tenant: str = "default") -> None:
        self.service = service
        self.broker = broker
        self.tenant = service.tenant = tenant
        self.secret: dict[str, str] = {}
        self.token_id: dict[str, str] = {}
        service.address = broker.address

    @property
    def at(self) -> str:
        """The API's path of the tenant."""
        return self.service.at

    def own(self, key: str, ground: str = "default") -> str:
        """Return a thing's place."""
        return f"{self.tenant}/{ground}/{key}"

    def id(self, key: str) -> str:
        """Return the client id that a thing uses."""
        return f"{self.tenant}-{key}"

    async def cast(self) -> None:
        """Create the definition `dev` and the things `a` and `b`."""
        if self.tenant != "default":
            await self.service.post("/v1/tenants", {"key": self.tenant})
        await self.service.open_definition()
        for key in "ab":
            await self.thing(key)

    async def thing(self, key: str, *, definition: str = "dev", ground: str = "default", **token: Any) -> str:
        """Create a thing with a device token; return the token."""
        await self.service.post(f"{self.at}/things", {"key": key, "thing_definition": definition, "ground": ground})
        return await self.token(key, **token)

    async def token(self, key: str, **fields: Any) -> str:
        token = await self.service.device_token(key, **fields)
        self.secret[key], self.token_id[key] = token["token"], token["id"]
        return self.secret[key]

    async def revoke(self, key: str) -> None:
        await self.service.delete(f"{self.at}/things/{key}/tokens/{self.token_id[key]}")

    async def client(self, key: str, client_id: str | None = None, **fields: Any) -> RawClient:
        return await self.service.client(key, self.secret[key], client_id or self.id(key), **fields)

    async def code(self, key: str, client_id: str | None = None, **fields: Any) -> int | None:
        return await self.service.code(key, self.secret[key], client_id or self.id(key), **fields)

    async def spy(self) -> RawClient:
        """Connect a client that sees everything of the tenant, by a platform role."""
        ops = f"{self.tenant}-ops"
        await self.service.post("/v1/tenants", {"key": ops})
        await self.service.post("/v1/roles", {"key": ops, "rules": SPY_RULES})
        await self.service.post(f"/v1/tenants/{ops}/things", {"key": "spy"})
        token = await self.service.post(f"/v1/tenants/{ops}/app-tokens", {"name": "spy", "roles": [f"platform/{ops}"]})
        self.secret["spy"] = token["token"]
        return await self.spying()

    async def spying(self) -> RawClient:
        """Connect the spy again."""
        spy = await self.client("spy")
        assert await spy.subscribe((f"{self.tenant}/#", 1), (f"{self.tenant}-end", 1)) == [1, 1]
        return spy

    async def seen_by(self, spy: RawClient) -> list[tuple[str, bytes]]:
        """Return what the spy got until now: a message that comes last makes sure of it."""
        end = f"{self.tenant}-end"
        await spy.publish(end, qos=1)
        return [(each.topic, each.payload) for each in await spy.deliveries_until(end)]

    async def sessions(self) -> list[dict[str, Any]]:
        return await self.service.every(f"{self.at}/sessions")

    async def until(self, condition: Callable[[], Awaitable[bool]], patience_s: float = 5.0) -> None:
        """Wait until `await condition()` is true."""
        async with asyncio.timeout(patience_s):
            while not await condition():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def attached(
    folder: Path, *arguments: object, proxy: str = "", port: int = 0, **settings: Any
) -> AsyncIterator[Rig]:
    """Yield a pair of their own, with the cast; `proxy` stands between them."""
    async with running(folder, brokers__aedes__secret=SECRET, **settings) as service:
        with aedes_broker(folder, proxy or service.url, *arguments, secret=SECRET, port=port) as broker:
            rig = Rig(service, broker)
            await rig.cast()
            try:
                yield rig
            finally:
                await service.leave()


@contextmanager
def shared_pair(folder: Path) -> Iterator[tuple[Process, AedesBroker]]:
    """Yield a pair for the tests of one module; the service knows a second Aedes, `far`."""
    far = {"brokers__far__secret": SECRET, "brokers__far__kind": "aedes"}
    service = Process(folder, brokers__aedes__secret=SECRET, **far)
    asyncio.run(service.start())
    try:
        with aedes_broker(folder, service.url, secret=SECRET) as broker:
            yield service, broker
    finally:
        asyncio.run(service.close())
