"""The change feed: what was committed, applied in this process in order — caches, sets, then sessions.

A lost wake-up delays, never loses: the feed reads the rows after its position, and polls every half second.
"""

from __future__ import annotations

from collections.abc import Iterable

from authsvc.core.facts import Name


class ChangeFeed:
    """Reads and applies change rows. `position` is the last one that caches and sets have taken."""

    position: int

    @property
    def healthy(self) -> bool:
        """Whether the rows could be read within the last two seconds; otherwise no cache may be trusted."""
        raise NotImplementedError

    async def start(self) -> None:
        """Take up position at the end of the feed. Raises StoreUnavailable."""

    async def run(self) -> None:
        """Apply changes for ever; owned by the caller's task group."""

    def wake(self) -> None:
        """Look for new rows now."""

    async def settle(self, position: int) -> None:
        """Return when every change up to `position` is applied in this process: caches, sets, grants, sessions.

        Raises:
            StoreUnavailable: it was not within 5 s; the change is durable and will be applied.
        """

    def touched_since(self, position: int, footing: Iterable[Name], except_: frozenset[int] = frozenset()) -> bool:
        """Return whether a change after `position`, none of `except_`, named a record of `footing`."""
        raise NotImplementedError
