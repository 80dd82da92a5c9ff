"""Wills that wait, by themselves: what is held and freed, what the close sends, and a store or broker that is away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
import structlog

from authsvc.core.credentials import WillMessage
from authsvc.core.errors import StoreUnavailable, UpstreamUnavailable
from authsvc.core.facts import Effect, Refusal, Rule, RuleAction
from authsvc.core.reasons import Reason
from broker import delayed_wills
from broker.delayed_wills import DelayedWills
from tests.broker.scripted import grant_of

WILL = WillMessage(topic="t/g/a/will", payload=b"w", qos=1, retain=True, delay_s=1_000)
NOT_RETAINED = Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="{tenant}/#", retain=False)


class Rig:
    """A gate with no broker and no store: `outcomes` are what the store answers, one after the other."""

    def __init__(self, *, limit: int = 100) -> None:
        self.sent: list[WillMessage] = []
        self.denied: list[str] = []
        self.outcomes: list[object] = []
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.away = False
        self.touched = False
        self.carries = True
        gate = SimpleNamespace(
            loop=asyncio.get_running_loop(),
            service=SimpleNamespace(
                grant_of_ended=self._grant,
                denied=lambda *told: self.denied.append(told[2]),
                feed=SimpleNamespace(touched_since=lambda position, footing, own: self.touched),
            ),
            upstream=SimpleNamespace(
                publish=self._publish, capabilities=SimpleNamespace(carries=lambda _: self.carries)
            ),
        )
        self.wills = DelayedWills(gate, limit)

    async def _grant(self, _session, _upstream_id):
        self.asked += 1
        await self.may_answer.wait()
        outcome = self.outcomes.pop(0) if self.outcomes else grant_of("a")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _publish(self, topic, payload, *, qos, retain, properties):
        await asyncio.sleep(0)
        if self.away:
            raise UpstreamUnavailable("away")
        self.sent.append(WillMessage(topic=topic, payload=payload, qos=qos, retain=retain, properties=properties))

    def take(self, client_id="c", will=WILL, *, reason=Reason.CONNECTION_LOST, expiry_s: int | None = None) -> bool:
        connection = SimpleNamespace(terms=SimpleNamespace(session_expiry_s=expiry_s), upstream_id="u", peer="p")
        session = SimpleNamespace(principal="thing/t/a", client_id=client_id, footing=frozenset())
        return self.wills.take(connection, session, will, reason)

    async def settle(self) -> None:
        async with asyncio.timeout(3):
            while self.wills._tasks:
                await asyncio.sleep(0.001)


def coming(client_id: str = "c", *, clean_start: bool = False) -> SimpleNamespace:
    """Return the admission of a client that is back."""
    return SimpleNamespace(
        principal="thing/t/a",
        client_id=client_id,
        grant=grant_of("a"),
        clean_start=clean_start,
        position=0,
        own_changes=frozenset(),
    )


@pytest.mark.parametrize(
    ("outcome", "touched", "sent"),
    [
        (grant_of("a"), False, 1),
        (Refusal(reason=Reason.KICKED), False, 0),
        (StoreUnavailable("away"), False, 0),
        (grant_of("a"), True, 0),
    ],
    ids=["alive", "wiped", "nobody can say", "changed since"],
)
async def test_a_clean_start_sends_what_was_judged_and_is_still_right(outcome, touched, sent):
    """The row that tells whether the session was wiped is the new one's from then on."""
    rig = Rig()
    rig.outcomes, rig.touched = [outcome], touched
    rig.take()
    back = coming(clean_start=True)
    await rig.wills.judge(back)
    rig.wills.reconnected(back)
    await rig.settle()
    assert (rig.asked, len(rig.sent), len(rig.wills)) == (1, sent, 0)


async def test_a_will_is_judged_again_for_each_connect_that_begins_a_new_session():
    """One that failed after it found the session alive says nothing to the next; one that resumes asks nothing."""
    rig = Rig()
    rig.take()
    back = coming(clean_start=True)
    rig.outcomes = [grant_of("a"), StoreUnavailable("away")]
    await rig.wills.judge(back)
    await rig.wills.judge(back)
    rig.wills.reconnected(back)
    await rig.settle()
    assert (rig.asked, rig.sent) == (2, [])
    rig.take()
    await rig.wills.judge(coming())
    await rig.wills.judge(coming("other", clean_start=True))
    assert (rig.asked, len(rig.wills)) == (2, 1)


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({}, True),
        ({"reason": Reason.TAKEN_OVER}, True),
        ({"reason": Reason.SHUTTING_DOWN}, False),
        ({"reason": Reason.KICKED}, False),
        ({"expiry_s": 0}, False),
        ({"will": replace(WILL, delay_s=0)}, False),
    ],
)
async def test_a_will_is_taken_where_there_is_somebody_to_wait_for(fields, taken):
    """A gate that closes sends it now, and so does an operator who ends the session."""
    rig = Rig()
    assert rig.take(**fields) is taken
    assert len(rig.wills) == taken


async def test_what_waits_is_bounded_in_bytes_and_what_has_gone_makes_room(monkeypatch):
    """The newer will of a session takes the place of its older one."""
    monkeypatch.setattr(delayed_wills, "MAX_BYTES", 2_500)
    rig = Rig()
    large = replace(WILL, payload=bytes(1_000))
    assert rig.take("c1", large)
    assert rig.take("c2", large)
    assert not rig.take("c3", large)
    rig.wills.reconnected(coming("c1"))
    assert rig.take("c3", large)
    assert not rig.take("c1", large)
    assert len(rig.wills) == 2
    rig.wills.reconnected(coming("c3"))
    for _ in range(5):  # each in place of the one before
        assert rig.take("c2", replace(large, payload=bytes(100)))
    assert rig.take("c3", large)
    await rig.settle()
    assert rig.sent == []


async def test_a_will_that_was_replaced_or_dropped_never_fires(monkeypatch):
    """Its timer goes with it: the store is not even asked."""
    rig = Rig()
    soon = replace(WILL, delay_s=1)
    assert rig.take(will=soon, expiry_s=None)
    held = rig.wills._held["thing/t/a", "c"]
    assert rig.take(will=WILL)
    assert held.timer.cancelled()
    held = rig.wills._held["thing/t/a", "c"]
    rig.wills.reconnected(coming("c"))
    assert held.timer.cancelled()


def fire(rig: Rig, client_id: str = "c") -> None:
    """As its timer does."""
    key = ("thing/t/a", client_id)
    rig.wills._fire(key, rig.wills._held[key], delayed_wills.ATTEMPTS)


async def test_a_store_that_is_away_is_asked_again_for_a_while(monkeypatch):
    """And not all at once."""
    monkeypatch.setattr(delayed_wills, "AGAIN_AFTER_S", 0.05)
    rig = Rig()
    rig.outcomes = [StoreUnavailable("away"), StoreUnavailable("away")]
    rig.take()
    began = asyncio.get_running_loop().time()
    fire(rig)
    await rig.settle()
    assert (rig.asked, len(rig.sent)) == (3, 1)
    assert asyncio.get_running_loop().time() - began > 0.09
    rig.outcomes = [StoreUnavailable("away")] * 100
    rig.take()
    fire(rig)
    await rig.settle()
    assert (rig.asked, len(rig.sent), len(rig.wills)) == (3 + delayed_wills.ATTEMPTS, 1, 0)


async def test_who_comes_back_while_the_store_is_asked_decides_what_becomes_of_the_will():
    """What was asked for then is not sent, nor is the will of the next connection taken for it."""
    rig = Rig()
    rig.take()
    rig.may_answer.clear()
    fire(rig)
    await asyncio.sleep(0)
    rig.wills.reconnected(coming("c"))
    rig.take(will=replace(WILL, payload=b"next"))
    rig.may_answer.set()
    await rig.settle()
    assert (rig.sent, len(rig.wills)) == ([], 1)


@pytest.mark.parametrize(
    ("outcome", "carries", "denied"),
    [
        (Refusal(reason=Reason.TOKEN_REVOKED), True, []),
        (grant_of("a", ()), True, [WILL.topic]),
        (grant_of("a", (NOT_RETAINED,)), True, [WILL.topic]),
        (grant_of("a"), False, []),
    ],
    ids=["refused", "denied", "retain-denied", "not-carried"],
)
async def test_what_may_not_be_sent_now_is_not_sent(outcome, carries, denied):
    """Judged as a publish of this moment, flags and all; a denial is counted like any other."""
    rig = Rig()
    rig.carries = carries
    rig.outcomes = [outcome]
    rig.take()
    fire(rig)
    await rig.settle()
    assert (rig.sent, rig.denied, len(rig.wills)) == ([], denied, 0)


async def test_the_close_sends_each_once_and_waits_for_it():
    """Also one that is being judged already; afterwards no timer runs and nothing is tried for long."""
    rig = Rig()
    for client_id in ("c1", "c2"):
        rig.take(client_id, replace(WILL, payload=client_id.encode()))
    timers = [held.timer for held in rig.wills._held.values()]
    rig.may_answer.clear()
    fire(rig, "c1")
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.02, rig.may_answer.set)
    await rig.wills.close()
    assert sorted(will.payload for will in rig.sent) == [b"c1", b"c2"]
    assert rig.asked == 2
    assert all(timer.cancelled() for timer in timers)
    rig.take("c3")
    rig.outcomes = [StoreUnavailable("away")]
    async with asyncio.timeout(1):
        await rig.wills.close()
    assert len(rig.sent) == 2


async def test_a_will_that_the_broker_does_not_take_is_told():
    """There is nobody else to tell."""
    rig = Rig()
    rig.away = True
    rig.take()
    with structlog.testing.capture_logs() as logs:
        fire(rig)
        await rig.settle()
    assert [entry["event"] for entry in logs] == ["will_lost"]
