"""Before the session: what a connection may do until its CONNECT is answered, and what a refusal leaves behind."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.credentials import WillMessage
from authsvc.core.facts import Kind, Name, Refusal
from authsvc.core.reasons import Reason
from authsvc.sessions import Admitted
from broker import wire
from broker.limits import Limits
from broker.listeners import Listener
from broker.upstream import Upstream
from tests.broker.gate_rig import Rig, rig_on
from tests.broker.raw_client import RawClient

CONNECT_A = wire.encode_connect(client_id="a", username="", password=b"a")
BAD = wire.encode_connect(client_id="a", username="", password=b"wrong")


@pytest.fixture(params=["amqtt"])
async def upstream(request: pytest.FixtureRequest, tmp_path):
    """These tests do not depend on the broker: the one in this process."""
    from tests.broker.upstreams import started

    async with started(request.param, tmp_path) as running:
        yield running


@pytest.mark.parametrize(
    "first",
    [
        wire.PINGREQ_PACKET,
        wire.encode_publish("t/g/a/x", b""),
        bytes.fromhex("f000"),
        bytes.fromhex("f0"),
        b"\0" * 1_000_000,
        bytes.fromhex("10ffffff7f"),
        bytes.fromhex("10ffffffff7f"),
        bytes.fromhex("108080808001"),
        bytes.fromhex("100E00044D51545404" + "02003C0002FFFE"),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
    ids=["ping", "publish", "auth", "0xf0", "zeros", "huge", "5-byte-length", "long-length", "bad-utf8", "http", "tls"],
)
async def test_what_is_no_connect_closes_without_an_answer(rig: Rig, first: bytes) -> None:
    """Closed within a second, nothing answered."""
    client = await rig.open()
    await client.send(first)
    with pytest.raises(Exception) as caught:
        await client.next_packet(1.0)
    assert "Closed" in repr(caught.type)
    assert len(rig.gate) == 0


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        (b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x03abc", b"\x20\x03\x00\x84\x00"),
        (b"\x10\x0f\x00\x04MQTT\x06\x02\x00\x00\x00\x03abc", b"\x20\x02\x00\x01"),
        (b"\x10\x0f\x00\x04MQTT\x03\x02\x00\x00\x00\x03abc", b"\x20\x02\x00\x01"),
    ],
    ids=["5.0", "6", "MQTT-3"],
)
async def test_another_protocol_level_is_answered_and_closed(rig: Rig, packet: bytes, answer: bytes) -> None:
    """MQTT-3.1.2-2, and 5.0 clients get an answer that they understand."""
    client = await rig.open()
    await client.send(packet)
    assert await client.next_packet() == answer
    assert await client.closed(1.0)


async def test_mqtt_3_1_is_spoken(rig: Rig) -> None:
    """MQIsdp, level 3: repeated SUBSCRIBE with DUP too, no session present flag."""
    a = await rig.client("a", level=wire.MQTT_3_1, clean=False)
    subscribe = wire.encode_subscribe(5, [("t/g/a/#", 1)])
    await a.send(bytes((subscribe[0] | 0x08,)) + subscribe[1:])
    await a.expect(wire.SUBACK)
    await a.publish("t/g/a/x", b"1", qos=2)
    assert (await a.delivery()).payload == b"1"
    a.cut()
    a = await rig.client("a", level=wire.MQTT_3_1, clean=False)
    assert not a.session_present
    await a.publish("t/g/a/x", b"2", qos=1)
    assert (await a.delivery()).payload == b"2"


async def test_what_follows_a_connect_is_kept_until_it_is_admitted(rig: Rig) -> None:
    """3.1.4: a client need not wait for its CONNACK."""
    spy = await rig.spy()
    rig.service.may_admit.clear()
    client = await rig.open()
    await client.send(CONNECT_A + wire.encode_publish("t/g/a/x", b"early", qos=1, packet_id=1))
    rig.service.may_admit.set()
    assert await client.connack() == 0
    await client.expect(wire.PUBACK)
    assert await rig.seen_by(spy) == [("t/g/a/x", b"early")]


async def test_what_follows_a_refused_connect_is_never_processed(rig: Rig) -> None:
    """MQTT-3.1.4-5: nothing sent after a refused CONNECT has an effect."""
    spy = await rig.spy()
    client = await rig.open()
    await client.send(BAD + wire.encode_publish("t/g/a/x", b"no", qos=0) + CONNECT_A)
    assert await client.connack() == 4
    assert await client.closed(1.5)
    assert await rig.seen_by(spy) == []


async def test_a_flood_before_the_connack_is_not_kept_without_bound(rig: Rig) -> None:
    """The gate stops reading; what the client sends stays in its own socket."""
    rig.service.may_admit.clear()
    client = await rig.open()
    await client.send(CONNECT_A)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            while True:
                await client.send(wire.encode_publish("t/g/a/x", b"x" * 60_000))
    (connection,) = rig.gate._connections
    assert len(connection.arrival.early) < 600_000
    rig.service.may_admit.set()
    assert await client.connack() == 0
    await client.ping()


async def test_a_refused_connect_leaves_the_holder_alone(rig: Rig) -> None:
    """Wrong credentials with a known client id, clean and not: the holder does not notice."""
    a = await rig.client("a", clean=False)
    await a.subscribe(("t/g/a/#", 1))
    for n in range(20):
        other = await rig.open()
        will = WillMessage(topic="t/g/a/will", payload=b"no", qos=1, retain=True)
        assert await other.connect("a", "wrong", clean=bool(n % 2), will=will) == 4
        assert await other.closed(1.5)
    await a.publish("t/g/a/x", b"still here", qos=1)
    assert (await a.delivery()).payload == b"still here"


async def test_a_client_that_is_gone_gives_up_its_place(rig: Rig) -> None:
    """Of many that wait for their admission and go, none is admitted later, and none is counted on."""
    rig.service.may_admit.clear()
    clients = [await rig.open() for _ in range(8)]
    for client in clients:
        await client.send(CONNECT_A)
    async with asyncio.timeout(2):
        while rig.service.admissions < 8:
            await asyncio.sleep(0)
        for client in clients:
            client.cut()
        while len(rig.gate) or any(task.get_name().startswith("admission") for task in asyncio.all_tasks()):
            await asyncio.sleep(0.001)
    rig.service.may_admit.set()
    await rig.client("a")
    assert len(rig.service.sessions) == 1


async def test_a_client_gone_while_its_session_is_connected_upstream_leaves_nothing(rig: Rig) -> None:
    """Cut at every moment of the admission: no session is left behind, and the next one is admitted."""
    for turns in range(30):
        client = await rig.open()
        await client.send(CONNECT_A)
        for _ in range(turns):
            await asyncio.sleep(0)
        client.cut()
    a = await rig.client("a", "other")
    async with asyncio.timeout(3):
        while len(rig.service.sessions) != 1 or len(rig.gate) != 1:
            await asyncio.sleep(0.001)
    await a.ping()


async def test_a_change_during_admission_starts_it_again(rig: Rig) -> None:
    """Races of section 4: what the admission rests on changed after it was read."""
    rig.service.may_admit.clear()
    client = await rig.open()
    await client.send(CONNECT_A)
    async with asyncio.timeout(2):
        while not rig.service.admissions:
            await asyncio.sleep(0)
    rig.service.feed.touch(Name(Kind.THING, "t", "a"))
    rig.service.may_admit.set()
    assert await client.connack() == 0
    assert rig.service.admissions == 2


async def test_what_keeps_changing_is_refused_after_three_attempts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three attempts, then CONNACK 3; and the holder of the session was never ended for it."""
    a = await rig.client("a")
    admit = rig.service.admit

    async def admit_and_touch(*args: object, **kwargs: object) -> object:
        admitted = await admit(*args, **kwargs)
        rig.service.feed.touch(Name(Kind.THING, "t", "a"))
        return admitted

    monkeypatch.setattr(rig.service, "admit", admit_and_touch)
    before = rig.service.admissions
    other = await rig.open()
    assert await other.connect("a", "a") == 3
    assert rig.service.admissions - before == 3
    assert rig.service.refused[-1].reason is Reason.STORE_UNAVAILABLE
    await a.ping()


@pytest.mark.parametrize("why", ["refused", "overtaken"])
async def test_a_connect_that_gets_no_upstream_session_leaves_the_holder_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Its row cannot be written, or what it rests on changes while it is: the session goes on that it wanted."""
    a = await rig.client("a")
    upstream_session = rig.service.upstream_session

    async def fails(admitted: Admitted) -> tuple[str, bool] | Refusal:
        if why == "refused":
            return Refusal(reason=Reason.STORE_UNAVAILABLE, detail="it cannot be written")
        rig.service.feed.touch(Name(Kind.THING, "t", "a"))
        return await upstream_session(admitted)

    monkeypatch.setattr(rig.service, "upstream_session", fails)
    other = await rig.open()
    assert await other.connect("a", "a", clean=False) == 3
    assert rig.service.refused[-1].reason is Reason.STORE_UNAVAILABLE
    await a.ping()
    assert len(rig.service.sessions) == 1


async def test_an_empty_client_id_needs_a_clean_session(rig: Rig) -> None:
    """MQTT-3.1.3-8: CONNACK 2; with a clean session a fresh id is given."""
    client = await rig.open()
    assert await client.connect("", "a", clean=False) == 2
    assert await client.closed(1.5)
    await rig.client("a", "")
    await RawClient.connected(rig.address, "", "a")
    assert len(rig.service.sessions) == 2


async def test_a_second_connect_closes_the_connection(rig: Rig) -> None:
    """MQTT-3.1.0-2: no rights of the second are used, the will of the first is sent."""
    spy = await rig.spy()
    a = await rig.client("a", will=WillMessage(topic="t/g/a/will", payload=b"w", qos=0, retain=False))
    await a.send(wire.encode_connect(client_id="spy", username="", password=b"spy"))
    await a.send(wire.encode_publish("t/g/b/x", b"no"))
    assert await a.closed()
    assert (await spy.delivery()).topic == "t/g/a/will"
    assert await rig.seen_by(spy) == []


async def test_an_accident_is_not_a_yes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in an admission refuses it as unavailable."""

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(rig.service, "upstream_session", broken)
    client = await rig.open()
    assert await client.connect("a", "a") == 3
    assert await client.closed(1.5)


async def test_silence_is_ended_and_admission_is_bounded(upstream: Upstream) -> None:
    """Nothing, a first byte or a trickle does not hold a socket beyond the limit; neither does a slow store."""
    async with rig_on(upstream, limits=Limits(connect_s=0.3, admission_s=0.3)) as rig:
        silent, begun = await rig.open(), await rig.open()
        await begun.send(CONNECT_A[:1])
        assert await silent.closed(2)
        assert await begun.closed(2)
        rig.service.may_admit.clear()
        client = await rig.open()
        assert await client.connect("a", "a") == 3


async def test_the_longest_silent_makes_room_for_those_who_speak(upstream: Upstream) -> None:
    """Silent sockets never lock out a client with a valid token, and the operator can read why they were closed."""
    async with rig_on(upstream, limits=Limits(max_before_connect=10)) as rig:
        silent = [await rig.open() for _ in range(15)]
        a = await rig.client("a")
        await a.ping()
        assert await silent[0].closed(1)
        assert len(rig.gate) <= 11
        assert {refusal.reason for refusal in rig.service.refused} == {Reason.CONNECTION_LIMIT}


async def test_connections_are_bounded_by_gate_and_listener(upstream: Upstream) -> None:
    """Beyond the limit a connection is closed at once, with a reason recorded; room comes back."""
    async with rig_on(upstream, limits=Limits(max_connections=3)) as rig:
        small = await rig.gate.listen(Listener(name="small", host="127.0.0.1", port=0, max_connections=1))
        first = await RawClient.connected(small, "1", "a")
        second = await RawClient.open(small)
        assert await second.connect("2", "a") is None
        await rig.client("a", "3")
        await rig.client("a", "4")
        over = await rig.open()
        assert await over.connect("5", "a") is None
        assert {refusal.reason for refusal in rig.service.refused} == {Reason.CONNECTION_LIMIT}
        await first.disconnect()
        async with asyncio.timeout(2):
            while len(rig.gate) > 2:
                await asyncio.sleep(0.001)
        await RawClient.connected(small, "6", "a")


async def test_back_off_is_for_failing_connects_only(upstream: Upstream) -> None:
    """Too many wrong tokens from one address get 3; a valid one from there is admitted as ever."""
    async with rig_on(upstream, limits=Limits(failed_connect_burst=5, failed_connects_per_s=0.001)) as rig:
        codes = []
        for _ in range(8):
            client = await rig.open()
            codes.append(await client.connect("x", "wrong"))
        assert codes == [4, 4, 4, 4, 4, 3, 3, 3]
        assert [refusal.reason.value for refusal in rig.service.refused] == ["unknown_token"] * 5 + ["rate_limited"] * 3
        assert "this one: unknown_token, no such thing" in rig.service.refused[-1].detail
        await rig.client("a")
