"""What the store does by itself every few seconds: writes first and last seen, and forgets old change rows."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Final

import structlog

from authsvc.core.errors import StoreUnavailable
from authsvc.store.database import Database, Transaction

log = structlog.get_logger(__name__)

INTERVAL_S: Final = 5.0
MAX_SEEN: Final = 200_000  # things noted and not yet written; while the file cannot be written, the rest is let go
SEEN_PER_WORK: Final = 500  # a long work would hold up the others of its group
CHANGES_PER_WORK: Final = 1_000
KEEP_CHANGES_US: Final = 24 * 3600 * 1_000_000


class Housekeeping:
    """Buffers what may be lost, and writes it in batches. Nothing here appends change rows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: dict[tuple[str, str], int] = {}
        self._readers: dict[str, int] = {}

    def note_seen(self, tenant: str, key: str, at_us: int) -> None:
        """Note that the thing connected."""
        if len(self._seen) < MAX_SEEN or (tenant, key) in self._seen:
            self._seen[tenant, key] = at_us

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
        """Write what is buffered and delete old change rows. Raises StoreUnavailable; nothing noted is lost then."""
        while batch := dict(islice(self._seen.items(), SEEN_PER_WORK)):
            await self._database.write(lambda tx, batch=batch: _write_seen(tx, batch))  # type: ignore[misc]
            for name, at_us in batch.items():
                if self._seen.get(name) == at_us:
                    del self._seen[name]
        readers = dict(self._readers)
        while (await self._database.write(lambda tx: _forget(tx, readers))).value == CHANGES_PER_WORK:
            pass


def _write_seen(tx: Transaction, seen: dict[tuple[str, str], int]) -> None:
    for (tenant, key), at_us in seen.items():
        tx.run("touch_seen", tenant=tenant, key=key, at_us=at_us)


def _forget(tx: Transaction, readers: dict[str, int]) -> int:
    before_us = tx.now_us - KEEP_CHANGES_US
    for reader, position in readers.items():
        tx.run("reader_passed", name=reader, position=position, at_us=tx.now_us)
    tx.run("forget_readers", before_us=before_us)
    return tx.run("forget_changes", before_us=before_us, rows=CHANGES_PER_WORK)
