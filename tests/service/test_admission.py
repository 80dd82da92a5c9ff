"""Flow steps 1 to 5: who is admitted as what, who is refused and why, and that a refusal changes nothing."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core import tokens
from authsvc.core.credentials import WillMessage
from authsvc.core.facts import (
    BindClientId,
    Effect,
    GroundAccess,
    Refusal,
    Rule,
    RuleAction,
    TenantState,
    ThingState,
    TokenKind,
)
from authsvc.core.policy import Action
from authsvc.core.reasons import Reason
from authsvc.service import Admitted
from tests.service.conftest import T, World, request, started


async def test_the_first_connection_registers_the_thing_with_what_the_token_carries(world: World):
    """Nobody pre-registers anything: definition, ground and tags come from the token."""
    await world.store.grounds.create(T, "north")
    token, text = await world.app_token(ground="north", tags=("pump",))
    admitted = await world.admitted(text, "gw-1")
    assert (admitted.principal, admitted.ground, admitted.token_id) == (f"thing/{T}/gw-1", "north", token.id)
    thing = await world.store.thing(T, "gw-1")
    assert (thing.ground, thing.tags, thing.token_id, thing.client_id) == ("north", ("pump",), token.id, "c1")
    assert admitted.grant.decide(Action.PUBLISH, f"{T}/north/gw-1/state/x").allowed
    assert not admitted.grant.decide(Action.PUBLISH, f"{T}/north/gw-2/state/x").allowed


async def test_a_known_thing_is_admitted_from_memory(world: World, monkeypatch):
    """With everything cached a CONNECT reads nothing from the store."""
    _, text = await world.app_token()
    await world.connect(text, "gw-1")
    await world.settle()
    await world.connect(text, "gw-1")

    async def no_read(*_: object, **__: object) -> None:
        raise AssertionError("the store was read")

    for way in ("read", "look_up", "look_up_together"):
        monkeypatch.setattr(world.store.database, way, no_read)
    session, _ = await world.connect(text, "gw-1")
    assert session.thing == "gw-1"


async def _rows(world: World) -> tuple[int, list[str]]:
    things = await world.store.things.list(T)
    return await world.store.last_position(), [thing.key for thing in things.items]


async def _setup(world: World) -> dict[str, str]:
    """Make one of everything that can refuse, and return the tokens by name."""
    made: dict[str, str] = {}
    await world.store.licenses.create(T, "full", seats=0)
    await world.store.grounds.create(T, "north")
    await world.store.things.create(T, "there", ground="default")
    await world.store.things.create(T, "blocked")
    await world.store.things.update(T, "blocked", state=ThingState.BLOCKED)
    await world.store.things.create(T, "gone")
    await world.store.things.delete(T, "gone")
    await world.store.definitions.create(T, "by-client", bind_client_id=BindClientId.ALWAYS)
    made["app"] = (await world.app_token())[1]
    made["north"] = (await world.app_token(ground="north"))[1]
    made["no-definition"] = (await world.app_token(definition=""))[1]
    made["licensed"] = (await world.app_token(license="full"))[1]
    expired, made["expired"] = await world.app_token(expires_at_us=world.clock.now_us() + 1_000)
    world.clock.move(1)
    revoked, made["revoked"] = await world.app_token()
    await world.store.app_tokens.delete(T, revoked.id)
    made["device"] = (await world.device_token("there"))[1]
    made["blocked"] = (await world.device_token("blocked"))[1]
    made["unknown"] = tokens.mint(TokenKind.APP)
    made["admin"] = tokens.mint(TokenKind.ADMIN)
    made["garbage"] = "hunter2"
    await world.settle()
    return made


REFUSED = [
    ("garbage", "gw-1", {}, Reason.MALFORMED_CREDENTIAL),
    ("admin", "gw-1", {}, Reason.MALFORMED_CREDENTIAL),
    ("unknown", "gw-1", {}, Reason.UNKNOWN_TOKEN),
    ("expired", "gw-1", {}, Reason.TOKEN_EXPIRED),
    ("revoked", "gw-1", {}, Reason.TOKEN_REVOKED),
    ("app", "gw+1", {}, Reason.THING_KEY_INVALID),
    ("app", "blocked", {}, Reason.THING_BLOCKED),
    ("app", "gone", {}, Reason.THING_RETIRED),
    ("north", "there", {}, Reason.THING_OUT_OF_SCOPE),
    ("no-definition", "gw-1", {}, Reason.THING_UNKNOWN),
    ("licensed", "gw-1", {}, Reason.LICENSE_EXHAUSTED),
    ("device", "gw-1", {}, Reason.THING_KEY_MISMATCH),
    ("blocked", "", {}, Reason.THING_BLOCKED),
    ("app", "gw-1", {"client_id": "", "clean": False}, Reason.CLIENT_ID_INVALID),
    (
        "app",
        "gw-1",
        {"will": WillMessage(topic=f"{T}/default/gw-2/state/x", payload=b"", qos=0, retain=False)},
        Reason.WILL_DENIED,
    ),
]


async def test_every_refusal_has_its_reason_and_changes_nothing(world: World):
    """No row, no thing, no session, whatever the refusal; and each is recorded for the operator."""
    made = await _setup(world)
    before = await _rows(world)
    for name, thing, fields, reason in REFUSED:
        assert await world.refused(made[name], thing, **fields) is reason, (name, thing)
    assert await _rows(world) == before
    assert len(world.service.sessions) == 0
    lists = world.service.refusals.last(T, limit=1000) + world.service.refusals.last(None, limit=1000)
    assert sum(record.count for record in lists) == len(REFUSED)
    assert all(text not in repr(lists) for text in made.values())


async def test_the_reasons_come_in_the_order_of_the_flow(world: World):
    """A CONNECT that is wrong in every way is told the first: token, tenant, thing, client id, will."""
    made = await _setup(world)
    will = WillMessage(topic="elsewhere", payload=b"", qos=0, retain=False)
    wrong = {"client_id": "", "clean": False, "will": will}
    assert await world.refused(made["revoked"], "blocked", **wrong) is Reason.TOKEN_REVOKED
    assert await world.refused(made["app"], "blocked", **wrong) is Reason.THING_BLOCKED
    assert await world.refused(made["app"], "gw-1", **wrong) is Reason.CLIENT_ID_INVALID
    assert await world.refused(made["app"], "gw-1", will=will) is Reason.WILL_DENIED
    written = await world.store.tenants.update(T, state=TenantState.SUSPENDED)
    await world.settle(written.position)
    assert await world.refused(made["app"], "blocked", **wrong) is Reason.TENANT_SUSPENDED


@pytest.mark.parametrize("effect", [Effect.ALLOW, Effect.DENY])
async def test_the_will_of_a_first_connection_is_judged_as_that_of_a_member(world: World, effect: Effect):
    """A thing joins the set of its ground by its registration, which comes after the will has been judged."""
    rules = [Rule(effect=effect, action=RuleAction.PUBLISH, topic="{tenant}/x/{member}/state")]
    if effect is Effect.DENY:
        rules.append(Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="{tenant}/x/#"))
    await world.store.definitions.create(T, "hub", rules=tuple(rules))
    _, text = await world.app_token(definition="hub")
    will = WillMessage(topic=f"{T}/x/gw-1/state", payload=b"", qos=0, retain=False)
    if effect is Effect.DENY:
        assert await world.refused(text, "gw-1", will=will) is Reason.WILL_DENIED
        assert await world.store.thing(T, "gw-1") is None
    else:
        other = WillMessage(topic=f"{T}/x/gw-2/state", payload=b"", qos=0, retain=False)
        assert await world.refused(text, "gw-1", will=other) is Reason.WILL_DENIED
        await world.admitted(text, "gw-1", will=will)


async def test_a_bound_client_id_is_the_only_one_until_it_is_reset(world: World):
    """The first connection by an app token binds; another client id is refused until an operator resets it."""
    _, text = await world.app_token()
    await world.connect(text, "gw-1", client_id="one")
    assert await world.refused(text, "gw-1", client_id="two") is Reason.CLIENT_ID_MISMATCH
    written = await world.store.things.reset_client_id(T, "gw-1")
    await world.settle(written.position)
    await world.connect(text, "gw-1", client_id="two")
    assert await world.refused(text, "gw-1", client_id="one") is Reason.CLIENT_ID_MISMATCH


async def test_ground_tokens_serve_several_clients(world: World):
    """Each client of a ground token is a session of its own, and speaks for no thing."""
    _, text = await world.ground_token("default", GroundAccess.READ_WRITE)
    one, _ = await world.connect(text, client_id="one")
    two, _ = await world.connect(text, client_id="two")
    assert one.principal == two.principal
    assert one.thing is None
    assert len(world.service.sessions) == 2
    assert one.grant.decide(Action.SUBSCRIBE, f"{T}/default/#").allowed


async def test_200_simultaneous_first_connections_make_one_thing(world: World):
    """Registration is exact: all with the same client id are admitted, one thing and one registration stand."""
    _, text = await world.app_token()
    outcomes = await asyncio.gather(*(world.admit(text, "gw-1") for _ in range(200)))
    assert all(isinstance(outcome, Admitted) for outcome in outcomes)
    changes = await world.store.changes_after(0, 10_000)
    assert [change.op for change in changes if change.name.key == "gw-1"] == ["registered"]


async def test_simultaneous_first_connections_with_other_client_ids_bind_one(world: World):
    """The client id of the thing is settled once; everybody else is refused for it."""
    _, text = await world.app_token()
    outcomes = await asyncio.gather(*(world.admit(text, "gw-1", client_id=f"c{n}") for n in range(50)))
    winners = [outcome for outcome in outcomes if isinstance(outcome, Admitted)]
    assert len(winners) == 1
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, Refusal)} == {Reason.CLIENT_ID_MISMATCH}
    assert (await world.store.thing(T, "gw-1")).client_id == winners[0].client_id


async def test_a_thing_that_was_registered_and_moved_meanwhile_is_judged_as_it_is(world: World, monkeypatch):
    """The grant of an admission that lost the race is never the one that was planned."""
    await world.store.grounds.create(T, "north")
    _, text = await world.app_token()
    await world.settle()
    original = world.store.register

    async def late(plan, *, bind_client_id):
        monkeypatch.setattr(world.store, "register", original)
        await world.store.register(plan, bind_client_id=None)
        await world.store.things.update(T, "gw-1", ground="north")
        return await original(plan, bind_client_id=bind_client_id)

    monkeypatch.setattr(world.store, "register", late)
    assert (await world.admitted(text, "gw-1")).ground == "north"


async def test_a_licence_of_50_admits_50_of_400(world: World):
    """Seats are settled in the transaction of the registration, however the connections race."""
    await world.store.licenses.create(T, "fleet", seats=50)
    _, text = await world.app_token(license="fleet")
    outcomes = await asyncio.gather(*(world.admit(text, f"gw-{n}", client_id=f"c{n}") for n in range(400)))
    assert sum(isinstance(outcome, Admitted) for outcome in outcomes) == 50
    refused = {outcome.reason for outcome in outcomes if isinstance(outcome, Refusal)}
    assert refused == {Reason.LICENSE_EXHAUSTED}
    assert (await world.store.license(T, "fleet")).used == 50


async def test_quota_admits_exactly_max_things(world: World):
    """A token with `max_things` registers that many; one of them reconnects as ever."""
    _, text = await world.app_token(max_things=5)
    outcomes = await asyncio.gather(*(world.admit(text, f"gw-{n}", client_id=f"c{n}") for n in range(30)))
    admitted = [outcome for outcome in outcomes if isinstance(outcome, Admitted)]
    assert len(admitted) == 5
    await world.settle()
    await world.connect(text, admitted[0].thing, client_id=admitted[0].client_id)


async def test_persistent_sessions_are_limited_per_principal(tmp_path):
    """The session above the limit is refused; those that exist resume, and a clean session is always possible."""
    async with started(tmp_path, max_persistent_sessions=2) as world:
        _, text = await world.ground_token("default")
        await world.connect(text, client_id="a", clean=False)
        await world.connect(text, client_id="b", clean=False)
        assert await world.refused(text, client_id="c", clean=False) is Reason.SESSION_LIMIT
        await world.connect(text, client_id="a", clean=False)
        await world.connect(text, client_id="c", clean=True)
        await world.connect(text, client_id="b", clean=True)  # gives its place back
        await world.connect(text, client_id="c", clean=False)


async def test_the_longest_client_id_is_a_setting(tmp_path):
    """One byte more than is set is refused, and registers nothing."""
    async with started(tmp_path, max_client_id_bytes=30) as world:
        _, text = await world.app_token()
        await world.connect(text, "gw-1", client_id="x" * 30)
        assert await world.refused(text, "gw-2", client_id="x" * 29 + "é") is Reason.CLIENT_ID_INVALID
        assert await world.store.thing(T, "gw-2") is None


async def test_the_upstream_id_is_kept_for_a_persistent_session_and_fresh_for_a_clean_one(world: World):
    """A persistent session resumes under the id it had; a clean one never does, and wipes what was there."""
    _, text = await world.app_token()
    persistent = await world.admitted(text, "gw-1", clean=False)
    first = await world.service.upstream_session(persistent)
    assert await world.service.upstream_session(persistent) == first
    clean = await world.admitted(text, "gw-1", clean=True)
    fresh = await world.service.upstream_session(clean)
    assert fresh[0] != first[0]
    assert fresh[1] is True
    assert [clearing.target for clearing in await world.store.clearings()] == [first[0]]
    again = await world.service.upstream_session(persistent)
    assert again[0] not in (first[0], fresh[0])


async def test_grants_without_client_variable_are_shared_and_those_with_it_are_not(world: World):
    """Two clients of one token get one compiled grant, unless a rule holds {client}."""
    from authsvc.core.facts import Effect, Rule, RuleAction

    _, text = await world.ground_token("default")
    one = await world.admitted(text, client_id="one")
    two = await world.admitted(text, client_id="two")
    assert one.grant is two.grant
    rule = Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="{tenant}/by/{client}")
    await world.store.definitions.create(T, "named", rules=(rule,), bind_client_id=BindClientId.NEVER)
    _, text = await world.app_token(definition="named")
    one = await world.admitted(text, "gw-1", client_id="one")
    await world.settle()
    two = await world.admitted(text, "gw-1", client_id="two")
    assert one.grant.decide(Action.PUBLISH, f"{T}/by/one").allowed
    assert not two.grant.decide(Action.PUBLISH, f"{T}/by/one").allowed
    assert await world.refused(text, "gw-1", client_id="a/b") is Reason.CLIENT_ID_INVALID


@pytest.mark.parametrize("kind", ["app", "device"])
async def test_an_empty_client_id_gets_a_fresh_one_each_time(world: World, kind: str):
    """With clean session an empty client id is admitted, named, and never bound."""
    await world.store.things.create(T, "gw-1")
    _, text = await world.app_token() if kind == "app" else await world.device_token("gw-1")
    names = {(await world.admitted(text, "gw-1", client_id="")).client_id for _ in range(3)}
    assert len(names) == 3
    assert (await world.store.thing(T, "gw-1")).client_id is None


def test_the_request_shows_no_secret():
    """The repr of what is admitted holds no token."""
    text = tokens.mint(TokenKind.APP)
    assert text not in repr(request(text, "gw-1"))


async def test_a_first_connection_of_a_clean_session_asks_for_no_row_that_cannot_be_there(world: World, monkeypatch):
    """A thing's rows end with it, so what was registered by this very CONNECT needs no look at them."""
    _, text = await world.app_token()
    first = await world.admitted(text, "gw-1", clean=True)

    async def asked(*_: object) -> None:
        raise AssertionError("the store was asked")

    monkeypatch.setattr(world.store, "upstream_session", asked)
    _, clean = await world.service.upstream_session(first)
    assert clean is True


@pytest.mark.parametrize("cancelled", [False, True], ids=["written", "cancelled while it is written"])
async def test_a_first_connection_wipes_the_row_of_another_that_was_quicker(
    world: World, monkeypatch, *, cancelled: bool
):
    """Between registration and opening a second connection of the thing may have made a persistent session."""
    _, text = await world.app_token()
    first = await world.admitted(text, "gw-1", clean=True)
    quicker = await world.admitted(text, "gw-1", clean=False)
    opening = asyncio.create_task(world.service.upstream_session(quicker))
    if cancelled:
        original, written = world.store.open_upstream_session, asyncio.Event()

        async def open_row(*args, **fields):
            answer = await asyncio.shield(original(*args, **fields))
            written.set()
            await asyncio.sleep(60)
            return answer

        monkeypatch.setattr(world.store, "open_upstream_session", open_row)
        await written.wait()
        opening.cancel()
        monkeypatch.setattr(world.store, "open_upstream_session", original)
    await asyncio.gather(opening, return_exceptions=True)
    row = await world.store.upstream_session(quicker.principal, quicker.client_id)
    assert row is not None
    await world.service.upstream_session(first)
    assert await world.store.upstream_session(first.principal, first.client_id) is None
    assert [clearing.target for clearing in await world.store.clearings()] == [row.upstream_id]
