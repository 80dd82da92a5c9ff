"""The small protocol between the repositories and an engine: named reads, and works that run in one transaction.

A *work* is a plain function of a `Transaction`. It runs on the engine's writer thread, so all its statements cost one
hop, and it may run together with other works in one commit: it must not wait, keep the transaction, or act outside it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, Protocol, TypeVar

from authsvc.core.facts import Name

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Item = TypeVar("Item")

Row = tuple[Any, ...]


class Keep(Enum):
    """The default of a field that an update leaves as it is; None is a value of its own there."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


@dataclass(frozen=True, slots=True, kw_only=True)
class Written(Generic[T_co]):
    """What a work returned, after its commit, and the position of its last change row (0 if it changed nothing)."""

    value: T_co
    position: int
    first: int = 0  # position of its first change row: its own changes are first..position


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T_co]):
    """One page of a list in key order; `next` is the cursor of the page after it, None on the last."""

    items: tuple[T_co, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreState:
    """How the store is. `problem` is empty when it is well; `notes` hold warnings that do not stop it."""

    readable: bool = True
    writable: bool = True
    problem: str = ""
    notes: tuple[str, ...] = ()


class Transaction(Protocol):
    """The writer's side of one work. Statements are named; a constraint that fails raises `ConstraintFailed`."""

    now_us: int

    def one(self, query: str, /, **values: object) -> Row | None:
        """Return the first row, or None."""

    def all(self, query: str, /, **values: object) -> Sequence[Row]:
        """Return every row."""

    def run(self, query: str, /, **values: object) -> int:
        """Run a change and return how many rows it touched."""

    def change(self, name: Name, op: str, detail: Mapping[str, object] | None = None) -> int:
        """Append a change row and return its position; it becomes visible with the commit."""

    def change_all(self, names: Sequence[Name], op: str, detail: Mapping[str, object] | None = None) -> range:
        """Append the same change of each record, in this order; return their positions."""


Work = Callable[[Transaction], T]
WorkOfMany = Callable[[Transaction, Sequence[Item]], Sequence[Written[T] | None]]


class RollBack(Exception):  # noqa: N818  # an answer, not an error
    """Raised by a work: undo what it did, and answer its caller with `value` all the same."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value


class ConstraintFailed(Exception):  # noqa: N818
    """A constraint of the schema refused a statement. Works turn it into an answer; it never leaves the store."""


class Database(Protocol):
    """An engine. Reads raise `StoreUnavailable`, writes `StoreReadOnly` or `StoreUnavailable`, within a second."""

    @property
    def state(self) -> StoreState: ...

    async def read(self, query: str, /, **values: object) -> Sequence[Row]:
        """Return the rows of a named statement, seen as of the last commit."""

    def look_up(self, query: str, /, **values: object) -> Awaitable[Row | None]:
        """Return the row of a named statement on a unique key, or None, seen as of the last commit.

        Those that are asked at one moment may be answered together: no statement that may take long belongs here.
        """

    def look_up_together(self, query: str, item: Sequence[str], /) -> Awaitable[Row | None]:
        """Return the row that a named statement of many has for this item, or None, seen as of the last commit.

        The statement takes all that are asked at one moment as `items`, a JSON list of them; its rows begin with the
        item's number in it, which is left out here, and are at most one for each. No item holds a NUL.
        """

    async def write(self, work: Work[T]) -> Written[T]:
        """Run the work and return after its commit. What it raises rolls back this work only, and is raised here.

        One that is cancelled before it was begun is not done; later it is, and the caller hears of it only afterwards:
        whoever takes its place, or the lock that it held, finds what it wrote.
        """

    async def write_together(self, work: WorkOfMany[Item, T], item: Item) -> Written[T] | None:
        """Have one run of the work do all items that wait for it; return what it answered for this one, committed.

        None: nothing was done for this item (that was the work's answer, or it raised); do it by a work of its own.
        """

    def on_commit(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back on the event loop after each commit that appended change rows; return what cancels it."""

    async def close(self) -> None: ...
