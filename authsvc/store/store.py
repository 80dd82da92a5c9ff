"""The facade: opens the engine and holds the repositories, the admission questions and the change feed's reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from authsvc.core.errors import Conflict, StoreUnavailable
from authsvc.core.facts import (
    RETIRED,
    AdminKey,
    Change,
    Ground,
    License,
    Refusal,
    Retired,
    Role,
    Secret,
    Tenant,
    Thing,
    ThingDefinition,
    Token,
)
from authsvc.core.things import Plan
from authsvc.store import admission, registration
from authsvc.store.attached import AttachedSessions
from authsvc.store.clearings import Clearing, UpstreamSession
from authsvc.store.database import Database, StoreState, Transaction, Written
from authsvc.store.housekeeping import Housekeeping
from authsvc.store.records import (
    TOKEN_COLUMNS,
    admin_key_of,
    changes_of,
    clearing_of,
    definition_of,
    ground_of,
    license_of,
    role_of,
    secret_of,
    tenant_of,
    thing_of,
    token_of,
    upstream_session_of,
)
from authsvc.store.repositories.admin_keys import AdminKeys
from authsvc.store.repositories.app_tokens import AppTokens
from authsvc.store.repositories.definitions import Definitions
from authsvc.store.repositories.device_tokens import DeviceTokens
from authsvc.store.repositories.ground_tokens import GroundTokens
from authsvc.store.repositories.grounds import Grounds
from authsvc.store.repositories.licenses import Licenses
from authsvc.store.repositories.modules import Modules
from authsvc.store.repositories.roles import Roles
from authsvc.store.repositories.tenants import Tenants
from authsvc.store.repositories.things import Things
from authsvc.store.sqlite import SqliteDatabase


class Store:
    """Everything that is remembered. Reads raise `StoreUnavailable`, writes also `StoreReadOnly`."""

    def __init__(self, database: Database, *, now_us: Callable[[], int]) -> None:
        self.database = database
        self._now_us = now_us
        self._housekeeping = Housekeeping(database)
        self._task: asyncio.Task[None] | None = None
        self.tenants = Tenants(database)
        self.grounds = Grounds(database)
        self.definitions = Definitions(database)
        self.roles = Roles(database)
        self.licenses = Licenses(database)
        self.app_tokens = AppTokens(database)
        self.device_tokens = DeviceTokens(database)
        self.ground_tokens = GroundTokens(database)
        self.things = Things(database)
        self.modules = Modules(database)
        self.admin_keys = AdminKeys(database)
        self.attached_sessions = AttachedSessions(database)

    @classmethod
    async def open(cls, path: Path, *, now_us: Callable[[], int], create: bool = True) -> Store:
        """Open the database file, creating and migrating it. `create` False refuses a missing file."""
        store = cls(await SqliteDatabase.open(path, now_us=now_us, create=create), now_us=now_us)
        store._task = asyncio.create_task(store._housekeeping.run(), name="store-housekeeping")
        return store

    async def close(self) -> None:
        """Flush what is buffered, end the tasks and close the file; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with suppress(StoreUnavailable):
                await self._housekeeping.flush()
        await self.database.close()

    @property
    def state(self) -> StoreState:
        return self.database.state

    def on_commit(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back on the loop after commits with change rows (a wake-up: it may be lost). Returns what cancels it."""
        return self.database.on_commit(callback)

    async def ensure_default_tenant(self) -> Written[None]:
        """Create the tenant `default` unless it is there: part of the first start."""
        with suppress(Conflict):
            written = await self.tenants.create("default")
            return Written(value=None, position=written.position, first=written.first)
        return Written(value=None, position=0)

    async def flush(self) -> None:
        """Write first and last seen now, and forget old change rows. Raises StoreUnavailable."""
        await self._housekeeping.flush()

    # -- admission: reads -------------------------------------------------------------------------------------------

    async def token_by_digest(self, digest: bytes) -> tuple[Token, Secret] | None:
        row = await self.database.look_up("token_by_digest", digest=digest)
        return (token_of(row[:TOKEN_COLUMNS]), secret_of(row[TOKEN_COLUMNS:])) if row else None

    async def token(self, tenant: str, id: str) -> Token | None:
        row = await self.database.look_up("token", tenant=tenant, id=id)
        return token_of(row) if row else None

    async def secret(self, id: str) -> Secret | None:
        row = await self.database.look_up("secret", id=id)
        return secret_of(row) if row else None

    async def secret_digests(self, *, after: bytes, limit: int) -> list[bytes]:
        """Return a page of the digests of all secrets, ended ones too, in their own order."""
        return [row[0] for row in await self.database.read("digests", after=after, rows=limit)]

    async def tenant(self, key: str) -> Tenant | None:
        row = await self.database.look_up("tenant", key=key)
        return tenant_of(row) if row else None

    async def ground(self, tenant: str, key: str) -> Ground | None:
        row = await self.database.look_up("ground", tenant=tenant, key=key)
        return ground_of(row) if row else None

    async def definition(self, tenant: str, key: str) -> ThingDefinition | None:
        row = await self.database.look_up("definition", tenant=tenant, key=key)
        return definition_of(row) if row else None

    async def role(self, tenant: str, key: str) -> Role | None:
        """Return the tenant's role, or the platform role if `tenant` is empty."""
        row = await self.database.look_up("role", tenant=tenant, key=key)
        return role_of(row) if row else None

    async def license(self, tenant: str, key: str) -> License | None:
        row = await self.database.look_up("license", tenant=tenant, key=key)
        return license_of(row) if row else None

    async def thing(self, tenant: str, key: str) -> Thing | None:
        row = await self.database.look_up("thing", tenant=tenant, key=key)
        return thing_of(row) if row else None

    async def thing_or_retired(self, tenant: str, key: str) -> Thing | Retired | None:
        """Return the thing, or whether its key is retired: what a CONNECT asks of a key that it has not seen."""
        row = await self.database.look_up_together("things_or_retired", (tenant, key))
        if row is None:
            return None
        if row[1] is not None:
            return thing_of(row[1:])
        return RETIRED

    async def modules_of(self, tenant: str, gateway: str) -> frozenset[str]:
        """Return the keys of the modules bound to the gateway."""
        rows = await self.database.read("modules_of", tenant=tenant, gateway=gateway)
        return frozenset(row[0] for row in rows)

    async def members_of(self, tenant: str, ground: str) -> frozenset[str]:
        """Return the keys of the things in the ground."""
        rows = await self.database.read("members_of", tenant=tenant, ground=ground)
        return frozenset(row[0] for row in rows)

    async def admin_key_by_digest(self, digest: bytes) -> AdminKey | None:
        row = await self.database.look_up("admin_key_by_digest", digest=digest)
        return admin_key_of(row) if row else None

    # -- admission: writes ------------------------------------------------------------------------------------------

    async def register(self, plan: Plan, *, bind_client_id: str | None) -> Written[Thing | Refusal]:
        """Register the planned thing and bind the client id in one transaction; races settle in it."""
        together = await self.database.write_together(registration.register_all, (plan, bind_client_id))
        if together is not None:
            return together
        return await self.database.write(lambda tx: registration.register(tx, plan, bind_client_id))

    async def bind_client_id(self, tenant: str, key: str, client_id: str) -> Written[Thing | Refusal]:
        """Bind the client id if none is bound; a refusal if another is, or the thing is gone."""
        return await self.database.write(lambda tx: admission.bind_client_id(tx, tenant, key, client_id))

    def note_seen(self, tenant: str, key: str) -> None:
        """Note a thing's connection; written with others every 5 s, without change rows. Never raises."""
        self._housekeeping.note_seen(tenant, key, self._now_us())

    # -- upstream sessions and clearings ----------------------------------------------------------------------------

    async def upstream_session(self, principal: str, client_id: str) -> UpstreamSession | None:
        """Return the persistent session; its end is the one noted last, though that may not be written yet."""
        row = await self.database.look_up("upstream_session", principal=principal, client_id=client_id)
        return self._housekeeping.with_noted_end(upstream_session_of(row)) if row else None

    async def persistent_count(self, principal: str) -> int:
        """Return how many persistent sessions the principal has that have not expired, by the end noted last."""
        rows = await self.database.read("persistent_ids", principal=principal, now_us=(now_us := self._now_us()))
        return sum(not self._housekeeping.noted_as_ended(upstream_id, now_us) for (upstream_id,) in rows)

    async def open_upstream_session(
        self,
        principal: str,
        client_id: str,
        *,
        tenant: str,
        thing: str,
        ground: str = "",
        token_id: str,
        secret_id: str,
        clean: bool,
        upstream_id: str,
        expiry_s: int | None = None,
    ) -> Written[UpstreamSession | None]:
        """Keep the row, resting it on this secret, or create it with `upstream_id`; clean: wipe it, return None."""
        session = UpstreamSession(
            principal=principal,
            client_id=client_id,
            upstream_id=upstream_id,
            tenant=tenant,
            thing=thing,
            ground=ground,
            token_id=token_id,
            secret_id=secret_id,
            since_us=0,
            expiry_s=expiry_s,
        )
        written = await self.database.write(lambda tx: admission.open_upstream_session(tx, session, clean=clean))
        if written.value is not None and self.has_noted_end(written.value.upstream_id):
            self.note_session_end(written.value.upstream_id, expiry_s=expiry_s, expires_at_us=None)
        return written

    def note_session_end(self, upstream_id: str, *, expiry_s: int | None, expires_at_us: int | None) -> None:
        """Note when a persistent session ends, None while it is in use; written with others every 5 s. Never raises."""
        self._housekeeping.note_session_end(upstream_id, expiry_s, expires_at_us)

    def has_noted_end(self, upstream_id: str) -> bool:
        """Return whether an end was noted and may not be written yet: what is noted next must replace it."""
        return self._housekeeping.has_noted_end(upstream_id)

    async def leave_all_sessions(self) -> Written[None]:
        """At a start: give every session that can expire its end, counted from now, where none was written."""

        def work(tx: Transaction) -> None:
            tx.run("leave_all_sessions", now_us=tx.now_us)

        return await self.database.write(work)

    async def clearings(self, *, limit: int = 1000) -> Sequence[Clearing]:
        """Return what is to be cleared upstream, oldest first."""
        return [clearing_of(row) for row in await self.database.read("clearings", rows=limit)]

    async def cleared(self, id: int) -> Written[None]:
        """Strike the clearing off; nothing happens if it is gone already."""

        def work(tx: Transaction) -> None:
            tx.run("cleared", id=id)

        return await self.database.write(work)

    async def forget_upstream(self) -> Written[None]:
        """Empty both tables: for an upstream that keeps nothing, at start."""
        return await self.database.write(admission.forget_upstream)

    # -- changes ----------------------------------------------------------------------------------------------------

    async def last_position(self) -> int:
        return int((await self.database.read("change_range"))[0][1])

    async def changes_after(self, position: int, limit: int = 1000) -> Sequence[Change]:
        """Return the changes after `position`, oldest first. Raises StoreUnavailable if some are no longer kept."""
        ((text,),) = await self.database.read("changes_after", position=position, rows=limit)
        rows = sorted(json.loads(text))
        if rows and rows[0][0] != position + 1:
            # Positions have no gaps here: a commit takes them in order, and a rollback gives them back.
            raise StoreUnavailable(f"changes {position + 1} to {rows[0][0] - 1} are no longer kept: start again")
        return changes_of(rows)

    async def changes_since(self, at_us: int, ops: Iterable[str]) -> Sequence[Change]:
        """Return the changes of these kinds since then that are still kept, oldest first; they are for a day."""
        return changes_of(await self.database.read("changes_since", at_us=at_us, ops=json.dumps(sorted(ops))))

    def reader_passed(self, reader: str, position: int) -> None:
        """Note how far a reader of changes has come; rows older than a day that all have passed are deleted."""
        self._housekeeping.note_reader(reader, position)
