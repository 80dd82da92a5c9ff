"""Attached sessions over restarts, crashes, a store that cannot be written, and what a sweep may do."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from authsvc.adapters.attached import SETTLED_US
from authsvc.core.errors import StoreReadOnly
from authsvc.core.facts import Effect, Rule, RuleAction, TenantState, ThingState
from authsvc.core.reasons import Reason
from authsvc.store import Store
from tests.adapters.conftest import HookWorld, Restart
from tests.service.conftest import T

SETTLED_S = SETTLED_US / 1_000_000 + 1


async def test_a_session_from_before_the_restart_is_still_one(bare: HookWorld, restart: Restart) -> None:
    """Killed and started: the client's next publish is decided, it is listed, and a revoke reaches it."""
    token, secret = await bare.app_token()
    await bare.authn(secret, "gw1")
    world = await restart(crash=True)
    assert await world.authz("c1", "publish", f"{T}/default/gw1/state/x") == "allow"
    assert world.attached().session("c1").thing == "gw1"
    assert world.rest.kicks == []
    await world.call("DELETE", f"/v1/tenants/{T}/app-tokens/{token.id}")
    await world.rest.until_kicked(1)
    assert world.rest.kicked_ids() == ["c1"]


async def test_who_was_revoked_while_the_service_was_down_is_kicked_at_its_start(
    bare: HookWorld, restart: Restart
) -> None:
    """The kick that a crash swallowed, or the change of another process: the row is judged anew."""
    token, secret = await bare.app_token()
    _, other = await bare.app_token()
    await bare.authn(secret, "gw1")
    await bare.authn(other, "gw2", client_id="c2")
    await bare.authn(other, "gw3", client_id="c3")

    async def meanwhile(store: Store) -> None:
        await store.app_tokens.delete(T, token.id)
        await store.things.update(T, "gw2", state=ThingState.BLOCKED)

    world = await restart(meanwhile=meanwhile)
    await world.rest.until_kicked(2)
    assert sorted(world.rest.kicked_ids()) == ["c1", "c2"]
    assert world.attached().session("c3") is not None
    await world.until(lambda: world.attached().rows.get("c1") is None)


async def _undone(store: Store, ending: str) -> None:
    """Do what wipes a session, and what lets its client connect again."""
    if ending == "thing blocked":
        await store.things.update(T, "gw1", state=ThingState.BLOCKED)
        await store.things.update(T, "gw1", state=ThingState.ACTIVE)
    elif ending == "tenant suspended":
        await store.tenants.update(T, state=TenantState.SUSPENDED)
        await store.tenants.update(T, state=TenantState.ACTIVE)
    elif ending == "thing deleted":
        await store.things.delete(T, "gw1")
        await store.things.create(T, "gw1")
    else:
        await store.things.reset_client_id(T, "gw1")


UNDONE = ("thing blocked", "tenant suspended", "thing deleted", "client id reset")


@pytest.mark.parametrize("away", [False, True], ids=["connected", "away"])
@pytest.mark.parametrize("ending", UNDONE)
async def test_what_was_to_be_wiped_before_a_crash_is_wiped_after_it(
    bare: HookWorld, restart: Restart, ending: str, away: bool
) -> None:
    """Committed, and killed before the broker was told: that it was undone by then makes it no other session."""
    _, secret = await bare.app_token()
    await bare.authn(secret, "gw1")
    if away:
        bare.clock.move(SETTLED_S)
        bare.rest.connected.discard("c1")
        bare.rest.kept.add("c1")
        await bare.attached().gone("c1", keeps_session=True)
        await bare.attached().rows.flush()
    world = await restart(meanwhile=lambda store: _undone(store, ending))
    assert world.attached().session("c1") is None
    await world.rest.until_kicked(1)
    await world.until(lambda: world.attached().rows.get("c1") is None)
    assert (await world.authn(secret, "gw1"))["result"] == "allow"
    last = await restart(crash=True)
    assert last.attached().session("c1") is not None
    assert last.rest.kicked_ids() == ["c1"]


@pytest.mark.parametrize("crash", [False, True], ids=["ended", "killed"])
async def test_a_kick_that_the_broker_did_not_take_is_owed_over_a_restart(
    bare: HookWorld, restart: Restart, crash: bool
) -> None:
    """Its management was away while the thing was blocked, and came back after it was active again."""
    _, secret = await bare.app_token()
    await bare.authn(secret, "gw1")
    bare.rest.down = True
    for state in ("blocked", "active"):
        assert (await bare.call("PATCH", f"/v1/tenants/{T}/things/gw1", json={"state": state})).status_code == 200
    assert bare.attached().session("c1") is None
    world = await restart(crash=crash)
    assert world.attached().session("c1") is None
    world.rest.down = False
    await world.rest.until_kicked(1)
    assert world.rest.kicked_ids() == ["c1"]


async def test_rights_that_changed_while_the_service_was_down_end_what_was_told(
    bare: HookWorld, restart: Restart
) -> None:
    """EMQX holds the old rules for as long as the connection lives: so it does not live on."""
    _, secret = await bare.app_token()
    await bare.authn(secret, "gw1")
    rule = Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="{tenant}/other")

    async def meanwhile(store: Store) -> None:
        await store.definitions.update(T, "thing", rules=(rule,))

    world = await restart(meanwhile=meanwhile)
    await world.rest.until_kicked(1)
    assert world.attached().session("c1") is None


async def test_the_user_name_that_came_last_is_the_one_after_a_restart(bare: HookWorld, restart: Restart) -> None:
    """Brokers that send it with every question are asked for it: the row follows what a CONNECT changed."""
    _, secret = await bare.ground_token("default")
    await bare.authn(secret, "first")
    await bare.authn(secret, "second")
    world = await restart(crash=True)
    assert [connection.username for connection in world.attached()._connections.values()] == ["second"]  # noqa: SLF001


async def test_who_came_back_before_a_crash_is_connected_after_it(bare: HookWorld, restart: Restart) -> None:
    """That it had left is written by then: the CONNECT that is answered takes it back first."""
    _, secret = await bare.app_token()
    await bare.authn(secret, "gw1")
    bare.clock.move(SETTLED_S)
    bare.rest.connected.clear()
    await bare.post("emqx/disconnected", {"clientid": "c1", "reason": "normal"})
    await bare.attached().rows.flush()
    await bare.authn(secret, "gw1")
    bare.rest.connected.clear()  # its list says nothing: what counts is the row
    world = await restart(crash=True)
    assert world.attached().session("c1") is not None


async def test_a_client_id_stays_held_over_a_restart(bare: HookWorld, restart: Restart) -> None:
    """Connected or gone: the row remembers whose it is."""
    _, secret = await bare.app_token()
    await bare.authn(secret, "gw1")
    await bare.authn(secret, "gw2", client_id="c2")
    bare.rest.kept.add("c2")
    bare.rest.connected.discard("c2")
    bare.clock.move(SETTLED_S)
    await bare.attached().gone("c2", keeps_session=True)
    world = await restart(crash=False)
    assert world.attached().session("c2") is None
    for client_id in ("c1", "c2"):
        assert (await world.authn(secret, "gw9", client_id=client_id))["result"] == "deny"


async def test_a_crash_between_row_and_answer_leaves_the_row(bare: HookWorld, restart: Restart) -> None:
    """The row is written first: whoever was answered with yes is known after any crash."""
    _, secret = await bare.app_token()
    rows_at_answer = []
    opened = bare.service.sessions.open

    def seen(*arguments: object, **more: object) -> object:
        rows_at_answer.append(asyncio.ensure_future(bare.store.attached_sessions.all("emqx")))
        return opened(*arguments, **more)

    bare.service.sessions.open = seen
    await bare.authn(secret, "gw1")
    assert [row.client_id for row in await rows_at_answer[0]] == ["c1"]
    world = await restart(crash=True)
    assert world.attached().session("c1") is not None


async def test_a_client_that_left_unseen_is_closed_by_the_second_sweep(hooked: HookWorld) -> None:
    """Not by the first, and nobody is kicked by either; the client id stays its principal's."""
    _, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    await hooked.authn(secret, "gw2", client_id="c2")
    hooked.rest.connected.discard("c1")
    hooked.clock.move(SETTLED_S)
    await hooked.attached().following.sweep()
    assert hooked.attached().session("c1") is not None
    await hooked.attached().following.sweep()
    assert hooked.attached().session("c1") is None
    assert hooked.attached().session("c2") is not None
    assert hooked.service.sessions.ended[Reason.CONNECTION_LOST] == 1
    assert hooked.attached().rows.get("c1").gone_us is not None
    assert hooked.rest.kicks == []


async def test_a_client_that_is_there_after_all_is_taken_up_again(hooked: HookWorld) -> None:
    """Seen once more between two sweeps nothing ends; closed by mistake the next one restores it."""
    _, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    hooked.clock.move(SETTLED_S)
    for there in (False, True, False):
        (hooked.rest.connected.add if there else hooked.rest.connected.discard)("c1")
        await hooked.attached().following.sweep()
        assert hooked.attached().session("c1") is not None
    await hooked.attached().following.sweep()
    assert hooked.attached().session("c1") is None
    hooked.rest.connected.add("c1")
    await hooked.attached().following.sweep()
    assert hooked.attached().session("c1") is not None
    assert hooked.rest.kicks == []


async def test_a_sweep_touches_nobody_while_the_broker_cannot_be_asked(hooked: HookWorld) -> None:
    """No list is not an empty list; nor is somebody kicked whom the broker has and we do not know."""
    _, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    hooked.clock.move(SETTLED_S)
    hooked.rest.down = True
    for _ in range(3):
        await hooked.attached().following.sweep()
    assert hooked.attached().session("c1") is not None
    hooked.rest.down = False
    hooked.rest.connected.add("stranger")
    await hooked.attached().following.sweep()
    assert hooked.rest.kicks == []


async def test_rows_end_with_their_time(hooked: HookWorld) -> None:
    """A client that never comes back is forgotten after `hold_s`."""
    _, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    hooked.clock.move(SETTLED_S)
    hooked.rest.connected.clear()
    await hooked.attached().gone("c1", keeps_session=True)
    await hooked.attached().following.sweep()
    assert hooked.attached().rows.get("c1") is not None
    hooked.clock.move(hooked.attached().config.hold_s + 1)
    await hooked.attached().following.sweep()
    await hooked.attached().rows.flush()
    assert list(await hooked.store.attached_sessions.all("emqx")) == []


async def test_known_things_are_admitted_while_the_store_cannot_be_written(hooked: HookWorld) -> None:
    """Promise 11: the row of another client id follows when it can be."""
    _, secret = await hooked.app_token()
    await hooked.admitted(secret, "gw1", client_id="c7")
    keep, write = hooked.store.attached_sessions.keep, hooked.store.attached_sessions.write

    async def refused(*_: object, **__: object) -> object:
        raise StoreReadOnly("the database is locked")

    hooked.store.attached_sessions.keep = hooked.store.attached_sessions.write = refused
    assert (await hooked.authn(secret, "gw1", client_id="c7"))["result"] == "allow"
    await hooked.attached().rows.flush()
    assert list(await hooked.store.attached_sessions.all("emqx")) == []
    hooked.store.attached_sessions.keep, hooked.store.attached_sessions.write = keep, write
    await hooked.attached().rows.flush()
    assert [row.client_id for row in await hooked.store.attached_sessions.all("emqx")] == ["c7"]


async def test_what_is_owed_never_overwrites_what_came_after_it(hooked: HookWorld) -> None:
    """A client leaves, and comes back while its leaving is being written: the row says that it is there."""
    _, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    rows = hooked.attached().rows
    hooked.clock.move(SETTLED_S)
    await hooked.attached().gone("c1", keeps_session=True)
    flush = asyncio.create_task(rows.flush())
    await asyncio.sleep(0)
    again = replace(rows.get("c1"), gone_us=None)
    assert await rows.keep(again)
    await flush
    await rows.flush()
    assert [row.gone_us for row in await hooked.store.attached_sessions.all("emqx")] == [None]
