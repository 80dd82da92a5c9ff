"""The writer's connection: `commit()` runs every work that waits and commits them as one transaction.

aiosqlite runs each call of a connection on that connection's thread, one thread hop a call. Being the connection's
class (`factory` of `sqlite3.connect`) and doing the whole transaction in `commit` makes that one hop a group.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps
from typing import Any

from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import Name
from authsvc.store.database import ConstraintFailed, RollBack, Row, Transaction, WorkOfMany, Written
from authsvc.store.faults import another, is_accident, write_fault


class Gathered:
    """Items that wait for one work of many, and those who wait for them: one job of the writer's."""

    def __init__(self, work: WorkOfMany[Any, Any]) -> None:
        self.work = work
        self._items: list[Any] = []
        self._futures: list[asyncio.Future[Written[Any] | None]] = []

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Any, future: asyncio.Future[Written[Any] | None]) -> None:
        self._items.append(item)
        self._futures.append(future)

    def close(self) -> None:
        """Let go of those who have gone meanwhile: they have written nothing."""
        waiting = [pair for pair in zip(self._items, self._futures, strict=True) if not pair[1].cancelled()]
        self._items = [item for item, _ in waiting]
        self._futures = [future for _, future in waiting]

    def run(self, tx: Transaction) -> Sequence[Written[Any] | None]:
        return self.work(tx, self._items)

    def answer(self, done: asyncio.Future[Written[Sequence[Written[Any] | None]]]) -> None:
        """Tell each what became of its item, now that their job is through."""
        error = done.exception()
        answers = done.result().value if error is None else [None] * len(self)
        for future, answer in zip(self._futures, answers, strict=True):
            if future.done():
                continue
            if isinstance(error, StoreUnavailable):
                future.set_exception(another(error))
            else:
                future.set_result(answer)


@dataclass(slots=True, eq=False)
class Job:
    """One work and what became of it. `error` or `value`, `first` and `position` are set when its group is through."""

    work: Callable[[Transaction], Any]
    gathered: Gathered | None = None  # whose work it is
    value: Any = None
    error: Exception | None = None
    positions: list[int] = field(default_factory=list)


class SqliteTransaction:
    """A work's view of the writer's connection."""

    def __init__(self, connection: sqlite3.Connection, statements: Mapping[str, str], job: Job, now_us: int) -> None:
        self.now_us = now_us
        self._execute = connection.execute
        self._statements = statements
        self._job = job

    def one(self, query: str, /, **values: object) -> Row | None:
        row: Row | None = self._run(query, values).fetchone()
        return row

    def all(self, query: str, /, **values: object) -> Sequence[Row]:
        return self._run(query, values).fetchall()

    def run(self, query: str, /, **values: object) -> int:
        return self._run(query, values).rowcount

    def change(self, name: Name, op: str, detail: Mapping[str, object] | None = None) -> int:
        values = {
            "at_us": self.now_us,
            "kind": name.kind.value,
            "tenant": name.tenant,
            "key": name.key,
            "op": op,
            "detail": dumps(detail) if detail else "{}",
        }
        position = self._run("append_change", values).lastrowid
        assert position is not None
        self._job.positions.append(position)
        return position

    def change_all(self, names: Sequence[Name], op: str, detail: Mapping[str, object] | None = None) -> range:
        if not names:
            return range(0)
        values = {
            "at_us": self.now_us,
            "op": op,
            "detail": dumps(detail) if detail else "{}",
            "names": dumps(names, ensure_ascii=False),
        }
        last = self._run("append_changes", values).lastrowid
        assert last is not None
        positions = range(last - len(names) + 1, last + 1)  # a transaction takes them without a gap
        self._job.positions.extend(positions)
        return positions

    def _run(self, query: str, values: Mapping[str, object]) -> sqlite3.Cursor:
        try:
            return self._execute(self._statements[query], values)
        except sqlite3.IntegrityError as error:
            raise ConstraintFailed(str(error)) from error


class GroupConnection(sqlite3.Connection):
    """The one connection that writes. `equip` it once; then fill `jobs` and call `commit`."""

    _statements: Mapping[str, str]
    _now_us: Callable[[], int]
    _check: Callable[[], None]
    jobs: Sequence[Job] = ()

    def equip(self, statements: Mapping[str, str], now_us: Callable[[], int], check: Callable[[], None]) -> None:
        """Give it the named statements, the clock, and the check of the file's identity."""
        self._statements, self._now_us, self._check = statements, now_us, check

    def commit(self) -> None:
        """Run all of `jobs` and commit. A job that fails is rolled back alone and keeps its error.

        Raises:
            StoreUnavailable: nothing was committed, or not into the file at the path: no job may be answered as done.
        """
        try:
            self._check()
            self.execute("BEGIN IMMEDIATE")
            now_us = self._now_us()
            for job in self.jobs:
                self._run(job, now_us)
            self._check()
            self.execute("COMMIT")
            self._check()
        except sqlite3.Error as error:
            raise write_fault(error) from error
        finally:
            if self.in_transaction:
                self.execute("ROLLBACK")

    def _run(self, job: Job, now_us: int) -> None:
        self.execute("SAVEPOINT work")
        try:
            job.value = job.work(SqliteTransaction(self, self._statements, job, now_us))
        except RollBack as answer:
            job.value = answer.value
        except sqlite3.Error as error:
            # A full disk or a broken page is everybody's; it may have rolled back the whole transaction already.
            if is_accident(error) or not self.in_transaction:
                raise
            job.error = error
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  # a work's mistake is its caller's, not the group's
            job.error = error
        else:
            self.execute("RELEASE work")
            return
        job.positions.clear()
        self.execute("ROLLBACK TO work")
        self.execute("RELEASE work")
