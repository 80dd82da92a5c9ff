"""Sessions on attached brokers: whose a client id is there. One row each, written before the broker is answered.

The rows are read once at start; from then on the frame of the hooks holds the same in memory and tells what changes.
No change rows: nobody else rests on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from authsvc.store.database import Database, Row, Transaction, Written


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedSession:
    """A client id at a broker and the principal it belongs to, with what the connection rests on.

    `held` is a digest of the rules that the broker was told, `gone_us` when the client was last known to have left
    (None: it is connected, as far as is known).
    """

    broker: str
    client_id: str
    principal: str
    tenant: str
    thing: str
    ground: str
    token_id: str
    secret_id: str
    username: str
    peer: str
    held: str
    since_us: int
    gone_us: int | None = None


class AttachedSessions:
    """The repository. Reads raise StoreUnavailable, writes also StoreReadOnly."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self, broker: str) -> Sequence[AttachedSession]:
        """Return every row of the broker, by client id."""
        return [_row_of(row) for row in await self._database.read("attached_sessions", broker=broker)]

    async def keep(self, row: AttachedSession, *, former: str = "") -> Written[bool]:
        """Create or replace the row; return whether it is there now.

        False: token, secret, tenant or thing has ended, or the client id belongs to a principal that is neither this
        one nor `former`.
        """
        return await self._database.write(lambda tx: _keep(tx, row, former))

    async def write(self, broker: str, rows: Mapping[str, AttachedSession | None]) -> Written[None]:
        """Write what is owed in one transaction: by client id the row as it is to be, or None to forget it."""

        def work(tx: Transaction) -> None:
            for client_id, row in rows.items():
                if row is None:
                    tx.run("forget_attached_session", broker=broker, client_id=client_id)
                    continue
                tx.run("free_attached_session", broker=broker, client_id=client_id, principal=row.principal)
                if not _keep(tx, row, "") and row.gone_us is not None:
                    tx.run("leave_attached_session", broker=broker, client_id=client_id, gone_us=row.gone_us)

        return await self._database.write(work)

    async def forget_others(self, brokers: Sequence[str]) -> Written[int]:
        """Forget the rows of every broker that is not among these; return how many there were."""
        kept = json.dumps(list(brokers))
        return await self._database.write(lambda tx: tx.run("forget_other_brokers", kept=kept))


def _keep(tx: Transaction, row: AttachedSession, former: str) -> bool:
    return bool(tx.run("keep_attached_session", former=former, **asdict(row)))


def _row_of(row: Row) -> AttachedSession:
    names = AttachedSession.__dataclass_fields__
    return AttachedSession(**dict(zip(names, row, strict=True)))
