"""The facade: opens the engine and holds the repositories, the admission questions and the change feed's reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from authsvc.core.facts import (
    AdminKey,
    Change,
    Ground,
    License,
    Refusal,
    Role,
    Secret,
    Tenant,
    Thing,
    ThingDefinition,
    Token,
)
from authsvc.core.things import Plan
from authsvc.store.clearings import Clearing, UpstreamSession
from authsvc.store.database import Database, StoreState, Written
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


class Store:
    """Everything that is remembered. Reads raise `StoreUnavailable`, writes also `StoreReadOnly`."""

    def __init__(self, database: Database) -> None:
        self.database = database
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

    @classmethod
    async def open(cls, path: Path, *, now_us: Callable[[], int], create: bool = True) -> Store:
        """Open the database file, creating and migrating it. `create` False refuses a missing file."""
        raise NotImplementedError

    async def close(self) -> None:
        """Flush what is buffered, end the tasks and close the file; idempotent."""
        raise NotImplementedError

    @property
    def state(self) -> StoreState:
        return self.database.state

    def on_commit(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back on the loop after commits with change rows (a wake-up: it may be lost). Returns what cancels it."""
        return self.database.on_commit(callback)

    # -- admission: reads -------------------------------------------------------------------------------------------

    async def token_by_digest(self, digest: bytes) -> tuple[Token, Secret] | None:
        raise NotImplementedError

    async def token(self, tenant: str, id: str) -> Token | None:
        raise NotImplementedError

    async def tenant(self, key: str) -> Tenant | None:
        raise NotImplementedError

    async def ground(self, tenant: str, key: str) -> Ground | None:
        raise NotImplementedError

    async def definition(self, tenant: str, key: str) -> ThingDefinition | None:
        raise NotImplementedError

    async def role(self, tenant: str, key: str) -> Role | None:
        """Return the tenant's role, or the platform role if `tenant` is empty."""
        raise NotImplementedError

    async def license(self, tenant: str, key: str) -> License | None:
        raise NotImplementedError

    async def thing(self, tenant: str, key: str) -> Thing | None:
        raise NotImplementedError

    async def thing_retired(self, tenant: str, key: str) -> bool:
        raise NotImplementedError

    async def modules_of(self, tenant: str, gateway: str) -> frozenset[str]:
        """Return the keys of the modules bound to the gateway."""
        raise NotImplementedError

    async def members_of(self, tenant: str, ground: str) -> frozenset[str]:
        """Return the keys of the things in the ground."""
        raise NotImplementedError

    async def admin_key_by_digest(self, digest: bytes) -> AdminKey | None:
        raise NotImplementedError

    # -- admission: writes ------------------------------------------------------------------------------------------

    async def register(self, plan: Plan, *, bind_client_id: str | None) -> Written[Thing | Refusal]:
        """Register the planned thing and bind the client id in one transaction; races settle in it."""
        raise NotImplementedError

    async def bind_client_id(self, tenant: str, key: str, client_id: str) -> Written[Thing | Refusal]:
        """Bind the client id if none is bound; a refusal if another is, or the thing is gone."""
        raise NotImplementedError

    def note_seen(self, tenant: str, key: str) -> None:
        """Note a thing's connection; written with others every 5 s, without change rows. Never raises."""
        raise NotImplementedError

    # -- upstream sessions and clearings ----------------------------------------------------------------------------

    async def upstream_session(self, principal: str, client_id: str) -> UpstreamSession | None:
        raise NotImplementedError

    async def persistent_count(self, principal: str) -> int:
        raise NotImplementedError

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
    ) -> Written[UpstreamSession | None]:
        """Keep or create the row, its secret updated (`upstream_id` is used if it is new); clean: wipe it, return None."""
        raise NotImplementedError

    async def clearings(self, *, limit: int = 1000) -> Sequence[Clearing]:
        """Return what is to be cleared upstream, oldest first."""
        raise NotImplementedError

    async def cleared(self, id: int) -> Written[None]:
        """Strike the clearing off; nothing happens if it is gone already."""
        raise NotImplementedError

    async def forget_upstream(self) -> Written[None]:
        """Empty both tables: for an upstream that keeps nothing, at start."""
        raise NotImplementedError

    # -- changes ----------------------------------------------------------------------------------------------------

    async def last_position(self) -> int:
        raise NotImplementedError

    async def changes_after(self, position: int, limit: int = 1000) -> Sequence[Change]:
        """Return the changes after `position`, oldest first. Raises StoreUnavailable if some are no longer kept."""
        raise NotImplementedError

    def reader_passed(self, reader: str, position: int) -> None:
        """Note how far a reader of changes has come; rows older than a day that all have passed are deleted."""
        raise NotImplementedError
