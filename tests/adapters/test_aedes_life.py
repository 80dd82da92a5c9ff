"""Aedes with our package attached: what becomes of whom it admitted, and of all while the service is away."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from authsvc.core.credentials import WillMessage
from broker import wire
from tests.adapters.aedes_broker import AedesBroker, aedes_broker
from tests.adapters.aedes_proxy import Proxy, proxy_to
from tests.adapters.aedes_rig import SECRET, Rig, shared_pair
from tests.broker.raw_client import RawClient
from tests.e2e.process import Process

pytestmark = pytest.mark.alone  # it measures time

BOOM = b"the will"
PROMISED_S = 0.1  # promise 9
TENANTS = itertools.count(1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, AedesBroker]]:
    with shared_pair(tmp_path_factory.mktemp("aedes")) as pair:
        yield pair


@pytest.fixture
async def rig(pair: tuple[Process, AedesBroker]) -> AsyncIterator[Rig]:
    rig = Rig(*pair, tenant=f"t{next(TENANTS)}")
    await rig.cast()
    yield rig
    await rig.service.leave()


@pytest.fixture
async def far(pair: tuple[Process, AedesBroker], tmp_path: Path) -> AsyncIterator[tuple[Rig, Proxy]]:
    """A second Aedes of the same service, the way to which goes through a proxy."""
    service = pair[0]
    port = int(service.url.rpartition(":")[2])
    async with proxy_to(port) as proxy:
        with_name = ("--timeout-ms", 1000, "--name", "far")
        stack = aedes_broker(tmp_path, proxy.url, *with_name, secret=SECRET)
        broker = await asyncio.to_thread(stack.__enter__)  # it waits for what this loop passes on
        try:
            rig = Rig(service, broker, tenant=f"t{next(TENANTS)}")
            await rig.cast()
            yield rig, proxy
        finally:
            await service.leave()
            proxy.stopped = proxy.deaf = False
            await asyncio.to_thread(stack.__exit__, None, None, None)


async def will_of(rig: Rig, key: str = "a") -> RawClient:
    """Connect with a will below the thing's own place, and a persistent session with one subscription."""
    will = WillMessage(topic=rig.own(key) + "/gone", payload=BOOM, qos=1, retain=False)
    client = await rig.client(key, clean=False, will=will)
    assert await client.subscribe((rig.own(key) + "/#", 1)) == [1]
    return client


# --- 9: revocation ---------------------------------------------------------------------------------------------------


async def test_a_revoked_token_ends_its_connection_at_once_without_its_will(rig: Rig) -> None:
    """The connection closes, the will is not sent, the queue is gone, and the client id is the thing's again."""
    spy = await rig.spy()
    a = await will_of(rig)
    await rig.revoke("a")
    assert await a.closed(2)
    await spy.publish(rig.own("a") + "/later", b"1", qos=1)
    assert await rig.seen_by(spy) == [(rig.own("a") + "/later", b"1")]
    assert await rig.code("a") == 4
    await rig.token("a")
    again = await rig.client("a", clean=False)
    assert not again.session_present
    await spy.publish(rig.own("a") + "/last", b"2", qos=1)
    assert await again.subscribe((rig.own("a") + "/#", 1)) == [1]
    assert again.received == []


async def test_revocation_is_faster_than_promised(rig: Rig) -> None:
    """From the answer of the API to the closed connection: one at a time among 60 that live on, measured at the end."""
    for number in range(60):
        await rig.thing(f"n{number}")
    clients = await asyncio.gather(*(rig.client(f"n{number}") for number in range(60)))
    took = []
    for number in range(30):
        await rig.revoke(f"n{number}")
        answered = time.monotonic()
        assert await clients[number].closed(2)
        took.append(time.monotonic() - answered)
    figures = f"median {statistics.median(took) * 1000:.1f} ms, slowest {max(took) * 1000:.1f} ms"
    print(figures)  # noqa: T201  # docs/brokers/aedes.md
    assert sorted(took)[-2] < PROMISED_S, figures
    for client in clients[30:]:
        await client.send(wire.PINGREQ_PACKET)
        await client.expect(wire.PINGRESP)


async def test_all_sessions_of_a_revoked_ground_token_end_together(rig: Rig) -> None:
    """A hundred connections by one token, and not one of another."""
    token = await rig.service.post(f"{rig.at}/grounds/default/tokens", {"name": "apps", "access": "read"})
    rig.secret["apps"] = token["token"]
    clients = await asyncio.gather(*(rig.client("apps", rig.id(f"app{number}")) for number in range(100)))
    a = await rig.client("a")
    closing = [asyncio.create_task(client.closed(5)) for client in clients]
    await rig.service.delete(f"{rig.at}/grounds/default/tokens/{token['id']}")
    answered = time.monotonic()
    assert all(await asyncio.gather(*closing))
    took = time.monotonic() - answered
    print(f"100 sessions in {took * 1000:.0f} ms")  # noqa: T201  # docs/brokers/aedes.md
    assert took < 1
    await a.send(wire.PINGREQ_PACKET)
    await a.expect(wire.PINGRESP)


@pytest.mark.parametrize(
    ("what", "will_goes"),
    [("block", False), ("delete", False), ("suspend", False), ("kick", True)],
)
async def test_what_ends_a_connection_says_what_becomes_of_its_will(rig: Rig, what: str, *, will_goes: bool) -> None:
    """The table of what ends what, as far as the service decides."""
    spy = await rig.spy()
    a = await will_of(rig)
    if what == "block":
        await rig.service.patch(f"{rig.at}/things/a", {"state": "blocked"})
    elif what == "delete":
        await rig.service.delete(f"{rig.at}/things/a?cascade=true")
    elif what == "suspend":
        await rig.service.patch(rig.at, {"state": "suspended"})
    else:
        (session,) = [each for each in await rig.sessions() if each["client_id"] == rig.id("a")]
        await rig.service.delete(f"{rig.at}/sessions/{session['id']}")
    assert await a.closed(2)
    if what == "suspend":
        assert (await rig.code("b")) == 5
    expected = [(rig.own("a") + "/gone", BOOM)] if will_goes else []
    assert [each for each in await rig.seen_by(spy) if each[0].startswith(rig.own("a"))] == expected


async def test_an_expired_token_ends_its_connection_and_sends_its_will(rig: Rig) -> None:
    """Expiry is no punishment: the will goes out if the rules allow it, the session is kept."""
    spy = await rig.spy()
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    await rig.token("a", expires_at=expires)
    a = await will_of(rig)
    assert await a.closed(4)
    assert await rig.seen_by(spy) == [(rig.own("a") + "/gone", BOOM)]
    await rig.token("a")
    again = await rig.client("a", clean=False)
    assert again.session_present


# --- a new grant -----------------------------------------------------------------------------------------------------


async def test_a_changed_rule_holds_for_the_living(rig: Rig) -> None:
    """New rights are there at once; ended ones end for subscriptions made under them, live and kept."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False)
    assert await a.subscribe((rig.own("a") + "/x", 1), (rig.own("a") + "/y", 1)) == [1, 1]
    rules = [
        {"effect": "allow", "action": "subscribe", "topic": "{tenant}/{ground}/{thing}/y"},
        {"effect": "allow", "action": "publish", "topic": "{tenant}/new/{thing}"},
    ]
    await rig.service.patch(f"{rig.at}/thing-definitions/dev", {"rules": rules})
    new = f"{rig.tenant}/new/a"

    async def heard() -> bool:
        await a.publish(new, b"1", qos=1)
        return (new, b"1") in await rig.seen_by(spy)

    await rig.until(heard)
    await a.publish(rig.own("a") + "/x", b"denied", qos=1)
    await spy.publish(rig.own("a") + "/x", b"not to a", qos=1)
    await spy.publish(rig.own("a") + "/y", b"to a", qos=1)
    assert (await a.delivery()).payload == b"to a"
    await a.disconnect()
    rules[0]["topic"] = "{tenant}/{ground}/{thing}/#"
    await rig.service.patch(f"{rig.at}/thing-definitions/dev", {"rules": rules})
    again = await rig.client("a", clean=False)
    await spy.publish(rig.own("a") + "/x", b"not subscribed any more", qos=1)
    await spy.publish(rig.own("a") + "/y", b"still", qos=1)
    assert (await again.delivery()).payload == b"still"


async def test_a_right_that_ended_while_the_client_was_away_ends_what_was_kept(rig: Rig) -> None:
    """The subscription is not restored, and not later either when the right is back."""
    spy = await rig.spy()
    away = await rig.client("a", clean=False)
    assert await away.subscribe((rig.own("a") + "/x", 1), (rig.own("a") + "/y", 1)) == [1, 1]
    await away.disconnect()
    definition = f"{rig.at}/thing-definitions/dev"
    rules = (await rig.service.get(definition))["rules"]
    y = {"effect": "allow", "action": "subscribe", "topic": "{tenant}/{ground}/{thing}/y"}
    await rig.service.patch(definition, {"rules": [y]})
    await spy.publish(rig.own("a") + "/x", b"queued", qos=1)
    restored = await rig.client("a", clean=False)
    await spy.publish(rig.own("a") + "/y", b"1", qos=1)
    assert (await restored.delivery()).payload == b"1"
    await restored.disconnect()
    await rig.service.patch(definition, {"rules": rules})
    again = await rig.client("a", clean=False)
    await spy.publish(rig.own("a") + "/x", b"live", qos=1)
    await spy.publish(rig.own("a") + "/y", b"2", qos=1)
    assert (await again.delivery()).payload == b"2"


# --- the service is away ---------------------------------------------------------------------------------------------


async def test_the_living_go_on_while_the_service_is_away_and_nobody_new_comes(far: tuple[Rig, Proxy]) -> None:
    """Fail closed on CONNECT within its time, bounded staleness for the living; afterwards all is as it was."""
    rig, proxy = far
    a, b = await rig.client("a"), await rig.client("b")
    assert await a.subscribe((rig.own("a") + "/#", 1)) == [1]
    proxy.refusing = True
    proxy.cut()
    await asyncio.to_thread(rig.broker.says, "detached")
    await a.publish(rig.own("a") + "/x", b"1", qos=1)
    assert (await a.delivery()).payload == b"1"
    assert await rig.code("b", rig.id("b2")) == 3
    await rig.service.delete(f"{rig.at}/things/b/tokens/{rig.token_id['b']}")  # nobody can tell Aedes
    proxy.refusing = False
    assert await b.closed(10), "what was revoked meanwhile ends with the comparison"
    await asyncio.to_thread(rig.broker.says, "attached", count=2)
    await rig.until(lambda: admitted(rig, "a", "a2"), patience_s=10)
    await a.publish(rig.own("a") + "/x", b"2", qos=1)
    assert (await a.delivery()).payload == b"2"


async def admitted(rig: Rig, key: str, client_id: str) -> bool:
    return await rig.code(key, rig.id(client_id)) == 0


async def test_a_service_that_does_not_answer_refuses_within_the_time(far: tuple[Rig, Proxy]) -> None:
    """A slow service holds up nobody who is connected, and a CONNECT not for ever."""
    rig, proxy = far
    a = await rig.client("a")
    proxy.stopped = True
    began = time.monotonic()
    trying = asyncio.create_task(rig.code("b"))
    await a.publish(rig.own("a") + "/x", b"1", qos=1)
    assert time.monotonic() - began < 0.9
    assert await trying == 3
    assert 0.9 < time.monotonic() - began < 3
    proxy.stopped = False
    await rig.until(lambda: admitted(rig, "b", "b"), patience_s=15)


async def test_an_answer_that_was_lost_leaves_nobody_behind(far: tuple[Rig, Proxy]) -> None:
    """A take-over whose answer came too late: the older connection, whose session is over, does not live on unknown."""
    rig, proxy = far
    a = await rig.client("a")
    proxy.deaf = True
    assert await rig.code("a") == 3
    proxy.deaf = False
    assert await a.closed(5)
    await rig.until(lambda: admitted(rig, "a", "a"), patience_s=15)


@pytest.mark.parametrize(
    "line",
    [
        b"{broken",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"type":"end"}',
        b'{"type":"end","client_id":7,"rev":1}',
        b'{"type":"grant","session":"x","rev":"1"}',
        b'{"type":"set","id":"x","rev":1,"keys":[1]}',
        b'{"type":"hello"}',
    ],
    ids=["no JSON", "list", "null", "no UTF-8", "end", "end of a number", "grant", "set", "hello"],
)
async def test_a_malformed_event_starts_the_stream_anew(far: tuple[Rig, Proxy], line: bytes) -> None:
    """What cannot be understood is no order and no reason to go on: sessions are compared, and nobody is lost."""
    rig, proxy = far
    a = await rig.client("a")
    proxy.say(line)
    await asyncio.to_thread(rig.broker.says, "attached", count=2)
    await a.publish(rig.own("a") + "/x", b"1", qos=1)
    await rig.revoke("a")
    assert await a.closed(2)


@pytest.mark.parametrize("line", [b'{"type":"of a newer service"}', b'{"type":"beat"}'])
async def test_an_event_of_a_newer_service_is_passed_over(far: tuple[Rig, Proxy], line: bytes) -> None:
    """Only adding is allowed, so what is not known is not meant."""
    rig, proxy = far
    a = await rig.client("a")
    proxy.say(line)
    await rig.revoke("a")
    assert await a.closed(2)
    assert rig.broker.log.read_text().count('"event":"attached"') == 1


async def test_a_killed_service_takes_nobody_with_it_and_finds_everybody_again(tmp_path: Path) -> None:
    """After a power cut the living go on; what is revoked after the restart ends, what changed has changed."""
    service = Process(tmp_path, brokers__aedes__secret=SECRET)
    await service.start()
    try:
        with aedes_broker(tmp_path, service.url, secret=SECRET) as broker:
            rig = Rig(service, broker)
            await rig.cast()
            a, b = await rig.client("a", clean=False), await rig.client("b")
            assert await a.subscribe((rig.own("a") + "/#", 1)) == [1]
            await service.kill()
            await a.publish(rig.own("a") + "/x", b"1", qos=1)
            assert (await a.delivery()).payload == b"1"
            assert await rig.code("b", rig.id("b2")) == 3
            await service.start()
            broker.says("attached", count=2)
            assert {each["client_id"] for each in await rig.sessions()} >= {rig.id("a"), rig.id("b")}
            await rig.revoke("b")
            assert await b.closed(2)
            await a.publish(rig.own("a") + "/x", b"2", qos=1)
            assert (await a.delivery()).payload == b"2"
            took = await service.terminate()
            assert took < 5, "an open event stream does not hold up the end"
    finally:
        await service.close()


# --- several processes -----------------------------------------------------------------------------------------------


async def test_several_nodes_are_ended_and_taken_over_alike(rig: Rig, tmp_path: Path) -> None:
    """What ends, ends wherever it is; a client that comes to another node has left the first."""
    with aedes_broker(tmp_path, rig.service.url, "--node", "second", secret=SECRET) as second:
        spy = await rig.spy()
        here = await will_of(rig)
        rig.service.address = second.address
        there, b = await rig.client("a"), await rig.client("b")
        rig.service.address = rig.broker.address
        assert await here.closed(2)
        assert await rig.seen_by(spy) == [(rig.own("a") + "/gone", BOOM)]
        assert await rig.code("a", rig.id("b")) == 5, "b has it, at the other node"
        await rig.revoke("b")
        assert await b.closed(2)
        await rig.revoke("a")
        assert await there.closed(2)


async def test_two_agents_of_one_node_say_so_and_serve_on(rig: Rig, tmp_path: Path) -> None:
    """A mistake in a configuration is loud, and nobody pays for it."""
    a = await rig.client("a")
    with aedes_broker(tmp_path, rig.service.url, secret=SECRET) as twin:
        await asyncio.to_thread(rig.broker.says, "problem")
        assert "another agent has attached as node `aedes`" in rig.broker.log.read_text()
        rig.service.address = twin.address
        await (await rig.client("b")).publish(rig.own("b") + "/x", b"1", qos=1)
        await a.publish(rig.own("a") + "/x", b"1", qos=1)
    await rig.revoke("a")
    assert await a.closed(10)
