"""Promise 11 on the running product: the database breaks under it, and neither opens a door nor stops the living."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.broker.raw_client import RawClient
from tests.e2e.crowd import Pulse, pulse_of
from tests.e2e.process import Process, T, running

STALL_S = 0.2  # promise 11
UNAVAILABLE = 3
SLOW = pytest.mark.slow  # a variant of what runs by default

HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
connection.execute(f"BEGIN {sys.argv[2]}")
connection.execute("UPDATE heartbeat SET at_us = at_us")
print("held", flush=True)
sys.stdin.read()
"""


class World:
    """A service with a thing that is known, one that registers, and a session that must not notice anything."""

    def __init__(self, process: Process, app: str, live: RawClient) -> None:
        self.process = process
        self.app = app
        self.live = live
        self._number = 0

    async def known(self) -> int | None:
        """Connect as a thing that is known, clean session: it needs no write."""
        return await self.process.code("known", self.app, f"again-{time.monotonic_ns()}")

    async def first(self) -> int | None:
        """Connect as a thing that nobody has seen."""
        self._number += 1
        return await self.process.code(f"new-{self._number}", self.app)

    async def works(self) -> None:
        """The live session sends to itself; promise 11 says PING answers within a second, so may this."""
        async with asyncio.timeout(1):
            await self.live.publish("default/default/known/x", b"alive", qos=1)
            assert (await self.live.delivery()).payload == b"alive"

    async def write_status(self) -> int:
        return (await self.process.api.post(f"{T}/things", json={"key": f"w{time.monotonic_ns()}"})).status_code

    async def read_status(self) -> int:
        return (await self.process.api.get(f"{T}/things")).status_code

    async def until(self, wanted: Callable[[], object], patience_s: float = 6.0) -> None:
        """Wait until an awaitable condition holds."""
        async with asyncio.timeout(patience_s):
            while not await wanted():  # type: ignore[misc]
                await asyncio.sleep(0.05)


async def _world(process: Process) -> World:
    await process.open_definition()
    app = (await process.app_token())["token"]
    live = await process.client("known", app)
    assert await live.subscribe(("default/default/known/x", 1)) == [1]
    return World(process, app, live)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as process:
        yield await _world(process)


def _assert_no_stall(pulse: Pulse) -> None:
    print(f"PING: {len(pulse.trips)} round trips, worst {pulse.worst_s * 1000:.0f} ms")
    assert pulse.worst_s < STALL_S, f"the loop stalled for {pulse.worst_s * 1000:.0f} ms"


@contextmanager
def _lock_held(database: Path, mode: str) -> Iterator[None]:
    """Let another process hold the write lock."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(database), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield
    finally:
        child.kill()
        child.communicate()


async def _refuses_writes_only(world: World, seconds: float) -> None:
    """Hold everything that the promise says of a store that can be read but not written, for that long."""
    async with pulse_of(world.live) as pulse:
        deadline = time.monotonic() + seconds
        refused = 0
        while time.monotonic() < deadline:
            began = time.monotonic()
            codes = await asyncio.gather(world.known(), world.first(), world.first())
            assert codes == [0, UNAVAILABLE, UNAVAILABLE]
            assert await world.write_status() == 503
            assert await world.read_status() == 200
            assert time.monotonic() - began < 3, "an answer that comes so late is none"
            refused += 1
        assert refused
    _assert_no_stall(pulse)


async def _recovers(world: World) -> None:
    async def accepts() -> bool:
        return await world.write_status() == 201

    await world.until(accepts)
    await world.until(lambda: _is_admitted(world))
    await world.works()
    assert "Traceback" not in world.process.log.read_text()


async def _is_admitted(world: World) -> bool:
    return await world.first() == 0


@pytest.mark.parametrize("mode", ["EXCLUSIVE", pytest.param("IMMEDIATE", marks=SLOW)])
async def test_a_locked_database_refuses_only_what_must_be_written(world: World, mode: str) -> None:
    """Known things come in, first connections get 3, writes 503, reads 200, PING never waits 200 ms."""
    with _lock_held(world.process.database, mode):
        await _refuses_writes_only(world, 3)
    await _recovers(world)
    assert world.process.query("SELECT count(*) FROM things WHERE key LIKE 'new-%'") == [(1,)], "a phantom registered"


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_a_database_locked_for_half_a_minute_is_survived(world: World) -> None:
    """In its full length."""
    with _lock_held(world.process.database, "EXCLUSIVE"):
        await _refuses_writes_only(world, 30)
    await _recovers(world)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


async def test_a_full_disk_refuses_only_what_must_be_written(small_disk: Path, tmp_path: Path) -> None:
    """Nothing is registered in memory only, what is answered is on the disk, and space is enough to recover."""
    process = Process(tmp_path)
    process.data = small_disk / "var"
    try:
        await process.start()
        world = await _world(process)
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"\0" * 4096)

        async def is_full() -> bool:
            return await world.first() == UNAVAILABLE and await world.write_status() == 503

        await world.until(is_full, 20)
        await _refuses_writes_only(world, 2)
        await world.works()
        ballast.unlink()
        await _recovers(world)
        assert process.query("PRAGMA integrity_check") == [("ok",)]
    finally:
        await process.close()


def _delete(database: Path) -> None:
    for part in database.parent.glob("authsvc.db*"):
        part.unlink()


def _delete_only_the_database(database: Path) -> None:
    database.unlink()


def _replace_by_an_empty_one(database: Path) -> None:
    fresh = database.with_name("fresh")
    fresh.write_bytes(b"")
    fresh.replace(database)


def _replace_by_a_copy(database: Path) -> None:
    fresh = database.with_name("fresh")
    shutil.copy(database, fresh)
    fresh.replace(database)


def _truncate(database: Path) -> None:
    os.truncate(database, 0)


def _truncate_in_the_middle(database: Path) -> None:
    os.truncate(database, database.stat().st_size // 2)


def _scribble(database: Path) -> None:
    with database.open("r+b") as file:
        file.write(os.urandom(database.stat().st_size))


def _delete_the_log(database: Path) -> None:
    database.with_name("authsvc.db-wal").unlink()


@pytest.mark.parametrize(
    "break_it",
    [
        _delete,
        _replace_by_an_empty_one,
        _truncate,
        _scribble,
        pytest.param(_delete_only_the_database, marks=SLOW),
        pytest.param(_replace_by_a_copy, marks=SLOW),
        pytest.param(_truncate_in_the_middle, marks=SLOW),
        pytest.param(_delete_the_log, marks=SLOW),
    ],
    ids=lambda function: function.__name__.strip("_"),
)
async def test_a_lost_database_refuses_everybody_new_and_nobody_living(world: World, break_it) -> None:
    """Every new connection gets 3, no call is answered from nothing, the living go on, no new database."""
    process = world.process
    if break_it in (_scribble, _truncate, _truncate_in_the_middle):
        process.query("PRAGMA wal_checkpoint(TRUNCATE)")  # or the log would still hold all that is lost
    async with pulse_of(world.live) as pulse:
        break_it(process.database)

        async def refused() -> bool:
            return await world.known() == UNAVAILABLE

        await world.until(refused, 4)  # the feed counts as unreadable after 2 s
        for _ in range(5):
            assert await asyncio.gather(world.known(), world.first()) == [UNAVAILABLE, UNAVAILABLE]
            assert await world.write_status() == 503
            assert await world.read_status() == 503
            assert (await process.api.get("/readyz")).status_code == 503
            assert (await process.api.get("/healthz")).status_code == 200
    await world.works()
    _assert_no_stall(pulse)
    size = process.database.stat().st_size if process.database.exists() else 0
    if break_it in (_delete, _delete_only_the_database):
        assert not process.database.exists(), "a new empty database"
    elif break_it in (_truncate, _replace_by_an_empty_one):
        assert size == 0, "somebody wrote into what is lost"
    assert "Traceback" not in process.log.read_text()
    assert await process.terminate() < 5


async def test_a_database_that_comes_back_is_used_again(world: World) -> None:
    """Recovery needs no restart: the same file put back at its place opens the doors again."""
    database = world.process.database
    names = ["authsvc.db", "authsvc.db-wal", "authsvc.db-shm"]
    away = database.parent / "away"
    away.mkdir()
    for name in names:
        (database.parent / name).rename(away / name)

    async def refused() -> bool:
        return await world.known() == UNAVAILABLE

    await world.until(refused, 4)
    for name in names:
        (away / name).rename(database.parent / name)
    await _recovers(world)
    assert await world.known() == 0
    assert len((await world.process.get(f"{T}/things"))["items"]) >= 2


async def test_a_revocation_that_cannot_be_stored_is_not_reported_as_done(world: World) -> None:
    """503 and the session lives; repeated when the store is back, 204 and the session is gone."""
    token = await world.process.device_token("known")
    client = await world.process.client("known", token["token"], "device")
    path = f"{T}/things/known/tokens/{token['id']}"
    with _lock_held(world.process.database, "IMMEDIATE"):
        await world.process.delete(path, status=503)
        await client.ping()
    await world.until(lambda: _done(world.process.api, path))
    assert await client.closed(1)
    assert await world.process.code("known", token["token"], "device") == 4


async def _done(api: httpx.AsyncClient, path: str) -> bool:
    return (await api.delete(path)).status_code == 204


@pytest.mark.parametrize(
    "left", ["admin-token", pytest.param("initialised", marks=SLOW), pytest.param("both", marks=SLOW)]
)
async def test_a_missing_database_is_never_replaced_by_an_empty_one_at_start(tmp_path: Path, left: str) -> None:
    """At start: what says that there was a database refuses the start, and nothing is created."""
    async with running(tmp_path) as process:
        await process.terminate()
        _delete(process.database)
        if left != "both":
            (process.data / ({"admin-token", "initialised"} - {left}).pop()).unlink()
        process.spawn()
        assert await process.ended() == 1
        assert not process.database.exists()
        assert "restore it from a backup" in process.log.read_text()


@pytest.mark.parametrize(
    "break_it",
    [_truncate, pytest.param(_scribble, marks=SLOW), pytest.param(_truncate_in_the_middle, marks=SLOW)],
    ids=lambda function: function.__name__.strip("_"),
)
async def test_a_broken_database_refuses_the_start(world: World, break_it) -> None:
    """Garbage and an emptied file are not a first start."""
    process = world.process
    await process.terminate()
    break_it(process.database)
    before = process.database.read_bytes()
    process.spawn()
    assert await process.ended() == 1
    assert "cannot open the database" in process.log.read_text()
    assert "Traceback" not in process.log.read_text()
    assert process.database.read_bytes() == before, "what may be recovered was changed"
