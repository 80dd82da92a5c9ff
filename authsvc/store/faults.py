"""What SQLite's errors mean for the caller: try again later, nothing can be read, or a mistake of ours."""

from __future__ import annotations

import sqlite3
from typing import Final

from authsvc.core.errors import StoreReadOnly, StoreUnavailable

# https://sqlite.org/rescode.html; extended codes carry the primary one in their low byte.
_CANNOT_WRITE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOLFS,
    }
)
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_CANNOT_OPEN: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH})

# The WAL-reset race (3.7.0 to 3.51.2) can lose commits when two connections checkpoint; fixed in these and later.
_RESET_RACE_FIXED: Final = (3, 51, 3)
_RESET_RACE_BACKPORTS: Final[dict[tuple[int, ...], int]] = {(3, 50): 7, (3, 44): 6}


def primary_code(error: sqlite3.Error) -> int:
    """Return the primary result code of an error of the library, 0 for errors of the Python module."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the file's content is broken."""
    return primary_code(error) in _DAMAGED


def is_accident(error: sqlite3.Error) -> bool:
    """Return whether the file, the disk or another process is the cause, rather than the statement."""
    return primary_code(error) in _CANNOT_WRITE | _DAMAGED | _CANNOT_OPEN


def another(fault: StoreUnavailable) -> StoreUnavailable:
    """Return the same fault for one more of those who wait: each raises one of its own, for raising changes it."""
    return type(fault)(str(fault))


def explain(error: sqlite3.Error) -> str:
    """Return the cause in words for the operator."""
    code = primary_code(error)
    words = {
        sqlite3.SQLITE_BUSY: "it is locked by another process",
        sqlite3.SQLITE_LOCKED: "it is locked",
        sqlite3.SQLITE_READONLY: "it is read-only",
        sqlite3.SQLITE_FULL: "the disk is full",
        sqlite3.SQLITE_IOERR: "the disk reports an error",
        sqlite3.SQLITE_CORRUPT: "it is corrupted; restore it from a backup",
        sqlite3.SQLITE_NOTADB: "it is corrupted; restore it from a backup",
        sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    }
    return f"{words.get(code, 'it failed')} ({error})"


def read_fault(error: sqlite3.Error) -> StoreUnavailable:
    """Return what a reader tells its caller."""
    return StoreUnavailable(f"the database cannot be read: {explain(error)}")


def write_fault(error: sqlite3.Error) -> StoreUnavailable:
    """Return what the writer tells everybody in the group."""
    if primary_code(error) in _CANNOT_WRITE:
        return StoreReadOnly(f"the database cannot be written: {explain(error)}")
    return StoreUnavailable(f"the database cannot be used: {explain(error)}")


def has_reset_race(version: tuple[int, ...]) -> bool:
    """Return whether this SQLite has the WAL-reset race."""
    if version >= _RESET_RACE_FIXED:
        return False
    backport = _RESET_RACE_BACKPORTS.get(version[:2])
    return backport is None or version[2] < backport
