"""The writer's connection: `commit()` runs every work that waits and commits them as one transaction.

aiosqlite runs each call of a connection on that connection's thread, one thread hop a call. Being the connection's
class (`factory` of `sqlite3.connect`) and doing the whole transaction in `commit` makes that one hop a group.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps
from typing import Any

from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import Name
from authsvc.store.database import ConstraintFailed, RollBack, Row, Transaction
from authsvc.store.faults import is_accident, write_fault


@dataclass(slots=True, eq=False)
class Job:
    """One work and what became of it. `error` or `value`, `first` and `position` are set when its group is through."""

    work: Callable[[Transaction], Any]
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
