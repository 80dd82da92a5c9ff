"""What the repositories share: cursors and pages, reading one record, and what an update changes."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from authsvc.core.errors import InvalidInput, NotFound
from authsvc.store.database import Database, Keep, Page, Row, Transaction

R = TypeVar("R")

# UTF-8 sorts by code point, as SQLite's BINARY collation does; a cursor is the last key of its page.
_MAX_CURSOR_CHARS = 200


def cursor_of(key: str) -> str:
    """Return the cursor of the page that begins after `key`: opaque to callers, safe in a URL."""
    return urlsafe_b64encode(key.encode()).decode().rstrip("=")


def key_of(cursor: str | None) -> str:
    """Return the key after which the page begins, "" for the first. Raises InvalidInput ``cursor_invalid``."""
    if cursor is None:
        return ""
    key = ""
    if len(cursor) <= _MAX_CURSOR_CHARS:
        with suppress(ValueError, Base64Error):
            key = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode()
    if not key or cursor_of(key) != cursor:
        detail = "`cursor` is not one that a list answered; begin without it"
        raise InvalidInput("cursor_invalid", detail, field="cursor")
    return key


async def page_of(
    database: Database,
    query: str,
    record: Callable[[Row], R],
    key: Callable[[R], str],
    /,
    *,
    limit: int,
    cursor: str | None,
    q: str | None,
    **filters: object,
) -> Page[R]:
    """Return one page of a named list statement. `q` is compared casefolded and literally."""
    rows = await database.read(query, after=key_of(cursor), q=(q or "").casefold(), rows=limit + 1, **filters)
    items = tuple(record(row) for row in rows[:limit])
    return Page(items=items, next=cursor_of(key(items[-1])) if len(rows) > limit else None)


async def read_one(
    database: Database, kind: str, query: str, record: Callable[[Row], R], key: str, /, **values: object
) -> R:
    """Return the record of a named statement. Raises NotFound with the kind and key in words."""
    rows = await database.read(query, **values)
    if not rows:
        raise NotFound(kind, key)
    return record(rows[0])


def changed(before: object, given: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of an update that were given and differ from what is stored."""
    return {
        field: value
        for field, value in given.items()
        if not isinstance(value, Keep) and value != getattr(before, field)
    }


def take_one(tx: Transaction, kind: str, query: str, record: Callable[[Row], R], key: str, /, **values: object) -> R:
    """Return the record of a named statement inside a work. Raises NotFound."""
    row = tx.one(query, **values)
    if row is None:
        raise NotFound(kind, key)
    return record(row)
