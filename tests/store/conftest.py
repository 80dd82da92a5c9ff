"""Stores for tests. `open_store` opens one more store on the same database; a new engine adds its id to `ENGINES`."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import Thing, Token
from authsvc.core.things import Plan
from authsvc.store import Store

ENGINES = ["sqlite"]
SECOND_US = 1_000_000
ANSWER_S = 1.0  # promise 11: everybody is answered within about a second
OpenStore = Callable[[], Awaitable[Store]]


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_us = 1_700_000_000 * SECOND_US

    def __call__(self) -> int:
        return self.now_us

    def advance(self, seconds: float) -> None:
        self.now_us += int(seconds * SECOND_US)


_secrets = itertools.count()


def new_digest() -> bytes:
    return hashlib.sha256(f"secret {next(_secrets)}".encode()).digest()


@dataclass
class World:
    """A tenant `acme` with an app token that registers things of the definition `gateway`."""

    store: Store
    token: Token
    digest: bytes

    def plan(self, key: str, **changes: object) -> Plan:
        values: dict[str, object] = {
            "tenant": "acme",
            "key": key,
            "name": key,
            "definition": "gateway",
            "ground": "default",
            "token_id": self.token.id,
        }
        values.update(changes)
        thing = Thing(**values)
        return Plan(thing=thing, license=self.token.license, max_things=self.token.max_things, token_id=self.token.id)

    async def register(self, key: str, client_id: str | None = None) -> Thing:
        written = await self.store.register(self.plan(key), bind_client_id=client_id)
        assert isinstance(written.value, Thing), written.value
        return written.value

    async def secret_id(self, digest: bytes | None = None) -> str:
        found = await self.store.token_by_digest(digest or self.digest)
        assert found is not None
        return found[1].id

    async def open_session(self, principal: str, client_id: str, *, thing: str = "", upstream_id: str) -> None:
        await self.store.open_upstream_session(
            principal,
            client_id,
            tenant="acme",
            thing=thing,
            token_id=self.token.id,
            secret_id=await self.secret_id(),
            clean=False,
            upstream_id=upstream_id,
        )

    async def targets(self) -> list[tuple[str, str]]:
        return [(clearing.kind.value, clearing.target) for clearing in await self.store.clearings()]

    async def ops_since(self, position: int) -> list[tuple[str, str, str]]:
        changes = await self.store.changes_after(position)
        return [(change.name.kind.value, change.name.key, change.op) for change in changes]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database_path(tmp_path: Path) -> Path:
    return tmp_path / "authsvc.db"


@pytest.fixture(params=ENGINES)
async def open_store(request: pytest.FixtureRequest, database_path: Path, clock: Clock) -> AsyncIterator[OpenStore]:
    opened: list[Store] = []

    async def open_one() -> Store:
        assert request.param == "sqlite"
        store = await Store.open(database_path, now_us=clock)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


async def make_world(store: Store, **token: object) -> World:
    await store.tenants.create("acme")
    if "license" in token:
        await store.licenses.create("acme", str(token["license"]), seats=int(str(token.pop("seats"))))
    digest = new_digest()
    values: dict[str, object] = {"name": "fleet", "definition": "gateway", **token}
    written = await store.app_tokens.create("acme", digest=digest, prefix="asapp_abcd", **values)
    return World(store=store, token=written.value, digest=digest)


@pytest.fixture
async def world(store: Store) -> World:
    return await make_world(store)


async def refused(question: Awaitable[object], error: type[StoreUnavailable] = StoreUnavailable) -> StoreUnavailable:
    """Await the question, expect the error within the promised time, and return it."""
    started = time.perf_counter()
    with pytest.raises(StoreUnavailable) as caught:
        await question
    assert time.perf_counter() - started < ANSWER_S
    assert isinstance(caught.value, error)
    return caught.value
