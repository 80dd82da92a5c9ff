"""Promise 11 attacked: the file deleted, replaced, truncated, corrupted, read-only, locked, the disk full."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from authsvc.core.errors import StoreReadOnly, StoreUnavailable
from authsvc.store import Store
from authsvc.store.identity import FileIdentity
from tests.store.conftest import Clock, World, refused

STALL_S = 0.2  # promise 11: the loop never stalls longer


@asynccontextmanager
async def unstalled_loop() -> AsyncIterator[None]:
    """Fail if the event loop stood still for longer than promised."""
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            worst = max(worst, time.perf_counter() - before)

    task = asyncio.create_task(tick())
    yield
    task.cancel()
    assert worst < STALL_S


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


def delete(path: Path) -> None:
    path.rename(path.with_suffix(".gone"))


def replace(path: Path) -> None:
    path.rename(path.with_suffix(".gone"))
    shutil.copy(path.with_suffix(".gone"), path)


def truncate(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    os.truncate(path, 0)


def truncate_half(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    os.truncate(path, path.stat().st_size // 2)


def put_back(path: Path) -> None:
    if path.with_suffix(".gone").exists():
        path.with_suffix(".gone").rename(path)
    else:
        path.write_bytes(path.with_suffix(".copy").read_bytes())


@pytest.mark.parametrize("harm", [delete, replace, truncate, truncate_half], ids=lambda harm: harm.__name__)
async def test_a_lost_file_refuses_everything_until_it_is_back(
    harm: Callable[[Path], None], world: World, database_path: Path
) -> None:
    """Reads and writes fail at once, no new database appears, and the file put back is used without a restart."""
    store = world.store
    await world.register("g1")
    await store.database._writer.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
    async with unstalled_loop():
        harm(database_path)
        await refused(store.thing("acme", "g1"))
        await refused(store.token_by_digest(world.digest))
        await refused(store.changes_after(0))
        await refused(store.register(world.plan("g2"), bind_client_id=None))
        assert not store.state.readable
        assert not store.state.writable
        assert database_path.name in store.state.problem
        if harm is delete:
            assert not database_path.exists()
        put_back(database_path)
        await until(lambda: store.state.readable and store.state.writable)
    assert await store.thing("acme", "g1") is not None
    assert await store.thing("acme", "g2") is None
    await world.register("g2")


async def test_a_write_into_a_file_deleted_meanwhile_is_never_answered_as_done(
    world: World, database_path: Path
) -> None:
    """The identity is checked at the commit, so a file that goes while a work runs refuses that work."""

    def work(tx: object) -> None:
        database_path.rename(database_path.with_suffix(".gone"))

    await refused(world.store.database.write(work))
    assert not world.store.state.readable


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
async def test_a_lost_log_or_index_refuses_everything(suffix: str, world: World, database_path: Path) -> None:
    """A second process would make new ones, and the two would write past each other."""
    lost = database_path.with_name(database_path.name + suffix)
    lost.rename(database_path.with_suffix(".gone"))
    await refused(world.store.tenant("acme"))
    await refused(world.store.tenants.update("acme", name="x"))
    database_path.with_suffix(".gone").rename(lost)
    await until(lambda: world.store.state.readable)
    await world.store.tenants.update("acme", name="x")


async def test_a_garbled_header_is_noticed_and_healed_without_restart(world: World, database_path: Path) -> None:
    """The watch reads from disk, not from its cache: within about a second the store is unreadable."""
    store = world.store
    await store.database._writer.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
    good = database_path.read_bytes()
    with database_path.open("r+b") as file:
        file.write(os.urandom(100))
    async with unstalled_loop():
        await until(lambda: not store.state.readable)
        await refused(store.tenant("acme"))
        await refused(store.grounds.create("acme", "north"))
        with database_path.open("r+b") as file:
            file.write(good)
        await until(lambda: store.state.readable)
    assert await store.tenant("acme") is not None


async def test_a_broken_page_closes_the_whole_store_until_it_is_whole(
    world: World, database_path: Path, open_store: Callable[[], Awaitable[Store]]
) -> None:
    """Who meets a corrupt page makes the store unreadable for all, and only a passed check opens it again."""
    store = world.store
    await world.register("gateway-0001")
    (root,) = (
        await store.database._readers[0].execute_fetchall("SELECT rootpage FROM sqlite_master WHERE name = 'things'")
    )[0]
    (page_size,) = (await store.database._readers[0].execute_fetchall("PRAGMA page_size"))[0]
    await store.close()
    good = database_path.read_bytes()
    with database_path.open("r+b") as file:
        file.seek((root - 1) * page_size)
        file.write(b"\xff" * page_size)
    store = await open_store()
    await refused(store.thing("acme", "gateway-0001"))
    await refused(store.tenant("acme"))
    await refused(store.members_of("acme", "default"))
    await refused(store.grounds.create("acme", "north"))
    assert "corrupted" in store.state.problem
    with database_path.open("r+b") as file:
        file.write(good)
    await until(lambda: store.state.readable)
    assert await store.thing("acme", "gateway-0001") is not None


@contextmanager
def locked_by_another_process(path: Path) -> Iterator[None]:
    """Hold BEGIN EXCLUSIVE in a process of its own, as a backup tool or a shell would."""
    script = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN EXCLUSIVE')\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = ["python3", "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            process.communicate("")


async def test_a_lock_held_elsewhere_lets_reads_pass_and_fails_writes_quickly(
    world: World, database_path: Path
) -> None:
    """Known things are read as ever, every waiting write is told within a second, and the next attempt recovers."""
    await world.register("g1")
    async with unstalled_loop():
        with locked_by_another_process(database_path):
            writes = [
                refused(world.store.register(world.plan(f"n{n}"), bind_client_id=None), StoreReadOnly)
                for n in range(50)
            ]
            error, *_ = await asyncio.gather(*writes)
            assert "locked" in str(error)
            for _ in range(20):
                assert await world.store.thing("acme", "g1") is not None
            assert world.store.state.readable
            assert not world.store.state.writable
            await refused(world.store.tenants.update("acme", name="x"), StoreReadOnly)
        await world.register("g2")
    assert world.store.state.writable
    assert await world.store.thing("acme", "n0") is None


async def test_a_lock_held_elsewhere_does_not_stop_a_start(database_path: Path, clock: Clock) -> None:
    """Nothing has to be migrated, so nothing has to be written: known things can be admitted."""
    store = await Store.open(database_path, now_us=clock)
    await store.tenants.create("acme")
    with locked_by_another_process(database_path):
        async with asyncio.timeout(2):
            second = await Store.open(database_path, now_us=clock)
        assert await second.tenant("acme") is not None
        await refused(second.tenants.update("acme", name="x"), StoreReadOnly)
        await second.close()
    await store.close()


async def test_the_log_does_not_grow_without_end(world: World, database_path: Path) -> None:
    """The writer checkpoints between groups: 20 MB of writes leave a log of a few."""
    for number in range(80):
        await asyncio.gather(
            *(world.store.grounds.create("acme", f"g{number}-{n}", name="x" * 60_000) for n in range(4))
        )
    assert database_path.with_name(database_path.name + "-wal").stat().st_size < 10_000_000
    assert database_path.stat().st_size > 10_000_000


async def test_a_log_that_began_anew_is_filled_before_it_is_checkpointed_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file keeps its size then: 24 MB of writes need a checkpoint for every four, not for every commit."""
    writer, asked = world.store.database._writer, []
    fetch = writer.execute_fetchall

    async def noting(sql: str) -> object:
        asked.append(sql)
        return await fetch(sql)

    monkeypatch.setattr(writer, "execute_fetchall", noting)
    for number in range(300):
        await world.store.grounds.create("acme", f"g{number}", name="x" * 60_000)
    assert 3 <= len([sql for sql in asked if "wal_checkpoint" in sql]) <= 12


async def test_the_watch_finds_out_that_the_lock_is_gone(world: World, database_path: Path) -> None:
    """`state.writable` recovers without anybody writing."""
    with locked_by_another_process(database_path):
        await refused(world.store.tenants.update("acme", name="x"), StoreReadOnly)
    await until(lambda: world.store.state.writable, timeout_s=3)


async def test_a_read_only_connection_refuses_writes_and_serves_reads(world: World) -> None:
    """SQLITE_READONLY, as after a remount, is StoreReadOnly and passes when it passes."""
    await world.store.database._writer.execute_fetchall("PRAGMA query_only = ON")
    error = await refused(world.store.register(world.plan("g1"), bind_client_id=None), StoreReadOnly)
    assert "read-only" in str(error)
    assert await world.store.tenant("acme") is not None
    await world.store.database._writer.execute_fetchall("PRAGMA query_only = OFF")
    await world.register("g1")
    assert world.store.state.writable


async def test_a_database_that_cannot_grow_refuses_writes_and_half_writes_nothing(world: World) -> None:
    """SQLITE_FULL rolls the whole group back and answers everybody in it."""
    writer = world.store.database._writer
    (pages,) = (await writer.execute_fetchall("PRAGMA page_count"))[0]
    await writer.execute_fetchall(f"PRAGMA max_page_count = {pages}")
    big = "x" * 60_000
    answers = await asyncio.gather(
        *(world.store.grounds.create("acme", f"g{n}", name=big) for n in range(5)), return_exceptions=True
    )
    assert all(isinstance(answer, StoreReadOnly) for answer in answers)
    assert "full" in str(answers[0])
    assert [ground.key for ground in (await world.store.grounds.list("acme")).items] == ["default"]
    await writer.execute_fetchall("PRAGMA max_page_count = 1000000")
    await world.store.grounds.create("acme", "g0", name=big)
    assert world.store.state.writable


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs privileges that are not there")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


async def test_a_full_disk_refuses_writes_serves_reads_and_recovers_when_space_is_made(
    small_disk: Path, clock: Clock
) -> None:
    """A real full file system: first connections are refused, known things are read, and space heals it."""
    store = await Store.open(small_disk / "authsvc.db", now_us=clock)
    await store.tenants.create("acme")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 4096)
    async with unstalled_loop():
        error = StoreUnavailable("")
        for number in range(40):
            try:
                await store.grounds.create("acme", f"g{number}", name="y" * 50_000)
            except StoreReadOnly as caught:
                error = caught
                break
        assert "full" in str(error) or "disk" in str(error)
        await refused(store.tenants.update("acme", name="z" * 100_000), StoreReadOnly)
        assert (await store.tenants.get("acme")).name == "acme"
        assert not store.state.writable
        filler.unlink()
        await store.tenants.update("acme", name="healed")
    assert store.state.writable
    await store.close()
    with closing(sqlite3.connect(small_disk / "authsvc.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_that_grows_during_a_check_was_not_truncated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread's older `stat` is not held against the size that another thread saw meanwhile."""
    path = tmp_path / "file"
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).write_bytes(b"x" * 10)
    identity = FileIdentity(path)
    identity.remember()
    identity.check()
    stat = os.stat

    def stat_and_grow(what: str) -> os.stat_result:
        found = stat(what)
        monkeypatch.setattr(os, "stat", stat)
        path.write_bytes(b"x" * 20)
        identity.check()  # as the other thread
        return found

    monkeypatch.setattr(os, "stat", stat_and_grow)
    identity.check()
    path.write_bytes(b"x" * 15)
    with pytest.raises(StoreUnavailable, match="truncated"):
        identity.check()
