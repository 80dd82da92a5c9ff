"""A coroutine's first steps at once, without a task: most admissions need no more, for they wait for nothing.

What it does before its first wait runs within the caller: it has no task of its own there, so `asyncio.timeout` and
`asyncio.current_task` are not for that part (from Python 3.12 on `eager_start` of a task would do the same).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


def begin(work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None] | None:
    """Run `work` until it waits for the first time; return what is left of it, for a task, or None if it is done.

    What it raises before it waits is raised here.
    """
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return _Rest(work, waits_for)


class _Rest(Coroutine[Any, Any, None]):
    """A coroutine that has been begun: its first step is to wait for what it waits for already."""

    __slots__ = ("_waits_for", "_work")

    def __init__(self, work: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._work: Coroutine[Any, Any, None] = work
        self._waits_for: tuple[Any, ...] = (waits_for,)

    def send(self, value: None, /) -> Any:
        if self._waits_for:
            (waits_for,), self._waits_for = self._waits_for, ()
            return waits_for
        return self._work.send(value)

    def throw(self, *error: Any) -> Any:
        if self._waits_for:  # cancelled before the task's first step: as the task would, so does what it waits for
            (waits_for,), self._waits_for = self._waits_for, ()
            if isinstance(waits_for, asyncio.Future):
                waits_for.cancel()
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise TypeError("what was begun is for a task")
