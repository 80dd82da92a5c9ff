"""What ends what: connections, wills, sessions and their queues; take-over, revocation, shutdown."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.reasons import Reason
from authsvc.sessions import Will
from authsvc.store.clearings import Clearing, ClearingKind
from broker import wire
from broker.upstream import Upstream
from tests.broker.gate_rig import Rig, rig_on, session_of, will
from tests.broker.scripted import OWN


async def gone(connection) -> None:
    """Wait until the gate has noticed the end, and said its farewell."""
    async with asyncio.timeout(5):
        while not connection.is_ended:
            await asyncio.sleep(0.001)
        await connection.wait_ended()


async def _cut(rig: Rig, client) -> None:
    client.cut()


async def _malformed(rig: Rig, client) -> None:
    await client.send(b"\x30\x01\x00")


async def _kick(rig: Rig, client) -> None:
    assert rig.service.sessions.kick(session_of(rig).id, tenant="t")


async def _expire(rig: Rig, client) -> None:
    rig.service.sessions.end(session_of(rig), Reason.TOKEN_EXPIRED, Will.SEND)


async def _shut_down(rig: Rig, client) -> None:
    session_of(rig).connection.end(Reason.SHUTTING_DOWN, Will.SEND)


async def _taken_over(rig: Rig, client) -> None:
    await rig.client("a")


SENDING = [_cut, _malformed, _kick, _expire, _shut_down, _taken_over]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("end", SENDING, ids=lambda end: end.__name__.strip("_"))
async def test_the_will_is_sent(rig: Rig, end, qos: int) -> None:
    """Loss, protocol error, kick, expiry, shutdown and take-over send it, once."""
    spy = await rig.spy()
    a = await rig.client("a", will=will(qos=qos))
    await end(rig, a)
    assert (await spy.delivery()).topic == "t/g/a/will"
    assert await a.closed()
    assert await rig.seen_by(spy) == []


async def _disconnect(rig: Rig, client) -> None:
    await client.send(wire.DISCONNECT_PACKET + rig.codec.encode_publish("t/g/a/x", b"no"))


async def _revoke(rig: Rig, client) -> None:
    rig.service.sessions.end(session_of(rig), Reason.TOKEN_REVOKED, Will.NEVER)


@pytest.mark.parametrize("end", [_disconnect, _revoke], ids=lambda end: end.__name__.strip("_"))
async def test_the_will_is_not_sent(rig: Rig, end) -> None:
    """DISCONNECT drops it, and whatever the client sends after it; a revocation suppresses it."""
    spy = await rig.spy()
    a = await rig.client("a", will=will(qos=1))
    connection = session_of(rig).connection
    await end(rig, a)
    assert await a.closed()
    await connection.wait_ended()
    assert await rig.seen_by(spy) == []


async def test_the_will_comes_after_all_that_the_client_sent(rig: Rig) -> None:
    """It goes out on the client's own upstream connection."""
    spy = await rig.spy()
    a = await rig.client("a", will=will())
    await a.send(b"".join(rig.codec.encode_publish("t/g/a/n", b"%d" % n) for n in range(300)))
    a.writer.close()
    got = [await spy.delivery() for _ in range(301)]
    assert [p.topic for p in got] == ["t/g/a/n"] * 300 + ["t/g/a/will"]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_the_will_waits_for_no_answer_to_a_queue(rig: Rig, qos: int) -> None:
    """A client that comes back and is lost before it has acknowledged what waited for it: its will is sent at once."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False)
    assert await a.subscribe(("t/g/a/q", 2)) == [2]
    await rig.lost(a)
    for _ in range(3):
        await spy.publish("t/g/a/q", b"waits", qos=2)
        assert (await spy.delivery()).topic == "t/g/a/q"
    a = await rig.client("a", clean=False, will=will(qos=qos))
    for packet in (rig.codec.encode_publish("t/g/a/n", b"n", qos=2, packet_id=1), rig.codec.encode_ack(wire.PUBREL, 1)):
        await a.send(packet)
        while (await a.next_packet())[0] not in {wire.PUBREC, wire.PUBCOMP}:
            pass  # of what waited: not acknowledged
    async with asyncio.timeout(1):
        await rig.lost(a)
        assert [(await spy.delivery()).topic for _ in range(2)] == ["t/g/a/n", "t/g/a/will"]


async def test_the_will_is_judged_again_when_it_fires(rig: Rig) -> None:
    """A right that went meanwhile takes the will with it."""
    spy = await rig.spy()
    a = await rig.client("a", will=will())
    connection = session_of(rig).connection
    rig.service.regrant("a", OWN[1:])
    a.cut()
    await gone(connection)
    assert await rig.seen_by(spy) == []


async def test_a_retained_will_is_retained(rig: Rig) -> None:
    """Whoever subscribes later gets it with the flag."""
    a = await rig.client("a", will=will(qos=1, retain=True))
    connection = session_of(rig).connection
    a.cut()
    await gone(connection)
    spy = await rig.spy()
    delivery = await spy.delivery()
    assert (delivery.topic, delivery.retain) == ("t/g/a/will", True)


async def test_a_will_is_sent_when_the_upstream_link_is_gone(rig: Rig) -> None:
    """It then goes out on the gate's service connection, and the client's connection ends with the link."""
    spy = await rig.spy()
    a = await rig.client("a", will=will(qos=1))
    session_of(rig).connection.link.abort()
    assert await a.closed()
    assert (await spy.delivery()).topic == "t/g/a/will"


async def test_silence_beyond_the_keep_alive_ends_the_connection(rig: Rig) -> None:
    """MQTT-3.1.2-24: after one and a half of it, not before, and its will is sent; pings keep it alive."""
    spy = await rig.spy()
    loop = asyncio.get_running_loop()
    a = await rig.client("a", keep_alive_s=1, will=will())
    for _ in range(3):
        await asyncio.sleep(0.6)
        await a.ping()
    spoke = loop.time()
    assert await a.closed(3)
    assert 1.4 < loop.time() - spoke < 2.5
    assert (await spy.delivery()).topic == "t/g/a/will"


# --- take-over -----------------------------------------------------------------------------------------------


async def test_a_take_over_keeps_the_session_and_ends_the_old_connection(rig: Rig) -> None:
    """The same principal resumes: session present, subscription and all, and one live connection."""
    old = await rig.client("a", clean=False)
    await old.subscribe(("t/g/a/#", 1))
    new = await rig.client("a", clean=False)
    assert new.session_present
    assert await old.closed()
    await new.publish("t/g/a/x", b"1", qos=1)
    assert (await new.delivery()).payload == b"1"


async def test_two_principals_may_use_one_client_id(rig: Rig) -> None:
    """A client id is no way to somebody else's session; both live, and neither gets the other's messages."""
    a = await rig.client("a", "same", clean=False)
    await a.subscribe(("t/g/a/#", 1))
    b = await rig.client("b", "same", clean=False)
    assert not b.session_present
    await b.subscribe(("t/g/b/#", 1))
    await a.publish("t/g/a/x", b"a", qos=1)
    await b.publish("t/g/b/x", b"b", qos=1)
    assert (await a.delivery()).payload == b"a"
    assert (await b.delivery()).payload == b"b"
    await a.ping()
    await b.ping()


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])
async def test_a_storm_of_take_overs_leaves_exactly_one(rig: Rig, clean: bool) -> None:
    """Eight at once, five rounds: each is answered, one is left, and that one works."""
    for _ in range(5):
        clients = await asyncio.gather(*(rig.client("a", clean=clean) for _ in range(8)))
        (session,) = rig.service.sessions.find("t", thing="a")
        living = [c for c in clients if c.writer.get_extra_info("sockname")[1] == int(session.peer.split(":")[1])]
        others = [c for c in clients if c not in living]
        assert all(await asyncio.gather(*(client.closed() for client in others)))
        (last,) = living
        await last.subscribe(("t/g/a/#", 1))
        await last.publish("t/g/a/x", b"1", qos=1)
        assert (await last.delivery()).payload == b"1"


async def test_clean_session_forgets(rig: Rig) -> None:
    """MQTT-3.1.2-6: after a clean session nothing of an older or of that one is resumed."""
    a = await rig.client("a", clean=False)
    await a.subscribe(("t/g/a/#", 1))
    await a.disconnect()
    a = await rig.client("a", clean=True)
    assert not a.session_present
    await a.subscribe(("t/g/a/old", 1))
    await a.disconnect()
    a = await rig.client("a", clean=False)
    assert not a.session_present
    await a.subscribe("t/g/a/end")
    await a.publish("t/g/a/old", qos=1)
    await a.publish("t/g/a/end", qos=1)
    assert await a.deliveries_until("t/g/a/end") == []


async def test_what_is_wiped_is_cleared_upstream_when_its_connection_is_gone(rig: Rig) -> None:
    """A clearing of a session in use waits for its end, sends no will of it, and takes the queue with it."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False, will=will())
    await a.subscribe(("t/g/a/#", 1))
    session = session_of(rig)
    upstream_id = rig.service.rows[(session.principal, "a")]
    rig.service.store.add(Clearing(id=1, kind=ClearingKind.SESSION, target=upstream_id, since_us=0))
    await a.ping()
    assert rig.service.store.waiting
    rig.service.sessions.end(session, Reason.TOKEN_REVOKED, Will.NEVER)
    async with asyncio.timeout(5):
        while rig.service.store.waiting:
            await asyncio.sleep(0.001)
    assert await rig.seen_by(spy) == []
    assert not (await rig.client("a", clean=False)).session_present


async def test_retained_messages_of_a_blocked_place_are_cleared(rig: Rig) -> None:
    """A clearing of kind retained empties the place and what is below it, and nothing beside it."""
    spy = await rig.client("spy")
    for topic in ("t/g/a", "t/g/a/x/y", "t/g/ab"):
        await spy.publish(topic, b"r", qos=1, retain=True)
    rig.service.store.add(Clearing(id=1, kind=ClearingKind.RETAINED, target="t/g/a", since_us=0))
    async with asyncio.timeout(5):
        while rig.service.store.waiting:
            await asyncio.sleep(0.001)
    await spy.subscribe(("t/g/#", 1))
    await spy.publish("t/g/end", qos=1)
    assert [p.topic for p in await spy.deliveries_until("t/g/end")] == ["t/g/ab"]


async def test_a_clearing_that_fails_for_itself_does_not_hold_up_the_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays on the list and is tried again with the next commit; nothing ends the task that clears."""
    clear, failing, asked = rig.upstream.clear_retained, True, []

    async def fails_at_first(place: str) -> None:
        asked.append(place)
        if failing and place == "t/g/bad":
            raise OSError("whatever the broker made of it")
        await clear(place)

    monkeypatch.setattr(rig.upstream, "clear_retained", fails_at_first)
    for number, place in enumerate(("t/g/bad", "t/g/good")):
        rig.service.store.add(Clearing(id=number, kind=ClearingKind.RETAINED, target=place, since_us=0))
    async with asyncio.timeout(5):
        while [clearing.target for clearing in rig.service.store.waiting] != ["t/g/bad"]:
            await asyncio.sleep(0.001)
        failing = False
        rig.service.store.add(Clearing(id=2, kind=ClearingKind.RETAINED, target="t/g/last", since_us=0))
        while rig.service.store.waiting:
            await asyncio.sleep(0.001)
    assert {"t/g/bad", "t/g/good", "t/g/last"} == set(asked)


# --- shutdown ------------------------------------------------------------------------------------------------


async def test_closing_the_gate_sends_wills_and_keeps_sessions(upstream: Upstream) -> None:
    """SIGTERM: every connection ends within 5 s, its will is sent, its persistent session is there afterwards."""
    async with rig_on(upstream) as other:
        spy = await other.spy()
        async with rig_on(upstream) as rig:
            clients = [await rig.client("a", f"c{n}", clean=False, will=will(qos=n % 3)) for n in range(12)]
            for client in clients:
                await client.subscribe(("t/g/a/q", 1))
            rows = dict(rig.service.rows)
            started = asyncio.get_running_loop().time()
            await rig.gate.close()
            assert asyncio.get_running_loop().time() - started < 5
            for _ in range(12):
                assert (await spy.delivery()).topic == "t/g/a/will"
        async with rig_on(upstream) as again:
            again.service.rows.update(rows)
            assert (await again.client("a", "c3", clean=False)).session_present
