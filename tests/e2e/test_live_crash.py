"""Promise 7 on the running product: kill -9 in the middle of registrations and API calls loses nothing answered."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.broker.raw_client import RawClient
from tests.e2e.process import Process, T

SEATS = 100_000


@dataclass
class Answered:
    """What the service has said yes to, with what proves it, until it was killed."""

    things: set[str] = field(default_factory=set)  # CONNACK 0 or 201
    bound: dict[str, str] = field(default_factory=dict)  # key: client id
    tokens: dict[str, str] = field(default_factory=dict)  # id: secret
    revoked: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)


class Storm:
    """Gateways that register and an operator that creates, revokes and deletes, until the service is gone."""

    def __init__(self, process: Process, seed: int) -> None:
        self.process = process
        self.random = random.Random(seed)
        self.answered = Answered()
        self.round = 0
        self.app = ""

    def proves(self, kills: int) -> bool:
        """Whether enough was answered for that many kills: a slow machine needs more of them."""
        answered = self.answered
        return len(answered.things) > 5 * kills and bool(answered.revoked) and bool(answered.deleted)

    async def prepare(self) -> None:
        await self.process.open_definition(bind_client_id="app_token")
        await self.process.post(f"{T}/licenses", {"key": "seats", "seats": SEATS})
        self.app = (await self.process.app_token(license="seats"))["token"]

    async def blow(self, seconds: float) -> None:
        """Blow for that long, kill, and wait until all who were under way have seen it."""
        self.round += 1
        writers = [self._gateways(n) for n in range(6)] + [self._operator(n) for n in range(4)]
        tasks = [asyncio.create_task(writer) for writer in writers]
        await asyncio.sleep(seconds)
        await self.process.kill()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)

    async def _gateways(self, lane: int) -> None:
        number = 0
        while True:
            key = f"g{self.round}-{lane}-{number}"
            number += 1
            try:
                client = await RawClient.open(self.process.address)
                code = await client.connect(f"id-{key}", self.app, username=key)
            except OSError:
                return
            if code is None:
                return
            assert code == 0
            self.answered.things.add(key)
            self.answered.bound[key] = f"id-{key}"
            client.cut()

    async def _operator(self, lane: int) -> None:
        number = 0
        try:
            async with self.process.api_as(self.process.key) as api:
                while True:
                    await self._act(api, f"o{self.round}-{lane}-{number}")
                    number += 1
        except httpx.TransportError:
            return

    async def _act(self, api: httpx.AsyncClient, key: str) -> None:
        answered = self.answered
        assert (await api.post(f"{T}/things", json={"key": key, "thing_definition": "dev"})).status_code == 201
        answered.things.add(key)
        created = await api.post(f"{T}/things/{key}/tokens", json={"name": "t"})
        assert created.status_code == 201
        token = created.json()
        answered.tokens[token["id"]] = token["token"]
        match self.random.randrange(4):
            case 0:
                secret = answered.tokens.pop(token["id"])  # whether it is revoked is open until the answer
                assert (await api.delete(f"{T}/things/{key}/tokens/{token['id']}")).status_code == 204
                answered.revoked[key] = secret
            case 1:
                answered.things.discard(key)
                answered.tokens.pop(token["id"])
                assert (await api.delete(f"{T}/things/{key}")).status_code == 204
                answered.deleted.add(key)


async def _holds(storm: Storm) -> None:
    """Ask the started service and the file itself whether what was answered is there, and nothing half."""
    process, answered = storm.process, storm.answered
    things = {thing["key"]: thing for thing in await process.every(f"{T}/things")}
    assert answered.things <= things.keys(), "a thing that was admitted or answered is lost"
    assert not answered.deleted & things.keys(), "a deleted thing is back"
    (license_,) = (await process.get(f"{T}/licenses"))["items"]
    seated = process.query("SELECT count(*) FROM things WHERE license = 'seats'")[0][0]
    assert license_["used"] == seated == sum(1 for key in things if key.startswith("g"))
    halves = {
        "a gateway without its binding": "SELECT key FROM things WHERE key LIKE 'g%' AND client_id IS NULL",
        "a gateway without a seat": "SELECT key FROM things WHERE key LIKE 'g%' AND license = ''",
        "a gateway without its token": "SELECT key FROM things WHERE key LIKE 'g%' AND token_id = ''",
        "a token without a secret": "SELECT id FROM tokens WHERE id NOT IN (SELECT token_id FROM secrets)",
        "a thing without its change": (
            "SELECT key FROM things WHERE key NOT IN (SELECT key FROM changes WHERE op IN ('registered', 'created'))"
        ),
        "a thing that is retired as well": "SELECT key FROM things INTERSECT SELECT key FROM retired",
    }
    for what, sql in halves.items():
        assert process.query(sql) == [], what
    assert process.query("PRAGMA integrity_check") == [("ok",)]
    assert process.query("PRAGMA foreign_key_check") == []
    known = {row[0] for row in process.query("SELECT id FROM tokens WHERE revoked_at_us IS NULL")}
    assert answered.tokens.keys() <= known, "a token that was answered is lost"
    for key, client_id in random.Random(1).sample(sorted(answered.bound.items()), min(5, len(answered.bound))):
        assert await process.code(key, storm.app, client_id) == 0
        assert await process.code(key, storm.app, "somebody-else") == 5, "the binding is lost"
    for key, secret in random.Random(1).sample(sorted(answered.revoked.items()), min(5, len(answered.revoked))):
        assert await process.code(key, secret) == 4, "a revoked token is valid again"
    for key in sorted(answered.deleted)[:5]:
        assert await process.code(key, storm.app) == 5, "a deleted thing was resurrected"


async def _rounds(folder: Path, count: int, seed: int) -> None:
    process = Process(folder)
    try:
        await process.start()
        storm = Storm(process, seed)
        await storm.prepare()
        answered = storm.answered
        while storm.round < count or (not storm.proves(count) and storm.round < 5 * count):
            await storm.blow(storm.random.uniform(0.05, 0.8))
            await process.start()
            await _holds(storm)
        print(f"{storm.round} kills: {len(answered.things)} things, {len(answered.tokens)} tokens, ", end="")
        print(f"{len(answered.revoked)} revoked, {len(answered.deleted)} deleted")
        assert storm.proves(count), "too little happened for a proof"
        assert await process.terminate() < 5
    finally:
        await process.close()


async def test_kill_at_random_moments_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    """After each of three kills every CONNACK 0 and 201 is there, nothing is half, revoked stays revoked."""
    await _rounds(tmp_path, 3, seed=7)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_thirty_kills_lose_nothing_that_was_answered(tmp_path: Path) -> None:
    """In its full length, other moments at every run."""
    await _rounds(tmp_path, 30, seed=int.from_bytes(os.urandom(4)))
