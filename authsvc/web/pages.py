"""Cursors: opaque to the caller, and good for the one list and the filters that made them.

A cursor is the store's own position behind a checksum over the list's path and filters. The checksum is no secret: a
cursor that somebody computes reads only what a list of the same tenant would show anyway. It is there so that one
that was cut, edited or taken from another tenant's list is an error (422) and never a page of something else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from authsvc.web.problems import Problem, invalid

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_CURSOR_CHARS = 1024
_CHECK_BYTES = 12


def seal(position: str | None, *, path: str, filters: Mapping[str, object]) -> str | None:
    """Return the cursor for a position of the store's list, or None where the list has ended."""
    if position is None:
        return None
    raw = position.encode()
    return base64.urlsafe_b64encode(_check(raw, path, filters) + raw).rstrip(b"=").decode("ascii")


def unseal(cursor: str | None, *, path: str, filters: Mapping[str, object]) -> str | None:
    """Return the position that `seal` was given with the same path and filters; raises a 422 for anything else."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        canonical = base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") == cursor
        check, position = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        text = position.decode()
    except (binascii.Error, ValueError):
        raise _bad_cursor() from None
    if not canonical or not hmac.compare_digest(check, _check(position, path, filters)):
        raise _bad_cursor()
    return text


def _check(position: bytes, path: str, filters: Mapping[str, object]) -> bytes:
    digest = hashlib.sha256(b"authsvc cursor 1\0")
    for part in (path, *(f"{name}={value}" for name, value in sorted(filters.items()) if value not in (None, False))):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(4, "big") + raw)
    digest.update(position)
    return digest.digest()[:_CHECK_BYTES]


def _bad_cursor() -> Problem:
    return invalid("cursor_invalid", "this cursor was not made by this list with these filters", field="cursor")
