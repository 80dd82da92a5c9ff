"""A real store and service under the application, reached through ASGI; tenants with one object of every kind."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
import pytest_asyncio

from authsvc.core import tokens
from authsvc.core.facts import AdminRole, TokenKind
from authsvc.service import Service
from authsvc.store import Store
from authsvc.web.app import create_app

BASE = "http://authsvc.test"


def now_us() -> int:
    return time.time_ns() // 1_000


@dataclass(kw_only=True)
class World:
    store: Store
    service: Service
    app: object
    client: httpx.AsyncClient
    keys: dict[str, str] = field(default_factory=dict, repr=False)
    secrets: list[str] = field(default_factory=list, repr=False)

    async def call(self, method: str, path: str, *, key: str | None = "owner", **more) -> httpx.Response:
        """Send one request with the named key (None: no key) and return the answer."""
        headers = dict(more.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {self.keys[key]}"
        return await self.client.request(method, path, headers=headers, **more)

    async def ok(self, method: str, path: str, *, key: str = "owner", **more):
        """Send one request that must succeed and return its JSON; a secret in it is remembered."""
        answer = await self.call(method, path, key=key, **more)
        assert answer.status_code in (200, 201, 204), (method, path, answer.status_code, answer.text)
        if answer.status_code == 204:
            assert not answer.content
            return None
        body = answer.json()
        if "token" in body:
            self.secrets.append(body["token"])
        return body

    async def admin(self, name: str, role: str, tenant: str | None) -> str:
        """Make an admin key and keep it under `name`; return its id."""
        made = await self.ok("POST", "/v1/admin-keys", json={"name": name, "role": role, "tenant": tenant})
        self.keys[name] = made["token"]
        return made["id"]

    async def populate(self, tenant: str) -> dict[str, str]:
        """Make a tenant with one object of every kind; return the values for the parameters of paths."""
        t = f"/v1/tenants/{tenant}"
        await self.ok("POST", "/v1/tenants", json={"key": tenant})
        await self.ok("POST", f"{t}/grounds", json={"key": "hall"})
        await self.ok("POST", f"{t}/thing-definitions", json={"key": "edge", "kind": "gateway"})
        await self.ok("POST", f"{t}/roles", json={"key": "monitor"})
        await self.ok("POST", f"{t}/licenses", json={"key": "fleet", "seats": 5})
        app = await self.ok(
            "POST",
            f"{t}/app-tokens",
            json={"name": "fleet", "thing_definition": "edge", "ground": "hall", "roles": ["monitor"]},
        )
        thing = {"key": "gw-1", "thing_definition": "edge", "ground": "hall", "tags": ["a"]}
        await self.ok("POST", f"{t}/things", json=thing)
        device = await self.ok("POST", f"{t}/things/gw-1/tokens", json={"name": "d"})
        await self.ok("POST", f"{t}/things/gw-1/modules", json={"key": "m-1"})
        ground = await self.ok("POST", f"{t}/grounds/hall/tokens", json={"name": "g", "access": "read"})
        self.keys[f"{tenant} app token"] = app["token"]
        self.keys[f"{tenant} device token"] = device["token"]
        self.keys[f"{tenant} ground token"] = ground["token"]
        return {"tenant": tenant, "app": app["id"], "device": device["id"], "ground": ground["id"]}


@contextlib.asynccontextmanager
async def running(path) -> AsyncIterator[World]:
    """A running service without broker and the platform's first owner key under the name ``owner``."""
    store = await Store.open(path, now_us=now_us)
    service = Service(store=store, now_us=now_us)
    await service.start()
    task = asyncio.create_task(service.run(), name="service")
    app = create_app(service, now_us=now_us)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        made = World(store=store, service=service, app=app, client=client)
        secret = tokens.mint(TokenKind.ADMIN)
        parsed = tokens.parse(secret)
        assert parsed is not None
        written = await store.admin_keys.create(
            name="first", tenant=None, role=AdminRole.OWNER, digest=parsed.digest, prefix=parsed.prefix
        )
        await service.feed.settle(written.position)
        made.keys["owner"] = secret
        yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await store.close()


async def furnish(world: World) -> World:
    """Make the tenants `acme` and `umbrella`, and keys of every role in and above them."""
    world.acme = await world.populate("acme")
    world.umbrella = await world.populate("umbrella")
    for tenant in ("acme", "umbrella", None):
        for role in ("viewer", "operator", "owner"):
            if (tenant, role) != (None, "owner"):
                await world.admin(f"{tenant or 'platform'} {role}", role, tenant)
    await world.ok("POST", "/v1/roles", json={"key": "bridge", "rules": [RULE_ABOVE]})
    return world


@pytest.fixture
async def tenants(tmp_path) -> AsyncIterator[World]:
    """A furnished world of the test's own."""
    async with running(tmp_path / "authsvc.db") as world:
        yield await furnish(world)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory) -> AsyncIterator[World]:
    """A furnished world for tests whose every request is refused."""
    async with running(tmp_path_factory.mktemp("web") / "authsvc.db") as world:
        yield await furnish(world)


RULE_ABOVE = {"effect": "allow", "action": "subscribe", "topic": "#"}
