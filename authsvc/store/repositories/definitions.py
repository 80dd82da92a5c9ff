from __future__ import annotations

from collections.abc import Sequence

from authsvc.core.facts import BindClientId, ModulePolicy, Rule, ThingDefinition, ThingKind
from authsvc.store.database import Database, Page, Written, KEEP, Keep


class Definitions:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        tenant: str,
        key: str,
        *,
        name: str = "",
        kind: ThingKind = ThingKind.THING,
        rules: Sequence[Rule] = (),
        bind_client_id: BindClientId = BindClientId.APP_TOKEN,
        modules: ModulePolicy | None = None,
    ) -> Written[ThingDefinition]:
        raise NotImplementedError

    async def get(self, tenant: str, key: str) -> ThingDefinition:
        raise NotImplementedError

    async def list(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None, q: str | None = None
    ) -> Page[ThingDefinition]:
        raise NotImplementedError

    async def update(
        self,
        tenant: str,
        key: str,
        *,
        name: str | Keep = KEEP,
        kind: ThingKind | Keep = KEEP,
        rules: Sequence[Rule] | Keep = KEEP,
        bind_client_id: BindClientId | Keep = KEEP,
        modules: ModulePolicy | None | Keep = KEEP,
    ) -> Written[ThingDefinition]:
        raise NotImplementedError

    async def delete(self, tenant: str, key: str, *, cascade: bool = False) -> Written[None]:
        raise NotImplementedError
