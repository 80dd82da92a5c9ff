"""What ends what, what follows at once, and that no interleaving leaves a session on an ended footing."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core import tokens
from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import Effect, GroundAccess, Kind, Name, Rule, RuleAction, TenantState, ThingState, TokenKind
from authsvc.core.policy import Action
from authsvc.core.reasons import Reason
from authsvc.sessions import Will
from tests.service.conftest import T, World


async def _regenerate(world: World, token_id: str, overlap_us: int):
    text = tokens.mint(TokenKind.APP)
    written = await world.store.app_tokens.regenerate(
        T, token_id, digest=tokens.digest(text), prefix=tokens.prefix(text), overlap_us=overlap_us
    )
    return written, text


ENDS = {
    "revoke": (
        lambda w, token: w.store.app_tokens.delete(T, token.id),
        (Reason.TOKEN_REVOKED, Will.NEVER),
        True,
    ),
    "regenerate": (
        lambda w, token: _regenerate_now(w, token.id),
        (Reason.TOKEN_REVOKED, Will.NEVER),
        True,
    ),
    "suspend": (
        lambda w, _: w.store.tenants.update(T, state=TenantState.SUSPENDED),
        (Reason.TENANT_SUSPENDED, Will.NEVER),
        True,
    ),
    "block": (
        lambda w, _: w.store.things.update(T, "gw-1", state=ThingState.BLOCKED),
        (Reason.THING_BLOCKED, Will.NEVER),
        True,
    ),
    "delete": (
        lambda w, _: w.store.things.delete(T, "gw-1"),
        (Reason.THING_RETIRED, Will.NEVER),
        True,
    ),
    "reset": (
        lambda w, _: w.store.things.reset_client_id(T, "gw-1"),
        (Reason.KICKED, Will.SEND),
        True,
    ),
}


async def _regenerate_now(world: World, token_id: str):
    return (await _regenerate(world, token_id, 0))[0]


@pytest.mark.parametrize("name", ENDS)
async def test_what_ends_a_session(world: World, name: str):
    """The table of what ends what: the connection, its will, its persistent session; a stranger is left alone."""
    act, expected, wiped = ENDS[name]
    token, text = await world.app_token()
    _, other_text = await world.app_token(ground="default")
    session, wire = await world.connect(text, "gw-1", clean=False)
    _, other = await world.connect(other_text, "gw-2", client_id="c2", clean=False)
    written = await act(world, token)
    await world.settle(written.position)
    assert wire.ends == [expected]
    assert world.service.sessions.get(session.id, tenant=T) is None
    assert bool(other.ends) is (name == "suspend")
    assert (await world.store.upstream_session(session.principal, session.client_id) is None) is wiped


async def test_settled_means_ended(world: World):
    """When the API answers, the session has been told to end already, not some time later."""
    token, text = await world.app_token()
    _, wire = await world.connect(text, "gw-1")
    written = await world.store.app_tokens.delete(T, token.id)
    await world.service.feed.settle(written.position)
    assert wire.ends


async def test_a_moved_things_grant_follows_at_once(world: World):
    """The session goes on, in its new ground and no longer in the old one."""
    await world.store.grounds.create(T, "north")
    _, text = await world.app_token()
    session, wire = await world.connect(text, "gw-1")
    written = await world.store.things.update(T, "gw-1", ground="north")
    await world.settle(written.position)
    assert wire.ends == []
    assert session.grant is wire.grants[-1]
    assert session.grant.decide(Action.PUBLISH, f"{T}/north/gw-1/state/x").allowed
    assert not session.grant.decide(Action.PUBLISH, f"{T}/default/gw-1/state/x").allowed
    assert session.ground == "north"
    assert Name(Kind.GROUND, T, "north") in session.footing


async def test_a_changed_rule_reaches_live_sessions(world: World):
    """A definition, a role or a token that changes is compiled into the grants that rest on it."""
    read = Rule(effect=Effect.ALLOW, action=RuleAction.SUBSCRIBE, topic="{tenant}/news")
    await world.store.roles.create(T, "reader", rules=(read,))
    token, text = await world.app_token(roles=("reader",))
    session, _ = await world.connect(text, "gw-1")
    assert session.grant.decide(Action.SUBSCRIBE, f"{T}/news").allowed
    written = await world.store.roles.update(T, "reader", rules=())
    await world.settle(written.position)
    assert not session.grant.decide(Action.SUBSCRIBE, f"{T}/news").allowed
    written = await world.store.roles.update(T, "reader", rules=(read,))
    written = await world.store.app_tokens.update(T, token.id, roles=())
    await world.settle(written.position)
    assert not session.grant.decide(Action.SUBSCRIBE, f"{T}/news").allowed
    deny = Rule(effect=Effect.DENY, action=RuleAction.PUBLISH, topic="{tenant}/{ground}/{thing}/state/#")
    written = await world.store.definitions.update(T, "thing", rules=(deny,))
    await world.settle(written.position)
    assert not session.grant.decide(Action.PUBLISH, f"{T}/default/gw-1/state/x").allowed


async def test_modules_join_and_leave_a_live_grant(world: World):
    """A gateway speaks for a module from its binding on, and no longer than that."""
    _, text = await world.app_token(definition="gateway")
    session, _ = await world.connect(text, "gw-1")
    topic = f"{T}/default/m-1/state/x"
    assert not session.grant.decide(Action.PUBLISH, topic).allowed
    version = session.grant.version
    written = await world.store.modules.bind(T, "gw-1", "m-1")
    await world.settle(written.position)
    assert session.grant.decide(Action.PUBLISH, topic).allowed
    assert session.grant.version > version
    written = await world.store.modules.unbind(T, "gw-1", "m-1")
    await world.settle(written.position)
    assert not session.grant.decide(Action.PUBLISH, topic).allowed
    await world.store.modules.bind(T, "gw-1", "m-1")
    written = await world.store.things.delete(T, "m-1")
    await world.settle(written.position)
    assert not session.grant.decide(Action.PUBLISH, topic).allowed


async def test_a_blocked_module_is_out_of_its_gateways_reach(world: World):
    """Blocking a module ends what its gateway may do in its name, before and after the gateway connects anew."""
    _, text = await world.app_token(definition="gateway")
    session, _ = await world.connect(text, "gw-1")
    topic = f"{T}/default/m-1/state/x"
    await world.store.modules.bind(T, "gw-1", "m-1")
    written = await world.store.things.update(T, "m-1", state=ThingState.BLOCKED)
    await world.settle(written.position)
    assert not session.grant.decide(Action.PUBLISH, topic).allowed
    other = World(world.store, world.clock)
    await other.start()
    assert topic and not (await other.admitted(text, "gw-1")).grant.decide(Action.PUBLISH, topic).allowed
    await other.stop()
    written = await world.store.things.update(T, "m-1", state=ThingState.ACTIVE)
    await world.settle(written.position)
    assert session.grant.decide(Action.PUBLISH, topic).allowed


async def test_members_of_a_ground_join_and_leave(world: World):
    """A role over {member} reaches a thing while it is in the ground."""
    rule = Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="{tenant}/x/{member}/state")
    await world.store.grounds.create(T, "north")
    await world.store.definitions.create(T, "hub", rules=(rule,))
    _, text = await world.app_token(definition="hub", ground="north")
    session, _ = await world.connect(text, "gw-1")
    assert session.grant.decide(Action.PUBLISH, f"{T}/x/gw-1/state").allowed
    assert not session.grant.decide(Action.PUBLISH, f"{T}/x/late/state").allowed
    written = await world.store.things.create(T, "late", ground="north")
    await world.settle(written.position)
    assert session.grant.decide(Action.PUBLISH, f"{T}/x/late/state").allowed
    written = await world.store.things.update(T, "late", ground="default")
    await world.settle(written.position)
    assert not session.grant.decide(Action.PUBLISH, f"{T}/x/late/state").allowed


async def test_a_deleted_thing_is_not_resurrected_until_it_is_forgotten(world: World):
    """A deleted key stays refused to the app token that registered it; created or forgotten, it connects again."""
    _, text = await world.app_token()
    await world.connect(text, "gw-1")
    await world.settle((await world.store.things.delete(T, "gw-1")).position)
    assert await world.refused(text, "gw-1") is Reason.THING_RETIRED
    await world.settle((await world.store.things.forget(T, "gw-1")).position)
    await world.connect(text, "gw-1")


async def test_the_old_secret_ends_with_the_overlap_of_a_regenerate(world: World):
    """During the overlap both secrets work; its end is an expiry: will sent, session kept."""
    token, old = await world.app_token()
    session, wire = await world.connect(old, "gw-1", clean=False)
    written, new = await _regenerate(world, token.id, 60_000_000)
    await world.settle(written.position)
    assert wire.ends == []
    assert session.expires_at_us is not None
    await world.admitted(old, "gw-1")
    _, other = await world.connect(new, "gw-2", client_id="c2")
    world.clock.move(61)
    async with asyncio.timeout(5):
        await wire.wait_ended()
    assert wire.ends == [(Reason.TOKEN_EXPIRED, Will.SEND)]
    assert other.ends == []
    assert await world.refused(old, "gw-1") is Reason.TOKEN_EXPIRED
    assert await world.store.upstream_session(session.principal, session.client_id) is not None
    await world.connect(new, "gw-1", clean=False)


async def test_an_expiring_token_ends_its_sessions(world: World):
    """A session ends when its token expires, also when the expiry is brought forward later."""
    token, text = await world.app_token(expires_at_us=world.clock.now_us() + 3_600_000_000)
    _, wire = await world.connect(text, "gw-1")
    written = await world.store.app_tokens.update(T, token.id, expires_at_us=world.clock.now_us() + 50_000)
    await world.settle(written.position)
    async with asyncio.timeout(5):
        await wire.wait_ended()
    assert wire.ends == [(Reason.TOKEN_EXPIRED, Will.SEND)]


async def test_a_lost_wake_up_delays_and_never_loses(world: World):
    """Without any notification the poll finds the change within a second."""
    token, text = await world.app_token()
    _, wire = await world.connect(text, "gw-1")
    world.service.feed.wake = lambda: None
    await world.stop()
    world.service.store.database.on_commit = lambda _: lambda: None
    await world.start_again()
    await world.store.app_tokens.delete(T, token.id)
    async with asyncio.timeout(3):
        await wire.wait_ended()


async def test_after_two_seconds_without_the_feed_nobody_is_admitted(world: World, monkeypatch):
    """Caches are not used when changes cannot be read; live sessions go on; recovery needs no restart."""
    _, text = await world.app_token()
    _, wire = await world.connect(text, "gw-1")

    async def broken(*_: object) -> None:
        raise StoreUnavailable("broken by the test")

    monkeypatch.setattr(world.store, "changes_after", broken)
    await world.connect(text, "gw-1")
    feed = world.service.feed
    feed._read_at -= 2.0
    assert await world.refused(text, "gw-1") is Reason.STORE_UNAVAILABLE
    assert not feed.healthy
    assert wire.ends == [(Reason.TAKEN_OVER, Will.SEND)]
    monkeypatch.undo()
    async with asyncio.timeout(3):
        while not feed.healthy:
            await asyncio.sleep(0.02)
    await world.connect(text, "gw-1")


async def test_a_grant_that_cannot_be_compiled_anew_is_retried_and_settles_only_then(world: World, monkeypatch):
    """While the facts of a moved thing cannot be read, the API call does not say that the move is applied."""
    await world.store.grounds.create(T, "north")
    _, text = await world.app_token()
    session, wire = await world.connect(text, "gw-1")
    original = world.store.thing
    failing = asyncio.Event()

    async def broken(*_: object) -> None:
        failing.set()
        raise StoreUnavailable("broken by the test")

    monkeypatch.setattr(world.store, "thing", broken)
    written = await world.store.things.update(T, "gw-1", ground="north")
    settled = asyncio.create_task(world.service.feed.settle(written.position))
    await failing.wait()
    await asyncio.sleep(0)
    assert not settled.done()
    assert wire.grants == []
    monkeypatch.setattr(world.store, "thing", original)
    async with asyncio.timeout(3):
        await settled
    assert session.ground == "north"


async def test_a_revocation_is_not_held_up_by_grants_that_cannot_be_compiled(world: World, monkeypatch):
    """Ends come first: a revocation is applied while an earlier change still waits for the store."""
    await world.store.grounds.create(T, "north")
    token, text = await world.app_token()
    _, wire = await world.connect(text, "gw-1")
    other_token, other_text = await world.app_token()
    _, other = await world.connect(other_text, "gw-2", client_id="c2")

    async def broken(*_: object) -> None:
        raise StoreUnavailable("broken by the test")

    monkeypatch.setattr(world.store, "thing", broken)
    await world.store.things.update(T, "gw-1", ground="north")
    await world.store.app_tokens.delete(T, other_token.id)
    async with asyncio.timeout(2):
        await other.wait_ended()
    assert wire.ends == []


async def test_a_known_thing_is_admitted_while_the_store_cannot_be_written(world: World, monkeypatch):
    """First connections and bindings are refused, known things are not: their CONNECT needs no write."""
    from authsvc.core.errors import StoreReadOnly

    _, text = await world.app_token()
    await world.connect(text, "gw-1")

    async def read_only(*_: object, **__: object) -> None:
        raise StoreReadOnly("locked by the test")

    monkeypatch.setattr(world.store.database, "write", read_only)
    monkeypatch.setattr(world.store.database, "write_together", read_only)
    await world.connect(text, "gw-1")
    assert await world.refused(text, "gw-2", client_id="c2") is Reason.STORE_UNAVAILABLE


async def test_ground_tokens_end_all_their_clients_and_nobody_else(world: World):
    """300 clients of one ground token end together, with the loop served in between; another token's stay."""
    token, text = await world.ground_token("default", GroundAccess.READ)
    _, other_text = await world.ground_token("default")
    _, other = await world.connect(other_text, client_id="other")
    wires = [(await world.connect(text, client_id=f"c{n}"))[1] for n in range(300)]
    written = await world.store.ground_tokens.delete(T, "default", token.id)
    await world.settle(written.position)
    assert all(wire.ends == [(Reason.TOKEN_REVOKED, Will.NEVER)] for wire in wires)
    assert other.ends == []
    assert len(world.service.sessions) == 1
