"""The list of refusals: bounded, merged, kept apart by tenant."""

from __future__ import annotations

from authsvc.core import tokens
from authsvc.core.facts import Refusal, TokenKind
from authsvc.core.reasons import Reason
from authsvc.refusals import Refusals
from authsvc.sessions import Admitted
from tests.service.conftest import T, World, request


class Now:
    def __init__(self) -> None:
        self.us = 1_000_000_000

    def __call__(self) -> int:
        return self.us


def test_equal_refusals_of_one_second_are_one_record():
    """A device that tries again and again is one line with a count; after a second a new one begins."""
    now = Now()
    refusals = Refusals(now_us=now)
    for port in range(5):
        refusals.add(tenant=T, reason=Reason.UNKNOWN_TOKEN, peer=f"192.0.2.1:{port}", client_id="c")
        refusals.add(tenant=T, reason=Reason.UNKNOWN_TOKEN, peer=f"192.0.2.2:{port}", client_id="c")
        now.us += 100_000
    assert [(record.peer[:9], record.count) for record in refusals.last(T)] == [("192.0.2.2", 5), ("192.0.2.1", 5)]
    now.us += 1_000_000
    refusals.add(tenant=T, reason=Reason.UNKNOWN_TOKEN, peer="192.0.2.1:9", client_id="c")
    assert [record.count for record in refusals.last(T)] == [1, 5, 5]


def test_the_list_is_bounded_per_tenant_and_in_tenants():
    """A thousand a tenant, and the tenants that were quiet longest make room; strangers push nobody out."""
    now = Now()
    refusals = Refusals(now_us=now, kept=10, max_tenants=3)
    for n in range(1000):
        refusals.add(tenant=None, reason=Reason.UNKNOWN_TOKEN, client_id=f"guess-{n}")
    for n in range(25):
        refusals.add(tenant=T, reason=Reason.THING_BLOCKED, client_id=f"c{n}")
    assert [record.client_id for record in refusals.last(T, limit=1000)] == [f"c{n}" for n in range(24, 14, -1)]
    assert len(refusals.last(None, limit=1000)) == 10
    for tenant in ("b", "c", "d"):
        refusals.add(tenant=tenant, reason=Reason.THING_BLOCKED)
    assert refusals.last(T) == []
    assert len(refusals._by_tenant) == 3
    assert len(refusals.last(None)) == 10


def test_what_a_client_chose_is_cut_to_size():
    """A client id, topic or detail of 64 KiB takes 256 characters."""
    refusals = Refusals(now_us=Now())
    record = refusals.add(tenant=T, reason=Reason.NO_RULE_MATCHES, client_id="x" * 70_000, topic="t" * 70_000)
    assert (len(record.client_id), len(record.topic)) == (256, 256)


def test_filters_and_the_way_to_follow():
    """By client id, by thing, and everything since the last one seen."""
    refusals = Refusals(now_us=Now())
    first = refusals.add(tenant=T, reason=Reason.THING_BLOCKED, client_id="a", thing="x")
    second = refusals.add(tenant=T, reason=Reason.THING_BLOCKED, client_id="b", thing="y")
    assert refusals.last(T, client_id="a") == [first]
    assert refusals.last(T, thing="y") == [second]
    assert refusals.last(T, after_id=first.id) == [second]
    assert refusals.last(T, limit=1) == [second]
    assert refusals.last("other") == []


async def test_the_next_tenant_of_a_key_reads_nothing_of_the_former(world: World):
    """The list ends with its tenant; a refusal right after it begins a new record."""
    for _ in range(2):
        _, text = await world.app_token(auto_register=False)
        await world.refused(text, "nobody")
        assert [record.count for record in world.service.refusals.last(T)] == [1]
        await world.store.tenants.delete(T, cascade=True)
        await world.store.tenants.create(T)
        await world.settle()
        assert world.service.refusals.last(T) == []


async def test_a_token_in_the_wrong_field_is_not_kept(world: World):
    """Somebody who puts his token into the client id or a topic does not publish it in the list."""
    text = tokens.mint(TokenKind.APP)
    await world.admit("wrong", "gw-1", client_id=text)
    token, good = await world.app_token()
    session, _ = await world.connect(good, "gw-1", client_id="c1")
    from authsvc.core.policy import Action

    decision = session.grant.decide(Action.PUBLISH, f"x/{text}")
    world.service.denied(session, "publish", f"x/{text}", decision)
    listed = repr(world.service.refusals.last(None)) + repr(world.service.refusals.last(T))
    assert text not in listed
    assert "no_rule_matches" in listed


async def test_a_refusal_is_counted_once_also_when_the_gate_hands_it_back(world: World):
    """`refuse` knows what `admit` has recorded; the gate's own refusals are new."""

    outcome = await world.admit("wrong", "gw-1")
    assert isinstance(outcome, Refusal)
    asked = request("wrong", "gw-1")
    world.service.refuse(outcome, request=asked, peer="p:1")
    world.service.refuse(Refusal(reason=Reason.RATE_LIMITED), request=asked, peer="p:1")
    found = world.service.refusals.last(None)
    assert [(record.reason, record.count) for record in found] == [
        (Reason.RATE_LIMITED, 1),
        (Reason.MALFORMED_CREDENTIAL, 1),
    ]


async def test_a_throttled_refusal_is_one_record_that_tells_both(world: World):
    """What was wrong with the credential stands in the record of the throttle, and not in one more."""

    def throttle(refusal: Refusal) -> Refusal:
        return Refusal(reason=Reason.RATE_LIMITED, detail=f"this one: {refusal.reason.value}")

    text = tokens.mint(TokenKind.APP)
    asked = request(text, "gw-1")
    outcome = await world.service.admit(asked, peer="p:1", broker="gate", throttle=throttle)
    assert isinstance(outcome, Refusal)
    assert outcome.reason is Reason.RATE_LIMITED
    world.service.refuse(outcome, request=asked, peer="p:1")
    (record,) = world.service.refusals.last(None)
    assert (record.reason, record.detail, record.count) == (Reason.RATE_LIMITED, "this one: unknown_token", 1)
    assert record.token_prefix == tokens.prefix(text)
    assert world.service.refusals.total == 1


async def test_who_is_admitted_is_never_throttled(world: World):
    """A valid credential does not come near the throttle."""

    def throttle(refusal: Refusal) -> Refusal:
        raise AssertionError(refusal)

    _, good = await world.app_token()
    outcome = await world.service.admit(request(good, "gw-1"), peer="p:1", broker="gate", throttle=throttle)
    assert isinstance(outcome, Admitted)
