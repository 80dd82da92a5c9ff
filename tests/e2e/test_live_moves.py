"""What changes under a live connection: it moves, it is deleted, its token is renewed or ends."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from authsvc.core.credentials import WillMessage
from tests.broker.raw_client import RawClient
from tests.e2e.process import Process


@pytest.fixture
async def process(shared: Process) -> Process:
    await shared.open_definition()
    for ground in ("hall", "yard"):
        await shared.post(f"{shared.at}/grounds", {"key": ground})
    return shared


async def _seen(spy: RawClient) -> list[tuple[str, bytes]]:
    await spy.publish("end", qos=1)
    return [(p.topic, p.payload) for p in await spy.deliveries_until("end")]


def _soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_a_moved_thing_is_held_to_its_new_place_when_the_call_has_answered(process: Process) -> None:
    """The connection goes on; old subscriptions bring nothing, old topics reach nobody, the new place works at once."""
    app = (await process.app_token(ground="hall"))["token"]
    spy = await process.spy()
    client = await process.client("a", app)
    assert await client.subscribe((f"{process.tenant}/hall/a/#", 1)) == [1]
    moved = await process.patch(f"{process.at}/things/a", {"ground": "yard"})
    assert moved["topic_prefix"].rstrip("/") == f"{process.tenant}/yard/a"
    await client.publish(f"{process.tenant}/hall/a/late", b"no", qos=1)
    await client.publish(f"{process.tenant}/yard/a/x", b"yes", qos=1)
    assert await _seen(spy) == [(f"{process.tenant}/yard/a/x", b"yes")]
    await spy.publish(f"{process.tenant}/hall/a/x", b"foreign", qos=1)
    assert await client.subscribe((f"{process.tenant}/hall/a/#", 1), (f"{process.tenant}/yard/a/#", 1)) == [0x80, 1]
    await spy.publish(f"{process.tenant}/yard/a/y", b"mine", qos=1)
    assert (await client.delivery()).payload == b"mine"
    (session,) = [s for s in await process.every(f"{process.at}/sessions") if s["thing"] == "a"]
    assert session["ground"] == "yard"


async def test_a_reconnect_never_moves_a_thing_and_a_token_of_the_old_ground_is_out(process: Process) -> None:
    """Ground and owner never change by a CONNECT; another ground's token does not reach the thing."""
    hall, yard = [(await process.app_token(ground=g, name=g))["token"] for g in ("hall", "yard")]
    await (await process.client("a", hall)).disconnect()
    assert await process.code("a", yard) == 5
    await process.patch(f"{process.at}/things/a", {"ground": "yard"})
    assert await process.code("a", hall) == 0, "what it registered it admits"
    assert await process.code("a", yard) == 0
    thing = await process.get(f"{process.at}/things/a")
    assert thing["ground"] == "yard"
    (entry, *_) = (await process.get(f"{process.at}/refusals"))["items"]
    assert entry["reason"] == "thing_out_of_scope"


async def test_a_deleted_thing_stays_deleted_until_an_operator_forgets_its_key(process: Process) -> None:
    """A still valid app token does not resurrect it, after a restart neither; `?forget=true` or a POST does."""
    app = (await process.app_token())["token"]
    client = await process.client("a", app)
    await process.delete(f"{process.at}/things/a")
    assert await client.closed(1)
    for _ in range(2):
        assert await asyncio.gather(*(process.code("a", app) for _ in range(20))) == [5] * 20
        assert await process.every(f"{process.at}/things") == []
        await process.kill()
        await process.start()
    assert await process.code("a", app) == 5
    await process.delete(f"{process.at}/things/a?forget=true")
    assert await process.code("a", app) == 0
    await process.delete(f"{process.at}/things/a")
    assert await process.code("a", app) == 5
    await process.post(f"{process.at}/things", {"key": "a", "thing_definition": "dev"})
    assert await process.code("a", app) == 0
    assert [t["key"] for t in await process.every(f"{process.at}/things")] == ["a"]


async def test_a_deleted_thing_leaves_nothing_to_its_successor(process: Process) -> None:
    """Device tokens, retained messages and client ids of the old thing mean nothing for the new one."""
    await process.post(f"{process.at}/things", {"key": "a", "thing_definition": "dev"})
    token = (await process.device_token("a"))["token"]
    client = await process.client("a", token, clean=False)
    assert await client.subscribe((f"{process.tenant}/default/a/#", 1)) == [1]
    await client.publish(f"{process.tenant}/default/a/kept", b"old", qos=1, retain=True)
    await process.delete(f"{process.at}/things/a")
    await process.post(f"{process.at}/things", {"key": "a", "thing_definition": "dev"})
    assert await process.code("a", token) == 4
    new = (await process.device_token("a"))["token"]
    client = await process.client("a", new, clean=False)
    assert not client.session_present
    assert await client.subscribe((f"{process.tenant}/default/a/#", 1)) == [1]
    await client.ping()
    assert client.received == [], "a retained message of the deleted thing"


async def test_an_overlap_lets_the_old_secret_go_on_until_it_ends(process: Process) -> None:
    """Both secrets are good within the overlap; at its end the sessions on the old one end, those on the new live."""
    token = await process.app_token()
    old = await process.client("a", token["token"], "old")
    fresh = await process.post(f"{process.at}/app-tokens/{token['id']}/regenerate", {"overlap_s": 2}, status=200)
    assert fresh["token"] != token["token"]
    new = await process.client("a", fresh["token"], "new")
    assert await process.code("a", token["token"], "third") == 0
    await old.ping()
    assert await old.closed(3.5), "the overlap is over"
    assert await process.code("a", token["token"], "third") == 4
    await new.ping()
    assert await process.code("a", fresh["token"], "third") == 0


async def test_expiry_ends_the_session_and_sends_the_will_that_is_allowed(process: Process) -> None:
    """Promise 5: not before its time, within a second after it; the will goes out; reconnect is refused."""
    spy = await process.spy()
    await process.post(f"{process.at}/things", {"key": "a", "thing_definition": "dev"})
    token = (await process.device_token("a", expires_at=_soon(2)))["token"]
    will = WillMessage(topic=f"{process.tenant}/default/a/will", payload=b"expired", qos=1, retain=False)
    client = await process.client("a", token, will=will)
    async with asyncio.timeout(1):
        await client.ping()
    assert await client.closed(3)
    delivery = await spy.delivery(1)
    assert (delivery.topic, delivery.payload) == (f"{process.tenant}/default/a/will", b"expired")
    assert await process.code("a", token) == 4


async def test_expiry_sends_no_will_where_the_right_was_taken_before(process: Process) -> None:
    """Promise 5: the will is judged when it fires."""
    spy = await process.spy()
    await process.post(f"{process.at}/things", {"key": "a", "thing_definition": "dev"})
    token = (await process.device_token("a", expires_at=_soon(1.5)))["token"]
    will = WillMessage(topic=f"{process.tenant}/default/a/will", payload=b"expired", qos=1, retain=False)
    client = await process.client("a", token, will=will)
    await process.patch(f"{process.at}/thing-definitions/dev", {"rules": []})
    assert await client.closed(3)
    assert await _seen(spy) == []


async def test_narrowed_rules_reach_live_sessions_before_the_call_answers(process: Process) -> None:
    """After the answer neither a publish nor a delivery passes that the new rules do not allow."""
    app = (await process.app_token())["token"]
    spy = await process.spy()
    client = await process.client("a", app)
    assert await client.subscribe((f"{process.tenant}/default/a/#", 1)) == [1]
    await client.publish(f"{process.tenant}/default/a/one", qos=1)
    await client.delivery()
    rules = [{"effect": "allow", "action": "publish", "topic": "{tenant}/{ground}/{thing}/state"}]
    await process.patch(f"{process.at}/thing-definitions/dev", {"rules": rules})
    await client.publish(f"{process.tenant}/default/a/one", b"no", qos=1)
    await spy.publish(f"{process.tenant}/default/a/cmd", b"no", qos=1)
    await client.publish(f"{process.tenant}/default/a/state", b"yes", qos=1)
    assert (await _seen(spy))[-1] == (f"{process.tenant}/default/a/state", b"yes")
    await client.ping()
    assert client.received == []
    refusals = (await process.get(f"{process.at}/refusals"))["items"]
    assert {"no_rule_matches"} <= {entry["reason"] for entry in refusals}
