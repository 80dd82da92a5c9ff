"""Every engine: what operators create, list, change and delete."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.errors import Conflict, InUse, InvalidInput, NotFound
from authsvc.core.facts import (
    RETIRED,
    AdminRole,
    BindClientId,
    Effect,
    GroundAccess,
    ModulePolicy,
    Rule,
    RuleAction,
    TenantState,
    ThingKind,
    ThingState,
)
from authsvc.store import Store
from tests.store.conftest import Clock, World, new_digest

OUTSIDE = Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="other/#")


async def test_a_new_tenant_has_its_ground_and_built_in_definitions(store: Store) -> None:
    """`default`, and `thing`, `gateway`, `module` with the rules of their kinds; a change row each."""
    written = await store.tenants.create("acme", name="Acme")
    assert (written.value.name, written.value.state) == ("Acme", TenantState.ACTIVE)
    assert [ground.key for ground in (await store.grounds.list("acme")).items] == ["default"]
    definitions = (await store.definitions.list("acme")).items
    assert [(d.key, d.kind) for d in definitions] == [
        ("gateway", ThingKind.GATEWAY),
        ("module", ThingKind.MODULE),
        ("thing", ThingKind.THING),
    ]
    assert all(definition.rules for definition in definitions if definition.kind is not ThingKind.MODULE)
    changes = await store.changes_after(0)
    assert [change.op for change in changes] == ["created"] * 5
    assert changes[0].name == ("tenant", "acme", "acme")


async def test_the_default_tenant_is_ensured_once(store: Store) -> None:
    """At the second start nothing changes."""
    assert (await store.ensure_default_tenant()).position > 0
    assert (await store.ensure_default_tenant()).position == 0


CREATES = {
    "tenant": lambda store, key: store.tenants.create(key),
    "ground": lambda store, key: store.grounds.create("acme", key),
    "definition": lambda store, key: store.definitions.create("acme", key),
    "role": lambda store, key: store.roles.create("acme", key),
    "platform role": lambda store, key: store.roles.create("", key),
    "license": lambda store, key: store.licenses.create("acme", key, seats=1),
    "thing": lambda store, key: store.things.create("acme", key),
}


@pytest.mark.parametrize("kind", CREATES)
async def test_a_key_is_created_once(kind: str, world: World) -> None:
    """Of ten at once one creates and nine are `already_exists`; the name equals the key when left out."""
    create = CREATES[kind]
    answers = await asyncio.gather(*(create(world.store, "twice") for _ in range(10)), return_exceptions=True)
    conflicts = [answer for answer in answers if isinstance(answer, Conflict)]
    assert len(conflicts) == 9
    assert {conflict.code for conflict in conflicts} == {"already_exists"}
    (created,) = (answer.value for answer in answers if not isinstance(answer, Exception))
    assert getattr(created, "name", "twice") == "twice"


@pytest.mark.parametrize("key", ["", "a/b", "+", "#", "ü", "a b", "." * 3, "x" * 65, "a\x00", "a\n"])
@pytest.mark.parametrize("kind", CREATES)
async def test_a_key_that_is_no_safe_topic_level_is_refused(kind: str, key: str, world: World) -> None:
    """Whatever the kind; the store is the last to look."""
    with pytest.raises(InvalidInput) as caught:
        await CREATES[kind](world.store, key)
    assert caught.value.code == "key_invalid"


async def test_what_belongs_to_an_unknown_tenant_is_not_found(store: Store) -> None:
    """Nothing is created in a tenant that is not there."""
    for kind in ("ground", "definition", "role", "license", "thing"):
        with pytest.raises(NotFound):
            await CREATES[kind](store, "k")
    with pytest.raises(NotFound):
        await store.app_tokens.create("acme", name="t", digest=new_digest(), prefix="p")


@pytest.mark.parametrize(
    ("delete", "counts"),
    [
        (
            lambda store, **k: store.grounds.delete("acme", "north", **k),
            {"things": 1, "ground_tokens": 1, "app_tokens": 1},
        ),
        (
            lambda store, **k: store.definitions.delete("acme", "meter", **k),
            {"things": 1, "app_tokens": 1, "thing_definitions": 1},
        ),
        (lambda store, **k: store.roles.delete("acme", "r", **k), {"app_tokens": 1}),
        (lambda store, **k: store.roles.delete("", "p", **k), {"app_tokens": 1}),
        (lambda store, **k: store.licenses.delete("acme", "pool", **k), {"things": 1, "app_tokens": 1}),
    ],
    ids=["ground", "definition", "role", "platform role", "license"],
)
async def test_what_is_in_use_is_deleted_only_by_cascade(delete, counts: dict[str, int], world: World) -> None:
    """409 with the counts and no change; by cascade the users go too, and nothing is left half."""
    store = world.store
    await store.grounds.create("acme", "north")
    await store.definitions.create("acme", "meter")
    await store.definitions.create("acme", "hub", kind=ThingKind.GATEWAY, modules=ModulePolicy(definition="meter"))
    await store.roles.create("acme", "r")
    await store.roles.create("", "p")
    await store.licenses.create("acme", "pool", seats=5)
    digest = new_digest()
    token = (
        await store.app_tokens.create(
            "acme",
            name="t",
            digest=digest,
            prefix="p",
            definition="meter",
            ground="north",
            license="pool",
            roles=("r", "platform/p"),
        )
    ).value
    other = World(store=store, token=token, digest=digest)
    await store.register(other.plan("g1", definition="meter", ground="north"), bind_client_id=None)
    await store.ground_tokens.create(
        "acme", "north", name="g", access=GroundAccess.READ, digest=new_digest(), prefix="p"
    )
    before = await store.last_position()
    with pytest.raises(InUse) as caught:
        await delete(store)
    assert caught.value.counts == counts
    assert await store.last_position() == before
    await delete(store, cascade=True)
    assert (await store.app_tokens.get("acme", token.id)).revoked_at_us is not None
    assert (await store.thing("acme", "g1") is None) is ("thing_definitions" in counts or "ground_tokens" in counts)
    with pytest.raises(NotFound):
        await delete(store, cascade=True)


async def test_what_is_built_in_stays(store: Store) -> None:
    """`default` and the built-in definitions are refused even with cascade."""
    await store.ensure_default_tenant()
    for attempt in (
        store.tenants.delete("default", cascade=True),
        store.grounds.delete("default", "default", cascade=True),
        *(store.definitions.delete("default", kind.value, cascade=True) for kind in ThingKind),
    ):
        with pytest.raises(Conflict) as caught:
            await attempt
        assert caught.value.code == "built_in"


async def test_a_deleted_tenant_leaves_nothing_of_itself(world: World) -> None:
    """In use it is refused; by cascade even its tokens are unknown, and a new one of its key is empty."""
    await world.register("g1")
    await world.store.things.delete("acme", "g1")
    await world.register("g2")
    admin = new_digest()
    await world.store.admin_keys.create(
        name="k", tenant="acme", role=AdminRole.VIEWER, digest=admin, prefix="asadm_abcd"
    )
    with pytest.raises(InUse) as caught:
        await world.store.tenants.delete("acme")
    assert caught.value.counts == {"things": 1, "tokens": 1, "admin_keys": 1}
    await world.store.tenants.delete("acme", cascade=True)
    assert await world.store.token_by_digest(world.digest) is None
    assert await world.store.admin_key_by_digest(admin) is None
    await world.store.tenants.create("acme")
    assert (await world.store.things.list("acme")).items == ()
    assert await world.store.thing_or_retired("acme", "g1") is not RETIRED


async def test_an_update_changes_what_is_given_and_nothing_else(world: World) -> None:
    """None clears, left out keeps; an update that changes nothing writes no change row."""
    store = world.store
    token = await store.app_tokens.update("acme", world.token.id, max_things=7, tags=("a",))
    assert (token.value.max_things, token.value.tags, token.value.definition) == (7, ("a",), "gateway")
    token = await store.app_tokens.update("acme", world.token.id, max_things=None)
    assert (token.value.max_things, token.value.tags) == (None, ("a",))
    assert (await store.app_tokens.update("acme", world.token.id, max_things=None)).position == 0
    definition = await store.definitions.update("acme", "gateway", modules=None, bind_client_id=BindClientId.NEVER)
    assert (definition.value.modules, definition.value.kind) == (None, ThingKind.GATEWAY)
    thing = (await store.things.create("acme", "g1", tags=("t",))).value
    changed = await store.things.update("acme", "g1", name="new", state=ThingState.BLOCKED)
    assert (changed.value.name, changed.value.tags, changed.value.created_at_us) == ("new", ("t",), thing.created_at_us)
    assert {op for kind, _, op in await world.ops_since(changed.first - 1) if kind == "thing"} == {"updated", "blocked"}


async def test_rules_outside_the_tenant_are_refused_and_kept_for_platform_roles(world: World) -> None:
    """The wall stands where rules are stored; the place in the list is named."""
    inside = Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="{tenant}/x")
    for attempt in (
        world.store.definitions.create("acme", "d", rules=(inside, OUTSIDE)),
        world.store.definitions.update("acme", "gateway", rules=(inside, OUTSIDE)),
        world.store.roles.create("acme", "r", rules=(inside, OUTSIDE)),
    ):
        with pytest.raises(InvalidInput) as caught:
            await attempt
        assert (caught.value.code, caught.value.field) == ("rule_outside_tenant", "rules.1.topic")
    assert (await world.store.roles.create("", "r", rules=(OUTSIDE,))).value.rules == (OUTSIDE,)


async def test_modules_are_bound_rebound_and_let_go(world: World) -> None:
    """A new one takes the gateway's ground and its policy's definition; the feed names both gateways."""
    store = world.store
    await store.grounds.create("acme", "north")
    await store.things.create("acme", "gw1", definition="gateway", ground="north")
    await store.things.create("acme", "gw2", definition="gateway")
    created = await store.modules.bind("acme", "gw1", "m1")
    assert (created.value.definition, created.value.ground, created.value.gateway) == ("module", "north", "gw1")
    assert (await store.modules.bind("acme", "gw1", "m1")).position == 0
    moved = await store.modules.bind("acme", "gw2", "m1")
    (change,) = await store.changes_after(moved.position - 1)
    assert (change.op, change.detail["gateway_from"], change.detail["gateway_to"]) == ("updated", "gw1", "gw2")
    assert [m.key for m in (await store.modules.list("acme", "gw2")).items] == ["m1"]
    with pytest.raises(NotFound):
        await store.modules.unbind("acme", "gw1", "m1")
    await store.modules.unbind("acme", "gw2", "m1")
    assert await store.modules_of("acme", "gw2") == frozenset()


@pytest.mark.parametrize(
    ("gateway", "key", "code"),
    [("plain", "m1", "not_a_gateway"), ("gw", "plain", "not_a_module"), ("gw", "gw", "not_a_module")],
)
async def test_only_modules_stand_behind_gateways(gateway: str, key: str, code: str, world: World) -> None:
    """A plain thing has no modules and is none; a gateway is not behind itself."""
    await world.store.things.create("acme", "plain")
    await world.store.things.create("acme", "gw", definition="gateway")
    with pytest.raises(InvalidInput) as caught:
        await world.store.modules.bind("acme", gateway, key)
    assert caught.value.code == code


async def test_the_first_admin_key_is_replaced_and_the_same_one_changes_nothing(store: Store) -> None:
    """The old secret opens nothing from then on."""
    old, new = new_digest(), new_digest()
    assert (await store.admin_keys.replace_first(name="first", digest=old, prefix="p")).position > 0
    assert (await store.admin_keys.replace_first(name="first", digest=old, prefix="p")).position == 0
    await store.admin_keys.replace_first(name="first", digest=new, prefix="p")
    assert await store.admin_key_by_digest(old) is None
    key = await store.admin_key_by_digest(new)
    assert key is not None
    assert (key.role, key.tenant) == (AdminRole.OWNER, None)
    await store.admin_keys.delete(key.id)
    assert await store.admin_key_by_digest(new) is None


async def test_admin_keys_of_a_tenant_are_listed_apart(world: World) -> None:
    """All of them for the platform, its own for a tenant; an unknown tenant is refused."""
    for tenant in (None, "acme"):
        await world.store.admin_keys.create(
            name=str(tenant), tenant=tenant, role=AdminRole.OPERATOR, digest=new_digest(), prefix="p"
        )
    assert len((await world.store.admin_keys.list()).items) == 2
    assert [key.tenant for key in (await world.store.admin_keys.list(tenant="acme")).items] == ["acme"]
    with pytest.raises(InvalidInput):
        await world.store.admin_keys.create(
            name="x", tenant="nope", role=AdminRole.VIEWER, digest=new_digest(), prefix="p"
        )


async def test_suspending_and_activating_a_tenant_are_changes_of_their_own(world: World, clock: Clock) -> None:
    """Its records stay."""
    clock.advance(1)
    suspended = await world.store.tenants.update("acme", state=TenantState.SUSPENDED)
    activated = await world.store.tenants.update("acme", state=TenantState.ACTIVE)
    assert [op for _, _, op in await world.ops_since(suspended.first - 1)] == ["suspended", "activated"]
    assert activated.value.state is TenantState.ACTIVE
    assert await world.store.token("acme", world.token.id) == world.token
