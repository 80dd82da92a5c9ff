"""Reads under way: whoever asks for the same meanwhile waits for the one answer. A fleet that is back asks all at once.

An answer is shared only while no change has been applied since its read began: what a later one would have to know
cannot be missing in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, NamedTuple, TypeVar

from authsvc.core.errors import StoreUnavailable
from authsvc.store.faults import another

V = TypeVar("V")

_ABANDONED: Final = object()  # the one who read was cancelled


class _Read(NamedTuple):
    position: int  # of the feed when it began
    answer: asyncio.Future[Any]


class SharedReads:
    """For one event loop. `position` is the feed's."""

    def __init__(self, position: Callable[[], int]) -> None:
        self._position = position
        self._under_way: dict[Hashable, _Read] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    async def ask(self, key: Hashable, read: Callable[[], Awaitable[V]]) -> V:
        """Return what `read` returns, or what the same read under way does; raises what that raises."""
        while (other := self._under_way.get(key)) is not None and other.position == self._position():
            try:
                answer: Any = await asyncio.shield(other.answer)
            except StoreUnavailable as fault:
                raise another(fault) from None
            if answer is not _ABANDONED:
                found: V = answer
                return found
        mine = self._under_way[key] = _Read(self._position(), asyncio.get_running_loop().create_future())
        try:
            found = await read()
        except Exception as error:
            mine.answer.set_exception(error)
            mine.answer.exception()  # it is raised here: that nobody else waits for it is no mistake
            raise
        except BaseException:
            mine.answer.set_result(_ABANDONED)
            raise
        finally:
            if self._under_way.get(key) is mine:
                del self._under_way[key]
        mine.answer.set_result(found)
        return found
