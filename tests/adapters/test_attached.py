"""An attached broker: whose a client id is, what a refusal leaves behind, and what is asked about whom."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.adapters.attached import SETTLED_US
from authsvc.core.policy import Action
from authsvc.core.reasons import Reason
from tests.adapters.conftest import HookWorld
from tests.service.conftest import T

SETTLED_S = SETTLED_US / 1_000_000 + 1


async def test_an_admitted_client_is_a_session_like_any_other(hooked: HookWorld) -> None:
    """Listed under its broker, found by client id, explained, refused things recorded."""
    _, token = await hooked.app_token()
    assert (await hooked.authn(token, "gw1"))["result"] == "allow"
    (listed,) = (await hooked.call("GET", f"/v1/tenants/{T}/sessions")).json()["items"]
    assert (listed["broker"], listed["client_id"], listed["thing"]) == ("emqx", "c1", "gw1")
    assert listed["peer"] == "192.0.2.1"
    assert await hooked.authz("c1", "publish", f"{T}/default/gw1/state/x") == "allow"
    assert await hooked.authz("c1", "publish", f"{T}/default/gw2/state/x") == "deny"
    (denied,) = (await hooked.call("GET", f"/v1/tenants/{T}/refusals", params={"client_id": "c1"})).json()["items"]
    assert (denied["action"], denied["reason"]) == ("publish", "no_rule_matches")
    question = {"client_id": "c1", "action": "subscribe", "topic": f"{T}/default/gw1/command/#"}
    assert (await hooked.call("POST", f"/v1/tenants/{T}/explain", json=question)).json()["allowed"] is True


async def test_explain_knows_that_deliveries_are_not_checked_there(hooked: HookWorld) -> None:
    """A deny that only overlaps narrows a subscription behind the gate, and refuses it at EMQX."""
    rules = [
        {"effect": "allow", "action": "subscribe", "topic": "{tenant}/a/#"},
        {"effect": "deny", "action": "subscribe", "topic": "{tenant}/a/secret"},
    ]
    made = await hooked.call("POST", f"/v1/tenants/{T}/thing-definitions", json={"key": "d", "rules": rules})
    assert made.status_code == 201
    _, token = await hooked.app_token(definition="d")
    await hooked.authn(token, "gw1")
    question = {"client_id": "c1", "action": "subscribe", "topic": f"{T}/a/#"}
    told = (await hooked.call("POST", f"/v1/tenants/{T}/explain", json=question)).json()
    assert (told["allowed"], told["reason"]) == (False, "rule_denies")
    assert await hooked.authz("c1", "subscribe", f"{T}/a/#") == "deny"


async def test_who_was_never_admitted_may_nothing(hooked: HookWorld) -> None:
    """An unknown client id is denied whatever user name it shows, and an operator can read it."""
    assert await hooked.authz("ghost", "publish", "a") == "deny"
    assert hooked.attached().decide("ghost", Action.DELIVER, "a").allowed is False
    (record, *_) = hooked.service.refusals.last(None, client_id="ghost")
    assert "emqx" in record.detail


async def test_a_client_id_stays_with_its_principal(hooked: HookWorld) -> None:
    """Another principal is refused, and nothing of it is left: no thing, no seat, no row."""
    _, token = await hooked.app_token()
    assert (await hooked.authn(token, "gw1"))["result"] == "allow"
    assert (await hooked.authn(token, "gw2"))["result"] == "deny"
    assert await hooked.store.thing(T, "gw2") is None
    assert hooked.attached().session("c1").thing == "gw1"
    (record,) = hooked.service.refusals.last(T, thing="gw2")
    assert record.reason is Reason.CLIENT_ID_TAKEN
    assert hooked.rest.kicks == []


async def test_the_same_client_id_at_two_brokers_is_two_sessions(bare: HookWorld, rest) -> None:
    """And at the gate a third: a holder holds at its own broker only."""
    from authsvc.adapters.adapter import AttachedConfig  # noqa: PLC0415

    await bare.open(
        "", AttachedConfig(name="emqx", kind="emqx", secrets=()), AttachedConfig(name="other", kind="emqx", secrets=())
    )
    _, token = await bare.app_token()
    assert (await bare.authn(token, "gw1"))["result"] == "allow"
    assert (await bare.authn(token, "gw2", broker="other"))["result"] == "allow"
    gated, _ = await bare.connect(token, "gw1")
    assert {session.broker for session in bare.service.sessions} == {"emqx", "other", "gate"}
    assert gated.ending is None
    await bare.shut()


async def test_the_holder_keeps_its_client_id_while_the_broker_may_keep_its_session(hooked: HookWorld) -> None:
    """Gone but kept there: still taken. Not kept any more: free, when the broker itself says so."""
    _, token = await hooked.app_token()
    await hooked.authn(token, "gw1")
    hooked.clock.move(SETTLED_S)
    hooked.rest.connected.clear()
    hooked.rest.kept.add("c1")
    await hooked.attached().gone("c1", keeps_session=True)
    assert hooked.attached().session("c1") is None
    assert (await hooked.authn(token, "gw2"))["result"] == "deny"
    hooked.rest.kept.clear()
    assert (await hooked.authn(token, "gw2"))["result"] == "allow"
    assert [row.principal for row in await hooked.store.attached_sessions.all("emqx")] == [f"thing/{T}/gw2"]


async def test_a_broker_that_does_not_answer_frees_nobodys_client_id(hooked: HookWorld) -> None:
    """An accident never looks like a yes."""
    _, token = await hooked.app_token()
    await hooked.authn(token, "gw1")
    hooked.clock.move(SETTLED_S)
    hooked.rest.connected.clear()
    hooked.rest.down = True
    assert (await hooked.authn(token, "gw2"))["result"] == "deny"


async def test_a_just_answered_connect_is_not_believed_to_be_gone(hooked: HookWorld) -> None:
    """The broker lists a client a moment after we answered: until then its word does not free the client id."""
    _, token = await hooked.app_token()
    await hooked.authn(token, "gw1")
    hooked.rest.connected.clear()
    assert (await hooked.authn(token, "gw2"))["result"] == "deny"
    await hooked.attached().gone("c1", keeps_session=False)
    assert hooked.attached().session("c1") is not None


async def test_a_client_id_is_free_after_its_time(hooked: HookWorld) -> None:
    """What nobody can tell ends with `hold_s`."""
    _, token = await hooked.app_token()
    await hooked.authn(token, "gw1")
    hooked.clock.move(SETTLED_S)
    await hooked.attached().gone("c1", keeps_session=True)
    hooked.rest.down = True
    hooked.clock.move(hooked.attached().config.hold_s + 1)
    assert (await hooked.authn(token, "gw2"))["result"] == "allow"


async def test_two_principals_race_for_one_client_id_and_one_gets_it(hooked: HookWorld) -> None:
    """However they come, one is the holder, the other is refused, and the row is the holder's."""
    _, token = await hooked.app_token(definition="thing")
    for number in range(20):
        client_id = f"c{number}"
        answers = await asyncio.gather(
            *(hooked.authn(token, f"gw{number}-{who}", client_id=client_id) for who in ("a", "b"))
        )
        assert sorted(answer["result"] for answer in answers) == ["allow", "deny"], number
        holder = hooked.attached().session(client_id)
        row = hooked.attached().rows.get(client_id)
        assert holder is not None
        assert row is not None
        assert holder.principal == row.principal


async def test_a_replayed_connect_changes_nothing_for_its_principal(hooked: HookWorld) -> None:
    """The same request again: one session, one row, no kick; somebody else's replay is refused."""
    _, token = await hooked.app_token()
    for _ in range(3):
        assert (await hooked.authn(token, "gw1"))["result"] == "allow"
    assert len(hooked.service.sessions) == 1
    assert len(await hooked.store.attached_sessions.all("emqx")) == 1
    await hooked.attached().rows.flush()
    assert hooked.rest.kicks == []


async def test_a_known_client_that_comes_back_writes_nothing(hooked: HookWorld) -> None:
    """Its row stands as it was; so it is admitted while the store cannot be written."""
    _, token = await hooked.app_token()
    await hooked.authn(token, "gw1")
    before = await hooked.store.attached_sessions.all("emqx")
    writes = 0
    keep = hooked.store.attached_sessions.keep

    async def counted(*arguments: object, **more: object) -> object:
        nonlocal writes
        writes += 1
        return await keep(*arguments, **more)

    hooked.store.attached_sessions.keep = counted
    hooked.clock.move(60)
    await hooked.authn(token, "gw1")
    assert writes == 0
    assert await hooked.store.attached_sessions.all("emqx") == before


async def test_an_empty_client_id_is_refused(hooked: HookWorld) -> None:
    """These brokers find sessions by it."""
    _, token = await hooked.app_token()
    assert (await hooked.authn(token, "gw1", client_id=""))["result"] == "deny"
    assert hooked.service.refusals.last(None)[0].reason is Reason.CLIENT_ID_INVALID
    assert await hooked.store.thing(T, "gw1") is None


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "not kept"])
async def test_a_client_that_left_is_no_session(hooked: HookWorld, keeps: bool) -> None:
    """Its row stays for as long as something is kept for it."""
    _, token = await hooked.app_token()
    await hooked.authn(token, "gw1")
    hooked.clock.move(SETTLED_S)
    await hooked.attached().gone("c1", keeps_session=keeps)
    assert hooked.service.sessions.find(T) == []
    await hooked.attached().rows.flush()
    assert len(await hooked.store.attached_sessions.all("emqx")) == (1 if keeps else 0)
