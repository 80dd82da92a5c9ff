"""What a broker keeps for clients that are away, or was allowed once and is never asked again, ends with the right."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.errors import StoreReadOnly
from authsvc.core.facts import Effect, Rule, RuleAction
from authsvc.store.attached import AttachedSession
from tests.adapters.conftest import HookWorld, Restart
from tests.adapters.test_attached_ends import SETTLED_S
from tests.service.conftest import T

ENDINGS = {
    "token revoked": ("DELETE", "app-tokens/{token}", None),
    "secret regenerated": ("POST", "app-tokens/{token}/regenerate", {"overlap_s": 0}),
    "thing blocked": ("PATCH", "things/gw1", {"state": "blocked"}),
    "thing deleted": ("DELETE", "things/gw1", None),
    "tenant suspended": ("PATCH", "", {"state": "suspended"}),
    "client id reset": ("DELETE", "things/gw1/client-id", None),
}


async def _leaves(world: HookWorld, client_id: str) -> None:
    world.clock.move(SETTLED_S)
    world.rest.connected.discard(client_id)
    world.rest.kept.add(client_id)
    await world.attached().gone(client_id, keeps_session=True)
    assert world.attached().session(client_id) is None


@pytest.mark.parametrize("ending", ENDINGS)
async def test_what_wipes_a_session_wipes_it_while_its_client_is_away(hooked: HookWorld, ending: str) -> None:
    """Blocked and unblocked, revived, activated: nothing of before is there when it comes back."""
    token, secret = await hooked.app_token()
    _, other = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    await hooked.authn(other, "gw2", client_id="c2")
    await _leaves(hooked, "c1")
    await _leaves(hooked, "c2")
    method, path, body = ENDINGS[ending]
    answer = await hooked.call(method, f"/v1/tenants/{T}/{path.format(token=token.id)}".rstrip("/"), json=body)
    assert answer.status_code in (200, 204), answer.text
    wiped = {"c1", "c2"} if ending == "tenant suspended" else {"c1"}
    await hooked.until(lambda: all(hooked.attached().rows.get(client_id) is None for client_id in wiped))
    assert set(hooked.rest.kicked_ids()) == wiped


@pytest.mark.parametrize("ending", ["renamed", "unblocked", "overlap"])
async def test_what_ends_nothing_wipes_nothing(hooked: HookWorld, ending: str) -> None:
    """A name, a state that is back, an overlap: the queue is kept."""
    token, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    await _leaves(hooked, "c1")
    url = f"/v1/tenants/{T}/"
    if ending == "renamed":
        await hooked.call("PATCH", f"{url}things/gw1", json={"name": "n"})
    elif ending == "unblocked":
        await hooked.call("PATCH", f"{url}things/gw1", json={"state": "active"})
    else:
        await hooked.call("POST", f"{url}app-tokens/{token.id}/regenerate", json={"overlap_s": 60})
    await asyncio.sleep(0.05)
    assert hooked.rest.kicks == []


# --- sets that change ------------------------------------------------------------------------------------------------

MEMBERS = Rule(effect=Effect.ALLOW, action=RuleAction.SUBSCRIBE, topic="{tenant}/device/{member}/state")


async def _members(world: HookWorld, *rules: Rule) -> str:
    """Return an app token for things of a definition with these rules, in the ground `g1`, which has `gw9` too."""
    await world.store.definitions.create(T, "members", rules=(MEMBERS, *rules))
    for ground in ("g1", "g2"):
        await world.store.grounds.create(T, ground)
    _, secret = await world.app_token(definition="members", ground="g1")
    await world.authn(secret, "gw9", client_id="c9")
    await world.authn(secret, "gw1")
    return secret


async def _moves(world: HookWorld, thing: str, ground: str) -> None:
    answer = await world.call("PATCH", f"/v1/tenants/{T}/things/{thing}", json={"ground": ground})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("away", [False, True], ids=["connected", "away"])
async def test_who_leaves_a_set_is_not_received_any_more(hooked: HookWorld, away: bool) -> None:
    """The broker never asks about a subscription again: whoever holds it is ended, and what is queued for it."""
    secret = await _members(hooked)
    await hooked.authn(secret, "gw3", client_id="c3")
    assert await hooked.authz("c1", "subscribe", f"{T}/device/gw9/state") == "allow"
    assert await hooked.authz("c3", "subscribe", f"{T}/device/gw3/state") == "allow"
    if away:
        await _leaves(hooked, "c1")
    await _moves(hooked, "gw9", "g2")
    await hooked.until(lambda: hooked.attached().rows.get("c1") is None)
    assert "c3" not in hooked.rest.kicked_ids()


async def test_a_set_that_grows_ends_nobody(hooked: HookWorld) -> None:
    """A thing that joins takes nothing from anybody."""
    secret = await _members(hooked)
    assert await hooked.authz("c1", "subscribe", f"{T}/device/gw9/state") == "allow"
    await hooked.authn(secret, "gw4", client_id="c4")
    await asyncio.sleep(0.05)
    assert hooked.rest.kicks == []


async def test_who_joins_a_denied_set_is_not_received_any_more(hooked: HookWorld) -> None:
    """A deny rule with a set takes away as the set grows."""
    deny = Rule(effect=Effect.DENY, action=RuleAction.SUBSCRIBE, topic="{tenant}/private/{member}/#")
    secret = await _members(
        hooked, deny, Rule(effect=Effect.ALLOW, action=RuleAction.SUBSCRIBE, topic="{tenant}/private/#")
    )
    assert await hooked.authz("c1", "subscribe", f"{T}/private/gw4/x") == "allow"
    await hooked.authn(secret, "gw4", client_id="c4")
    await hooked.rest.until_kicked(1)
    assert hooked.rest.kicked_ids() == ["c1"]


async def test_what_was_subscribed_before_a_restart_is_not_known_to_be_right(bare: HookWorld, restart: Restart) -> None:
    """Nobody remembers the filters: whoever may hold one of the thing that left is ended."""
    await _members(bare)
    assert await bare.authz("c1", "subscribe", f"{T}/device/gw9/state") == "allow"
    world = await restart(crash=True)
    await _moves(world, "gw9", "g2")
    await world.until(lambda: "c1" in world.rest.kicked_ids())


@pytest.mark.parametrize("moves", ["leaves", "joins", "nobody"])
async def test_who_is_away_over_a_restart_is_not_spared_what_sets_did_meanwhile(
    bare: HookWorld, restart: Restart, moves: str
) -> None:
    """No grant of an absent client refers to the set then, so nobody hears of it: found when the client comes back."""
    secret = await _members(bare)
    assert await bare.authz("c1", "subscribe", f"{T}/device/gw9/state") == "allow"
    await _leaves(bare, "c1")
    await _leaves(bare, "c9")
    await bare.attached().rows.flush()
    world = await restart(crash=True)
    world.rest.kept |= {"c1", "c9"}
    if moves == "leaves":
        await _moves(world, "gw9", "g2")
    elif moves == "joins":
        await world.authn(secret, "gw4", client_id="c4")
    assert world.rest.kicks == []
    assert (await world.authn(secret, "gw1"))["result"] == "allow"
    assert world.rest.kicked_ids() == (["c1"] if moves == "leaves" else [])
    assert world.attached().session("c1") is not None
    world.rest.kicks.clear()
    assert (await world.authn(secret, "gw1"))["result"] == "allow"  # what it subscribes from now on is known
    assert world.rest.kicks == []


async def test_who_joins_a_denied_set_while_its_client_is_away_over_a_restart(
    bare: HookWorld, restart: Restart
) -> None:
    """A deny rule takes away as its set grows."""
    deny = Rule(effect=Effect.DENY, action=RuleAction.SUBSCRIBE, topic="{tenant}/private/{member}/#")
    secret = await _members(bare, deny, Rule(effect=Effect.ALLOW, action=RuleAction.SUBSCRIBE, topic="{tenant}/#"))
    await _leaves(bare, "c1")
    await bare.attached().rows.flush()
    world = await restart(crash=True)
    await world.authn(secret, "gw4", client_id="c4")
    world.rest.kicks.clear()
    assert (await world.authn(secret, "gw1"))["result"] == "allow"
    assert world.rest.kicked_ids() == ["c1"]


@pytest.mark.parametrize("away", [False, True], ids=["connected", "away"])
async def test_who_left_a_set_is_not_received_although_the_broker_could_not_be_told(
    bare: HookWorld, restart: Restart, away: bool
) -> None:
    """The kick is owed in memory, and the set itself does not remember who was in it: the row does."""
    secret = await _members(bare)
    assert await bare.authz("c1", "subscribe", f"{T}/device/gw9/state") == "allow"
    if away:
        await _leaves(bare, "c1")
    bare.rest.down = True
    await _moves(bare, "gw9", "g2")
    world = await restart(crash=False)
    world.rest.down = False
    if away:
        assert (await world.authn(secret, "gw1"))["result"] == "allow"
    await world.until(lambda: "c1" in world.rest.kicked_ids())


async def test_a_set_that_shrinks_while_its_client_comes_back_from_before_a_restart(
    bare: HookWorld, restart: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at what the broker may keep and the answer the row is written: the change comes just then."""
    secret = await _members(bare)
    await _leaves(bare, "c1")
    await bare.attached().rows.flush()
    world = await restart(crash=True)
    keep = world.attached().rows.keep

    async def kept(row: AttachedSession) -> bool:
        monkeypatch.undo()
        await _moves(world, "gw9", "g2")
        return await keep(row)

    monkeypatch.setattr(world.attached().rows, "keep", kept)
    assert (await world.authn(secret, "gw1"))["result"] == "allow"
    assert sorted(world.rest.kicked_ids()) == ["c1", "c9"]  # the thing that moved has other rules itself
    assert world.attached().session("c1") is not None


# --- rows that the store has not seen --------------------------------------------------------------------------------


async def test_a_row_that_could_not_be_written_is_written_although_its_client_left_and_came_back(
    bare: HookWorld, restart: Restart
) -> None:
    """Otherwise a restart forgets whose the client id is, and nobody could end the connection."""
    token, secret = await bare.app_token()
    await bare.authn(secret, "gw1")
    await bare.attached().gone("c1", keeps_session=False, session_id=bare.attached().session("c1").id)
    await bare.attached().rows.flush()
    keep, write = bare.store.attached_sessions.keep, bare.store.attached_sessions.write

    async def refuse(*_: object, **__: object) -> None:
        raise StoreReadOnly("read-only")

    bare.store.attached_sessions.keep = bare.store.attached_sessions.write = refuse
    assert (await bare.authn(secret, "gw1"))["result"] == "allow"
    await bare.attached().gone("c1", keeps_session=True, session_id=bare.attached().session("c1").id)
    assert (await bare.authn(secret, "gw1"))["result"] == "allow"
    bare.store.attached_sessions.keep, bare.store.attached_sessions.write = keep, write
    await bare.attached().rows.flush()
    world = await restart(crash=True)
    assert world.attached().session("c1") is not None
    await world.call("DELETE", f"/v1/tenants/{T}/app-tokens/{token.id}")
    await world.rest.until_kicked(1)
