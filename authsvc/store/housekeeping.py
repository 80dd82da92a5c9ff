"""What the store does by itself every few seconds: writes first and last seen and the ends of persistent sessions,
wipes those that have expired, and forgets old change rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeVar

import structlog

from authsvc.core.errors import StoreUnavailable
from authsvc.store.clearings import UpstreamSession
from authsvc.store.database import Database, Transaction
from authsvc.store.endings import wipe_client

log = structlog.get_logger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

INTERVAL_S: Final = 5.0
MAX_SEEN: Final = 200_000  # things noted and not yet written; while the file cannot be written, the rest is let go
NOTED_PER_WORK: Final = 500  # a long work would hold up the others of its group
CHANGES_PER_WORK: Final = 1_000
KEEP_CHANGES_US: Final = 24 * 3600 * 1_000_000
# An expired session is not resumed from the instant of its end on; its row goes later, when whoever resumed it just
# before is noted as its user.
KEEP_EXPIRED_US: Final = 60 * 1_000_000
EXPIRED_PER_WORK: Final = 500


class Housekeeping:
    """Buffers what may be lost, and writes it in batches, without change rows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: dict[tuple[str, str], int] = {}
        self._readers: dict[str, int] = {}
        self._ends: dict[str, tuple[int | None, int | None]] = {}  # upstream id -> (expiry_s, expires_at_us)

    def note_seen(self, tenant: str, key: str, at_us: int) -> None:
        """Note that the thing connected."""
        if len(self._seen) < MAX_SEEN or (tenant, key) in self._seen:
            self._seen[tenant, key] = at_us

    def note_session_end(self, upstream_id: str, expiry_s: int | None, expires_at_us: int | None) -> None:
        """Note how long the session is kept, and when it ends (None: in use, or never)."""
        if len(self._ends) < MAX_SEEN or upstream_id in self._ends:
            self._ends[upstream_id] = expiry_s, expires_at_us

    def has_noted_end(self, upstream_id: str) -> bool:
        """Return whether an end of this session was noted and not written yet."""
        return upstream_id in self._ends

    def noted_as_ended(self, upstream_id: str, now_us: int) -> bool:
        """Return whether the end noted for this session has come."""
        _, expires_at_us = self._ends.get(upstream_id, (None, None))
        return expires_at_us is not None and expires_at_us <= now_us

    def with_noted_end(self, session: UpstreamSession) -> UpstreamSession:
        """Return the session with the end that was noted for it and may not be written yet."""
        noted = self._ends.get(session.upstream_id)
        return session if noted is None else replace(session, expiry_s=noted[0], expires_at_us=noted[1])

    def note_reader(self, reader: str, position: int) -> None:
        """Note how far a reader of changes has come."""
        self._readers[reader] = position

    async def run(self) -> None:
        """Flush every `INTERVAL_S` until cancelled. What cannot be written now is kept for the next time."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self.flush()
            except StoreUnavailable:
                continue  # the state of the store says so already
            except Exception as error:  # or the feed would grow for ever, and nobody would know
                log.exception("housekeeping_failed", problem=type(error).__name__)

    async def flush(self) -> None:
        """Write what is buffered and delete old change rows. Raises StoreUnavailable; nothing noted is lost then.

        What is noted while it writes waits for the next time: of a fleet that keeps connecting some always is, and one
        commit would follow the other for ever.
        """
        for seen in _batches(self._seen):
            await self._database.write(lambda tx, seen=seen: _write_seen(tx, seen))  # type: ignore[misc]
            _drop_written(self._seen, seen)
        for ends in _batches(self._ends):
            await self._database.write(lambda tx, ends=ends: _write_ends(tx, ends))  # type: ignore[misc]
            _drop_written(self._ends, ends)
        while (await self._database.write(_wipe_expired)).value == EXPIRED_PER_WORK:
            pass
        readers = dict(self._readers)
        while (await self._database.write(lambda tx: _forget(tx, readers))).value == CHANGES_PER_WORK:
            pass


def _batches(noted: Mapping[K, V]) -> Iterator[dict[K, V]]:
    """Yield what is noted now, `NOTED_PER_WORK` at a time, each as it stands when its turn comes."""
    keys = tuple(noted)
    for start in range(0, len(keys), NOTED_PER_WORK):
        yield {key: noted[key] for key in keys[start : start + NOTED_PER_WORK] if key in noted}


def _drop_written(noted: dict[K, V], written: Mapping[K, V]) -> None:
    """Forget what was written; what has been noted anew meanwhile stays."""
    for key, value in written.items():
        if noted.get(key) == value:
            del noted[key]


def _write_seen(tx: Transaction, seen: dict[tuple[str, str], int]) -> None:
    for (tenant, key), at_us in seen.items():
        tx.run("touch_seen", tenant=tenant, key=key, at_us=at_us)


def _write_ends(tx: Transaction, ends: dict[str, tuple[int | None, int | None]]) -> None:
    for upstream_id, (expiry_s, expires_at_us) in ends.items():
        tx.run("note_session_expiry", upstream_id=upstream_id, expiry_s=expiry_s, expires_at_us=expires_at_us)


def _wipe_expired(tx: Transaction) -> int:
    rows = tx.all("expired_sessions", before_us=tx.now_us - KEEP_EXPIRED_US, rows=EXPIRED_PER_WORK)
    for tenant, principal, client_id in rows:
        wipe_client(tx, tenant, principal, client_id)
    return len(rows)


def _forget(tx: Transaction, readers: dict[str, int]) -> int:
    before_us = tx.now_us - KEEP_CHANGES_US
    for reader, position in readers.items():
        tx.run("reader_passed", name=reader, position=position, at_us=tx.now_us)
    tx.run("forget_readers", before_us=before_us)
    return tx.run("forget_changes", before_us=before_us, rows=CHANGES_PER_WORK)
