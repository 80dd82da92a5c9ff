"""A service and an Aedes attached to it, each a process of its own, and who connects to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.adapters.aedes_broker import AedesBroker, aedes_broker
from tests.broker.raw_client import RawClient
from tests.e2e.process import Process, running

SECRET = "a-secret-that-only-aedes-knows"


class Rig:
    """`service` answers, `broker` asks; things and tokens are made by the API, clients talk to Aedes."""

    def __init__(self, service: Process, broker: AedesBroker) -> None:
        self.service = service
        self.broker = broker
        self.secret: dict[str, str] = {}
        self.token_id: dict[str, str] = {}
        service.address = broker.address

    async def thing(self, key: str, *, definition: str = "dev", ground: str = "default", **token: Any) -> str:
        """Create a thing with a device token; return the token."""
        body = {"key": key, "thing_definition": definition, "ground": ground}
        await self.service.post(f"{self.service.at}/things", body)
        return await self.token(key, **token)

    async def token(self, key: str, **fields: Any) -> str:
        token = await self.service.device_token(key, **fields)
        self.secret[key], self.token_id[key] = token["token"], token["id"]
        return self.secret[key]

    async def revoke(self, key: str) -> None:
        await self.service.delete(f"{self.service.at}/things/{key}/tokens/{self.token_id[key]}")

    async def client(self, key: str, client_id: str | None = None, **fields: Any) -> RawClient:
        return await self.service.client(key, self.secret[key], client_id, **fields)

    async def code(self, key: str, client_id: str | None = None, **fields: Any) -> int | None:
        return await self.service.code(key, self.secret[key], client_id, **fields)

    async def sessions(self) -> list[dict[str, Any]]:
        return await self.service.every(f"{self.service.at}/sessions")

    async def until(self, condition: Callable[[], Awaitable[bool]], patience_s: float = 5.0) -> None:
        """Wait until `await condition()` is true."""
        async with asyncio.timeout(patience_s):
            while not await condition():
                await asyncio.sleep(0.01)

    async def seen_by(self, spy: RawClient) -> list[tuple[str, bytes]]:
        """Return what the spy got until now: a message that comes last makes sure of it."""
        await spy.publish("end", qos=1)
        return [(each.topic, each.payload) for each in await spy.deliveries_until("end")]


def own(key: str, ground: str = "default") -> str:
    """Return a thing's place."""
    return f"default/{ground}/{key}"


@asynccontextmanager
async def attached(
    folder: Path, *arguments: object, proxy: str = "", port: int = 0, **settings: Any
) -> AsyncIterator[Rig]:
    """Yield the two, with the definition `dev` and the things `a` and `b`; `proxy` stands between them."""
    async with running(folder, brokers__aedes__secret=SECRET, **settings) as service:
        await service.open_definition()
        with aedes_broker(folder, proxy or service.url, *arguments, secret=SECRET, port=port) as broker:
            rig = Rig(service, broker)
            await rig.thing("a")
            await rig.thing("b")
            try:
                yield rig
            finally:
                await service.leave()
