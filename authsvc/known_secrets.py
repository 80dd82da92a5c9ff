"""Whether a secret is surely nobody's: the beginnings of all digests, in memory, so that a guess costs no read.

    start ──► all digests, page by page ──► complete ◄── change row of each secret that is created, with its beginning

It errs in one direction only. What is not found is nobody's: a created secret is in here before its change counts as
applied, which the answer to its creator waits for. What is found may have gone with its tenant: the store is asked.
Until all is read, and where there are too many, the store is asked about every one. What another process creates in
the same database is known when the feed brings it.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left

from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import Change, Kind
from authsvc.core.tokens import DIGEST_BEGINS
from authsvc.store import Store

MOST = 1_000_000  # 8 bytes each
PAGE = 1_000  # digests in one read
RETRY_S = 1.0


class KnownSecrets:
    """Follows the change feed from before `run` on; `run` reads what was there already."""

    def __init__(self, store: Store, *, most: int = MOST) -> None:
        self._store = store
        self._most = most
        self._beginnings = array("Q")  # sorted
        self._complete = False
        self._created: list[int] | None = None  # while the store is read: what may have come too late for its page
        self._wanted = asyncio.Event()
        self._wanted.set()

    def __len__(self) -> int:
        return len(self._beginnings)

    @property
    def complete(self) -> bool:
        """Whether every secret is known here."""
        return self._complete

    def surely_unknown(self, digest: bytes) -> bool:
        """Return whether no secret has this digest; False where only the store can say."""
        return self._complete and not self._holds(int.from_bytes(digest[:DIGEST_BEGINS]))

    def apply(self, change: Change) -> None:
        """Take a secret that was created."""
        if change.name.kind is not Kind.SECRET or change.op != "created":
            return
        beginning = _beginning_of(change)
        if beginning is None:
            self._read_again()
        elif self._complete:
            self._add(beginning)
        elif self._created is not None:
            self._created.append(beginning)

    async def run(self) -> None:
        """Read the store when that is wanted, for ever; owned by the caller's task group."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._read()
            except StoreUnavailable:
                self._read_again()
                await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        created = self._created = []
        try:
            found = array("Q")
            after = b""
            while len(found) <= self._most:
                digests = await self._store.secret_digests(after=after, limit=PAGE)
                found.extend(int.from_bytes(digest[:DIGEST_BEGINS]) for digest in digests)
                if len(digests) < PAGE:
                    break
                after = digests[-1]
        finally:
            self._created = None
        if len(found) > self._most or self._wanted.is_set():
            return
        self._beginnings, self._complete = found, True
        for beginning in created:
            self._add(beginning)

    def _add(self, beginning: int) -> None:
        if not self._holds(beginning):
            self._beginnings.insert(bisect_left(self._beginnings, beginning), beginning)
        if len(self._beginnings) > self._most + self._most // 4:
            self._read_again()  # of those that were deleted some may still be in here

    def _holds(self, beginning: int) -> bool:
        at = bisect_left(self._beginnings, beginning)
        return at < len(self._beginnings) and self._beginnings[at] == beginning

    def _read_again(self) -> None:
        self._complete = False
        self._beginnings = array("Q")
        self._wanted.set()


def _beginning_of(change: Change) -> int | None:
    """Return what the change row says of the digest, None where it says nothing usable."""
    digits = change.detail.get("digest_begins")
    if not isinstance(digits, str) or len(digits) != 2 * DIGEST_BEGINS:
        return None
    try:
        return int(digits, 16)
    except ValueError:
        return None
