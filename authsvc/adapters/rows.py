"""The rows of one attached broker, in memory and in the store: whose each client id is.

What must be there before an answer is written at once; what may follow, with others every few seconds. A store that
cannot be written makes everything follow later: then a crash forgets what it has not seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from authsvc.adapters.held import digest
from authsvc.core.errors import StoreReadOnly, StoreUnavailable
from authsvc.sessions import Admitted
from authsvc.store import Store
from authsvc.store.attached import AttachedSession


class Rows:
    """Whose each client id of the broker is. `load` them first; one process at a time writes them."""

    def __init__(self, store: Store, broker: str) -> None:
        self._store = store
        self._broker = broker
        self._rows: dict[str, AttachedSession] = {}
        self._of: dict[str, dict[str, None]] = {}  # client ids by principal, the oldest first
        self._owed: dict[str, AttachedSession | None] = {}  # what the store does not know yet
        self._only_left: set[str] = set()  # client ids of which it knows all but that they are not connected
        self._freed: dict[str, str] = {}  # client ids that the store does not know to be free -> whose they were
        self._keeping: set[str] = set()  # client ids whose rows are being written by `keep`
        self._flushing: set[str] = set()  # and by `flush`
        self._flushed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[AttachedSession]:
        return iter(tuple(self._rows.values()))

    async def load(self) -> None:
        """Read what is remembered. Raises StoreUnavailable."""
        rows = await self._store.attached_sessions.all(self._broker)
        for row in rows:
            self._set(row)

    def get(self, client_id: str) -> AttachedSession | None:
        """Return the client id's row."""
        return self._rows.get(client_id)

    def of(self, principal: str) -> list[AttachedSession]:
        """Return the rows of the principal."""
        return [self._rows[client_id] for client_id in self._of.get(principal, ())]

    def number_of(self, principal: str) -> int:
        """Return how many client ids are the principal's."""
        return len(self._of.get(principal, ()))

    def oldest(self, principal: str, *, gone: bool) -> AttachedSession | None:
        """Return the principal's oldest row, of those that are connected as far as is known, or of the others."""
        for client_id in self._of.get(principal, ()):
            row = self._rows[client_id]
            if (row.gone_us is not None) is gone:
                return row
        return None

    def stands(self, admitted: Admitted, username: str) -> bool:
        """Return whether the row is there already as this admission would have it: nothing to `keep`.

        A row for each CONNECT of a client that comes back as it was, only to be compared, would be most of its cost.
        """
        row = self._rows.get(admitted.client_id)
        return (
            row is not None
            and row.gone_us is None
            and row.principal == admitted.principal
            and row.secret_id == admitted.secret_id
            and row.token_id == admitted.token_id
            and row.tenant == admitted.tenant
            and row.thing == (admitted.thing or "")
            and row.ground == admitted.ground
            and row.username == username
            and row.held == digest(admitted.grant)
        )

    async def keep(self, row: AttachedSession) -> bool:
        """Have the row stand, before the broker is answered; False: what it rests on has ended meanwhile.

        Call it under the client id's lock.
        Nothing is written for a client that comes back as it was. Raises StoreUnavailable.
        """
        former = self._rows.get(row.client_id)
        if former is not None and _comes_back(former, row):
            if former.gone_us is None:
                return True
            if row.client_id in self._only_left:  # it left and came back before anybody was told
                self._only_left.discard(row.client_id)
                self._owed.pop(row.client_id, None)
                self._set(replace(former, gone_us=None))
                return True
        while row.client_id in self._flushing:  # or what it writes would come after this
            await self._flushed.wait()
        self._keeping.add(row.client_id)
        try:
            whose = self._freed.get(row.client_id, "") if former is None else former.principal
            written = await self._store.attached_sessions.keep(row, former=whose)
        except StoreReadOnly:
            self._owe(row.client_id, row)
        else:
            if not written.value:
                return False
            self._owed.pop(row.client_id, None)
            self._only_left.discard(row.client_id)
            self._freed.pop(row.client_id, None)
        finally:
            self._keeping.discard(row.client_id)
        self._set(row)
        return True

    def put(self, row: AttachedSession) -> None:
        """Have the row stand; the store follows."""
        self._set(row)
        self._owe(row.client_id, row)

    def left(self, client_id: str, *, now_us: int) -> None:
        """Note that the client is not connected any more; its client id stays its principal's. The store follows."""
        row = self._rows.get(client_id)
        if row is None or row.gone_us is not None:
            return
        known = all(client_id not in ids for ids in (self._owed, self._flushing, self._keeping))
        self.put(replace(row, gone_us=now_us))
        if known:
            self._only_left.add(client_id)

    def forget(self, client_id: str) -> None:
        """Free the client id: the broker keeps nothing of it. The store follows."""
        row = self._rows.pop(client_id, None)
        if row is not None:
            self._unlist(row)
            self._owe(client_id, None)
            self._freed.setdefault(client_id, row.principal)

    def forget_gone_before(self, before_us: int) -> None:
        """Free the client ids whose clients left before then."""
        for row in self:
            if row.gone_us is not None and row.gone_us < before_us:
                self.forget(row.client_id)

    async def flush(self) -> None:
        """Write what the store does not know yet; what cannot be written now stays owed."""
        owed = {client_id: row for client_id, row in self._owed.items() if client_id not in self._keeping}
        if not owed or self._flushing:
            return
        for client_id in owed:
            del self._owed[client_id]
        self._only_left -= owed.keys()
        self._flushing = set(owed)
        self._flushed.clear()
        try:
            await self._store.attached_sessions.write(self._broker, owed)
        except StoreUnavailable:
            self._owed = {**owed, **self._owed}
        else:
            for client_id in owed.keys() - self._owed.keys():
                self._freed.pop(client_id, None)
        finally:
            self._flushing = set()
            self._flushed.set()

    def _owe(self, client_id: str, row: AttachedSession | None) -> None:
        self._owed[client_id] = row
        self._only_left.discard(client_id)

    def _set(self, row: AttachedSession) -> None:
        former = self._rows.get(row.client_id)
        if former is not None and former.principal != row.principal:
            self._unlist(former)
        self._rows[row.client_id] = row
        self._of.setdefault(row.principal, {})[row.client_id] = None

    def _unlist(self, row: AttachedSession) -> None:
        listed = self._of.get(row.principal)
        if listed is not None:
            listed.pop(row.client_id, None)
            if not listed:
                del self._of[row.principal]


def _comes_back(former: AttachedSession, row: AttachedSession) -> bool:
    return replace(row, peer=former.peer, since_us=former.since_us, gone_us=former.gone_us) == former
