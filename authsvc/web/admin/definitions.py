"""Thing definitions: the kind, the access rules and the registration policy of the things that are made from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from authsvc.core.facts import BindClientId, ModulePolicy, ThingDefinition, ThingKind
from authsvc.core.policy import built_in_rules
from authsvc.web.auth import OPERATE, VIEW
from authsvc.web.listing import page_of
from authsvc.web.models import (
    DEFAULT_PAGE,
    Answer,
    Body,
    Cascade,
    Cursor,
    Instant,
    Items,
    Key,
    KeyInPath,
    Limit,
    RuleBody,
    Rules,
    Search,
    Text,
    rules_of,
)
from authsvc.web.routes import Current, access, resource

router = resource("thing definitions")

KindName = Literal["thing", "gateway", "module"]
BindName = Literal["app_token", "always", "never"]


class ModulePolicyBody(BaseModel):
    """What gateways of a definition may register behind themselves."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, title="ModulePolicy")

    definition: Key
    auto_register: bool = False

    def policy(self) -> ModulePolicy:
        return ModulePolicy(definition=self.definition, auto_register=self.auto_register)


class DefinitionNew(Body):
    key: Key = Field(examples=["edge-gateway"])
    name: Text | None = None
    kind: KindName = "thing"
    rules: Rules | None = Field(default=None, description="left out: the built-in rules of the kind")
    bind_client_id: BindName = "app_token"
    modules: ModulePolicyBody | None = None


class DefinitionPatch(Body):
    name: Text | None = Field(default=None, description="null: the key")
    kind: KindName | None = Field(default=None, description="null: `thing`")
    rules: Rules | None = Field(default=None, description="null: the built-in rules of the kind")
    bind_client_id: BindName | None = Field(default=None, description="null: `app_token`")
    modules: ModulePolicyBody | None = None


class DefinitionAnswer(Answer):
    key: str
    name: str
    kind: KindName
    rules: list[RuleBody]
    bind_client_id: BindName
    modules: ModulePolicyBody | None
    created_at: Instant

    @classmethod
    def of(cls, definition: ThingDefinition) -> DefinitionAnswer:
        policy = definition.modules
        modules = (
            None
            if policy is None
            else ModulePolicyBody(definition=policy.definition, auto_register=policy.auto_register)
        )
        return cls(
            key=definition.key,
            name=definition.name,
            kind=definition.kind.value,
            rules=rules_of(definition.rules),
            bind_client_id=definition.bind_client_id.value,
            modules=modules,
            created_at=definition.created_at_us,
        )


@router.post("/tenants/{tenant}/thing-definitions", status_code=201, **access(OPERATE))
async def create_definition(call: Current, tenant: KeyInPath, body: DefinitionNew) -> DefinitionAnswer:
    """Make a thing definition."""
    kind = ThingKind(body.kind)
    rules = built_in_rules(kind) if body.rules is None else tuple(rule.rule() for rule in body.rules)
    written = await call.store.definitions.create(
        tenant,
        body.key,
        name=body.name or "",
        kind=kind,
        rules=rules,
        bind_client_id=BindClientId(body.bind_client_id),
        modules=None if body.modules is None else body.modules.policy(),
    )
    return DefinitionAnswer.of(await call.settled(written))


@router.get("/tenants/{tenant}/thing-definitions", **access(VIEW))
async def list_definitions(
    call: Current, *, tenant: KeyInPath, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None, q: Search = None
) -> Items[DefinitionAnswer]:
    """List the thing definitions in key order."""
    return await page_of(
        call, call.store.definitions.list, tenant, make=DefinitionAnswer.of, limit=limit, cursor=cursor, q=q
    )


@router.get("/tenants/{tenant}/thing-definitions/{key}", **access(VIEW))
async def read_definition(call: Current, tenant: KeyInPath, key: KeyInPath) -> DefinitionAnswer:
    """Read one thing definition."""
    return DefinitionAnswer.of(await call.store.definitions.get(tenant, key))


@router.patch("/tenants/{tenant}/thing-definitions/{key}", **access(OPERATE))
async def change_definition(
    call: Current, tenant: KeyInPath, key: KeyInPath, body: DefinitionPatch
) -> DefinitionAnswer:
    """Change a definition; the grants of its live things follow before this answers."""
    changes: dict[str, Any] = {}
    if body.given("name"):
        changes["name"] = body.name or key
    if body.given("kind"):
        changes["kind"] = ThingKind(body.kind or "thing")
    if body.given("rules"):
        if body.rules is not None:
            changes["rules"] = tuple(rule.rule() for rule in body.rules)
        else:
            kind = changes.get("kind") or (await call.store.definitions.get(tenant, key)).kind
            changes["rules"] = built_in_rules(kind)
    if body.given("bind_client_id"):
        changes["bind_client_id"] = BindClientId(body.bind_client_id or "app_token")
    if body.given("modules"):
        changes["modules"] = None if body.modules is None else body.modules.policy()
    return DefinitionAnswer.of(await call.settled(await call.store.definitions.update(tenant, key, **changes)))


@router.delete("/tenants/{tenant}/thing-definitions/{key}", status_code=204, **access(OPERATE))
async def delete_definition(call: Current, tenant: KeyInPath, key: KeyInPath, cascade: Cascade = False) -> None:
    """Delete a definition; the built-in ones stay. With `cascade` what was made from it goes too."""
    await call.settled(await call.store.definitions.delete(tenant, key, cascade=cascade))
