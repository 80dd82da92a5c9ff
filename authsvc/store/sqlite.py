"""The SQLite engine: one writer that commits in groups and checkpoints, several readers, and a watch over the file.

A write waits in a queue; the writer's task takes all that waits, has `GroupConnection` commit it on the writer's
thread, answers, and checkpoints when the log has grown. A read is one hop to the thread of the least busy reader;
look-ups have a reader of their own, to which they cross over in groups.
The watch looks once a second: is it the same file, can it still be read from disk, can it be written again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite

from authsvc.core.errors import StoreReadOnly, StoreUnavailable
from authsvc.store.database import Item, Row, StoreState, Work, WorkOfMany, Written
from authsvc.store.faults import another, has_reset_race, is_accident, is_damage, read_fault
from authsvc.store.group_commit import Gathered, GroupConnection, Job
from authsvc.store.identity import FileIdentity
from authsvc.store.look_ups import LookUps, Reader
from authsvc.store.migrations import database_uri, prepare
from authsvc.store.statements import load_statements

T = TypeVar("T")

READERS: Final = 2
MAX_GROUP: Final = 256  # works in one commit: bounds how long the first of them waits
LOCK_BUDGET_S: Final = 0.4  # how long a group waits for another process's lock; the next group too: under 1 s together
LOCK_BUDGET_AGAIN_S: Final = 0.05  # while it is known to be locked
WATCH_INTERVAL_S: Final = 1.0
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024  # SQLite's own default: 1,000 pages


class SqliteDatabase:
    """The engine of one file. Make it by `open`; `close` ends its tasks and threads."""

    def __init__(self, path: Path, *, now_us: Callable[[], int]) -> None:
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self._now_us = now_us
        self._statements = load_statements()
        self._identity = FileIdentity(path)
        self._waiting: deque[tuple[Job, asyncio.Future[Written[Any]]]] = deque()
        self._gathering: dict[WorkOfMany[Any, Any], Gathered] = {}  # among what waits
        self._wake = asyncio.Event()
        self._under_way: Sequence[Job] = ()  # what is being committed
        self._through = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._writer: aiosqlite.Connection | None = None
        self._group: GroupConnection | None = None
        self._readers: list[aiosqlite.Connection] = []  # READERS for reads, the look-ups' own, the watch's own
        self._busy = [0] * READERS
        self._look_ups: LookUps | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._unreadable = ""
        self._damaged = False
        self._unwritable = ""
        self._notes: tuple[str, ...] = ()
        self._closed = False

    @classmethod
    async def open(cls, path: Path, *, now_us: Callable[[], int], create: bool = True) -> SqliteDatabase:
        """Prepare the file (see `prepare`) and open it. Raises StoreUnavailable."""
        await asyncio.to_thread(prepare, path, create=create)
        database = cls(path, now_us=now_us)
        try:
            await database._connect()
        except BaseException:
            await database.close()
            raise
        assert database._look_ups is not None
        for run, name in (
            (database._write_forever, "writer"),
            (database._watch_forever, "watch"),
            (database._look_ups.run, "look-ups"),
        ):
            database._tasks.append(asyncio.create_task(run(), name=f"store-{name}"))
        return database

    async def close(self) -> None:
        """Commit what waits, then close: readers first, so that the writer is the one that checkpoints. Idempotent."""
        self._closed = True
        self._wake.set()
        if self._tasks:
            writer, *others = self._tasks
            self._tasks = []
            for task in others:
                task.cancel()
            await asyncio.gather(writer, *others, return_exceptions=True)
        readers, self._readers = self._readers, []
        for connection in [*readers, *([self._writer] if self._writer else [])]:
            with suppress(sqlite3.Error):  # a lost file cannot be checkpointed; its threads end all the same
                await connection.close()
        self._writer = None

    @property
    def state(self) -> StoreState:
        problem = self._unreadable or self._unwritable
        return StoreState(readable=not self._unreadable, writable=not problem, problem=problem, notes=self._notes)

    async def read(self, query: str, /, **values: object) -> Sequence[Row]:
        self._check_readable()
        reader = min(range(READERS), key=self._busy.__getitem__)
        self._busy[reader] += 1
        try:
            return list(await self._readers[reader].execute_fetchall(self._statements[query], values))  # type: ignore[arg-type]
        except (StoreUnavailable, sqlite3.Error) as error:
            fault = self._read_failed(error)
            if fault is error:
                raise
            raise fault from error
        finally:
            self._busy[reader] -= 1

    def look_up(self, query: str, /, **values: object) -> Awaitable[Row | None]:
        self._check_readable()
        assert self._look_ups is not None
        return self._look_ups.ask(self._statements[query], values)

    def look_up_together(self, query: str, item: Sequence[str], /) -> Awaitable[Row | None]:
        self._check_readable()
        assert self._look_ups is not None
        return self._look_ups.ask_of_many(self._statements[query], item)

    def _check_readable(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._damaged:  # a part that still reads is not to be trusted
            raise StoreUnavailable(self._unreadable)

    def _read_failed(self, error: Exception) -> Exception:
        """Note what it says about the file; return what the caller is told: the error itself where it is a mistake."""
        fault = error
        if isinstance(error, sqlite3.Error) and is_accident(error):
            fault = read_fault(error)
            self._damaged |= is_damage(error)
        if isinstance(fault, StoreUnavailable):
            self._unreadable = str(fault)
        return fault

    async def write(self, work: Work[T]) -> Written[T]:
        if self._closed:
            raise StoreReadOnly("the store is closed")
        future: asyncio.Future[Written[T]] = asyncio.get_running_loop().create_future()
        self._waiting.append((job := Job(work), future))
        self._wake.set()
        try:
            return await future
        except asyncio.CancelledError:
            if job in self._under_way:
                await self._through.wait()
            raise

    async def write_together(self, work: WorkOfMany[Item, T], item: Item) -> Written[T] | None:
        if self._closed:
            raise StoreReadOnly("the store is closed")
        loop = asyncio.get_running_loop()
        gathered = self._gathering.get(work)
        if gathered is None or len(gathered) >= MAX_GROUP:
            gathered = self._gathering[work] = Gathered(work)
            done: asyncio.Future[Written[Any]] = loop.create_future()
            done.add_done_callback(gathered.answer)
            self._waiting.append((Job(gathered.run, gathered), done))
            self._wake.set()
        future: asyncio.Future[Written[T] | None] = loop.create_future()
        gathered.add(item, future)
        return await future

    def on_commit(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callbacks.append(callback)

        def cancel() -> None:
            with suppress(ValueError):
                self._callbacks.remove(callback)

        return cancel

    # -- opening ----------------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        try:
            before = self._path.stat()
            self._writer = await self._open_connection(self._make_writer)
            for pragma in (
                "synchronous = FULL",
                "foreign_keys = ON",
                "wal_autocheckpoint = 0",  # done between groups, after the answers
                f"journal_size_limit = {CHECKPOINT_BYTES}",
                "temp_store = MEMORY",  # or a group's savepoints make a file, which is deleted with them
                f"busy_timeout = {int(LOCK_BUDGET_S * 1000)}",
            ):
                await self._writer.execute_fetchall(f"PRAGMA {pragma}")
            made: list[Reader] = []
            for _ in range(READERS + 2):  # the watch's own empties its cache every second
                reader = await self._open_connection(
                    lambda *args, **keywords: self._make_reader(made, *args, **keywords)
                )
                self._readers.append(reader)
                await reader.create_function("fold", 1, str.casefold, deterministic=True)
                for pragma in ("query_only = ON", f"busy_timeout = {int(LOCK_BUDGET_S * 1000)}"):
                    await reader.execute_fetchall(f"PRAGMA {pragma}")
                await reader.execute_fetchall("SELECT count(*) FROM heartbeat")
            self._look_ups = LookUps(self._readers[READERS], made[READERS], fault=self._read_failed)
            self._identity.remember()
            after = self._path.stat()
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"database `{self._path}` cannot be opened: {error}") from error
        if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino):
            raise StoreUnavailable(f"database `{self._path}` was replaced while it was opened: start again")
        if has_reset_race(sqlite3.sqlite_version_info):
            note = (
                f"SQLite {sqlite3.sqlite_version} has the WAL-reset race (fixed in 3.51.3, 3.50.7 and 3.44.6): "
                "let no other program write to or checkpoint the database while this one runs"
            )
            self._notes = (note,)

    async def _open_connection(self, factory: Callable[..., sqlite3.Connection]) -> aiosqlite.Connection:
        return await aiosqlite.connect(
            database_uri(self._path), uri=True, isolation_level=None, cached_statements=256, factory=factory
        )

    def _make_writer(self, *args: Any, **keywords: Any) -> GroupConnection:
        self._group = GroupConnection(*args, **keywords)
        self._group.equip(self._statements, self._now_us, self._identity.check)
        return self._group

    def _make_reader(self, made: list[Reader], *args: Any, **keywords: Any) -> Reader:
        made.append(reader := Reader(*args, **keywords))
        reader.check = self._identity.check
        return reader

    # -- writing ----------------------------------------------------------------------------------------------------

    async def _write_forever(self) -> None:
        while not self._closed or self._waiting:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._commit_group()
                await self._checkpoint()

    async def _commit_group(self) -> None:
        group: list[tuple[Job, asyncio.Future[Written[Any]]]] = []
        while self._waiting and len(group) < MAX_GROUP:
            job, future = self._waiting.popleft()
            if future.cancelled():  # who has gone meanwhile has written nothing
                continue
            if job.gathered is not None:
                job.gathered.close()
                if self._gathering.get(job.gathered.work) is job.gathered:
                    del self._gathering[job.gathered.work]
            group.append((job, future))
        assert self._writer is not None
        assert self._group is not None
        self._group.jobs = self._under_way = [job for job, _ in group]
        self._through.clear()
        try:
            if self._damaged:  # what still can be written would rest on what is broken
                raise StoreUnavailable(self._unreadable)  # noqa: TRY301
            await self._writer.commit()
        except Exception as error:  # noqa: BLE001  # whatever it was, everybody who waits is told
            fault = error if isinstance(error, StoreUnavailable) else StoreUnavailable(f"the writer failed: {error!r}")
            await self._write_failed(fault)
            for _, future in group:
                if not future.done():
                    future.set_exception(another(fault))
            return
        finally:
            self._under_way = ()
            self._through.set()
        if self._unwritable:
            await self._write_recovered()
        changed = False
        for job, future in group:
            changed |= bool(job.positions)
            if future.done():
                continue
            if job.error is not None:
                future.set_exception(job.error)
            else:
                first, last = (job.positions[0], job.positions[-1]) if job.positions else (0, 0)
                future.set_result(Written(value=job.value, first=first, position=last))
        if changed:
            loop = asyncio.get_running_loop()
            for callback in self._callbacks:
                loop.call_soon(callback)

    async def _write_failed(self, fault: StoreUnavailable) -> None:
        if not isinstance(fault, StoreReadOnly):
            self._unreadable = str(fault)
            self._damaged |= isinstance(fault.__cause__, sqlite3.Error) and is_damage(fault.__cause__)
        if not self._unwritable:
            await self._set_lock_budget(LOCK_BUDGET_AGAIN_S)
        self._unwritable = str(fault)

    async def _write_recovered(self) -> None:
        self._unwritable = ""
        await self._set_lock_budget(LOCK_BUDGET_S)

    async def _set_lock_budget(self, seconds: float) -> None:
        assert self._writer is not None
        with suppress(sqlite3.Error):
            await self._writer.execute_fetchall(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    async def _checkpoint(self) -> None:
        with suppress(sqlite3.Error, OSError):  # it stays in the log; the next one tries again
            # A log that begins anew keeps its file, cut to this size: it is larger once it has grown by as much again.
            if self._log.stat().st_size > CHECKPOINT_BYTES and self._writer is not None:
                await self._writer.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")

    # -- watching ---------------------------------------------------------------------------------------------------

    async def _watch_forever(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            await self._look()

    async def _look(self) -> None:
        watch = self._readers[-1]
        try:
            await watch.execute_fetchall("PRAGMA shrink_memory")  # or its cache would answer for a broken file
            await watch.execute_fetchall("SELECT count(*) FROM sqlite_master")
            if self._damaged:
                rows = list(await watch.execute_fetchall("PRAGMA quick_check(1)"))
                if rows[0][0] != "ok":
                    return
                for connection in (*self._readers, self._writer):
                    if connection is not None:
                        await connection.execute_fetchall("PRAGMA shrink_memory")
        except StoreUnavailable as error:
            self._unreadable = str(error)
            return
        except sqlite3.Error as error:
            self._unreadable = str(read_fault(error))
            self._damaged |= is_damage(error)
            return
        self._unreadable, self._damaged = "", False
        if self._unwritable:
            with suppress(StoreUnavailable):
                await self.write(lambda tx: tx.run("touch_heartbeat", at_us=tx.now_us))
