"""What an admitted client may cost: expensive packets, answers nobody takes, and brokers that do not answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest

from authsvc.core.facts import Effect, Kind, Name, Role, Rule, RuleAction
from authsvc.core.reasons import Reason
from broker import wire
from broker.limits import Limits
from broker.tcp import TcpUpstream
from broker.upstream import Upstream
from tests.broker.gate_rig import Rig, refused, rig_on, session_of, will
from tests.broker.mosquitto import Mosquitto
from tests.broker.scripted import OWN
from tests.broker.test_gate import DENY_SECRET


@pytest.fixture
async def mosquitto(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    broker = Mosquitto(tmp_path)
    await broker.start()
    yield broker
    broker.thaw()
    await broker.stop()


@pytest.fixture
async def tcp(mosquitto: Mosquitto) -> AsyncIterator[TcpUpstream]:
    upstream = TcpUpstream("127.0.0.1", mosquitto.port, connect_timeout_s=2.0)
    await upstream.start()
    yield upstream
    mosquitto.thaw()
    await upstream.stop()


class Stalls:
    """Measures the longest time in seconds for which the loop ran nothing else."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(0.001)
            before, passed = loop.time(), loop.time() - before
            self.worst = max(self.worst, passed)


# --- expensive packets ---------------------------------------------------------------------------------------


async def test_a_subscribe_of_65000_filters_is_answered_in_full_and_stalls_nobody(rig: Rig) -> None:
    """One code each, those beyond the number a session may hold a refusal without being looked at."""
    a = await rig.client("a")
    full = wire.reason_codes.QUOTA_EXCEEDED if rig.is5 else wire.SUBACK_REFUSED
    filters = [("b", 0)] * 990 + [(f"t/g/a/{n}", 1) for n in range(10)] + [("t/g/a/x", 0)] * 20_000
    async with Stalls() as stalls:
        codes = await a.subscribe(*filters)
        await a.ping()
    assert codes == [refused(rig)] * 990 + [1] * 10 + [full] * 20_000
    assert stalls.worst < 0.5
    assert len(rig.service.denials) <= 60


async def test_unsubscribes_of_many_filters_behind_many_subscribes_stall_nobody(
    tcp: TcpUpstream, mosquitto: Mosquitto
) -> None:
    """A broker that does not answer, hundreds of open SUBSCRIBEs, and an UNSUBSCRIBE of 20,000 filters."""
    async with rig_on(tcp) as rig:
        a, b = await rig.client("a"), await rig.client("b")
        await a.subscribe(("t/g/a/0", 0))  # its link is open
        mosquitto.freeze()
        for n in range(1, 900):
            await a.send(rig.codec.encode_subscribe(n, [(f"t/g/a/{n}", 0)]))
        async with Stalls() as stalls:
            await a.send(rig.codec.encode_unsubscribe(1000, [f"t/g/a/{n}" for n in range(20_000)]))
            await a.ping()
            await b.ping()
        assert stalls.worst < 0.5
        mosquitto.thaw()
        assert rig.codec.unsuback(await a.expect(wire.UNSUBACK)).packet_id == 1000
        assert not session_of(rig).connection.state.subscriptions


async def test_subscribes_without_answer_are_bounded(tcp: TcpUpstream, mosquitto: Mosquitto) -> None:
    """Also those that repeat what the session holds: packets, and filters in them."""
    async with rig_on(tcp, limits=Limits(max_subscriptions=10)) as rig:
        for packets, filters in ((11, 1), (6, 8)):
            a = await rig.client("a")
            pairs = [(f"t/g/a/{n}", 0) for n in range(filters)]
            await a.subscribe(*pairs)
            mosquitto.freeze()
            for n in range(1, packets + 1):
                await a.send(rig.codec.encode_subscribe(n, pairs))
            assert await a.closed(2)
            mosquitto.thaw()


DOLLAR = Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="$SYS/#")


async def test_a_permitted_dollar_topic_is_kept_from_a_broker_that_takes_none(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second PUBLISH to it is no more remembered as permitted than the first was: the connection goes on."""
    monkeypatch.setattr("tests.broker.scripted.Role", platform_role)
    rig.service.rules["a"] = (*OWN, DOLLAR)
    a = await rig.client("a")
    written: list[bytes] = []
    connection = session_of(rig).connection
    connection.link = _Tap(connection.link, written)
    for qos in (0, 1, 1, 0, 0, 2):
        await a.publish("$SYS/x", b"no", qos=qos)
    await a.publish("t/g/a/x", b"yes", qos=1)
    reached = any(b"$SYS/x" in chunk for chunk in written)
    assert reached == rig.upstream.capabilities.dollar_topics


def platform_role(*, tenant: str, key: str, name: str, rules: tuple[Rule, ...]):
    return Role(tenant="", key=key, name=name, rules=rules)


class _Tap:
    """A link that also keeps what it is given."""

    def __init__(self, link, written: list[bytes]) -> None:
        self._link = link
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(data)
        self._link.write(data)

    def __getattr__(self, name: str):
        return getattr(self._link, name)


# --- slow sides ----------------------------------------------------------------------------------------------


async def test_a_slow_client_holds_the_broker_also_behind_a_backlog(rig: Rig) -> None:
    """Deliveries that take several turns of the loop do not make the gate read on for a client that does not."""
    rig.service.rules["a"] = (*OWN, DENY_SECRET)
    a = await rig.client("a")
    connection = session_of(rig).connection
    calls: list[str] = []

    class Link(_Tap):
        def pause(self) -> None:
            calls.append("pause")

        def resume(self) -> None:
            calls.append("resume")

    connection.link = Link(connection.link, [])
    connection.pause_writing()
    denied = rig.codec.encode_publish("t/g/a/secret/x", b"")
    connection.upstream_received(denied * 1200)
    connection.upstream_received(rig.codec.encode_publish("t/g/a/last", b""))
    assert (await a.delivery()).topic == "t/g/a/last"
    await asyncio.sleep(0)
    assert calls == ["pause"]
    connection.resume_writing()
    assert calls == ["pause", "resume"]


async def test_nothing_is_sent_to_a_client_after_its_end(rig: Rig) -> None:
    """What the broker delivers while the farewell is said goes nowhere."""
    a = await rig.client("a", will=will(qos=1))
    connection = session_of(rig).connection
    await a.send(wire.DISCONNECT_PACKET)
    async with asyncio.timeout(2):
        while not connection.is_ended:
            await asyncio.sleep(0)
    connection.upstream_received(rig.codec.encode_publish("t/g/a/x", b"late"))
    assert await a.closed()
    assert a.received == []


async def test_a_flood_of_large_packets_leaves_room_for_a_ping(rig: Rig) -> None:
    """One client sends packets of 200 KiB as fast as they are taken; another's PING is answered within a second."""
    a, b = await rig.client("a"), await rig.client("b")
    big = rig.codec.encode_publish("t/g/a/x", bytes(200 * 1024))

    async def flood() -> None:
        while True:
            await a.send(big)

    flooding = asyncio.create_task(flood())
    try:
        for _ in range(20):
            async with asyncio.timeout(1):
                await b.ping()
    finally:
        flooding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flooding


# --- wills and take-overs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_take_over_does_not_wait_for_a_will_that_was_taken(rig: Rig, qos: int) -> None:
    """The will's acknowledgement is seen among others: the new CONNACK comes at once, and behind the will."""
    spy = await rig.spy()
    await rig.client("a", will=will(qos=qos))
    started = asyncio.get_running_loop().time()
    new = await rig.client("a")
    assert asyncio.get_running_loop().time() - started < 0.7
    await new.publish("t/g/a/new", qos=1)
    assert [(await spy.delivery()).topic for _ in range(2)] == ["t/g/a/will", "t/g/a/new"]


async def test_a_farewell_that_fails_lets_the_session_go(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with a will, the upstream session is left and the next CONNECT gets it."""

    def broken(*_: object) -> bool:
        raise RuntimeError("broken for the test")

    monkeypatch.setattr("broker.wills._may_send", broken)
    old = await rig.client("a", clean=False, will=will())
    await rig.client("b")
    new = await rig.client("a", clean=False)
    assert new.session_present
    assert await old.closed()
    await new.ping()


# --- an upstream that does not answer ------------------------------------------------------------------------


async def test_a_connect_is_answered_in_time_whatever_must_be_undone(tcp: TcpUpstream, mosquitto: Mosquitto) -> None:
    """CONNACK 3 after the admission's limit, with the reason that it was the broker; and it works again afterwards."""
    async with rig_on(tcp, limits=Limits(admission_s=0.4)) as rig:
        mosquitto.freeze()
        client = await rig.open()
        started = asyncio.get_running_loop().time()
        assert await client.connect("a", "a", clean=False) == 3
        assert asyncio.get_running_loop().time() - started < 1.0
        assert [refusal.reason for refusal in rig.service.refused] == [Reason.BROKER_UNAVAILABLE]
        rig.service.may_admit.clear()
        assert await (await rig.open()).connect("b", "b") == 3
        assert rig.service.refused[-1].reason is Reason.STORE_UNAVAILABLE
        rig.service.may_admit.set()
        mosquitto.thaw()
        await rig.client("a")


async def test_a_link_that_does_not_let_go_does_not_delay_the_answer(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session's lock stays taken until the broker has let go; the client has its CONNACK long before."""
    connect = upstream.connect
    let_go = asyncio.Event()

    class Sticky(_Tap):
        async def wait_closed(self) -> None:
            await let_go.wait()

    async def slow(owner, upstream_id: str, *, clean: bool, **hello):
        link = Sticky(await connect(owner, upstream_id, clean=clean), [])
        rig.service.feed.touch(Name(Kind.THING, "t", "a"))
        return link

    monkeypatch.setattr(upstream, "connect", slow)
    rig.gate.limits = Limits(admission_s=0.3)
    client = await rig.open()
    async with asyncio.timeout(1):
        assert await client.connect("a", "a", clean=False) == (0x88 if rig.is5 else 3)
    assert rig.gate.admission.tasks, "the lock is still held"
    monkeypatch.setattr(upstream, "connect", connect)
    let_go.set()
    await rig.client("a")
