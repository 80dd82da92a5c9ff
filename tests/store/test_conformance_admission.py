"""Every engine: what a CONNECT reads and writes, and the races that its constraints settle."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.facts import BindClientId, Refusal, Thing, ThingState
from authsvc.core.reasons import Reason
from tests.store.conftest import Clock, OpenStore, World, make_world, new_digest


async def outcomes(answers: list) -> tuple[list[Thing], list[Reason]]:
    things = [answer.value for answer in answers if isinstance(answer.value, Thing)]
    return things, [answer.value.reason for answer in answers if isinstance(answer.value, Refusal)]


async def test_a_token_is_found_by_its_digest_with_the_secret_that_matches(world: World) -> None:
    """Both come in one question; another digest finds nothing."""
    found = await world.store.token_by_digest(world.digest)
    assert found is not None
    token, secret = found
    assert token == world.token
    assert secret.token_id == token.id
    assert secret.digest == world.digest
    assert await world.store.token_by_digest(new_digest()) is None


async def test_a_registration_stores_exactly_the_plan(world: World, clock: Clock) -> None:
    """The returned thing, the stored one and the plan agree; one change row says so."""
    before = await world.store.last_position()
    plan = world.plan("g1", tags=("a", "ü"), security_tags=("s",), name="Gateway 1")
    written = await world.store.register(plan, bind_client_id="client/+#1")
    thing = await world.store.thing("acme", "g1")
    assert thing == written.value
    assert thing is not None
    assert (thing.name, thing.tags, thing.security_tags) == ("Gateway 1", ("a", "ü"), ("s",))
    assert (thing.client_id, thing.token_id) == ("client/+#1", world.token.id)
    assert thing.first_seen_us == thing.last_seen_us == thing.created_at_us == clock.now_us
    assert (written.first, written.position) == (before + 1, before + 1)
    (change,) = await world.store.changes_after(before)
    assert (change.name.key, change.op) == ("g1", "registered")
    assert change.detail == {"definition": "gateway", "ground": "default", "gateway": ""}


async def test_two_hundred_first_connections_of_one_key_make_one_thing(world: World) -> None:
    """All are admitted to the same thing, and it was registered once."""
    before = await world.store.last_position()
    answers = await asyncio.gather(
        *(world.store.register(world.plan("one"), bind_client_id="same") for _ in range(200))
    )
    things, refusals = await outcomes(answers)
    assert refusals == []
    assert set(things) == {things[0]}
    assert await world.ops_since(before) == [("thing", "one", "registered")]
    assert (await world.store.app_tokens.get("acme", world.token.id)).registered == 1


async def test_of_two_hundred_client_ids_for_one_key_one_is_bound(world: World) -> None:
    """The binding is compare and set: everybody else is refused, by name."""
    answers = await asyncio.gather(
        *(world.store.register(world.plan("one"), bind_client_id=f"c{n}") for n in range(200))
    )
    things, refusals = await outcomes(answers)
    assert len(things) == 1
    assert refusals == [Reason.CLIENT_ID_MISMATCH] * 199


async def test_a_licence_of_fifty_admits_exactly_fifty_of_four_hundred(store, open_store: OpenStore) -> None:
    """Also when two stores on one database race for the seats."""
    world = await make_world(store, license="pool", seats=50)
    other = await open_store()
    answers = await asyncio.gather(
        *((store, other)[n % 2].register(world.plan(f"g{n}"), bind_client_id=None) for n in range(400))
    )
    things, refusals = await outcomes(answers)
    assert len(things) == 50
    assert refusals == [Reason.LICENSE_EXHAUSTED] * 350
    assert (await store.licenses.get("acme", "pool")).used == 50
    assert (await store.app_tokens.get("acme", world.token.id)).registered == 50
    assert len((await store.things.list("acme", limit=1000)).items) == 50


async def test_one_key_by_two_stores_at_once_makes_one_thing(world: World, open_store: OpenStore) -> None:
    """Two processes on one database, each with half of the connections."""
    other = await open_store()
    stores = (world.store, other)
    answers = await asyncio.gather(
        *(stores[n % 2].register(world.plan("one"), bind_client_id="same") for n in range(100))
    )
    things, refusals = await outcomes(answers)
    assert refusals == []
    assert set(things) == {things[0]}
    assert (await other.app_tokens.get("acme", world.token.id)).registered == 1


async def test_a_quota_of_five_admits_five_and_those_five_for_ever(store) -> None:
    """A full quota refuses the sixth and leaves nothing of it; the five come back as they are."""
    world = await make_world(store, max_things=5, license="pool", seats=50)
    before = await store.last_position()
    answers = await asyncio.gather(*(store.register(world.plan(f"g{n}"), bind_client_id=None) for n in range(50)))
    things, refusals = await outcomes(answers)
    assert (len(things), set(refusals)) == (5, {Reason.QUOTA_EXHAUSTED})
    assert (await store.licenses.get("acme", "pool")).used == 5
    assert len(await store.changes_after(before)) == 5
    again = await store.register(world.plan(things[0].key), bind_client_id=None)
    assert again.value == things[0]


async def test_lowering_the_seats_below_used_admits_nobody_new_and_harms_nobody(store) -> None:
    """`seats` may go below `used`; a seat given back is not given out until used is below seats."""
    world = await make_world(store, license="pool", seats=3)
    for key in ("a", "b", "c"):
        await world.register(key)
    await store.licenses.update("acme", "pool", seats=2)
    await store.things.delete("acme", "a")
    refused = await store.register(world.plan("d"), bind_client_id=None)
    assert isinstance(refused.value, Refusal)
    await store.things.delete("acme", "b")
    await world.register("d")
    assert (await store.licenses.get("acme", "pool")).used == 2


async def revoke(world: World) -> None:
    await world.store.app_tokens.delete("acme", world.token.id)


async def suspend(world: World) -> None:
    from authsvc.core.facts import TenantState

    await world.store.tenants.update("acme", state=TenantState.SUSPENDED)


async def retire(world: World) -> None:
    await world.store.things.create("acme", "g1")
    await world.store.things.delete("acme", "g1")


async def delete_tenant(world: World) -> None:
    await world.store.tenants.delete("acme", cascade=True)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (revoke, Reason.TOKEN_REVOKED),
        (suspend, Reason.TENANT_SUSPENDED),
        (retire, Reason.THING_RETIRED),
        (delete_tenant, Reason.TOKEN_REVOKED),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_what_ended_between_plan_and_registration_refuses_it(event, reason: Reason, world: World) -> None:
    """The registration looks again inside its transaction, and leaves nothing behind."""
    await event(world)
    before = await world.store.last_position()
    written = await world.store.register(world.plan("g1"), bind_client_id="c")
    assert isinstance(written.value, Refusal)
    assert written.value.reason is reason
    assert written.position == 0
    assert await world.store.thing("acme", "g1") is None
    assert await world.store.last_position() == before


@pytest.mark.parametrize("what", ["definition", "ground"])
async def test_a_definition_or_ground_that_went_meanwhile_refuses_the_registration(what: str, world: World) -> None:
    """A plan made on a record that is gone is `definition_missing`, not an error."""
    written = await world.store.register(world.plan("g1", **{what: "gone"}), bind_client_id=None)
    assert isinstance(written.value, Refusal)
    assert written.value.reason is Reason.DEFINITION_MISSING


async def test_a_thing_of_another_owner_is_returned_unbound_for_the_caller_to_judge(world: World) -> None:
    """Who lost the race to another token must not bind his client id to a thing outside his scope."""
    await world.store.things.create("acme", "g1")
    written = await world.store.register(world.plan("g1"), bind_client_id="mine")
    assert isinstance(written.value, Thing)
    assert written.value.token_id == ""
    thing = await world.store.thing("acme", "g1")
    assert thing is not None
    assert thing.client_id is None


async def test_binding_is_idempotent_for_the_same_client_id_and_refuses_another(world: World) -> None:
    """A change row only when it was bound; an unknown thing is a refusal."""
    await world.register("g1")
    first = await world.store.bind_client_id("acme", "g1", "c1")
    again = await world.store.bind_client_id("acme", "g1", "c1")
    other = await world.store.bind_client_id("acme", "g1", "c2")
    gone = await world.store.bind_client_id("acme", "g9", "c1")
    assert isinstance(first.value, Thing)
    assert first.position > 0
    assert again.value == first.value
    assert again.position == 0
    assert isinstance(other.value, Refusal)
    assert other.value.reason is Reason.CLIENT_ID_MISMATCH
    assert isinstance(gone.value, Refusal)
    assert gone.value.reason is Reason.THING_UNKNOWN
    changes = await world.store.changes_after(first.position - 1)
    assert [(change.op, change.detail) for change in changes] == [("bound", {"client_id": "c1"})]


async def test_keys_compare_byte_by_byte(world: World) -> None:
    """`Dev1`, `dev1` and `DEV1` are three things; `_` and `%` match nothing but themselves."""
    for key in ("Dev1", "dev1", "DEV1"):
        await world.register(key)
    assert await world.store.members_of("acme", "default") == {"Dev1", "dev1", "DEV1"}
    for key in ("dEV1", "_ev1", "%", "Dev1 ", "Dev1\x00"):
        assert await world.store.thing("acme", key) is None, key


async def test_no_key_of_one_tenant_is_found_in_another(world: World) -> None:
    """The same keys in two tenants are different records."""
    await world.store.tenants.create("other")
    await world.register("g1")
    assert await world.store.thing("other", "g1") is None
    assert await world.store.token("other", world.token.id) is None
    assert await world.store.members_of("other", "default") == frozenset()
    await world.store.things.create("other", "g1", name="theirs")
    thing = await world.store.thing("acme", "g1")
    assert thing is not None
    assert thing.name == "g1"


async def test_first_and_last_seen_come_in_batches_without_change_rows(world: World, clock: Clock) -> None:
    """Nothing is written until the flush; the first stays, the last moves on."""
    await world.store.things.create("acme", "g1")
    before = await world.store.last_position()
    world.store.note_seen("acme", "g1")
    first_us = clock.now_us
    clock.advance(60)
    world.store.note_seen("acme", "g1")
    world.store.note_seen("acme", "unknown")
    thing = await world.store.thing("acme", "g1")
    assert thing is not None
    assert thing.last_seen_us is None
    await world.store.flush()
    clock.advance(60)
    world.store.note_seen("acme", "g1")
    await world.store.flush()
    thing = await world.store.thing("acme", "g1")
    assert thing is not None
    assert (thing.first_seen_us, thing.last_seen_us) == (first_us + 60_000_000, first_us + 120_000_000)
    assert await world.store.last_position() == before


async def test_every_field_of_a_definition_and_a_role_survives(world: World) -> None:
    """Rules keep their order, their conditions and their absence."""
    from authsvc.core.facts import Effect, ModulePolicy, Rule, RuleAction, ThingKind

    rules = (
        Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="{tenant}/ü/#", qos_max=0, retain=False),
        Rule(effect=Effect.DENY, action=RuleAction.SUBSCRIBE, topic="{tenant}/+"),
    )
    written = await world.store.definitions.create(
        "acme",
        "special",
        kind=ThingKind.GATEWAY,
        rules=rules,
        bind_client_id=BindClientId.ALWAYS,
        modules=ModulePolicy(definition="module", auto_register=True),
    )
    assert await world.store.definition("acme", "special") == written.value
    assert written.value.rules == rules
    role = await world.store.roles.create("acme", "r", rules=rules, permissions=("p",))
    assert await world.store.role("acme", "r") == role.value
    assert await world.store.role("", "r") is None


async def test_a_blocked_thing_is_returned_as_it_is(world: World) -> None:
    """Registration of a key that is blocked meanwhile neither unblocks nor binds it."""
    await world.register("g1")
    await world.store.things.update("acme", "g1", state=ThingState.BLOCKED)
    written = await world.store.register(world.plan("g1"), bind_client_id="c")
    assert isinstance(written.value, Thing)
    assert (written.value.state, written.value.client_id) == (ThingState.BLOCKED, None)
