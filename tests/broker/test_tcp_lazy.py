"""Links that connect with the first packet: order, bounds, ends, what clients see of them. With a real Mosquitto."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from authsvc.core.errors import UpstreamUnavailable
from authsvc.core.reasons import Reason
from authsvc.sessions import Will
from broker import wire
from broker.limits import Limits
from broker.tcp import TcpUpstream
from broker.tcp.lazy import KEPT_BYTES
from broker.upstream import Hello
from tests.broker.gate_rig import rig_on, session_of, will
from tests.broker.link_owner import Owner, connected, subscribe, turns
from tests.broker.mosquitto import Mosquitto
from tests.broker.raw_client import RawClient

A, B = "A" * 22, "B" * 22


@pytest.fixture
async def mosquitto(tmp_path):
    running = Mosquitto(tmp_path)
    await running.start()
    yield running
    running.thaw() if running._process.returncode is None else None
    await running.stop()


@pytest.fixture
async def upstream(mosquitto):
    running = TcpUpstream("127.0.0.1", mosquitto.port, connect_timeout_s=1.0)
    await running.start()
    yield running
    if running._service._task is not None:
        mosquitto.thaw() if mosquitto._process.returncode is None else None
        await running.stop()


def publish(n: int, qos: int = 1) -> bytes:
    return wire.encode_publish("x/1", b"%d" % n, qos=qos, packet_id=n % 60_000 + 1 if qos else None)


async def test_a_link_that_says_nothing_costs_the_broker_nothing(upstream):
    """It is no connection, and its end is told at once, once, and waits for nobody."""
    for end in ("close", "abort"):
        owner = Owner()
        link = upstream.postponed(owner, A)
        assert (link.used, link.session_present, upstream._links.keys() & {A}) == (False, False, set())
        getattr(link, end)()
        assert owner.closed == [None]
        link.write(publish(1))
        link.close()
        link.abort()
        await link.wait_closed()
        await turns()
        assert (link.used, owner.closed, upstream._links.keys() & {A}) == (False, [None], set())


async def test_what_is_written_before_the_link_is_open_arrives_first_and_in_order(upstream):
    """A thousand packets, most of them while it opens, then some more on the open link."""
    reader, seen = await connected(upstream, B)
    await subscribe(reader, seen, ("x/#", 0))
    owner = Owner()
    link = upstream.postponed(owner, A)
    for n in range(900):
        link.write(publish(n))
    await owner.until(lambda: len(owner.of(wire.PUBACK)) >= 1)
    for n in range(900, 1000):
        link.write(publish(n))
    got = await seen.published(1000)
    assert [int(p.payload) for p in got] == list(range(1000))


async def test_a_client_waits_while_enough_is_kept(mosquitto, upstream):
    """Held at the bound, and let go when the broker has it."""
    mosquitto.freeze()
    owner = Owner()
    link = upstream.postponed(owner, A)
    link.write(b"".join(publish(n) for n in range(100)))
    assert owner.client_paused == []
    link.write(b"".join(publish(n) for n in range(KEPT_BYTES // len(publish(100)) + 1)))
    assert owner.client_paused == [True]
    mosquitto.thaw()
    await owner.until(lambda: owner.client_paused == [True, False])
    await owner.until(lambda: len(owner.of(wire.PUBACK)) > 1000)


async def test_a_link_that_is_closed_while_it_opens_still_sends_what_was_written(upstream):
    """Publish, DISCONNECT, close, all before the broker has answered."""
    reader, seen = await connected(upstream, B)
    await subscribe(reader, seen, ("x/#", 0))
    owner = Owner()
    link = upstream.postponed(owner, A)
    link.write(publish(7, qos=0))
    link.write(wire.DISCONNECT_PACKET)
    link.close()
    link.write(publish(8, qos=0))
    await link.wait_closed()
    assert [p.payload for p in await seen.published()] == [b"7"]
    assert owner.closed == [None]


@pytest.mark.parametrize("turned", [0, 1, 3])
async def test_a_link_that_is_aborted_while_it_opens_sends_nothing_and_leaves_nothing(mosquitto, upstream, turned):
    """Whether its task has begun or not; the broker keeps no connection of it."""
    reader, seen = await connected(upstream, B)
    await subscribe(reader, seen, ("x/#", 0))
    mosquitto.freeze()
    owner = Owner()
    link = upstream.postponed(owner, A)
    link.write(publish(7, qos=0))
    await turns(turned)
    link.abort()
    assert owner.closed == [None]
    await link.wait_closed()
    mosquitto.thaw()
    assert A not in upstream._links
    reader.write(wire.encode_publish("x/last", b""))
    assert [p.topic for p in await seen.published()] == ["x/last"]
    assert owner.closed == [None]


async def test_a_link_that_cannot_be_opened_ends_with_the_reason(mosquitto, upstream):
    """A broker that does not answer in time; the owner is told once."""
    mosquitto.freeze()
    owner = Owner()
    link = upstream.postponed(owner, A)
    link.write(publish(1))
    assert isinstance(await owner.ended(), UpstreamUnavailable)
    await link.wait_closed()
    assert len(owner.closed) == 1
    assert upstream.reachable, "it is the failure itself that counts, and not the next ping"
    assert upstream.postponed(Owner(), A) is None
    mosquitto.thaw()
    await connected(upstream, B)
    assert upstream.postponed(Owner(), A) is not None


async def test_nothing_is_postponed_where_the_answer_is_not_known(mosquitto, upstream):
    """While the broker is away, in 5.0 before it spoke 5.0, nor where a client asks for an answer of its own."""
    five = Hello(level=wire.MQTT_5_0)
    assert upstream.postponed(Owner(), A, hello=five).connack.topic_alias_maximum == 10  # Mosquitto's own
    assert upstream.postponed(Owner(), A, hello=Hello(level=5, request_response_information=True)) is None
    silent = TcpUpstream("127.0.0.1", mosquitto.port, mqtt5="yes")
    await silent.start()
    assert silent.postponed(Owner(), A, hello=five) is None
    assert silent.postponed(Owner(), A) is not None
    link = await silent.connect(Owner(), B, clean=True, hello=five)
    assert silent.postponed(Owner(), A, hello=five).connack == link.connack
    await silent.stop()
    assert silent.postponed(Owner(), A) is None


async def test_only_the_answer_to_a_session_of_the_same_kind_is_known_beforehand(upstream):
    """One that stays, or that asked for more, may have been answered otherwise."""
    known = upstream._connack5
    for more in ({"session_expiry_s": 60}, {"request_response_information": True}):
        link = await upstream.connect(Owner(), B, clean=True, hello=Hello(level=5, **more))
        assert link.connack is not known
        assert upstream._connack5 is known
    link = await upstream.connect(Owner(), B, clean=False, hello=Hello(level=5))
    assert upstream._connack5 is known


async def test_the_stop_ends_links_that_were_never_opened(upstream):
    """Their owners are told; and what opens is a session that starts clean."""
    owner, seen = Owner(), []
    real = upstream.connect

    def connect(*arguments, **options):
        seen.append(options["clean"])
        return real(*arguments, **options)

    upstream.connect = connect
    unused, used = upstream.postponed(owner, A), upstream.postponed(Owner(), B)
    used.write(publish(1))
    await turns()
    assert seen == [True]
    await upstream.stop()
    assert len(owner.closed) == 1
    await unused.wait_closed()


async def test_sessions_without_a_link_end_with_the_broker(mosquitto, upstream):
    """As those that have one: nobody stays connected to a broker that has gone, and nobody new gets in."""
    async with rig_on(upstream) as rig:
        quiet = [await rig.client(thing) for thing in ("a", "b")]
        await mosquitto.stop()
        assert [await client.closed() for client in quiet] == [True, True]
        assert rig.service.sessions.ended[Reason.BROKER_UNAVAILABLE] == 2
        assert await (await rig.open()).connect("a", "a") == 3
        assert not upstream._postponed


async def test_a_broker_that_says_something_else_by_now_ends_the_session(upstream):
    """What the client was told in its CONNACK would not be true."""
    five = Hello(level=wire.MQTT_5_0)
    upstream._connack5 = replace(upstream._connack5, maximum_qos=1)
    owner = Owner()
    link = upstream.postponed(owner, A, hello=five)
    link.write(wire.codec_of(5).encode_publish("x", b"1"))
    await owner.ended()
    await link.wait_closed()
    assert len(owner.closed) == 1


# --- behind the gate -----------------------------------------------------------------------------------------


async def test_connections_that_say_nothing_open_no_link_and_others_one(upstream):
    """CONNECT, PINGREQ, DISCONNECT, and the next: nothing upstream; a persistent session and a SUBSCRIBE: one each."""
    async with rig_on(upstream) as rig:
        before = set(upstream._links)  # the gate's own
        for _ in range(3):
            quiet = await rig.client("a")
            await quiet.ping()
            await quiet.send(wire.DISCONNECT_PACKET)
            assert await quiet.closed()
        assert set(upstream._links) <= before
        assert not rig.gate._leaving
        await rig.client("a", clean=False)
        assert len(upstream._links.keys() - before) == 1
        reader = await rig.client("b")
        assert len(upstream._links.keys() - before) == 1
        await reader.subscribe(("t/g/b/in", 1))
        assert len(upstream._links.keys() - before) == 2


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_the_will_of_a_client_that_said_nothing_is_sent_before_the_next_connack(upstream, level, qos):
    """By take-over: on the gate's own connection, for the client has none."""
    async with rig_on(upstream, level=level) as rig:
        spy = await rig.client("spy")
        await spy.subscribe(("t/#", 2))
        await rig.client("a", will=will(qos=qos))
        new = await rig.client("a")
        await new.publish("t/g/a/new", qos=1)
        assert [(await spy.delivery()).topic for _ in range(2)] == ["t/g/a/will", "t/g/a/new"]


async def test_a_session_that_is_ended_before_its_link_is_open_sends_nothing(mosquitto, upstream):
    """A revocation in the moment between the client's first message and the broker's answer."""
    async with rig_on(upstream) as rig:
        spy = await rig.client("spy")
        await spy.subscribe(("t/#", 1))
        mosquitto.freeze()
        client = await rig.client("a", will=will())
        await client.send(wire.encode_publish("t/g/a/x", b"1", qos=1, packet_id=1))
        session = session_of(rig, "a")
        async with asyncio.timeout(2):
            while not session.connection.link.used:
                await asyncio.sleep(0.001)
        rig.service.sessions.end(session, Reason.TOKEN_REVOKED, Will.NEVER)
        assert await client.closed()
        mosquitto.thaw()
        assert await rig.seen_by(spy) == []


async def test_a_client_whose_link_cannot_be_opened_is_sent_away(mosquitto, upstream):
    """It had its CONNACK; nothing that it sent was acknowledged; with the broker back it gets in and through."""
    async with rig_on(upstream, limits=Limits()) as rig:
        mosquitto.freeze()
        client = await rig.client("a")
        await client.send(wire.encode_publish("t/g/a/x", b"1", qos=1, packet_id=1))
        assert await client.closed()
        assert rig.service.sessions.ended[Reason.BROKER_UNAVAILABLE] == 1
        mosquitto.thaw()
        again: RawClient = await rig.client("a")
        await again.publish("t/g/a/x", qos=1)


async def test_a_session_that_starts_clean_and_is_to_stay_has_its_link_at_once(upstream):
    """MQTT 5.0: what its client comes back to has to be there, whether it said anything or not."""
    async with rig_on(upstream, level=5) as rig:
        before = set(upstream._links)
        await rig.client("a", clean=True, session_expiry_s=100)
        assert len(upstream._links.keys() - before) == 1
