"""Look-ups: questions by a unique key, which all that are asked at one moment cross over to a reader's thread together.

The hop there and back costs more than a look-up on an index, because both threads contend for the interpreter's lock.
So there is one reader for them: while it answers one group, the next gathers, and goes on gathering while every turn of
the loop brings more. What was answered together goes on together: the registrations of a fleet, which follow, are one
commit too. Whatever may take longer than a few rows by their key (a page, a set, a batch of changes) is no look-up, and
holds none up.

Each step of a statement gives the lock up and takes it back. Where many ask the same at one moment, and most of them
for what is not there, as all first connections do, one statement answers them all (`ask_of_many`).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from json import dumps
from typing import Any, Final

import aiosqlite

from authsvc.core.errors import StoreUnavailable
from authsvc.store.database import Row
from authsvc.store.faults import another, is_accident

MAX_GROUP: Final = 256  # bounds how long the first of them waits
GATHERING_S: Final = 0.01  # so does this, where every turn of a busy loop brings one more


@dataclass(slots=True, eq=False)
class LookUp:
    """One question and its answer: `row` (None: there is none) or `error`, set when its group is through.

    `values` are those of a statement of its own; an `item` is answered with the others by a statement of many.
    """

    sql: str
    future: asyncio.Future[Row | None]
    values: dict[str, object] | None = None
    item: Sequence[str] = ()
    row: Row | None = None
    error: Exception | None = None


class Reader(sqlite3.Connection):
    """A reader's connection: every statement is preceded by the check of the file's identity, on the reader's thread.

    Fill `group` and call `commit`: aiosqlite runs that in one hop, as it does the writer's (see `group_commit`).
    """

    check: Callable[[], None] | None = None
    group: Sequence[LookUp] = ()

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if self.check is not None:
            self.check()
        return super().execute(sql, parameters)

    def commit(self) -> None:
        """Answer all of `group`. A mistake in a question is its own; raises what is wrong with the file."""
        if self.check is not None:
            self.check()
        ask = super().execute
        of_many: dict[str, list[LookUp]] = {}
        for look_up in self.group:
            if look_up.values is None:
                of_many.setdefault(look_up.sql, []).append(look_up)
                continue
            try:
                look_up.row = ask(look_up.sql, look_up.values).fetchone()
            except sqlite3.Error as error:
                if is_accident(error):
                    raise
                look_up.error = error
            except Exception as error:  # noqa: BLE001  # a question that cannot be put is its caller's mistake
                look_up.error = error
        for sql, asked in of_many.items():
            for number, *row in ask(sql, {"items": dumps([look_up.item for look_up in asked])}).fetchall():
                asked[number].row = tuple(row)


class LookUps:
    """Gathers look-ups and has one reader answer them group by group. `run` is a task of the engine's.

    `fault` is told what made a whole group fail, and returns what those who asked are told.
    """

    def __init__(
        self, connection: aiosqlite.Connection, reader: Reader, *, fault: Callable[[Exception], Exception]
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._fault = fault
        self._waiting: deque[LookUp] = deque()
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def ask(self, sql: str, values: dict[str, object]) -> asyncio.Future[Row | None]:
        """Return the first row, or None, when the group is through."""
        return self._gather(LookUp(sql, self._loop.create_future(), values))

    def ask_of_many(self, sql: str, item: Sequence[str]) -> asyncio.Future[Row | None]:
        """Return the row that the statement has for this one of its `items`, or None, when the group is through."""
        return self._gather(LookUp(sql, self._loop.create_future(), item=item))

    def _gather(self, look_up: LookUp) -> asyncio.Future[Row | None]:
        self._waiting.append(look_up)
        self._wake.set()
        return look_up.future

    async def run(self) -> None:
        """Answer for ever; whoever waits when this is cancelled is told that the store is closed."""
        group: list[LookUp] = []
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await self._let_more_come()
                    group = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_GROUP))]
                    await self._answer(group)
        finally:
            for look_up in (*group, *self._waiting):
                if not look_up.future.done():
                    look_up.future.set_exception(StoreUnavailable("the store is closed"))

    async def _let_more_come(self) -> None:
        """Wait for the next turn of the loop while each brings more questions; one that is alone waits for one turn."""
        until = self._loop.time() + GATHERING_S
        asked = 0
        while asked < len(self._waiting) < MAX_GROUP and self._loop.time() < until:
            asked = len(self._waiting)
            await asyncio.sleep(0)

    async def _answer(self, group: Sequence[LookUp]) -> None:
        self._reader.group = group
        try:
            await self._connection.commit()
        except Exception as error:  # noqa: BLE001  # whatever it was, everybody who waits is told
            fault = self._fault(error)
            for look_up in group:
                look_up.error = look_up.error or fault
        for look_up in group:
            if look_up.future.done():  # who asked has gone
                continue
            if look_up.error is None:
                look_up.future.set_result(look_up.row)
            elif isinstance(look_up.error, StoreUnavailable):
                look_up.future.set_exception(another(look_up.error))
            else:
                look_up.future.set_exception(look_up.error)
