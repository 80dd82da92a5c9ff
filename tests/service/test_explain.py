"""Why may it, why may it not: the same answer as the gate's, with every rule shown."""

from __future__ import annotations

import pytest

from authsvc.core.errors import Conflict, InvalidInput, NotFound
from authsvc.core.facts import Effect, GroundAccess, Rule, RuleAction, ThingState
from authsvc.core.policy import Action
from authsvc.core.reasons import Reason
from authsvc.explain import explain
from tests.service.conftest import T, World


async def test_a_live_session_is_explained_by_its_own_grant(world: World):
    """By thing or by client id: the session's grant, which rule decided, and what the others said."""
    _, text = await world.app_token()
    session, _ = await world.connect(text, "gw-1", client_id="c1")
    for subject in ({"thing": "gw-1"}, {"client_id": "c1"}):
        found = await explain(world.service, T, **subject, action=Action.PUBLISH, topic=f"{T}/default/gw-1/state/x")
        assert (found.allowed, found.reason) == (True, Reason.RULE_ALLOWS)
        assert session.id in found.basis
        assert {step.rule for step in found.trace if step.matched} == {found.rule}
        assert len(found.trace) == len(session.grant.rules)


async def test_each_rule_says_why_it_did_not_match(world: World):
    """Too wide, too high, the wrong flag, another action, a deny that narrows."""
    rules = (
        Rule(effect=Effect.ALLOW, action=RuleAction.SUBSCRIBE, topic="{tenant}/a/+"),
        Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="{tenant}/q", qos_max=0),
        Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="{tenant}/r", retain=False),
        Rule(effect=Effect.DENY, action=RuleAction.SUBSCRIBE, topic="{tenant}/a/secret"),
    )
    await world.store.definitions.create(T, "d", rules=rules)
    _, text = await world.app_token(definition="d")
    await world.connect(text, "gw-1")

    async def notes(action: Action, topic: str, **more: object) -> tuple[Reason, list[str]]:
        found = await explain(world.service, T, thing="gw-1", action=action, topic=topic, **more)
        return found.reason, [step.note for step in found.trace]

    reason, said = await notes(Action.SUBSCRIBE, f"{T}/a/#")
    assert reason is Reason.FILTER_TOO_WIDE
    assert "further than this rule" in said[0]
    assert said[1] == "speaks of publish"
    assert "takes some deliveries" in said[3]
    reason, said = await notes(Action.PUBLISH, f"{T}/q", qos=1)
    assert (reason, said[1]) == (Reason.QOS_TOO_HIGH, "allows QoS 0 at most")
    reason, said = await notes(Action.PUBLISH, f"{T}/r", retain=True)
    assert (reason, said[2]) == (Reason.RETAIN_DENIED, "speaks only of publishes with retain not set")


async def test_without_a_session_the_registering_token_is_asked_and_named(world: World):
    """A thing that is away is explained by the token that registered it; one nobody registered by its definition."""
    token, text = await world.app_token()
    await world.admitted(text, "gw-1")
    await world.store.things.create(T, "made")
    await world.settle()
    topic = f"{T}/default/gw-1/state/x"
    found = await explain(world.service, T, thing="gw-1", action=Action.PUBLISH, topic=topic)
    assert found.allowed
    assert f"token `{token.id}`, which registered it" in found.basis
    found = await explain(world.service, T, thing="made", action=Action.PUBLISH, topic=topic)
    assert (found.allowed, found.reason) == (False, Reason.NO_RULE_MATCHES)
    assert "definition `thing` alone" in found.basis


async def test_a_client_id_of_two_principals_is_a_conflict_that_names_both(world: World):
    """Who is meant is for the operator to say."""
    _, one = await world.ground_token("default")
    _, two = await world.ground_token("default", GroundAccess.WRITE)
    first, _ = await world.connect(one, client_id="same")
    second, _ = await world.connect(two, client_id="same")
    with pytest.raises(Conflict) as caught:
        await explain(world.service, T, client_id="same", action=Action.SUBSCRIBE, topic=f"{T}/#")
    assert caught.value.code == "client_id_ambiguous"
    assert first.principal in caught.value.detail
    assert second.principal in caught.value.detail


async def test_a_token_that_is_refused_is_explained_with_the_reason_and_the_rules(world: World):
    """Revoked or blocked: not allowed, and why; the rules are shown all the same."""
    token, text = await world.app_token()
    await world.admitted(text, "gw-1")
    await world.store.things.update(T, "gw-1", state=ThingState.BLOCKED)
    await world.settle()
    topic = f"{T}/default/gw-1/state/x"
    found = await explain(world.service, T, thing="gw-1", action=Action.PUBLISH, topic=topic)
    assert (found.allowed, found.reason) == (False, Reason.THING_BLOCKED)
    await world.store.app_tokens.delete(T, token.id)
    await world.settle()
    found = await explain(
        world.service, T, token_id=token.id, action=Action.PUBLISH, topic=f"{T}/default/any-thing/state/x"
    )
    assert (found.allowed, found.reason) == (False, Reason.TOKEN_REVOKED)
    assert any(step.matched for step in found.trace)


async def test_a_client_id_that_was_refused_lately_is_explained_by_the_refusal(world: World):
    """The gateway developer asks by the only name he knows."""
    _, text = await world.app_token()
    await world.connect(text, "gw-1", client_id="c1")
    await world.refused(text, "gw-1", client_id="c2")
    found = await explain(world.service, T, client_id="c2", action=Action.PUBLISH, topic="x")
    assert (found.allowed, found.reason) == (False, Reason.CLIENT_ID_MISMATCH)


async def test_what_is_not_there_or_not_asked_rightly(world: World):
    """Nothing of another tenant is found; nobody or two named, or a topic that is none, is the caller's error."""
    _, text = await world.app_token()
    token, _ = await world.app_token()
    await world.connect(text, "gw-1", client_id="c1")
    await world.store.tenants.create("other")
    await world.settle()
    for subject in ({"thing": "gw-1"}, {"client_id": "c1"}, {"token_id": token.id}):
        with pytest.raises(NotFound):
            await explain(world.service, "other", **subject, action=Action.PUBLISH, topic="a")
    for subject in ({}, {"thing": "gw-1", "client_id": "c1"}):
        with pytest.raises(InvalidInput):
            await explain(world.service, T, **subject, action=Action.PUBLISH, topic="a")
    for action, topic in ((Action.PUBLISH, "a/#"), (Action.SUBSCRIBE, "a/#/b"), (Action.PUBLISH, "")):
        with pytest.raises(InvalidInput):
            await explain(world.service, T, thing="gw-1", action=action, topic=topic)


async def test_explaining_changes_nothing(world: World):
    """No thing is registered by asking what a token would be granted."""
    token, _ = await world.app_token()
    before = await world.store.last_position()
    found = await explain(world.service, T, token_id=token.id, action=Action.PUBLISH, topic="a")
    assert "any-thing" in found.basis
    assert await world.store.last_position() == before
