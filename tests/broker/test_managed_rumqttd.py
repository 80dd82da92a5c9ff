"""What rumqttd does, each line that the gate relies on; and what stands between it and the gate."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.limits import Limits
from broker.managed.rumqttd import NEVER, RUMQTTD, listens, managed_rumqttd
from broker.tcp import TcpUpstream
from broker.tcp.link import TcpLink
from broker.upstream import Hello
from tests.broker.link_owner import Owner, connected, subscribe, unsubscribe
from tests.broker.upstreams import somebody

A, B = "A" * 22, "B" * 22


@pytest.fixture
async def upstream(tmp_path: Path):
    pytest.importorskip("iotcore")
    running = managed_rumqttd(tmp_path / "rumqttd", limits=Limits(), run_as=somebody())
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def bare(upstream):
    """The same broker without what stands between."""
    plain = TcpUpstream(dial=upstream._dial, dial5=upstream._dial5, capabilities=RUMQTTD, mqtt5="no")
    await plain.start()
    yield plain
    await plain.stop()


async def answered(link, owner: Owner) -> None:
    """Return when everything written before has been answered."""
    before = len(owner.of(wire.PINGRESP))
    link.write(wire.PINGREQ_PACKET)
    await owner.until(lambda: len(owner.of(wire.PINGRESP)) > before)


# --- the contract: when one of these fails, a release has changed, and a workaround may go ---------------------------


async def test_a_stranger_is_not_let_in(upstream):
    """Only the gate knows user and password; both listeners ask, and refuse for nothing else."""
    for dial, level in ((upstream._dial, wire.MQTT_3_1_1), (upstream._dial5, wire.MQTT_5_0)):
        for login in ({"username": None, "password": None}, {"password": b"guessed"}, {}):
            stranger = TcpUpstream(dial=replace(dial, **login))
            connecting = stranger.connect(Owner(), A, clean=True, hello=Hello(level=level))
            if login:
                with pytest.raises(UpstreamUnavailable):
                    await connecting
            else:
                (await connecting).abort()


async def test_it_listens_on_loopback_with_two_ports_and_nothing_else(upstream):
    """No console, no HTTP, no metrics."""
    psutil = pytest.importorskip("psutil")
    listening = [c.laddr for c in psutil.Process(upstream.child.pid).net_connections() if c.status == "LISTEN"]
    assert sorted(port for _, port in listening) == sorted((upstream._dial.port, upstream._dial5.port))
    assert {ip for ip, _ in listening} == {"127.0.0.1"}


async def test_contract_an_unknown_pubrel_ends_the_connection(bare):
    """`answers_pubrel` is false."""
    link, owner = await connected(bare)
    link.write(wire.encode_ack(wire.PUBREL, 9))
    await owner.ended()
    assert RUMQTTD.answers_pubrel is False


async def test_contract_an_acknowledgement_out_of_order_ends_the_connection(bare):
    """The gate acknowledges at once what it withholds: `rumqttd_link` puts that in order."""
    link, owner = await connected(bare)
    await subscribe(link, owner, ("x", 1))
    for number in range(2):
        link.write(wire.encode_publish("x", b"m", qos=1, packet_id=number + 1))
    first, second = await owner.published(2)
    link.write(wire.encode_ack(wire.PUBACK, second.packet_id))
    await owner.ended()
    assert first.packet_id < second.packet_id <= 100


async def test_contract_an_unsubscribe_is_answered_for_each_filter_that_was_held(bare):
    """Once for each, and never for one that was not."""
    link, owner = await connected(bare)
    await subscribe(link, owner, ("x", 0), ("y", 0))
    link.write(wire.encode_unsubscribe(5, ["x", "y", "z"]))
    await answered(link, owner)
    assert len(owner.of(wire.UNSUBACK)) == 2


async def test_contract_a_dollar_filter_ends_the_connection(bare):
    """`dollar_topics` is false."""
    link, owner = await connected(bare)
    link.write(wire.encode_subscribe(1, [("$SYS/#", 0)]))
    await owner.ended()
    assert RUMQTTD.dollar_topics is False


async def test_contract_a_repeated_filter_keeps_its_first_qos(bare):
    """`deduplicates_subscriptions` is false: UNSUBSCRIBE goes before a repeated one."""
    link, owner = await connected(bare)
    await subscribe(link, owner, ("x", 0))
    await subscribe(link, owner, ("x", 1), packet_id=2)
    link.write(wire.encode_publish("x", b"m", qos=1, packet_id=1))
    assert [message.qos for message in await owner.published()] == [0]
    assert RUMQTTD.deduplicates_subscriptions is False


async def test_contract_groups_are_told_apart_by_name_only(bare):
    """`shared_subscriptions` is false: the group `g` of one filter takes the place of `g` of another."""
    one, first = await connected(bare, A)
    two, second = await connected(bare, B)
    await subscribe(one, first, ("$share/g/x", 0))
    await subscribe(two, second, ("$share/g/y", 0))
    for _ in range(10):
        one.write(wire.encode_publish("x", b"m"))
    await answered(one, first)
    assert len(first.publishes) < 10, "each message of x has one receiver, and who holds y is none"
    assert RUMQTTD.shared_subscriptions is False


async def test_contract_any_empty_message_clears_a_retained_one(bare):
    """`retained` is false: a rule on the retain flag would not protect them."""
    link, owner = await connected(bare)
    link.write(wire.encode_publish("x", b"kept", retain=True))
    link.write(wire.encode_publish("x", b""))
    await subscribe(link, owner, ("x", 0))
    await answered(link, owner)
    assert owner.publishes == []
    assert RUMQTTD.retained is False


async def test_contract_a_message_arrives_with_the_qos_of_the_subscription(bare):
    """Not the lower of the two, as 3.8.4 has it: docs/brokers/rumqttd.md says so."""
    link, owner = await connected(bare)
    await subscribe(link, owner, ("x", 1))
    link.write(wire.encode_publish("x", b"m"))
    assert [message.qos for message in await owner.published()] == [1]


async def test_contract_a_session_and_its_queue_wait_for_the_client(upstream):
    """Session present is said, and what came meanwhile is delivered."""
    link, owner = await connected(upstream, clean=False)
    assert not link.session_present
    await subscribe(link, owner, ("x", 1))
    link.write(wire.DISCONNECT_PACKET)
    link.close()
    await link.wait_closed()
    for number in range(20):
        await upstream.publish("x", b"%d" % number, qos=1, retain=False)
    link, owner = await connected(upstream, clean=False)
    assert link.session_present
    assert [message.payload for message in await owner.published(20)] == [b"%d" % n for n in range(20)]


async def test_contract_what_was_not_acknowledged_is_sent_again(upstream):
    """After a break of the connection."""
    link, owner = await connected(upstream, clean=False)
    await subscribe(link, owner, ("x", 1))
    await upstream.publish("x", b"m", qos=1, retain=False)
    await owner.published()
    link.abort()
    await link.wait_closed()
    _, owner = await connected(upstream, clean=False)
    assert (await owner.published())[0].payload == b"m"


async def test_contract_a_topic_that_nobody_subscribes_is_no_error(upstream):
    """A filter `#` is always there, so that a PUBLISH has somewhere to go."""
    link, owner = await connected(upstream)
    link.write(wire.encode_publish("nobody/hears", b"m", qos=1, packet_id=1))
    await owner.until(lambda: bool(owner.of(wire.PUBACK)))


# --- what stands between ---------------------------------------------------------------------------------------------


async def test_messages_of_every_qos_go_through(upstream):
    """QoS 2 with both its handshakes."""
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 2))
    link.write(wire.encode_publish("x", b"0"))
    link.write(wire.encode_publish("x", b"1", qos=1, packet_id=1))
    link.write(wire.encode_publish("x", b"2", qos=2, packet_id=2))
    await owner.until(lambda: bool(owner.of(wire.PUBREC)))
    link.write(wire.encode_ack(wire.PUBREL, 2))
    await owner.until(lambda: bool(owner.of(wire.PUBCOMP)))
    messages = await owner.published(3)
    assert sorted(message.payload for message in messages) == [b"0", b"1", b"2"]
    for message in messages:
        link.write(wire.encode_ack(wire.PUBREC, message.packet_id))
    await owner.until(lambda: len(owner.of(wire.PUBREL)) == 3)
    for message in reversed(messages):  # in an order that rumqttd would not take
        link.write(wire.encode_ack(wire.PUBCOMP, message.packet_id))
    await answered(link, owner)
    assert owner.closed == []


async def test_acknowledgements_wait_for_those_before_them(upstream):
    """Out of order, twice, and of nothing: the session goes on, and nothing is sent again."""
    link, owner = await connected(upstream, clean=False)
    await subscribe(link, owner, ("x", 1))
    for number in range(150):  # more than rumqttd has under way at once
        link.write(wire.encode_publish("x", b"%d" % number, qos=1, packet_id=number + 1))
    taken = 0
    while taken < 150:
        messages = (await owner.published(min(150, taken + 50)))[taken:]
        taken += len(messages)
        for message in reversed(messages):
            link.write(wire.encode_ack(wire.PUBACK, message.packet_id) * 2)
    link.write(wire.encode_ack(wire.PUBACK, 77))
    await answered(link, owner)
    assert owner.closed == []
    assert [message.payload for message in owner.publishes] == [b"%d" % n for n in range(150)]
    link.abort()
    await link.wait_closed()
    link, owner = await connected(upstream, clean=False)
    await answered(link, owner)
    assert owner.publishes == []


@pytest.mark.parametrize("level", [wire.MQTT_3_1_1, wire.MQTT_5_0])
async def test_an_unsubscribe_is_answered_once(upstream, level):
    """Whatever was held, in order with what was sent before; the filters are gone."""
    owner = Owner()
    link = await upstream.connect(owner, A, clean=True, hello=Hello(level=level))
    codec = wire.codec_of(level)
    link.write(codec.encode_subscribe(1, [("x", 0), ("y", 0)]))
    link.write(codec.encode_unsubscribe(5, ["x", "y", "z"]))
    link.write(codec.encode_publish("x", b"m", qos=1, packet_id=3))
    await answered(link, owner)
    (unsuback,) = owner.of(wire.UNSUBACK)
    answer = codec.unsuback(unsuback)
    assert answer.packet_id == 5
    assert owner.of(wire.PUBLISH) == []
    assert owner.closed == []


async def test_a_pubrel_after_a_reconnect_is_answered_here(upstream):
    """rumqttd has forgotten the exchange, and would end every connection that tries to finish it."""
    link, owner = await connected(upstream, clean=False)
    link.write(wire.encode_publish("x", b"2", qos=2, packet_id=2))
    await owner.until(lambda: bool(owner.of(wire.PUBREC)))
    link.abort()
    await link.wait_closed()
    link, owner = await connected(upstream, clean=False)
    link.write(wire.encode_ack(wire.PUBREL, 2))
    await owner.until(lambda: bool(owner.of(wire.PUBCOMP)))
    await answered(link, owner)
    assert owner.closed == []


@pytest.mark.parametrize("level", [wire.MQTT_3_1_1, wire.MQTT_5_0])
async def test_retained_messages_are_sent_after_the_suback_as_fast_as_they_are_acknowledged(upstream, level):
    """All of 300 with the lower QoS, 32 at a time; an empty one clears."""
    for number in range(300):
        upstream.retain(f"r/{number}", b"%d" % number, qos=1)
    upstream.retain("r/0", b"", qos=0)
    owner = Owner()
    link = await upstream.connect(owner, A, clean=True, hello=Hello(level=level))
    codec = wire.codec_of(level)
    link.write(codec.encode_subscribe(1, [("r/#", 2)]))
    await owner.until(lambda: bool(owner.of(wire.SUBACK)))
    link.subscribed([("r/#", 2)])
    seen: list[wire.Publish] = []
    while (count := len(seen)) < 299:
        await owner.until(lambda count=count: len(owner.of(wire.PUBLISH)) > count)
        new = [codec.publish(packet, from_server=True) for packet in owner.of(wire.PUBLISH)[len(seen) :]]
        assert len(new) <= 32
        seen += new
        for message in new:
            link.write(codec.encode_ack(wire.PUBACK, message.packet_id))
    assert {message.payload for message in seen} == {b"%d" % number for number in range(1, 300)}
    assert all(message.retain and message.qos == 1 for message in seen)
    await answered(link, owner)
    assert owner.closed == []


async def test_a_session_that_starts_clean_and_is_to_stay_stays(upstream):
    """Clean start and expiry of MQTT 5.0 are two things: the old session goes, the new one is there the next time."""
    stays = Hello(level=wire.MQTT_5_0, session_expiry_s=3600)
    codec = wire.codec_of(5)
    link, owner = await connected(upstream, clean=False)
    await subscribe(link, owner, ("old", 1))
    link.abort()
    await link.wait_closed()
    owner = Owner()
    link = await upstream.connect(owner, A, clean=True, hello=stays)
    assert not link.session_present
    link.write(codec.encode_subscribe(1, [("new", 1)]))
    await owner.until(lambda: bool(owner.of(wire.SUBACK)))
    link.abort()
    await link.wait_closed()
    await upstream.publish("old", b"old", qos=1, retain=False)
    await upstream.publish("new", b"new", qos=1, retain=False)
    owner = Owner()
    link = await upstream.connect(owner, A, clean=False, hello=stays)
    assert link.session_present
    await owner.until(lambda: bool(owner.of(wire.PUBLISH)))
    assert [codec.publish(p, from_server=True).payload for p in owner.of(wire.PUBLISH)] == [b"new"]


async def test_it_is_restarted_on_other_ports_and_used_again(upstream):
    """Killed: clients are told, and within seconds there is a new one."""
    link, owner = await connected(upstream)
    before = upstream.child.pid
    password = upstream._dial.password
    assert len(password) >= 32
    os.kill(before, 9)
    assert isinstance(await owner.ended(), UpstreamUnavailable)
    async with asyncio.timeout(10):
        while upstream.child.pid in {None, before} or not upstream.reachable:
            await asyncio.sleep(0.02)
    assert upstream._dial.password == upstream._dial5.password != password
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 0))
    await unsubscribe(link, owner, "x")


async def test_an_end_never_costs_another_his_connection(upstream):
    """rumqttd tells the end of a connection by the number of its place, which may have been given away meanwhile."""

    async def leaves(name: str) -> None:
        for number in range(60):
            link, _ = await connected(upstream, name * 22)
            link.write(wire.DISCONNECT_PACKET)
            link.abort() if number % 2 else link.close()
            await link.wait_closed()

    async def stays(name: str) -> None:
        for _ in range(60):
            link, owner = await connected(upstream, name * 22)
            await answered(link, owner)
            await asyncio.sleep(0.002)
            await answered(link, owner)
            assert owner.closed == []
            link.close()
            await link.wait_closed()

    async with asyncio.TaskGroup() as tasks:
        for name in "abcdef":
            tasks.create_task(leaves(name))
            tasks.create_task(stays(name.upper()))


@pytest.mark.parametrize(("expiry_s", "present"), [(0, False), (1, False), (3600, True)])
async def test_a_session_of_5_ends_when_its_time_is_over(upstream, expiry_s, present):
    """rumqttd would keep each for ever."""
    hello = Hello(level=wire.MQTT_5_0, session_expiry_s=expiry_s)
    link = await upstream.connect(Owner(), A, clean=False, hello=hello)
    link.close()
    await link.wait_closed()
    await asyncio.sleep(1.2 if expiry_s == 1 else 0.1)
    link = await upstream.connect(Owner(), A, clean=False, hello=hello)
    assert link.session_present is present


@pytest.mark.parametrize("level", [wire.MQTT_3_1_1, wire.MQTT_5_0])
async def test_large_packets_pass(upstream, level):
    """What the gate lets through, rumqttd takes."""
    owner = Owner()
    link = await upstream.connect(owner, A, clean=True, hello=Hello(level=level))
    codec = wire.codec_of(level)
    link.write(codec.encode_subscribe(1, [("big", 1)]))
    await owner.until(lambda: bool(owner.of(wire.SUBACK)))
    payload = b"p" * (Limits().max_packet_bytes - 20)
    link.write(codec.encode_publish("big", payload, qos=1, packet_id=1))
    await owner.until(lambda: bool(owner.of(wire.PUBLISH)))
    assert codec.publish(owner.of(wire.PUBLISH)[0], from_server=True).payload == payload


@pytest.mark.parametrize("how", ["reconnect", "take-over"])
async def test_who_is_back_in_time_keeps_the_session_when_that_time_is_over(upstream, how):
    """The time begins anew with the end of the new connection."""
    link = await upstream.connect(Owner(), A, clean=False, hello=Hello(level=wire.MQTT_5_0, session_expiry_s=1))
    if how == "reconnect":
        link.close()
        await link.wait_closed()
    owner = Owner()
    link = await upstream.connect(owner, A, clean=False, hello=Hello(level=wire.MQTT_5_0, session_expiry_s=60))
    assert link.session_present
    await asyncio.sleep(1.3)
    assert owner.closed == []
    assert not upstream._clearing
    await answered(link, owner)


@pytest.mark.parametrize("how", ["reconnect", "take-over"])
async def test_who_is_back_while_the_session_is_being_ended_gets_a_new_one(upstream, how):
    """And keeps it: the end of the old one is awaited."""
    for name in ("A", "B", "C", "D"):
        link = await upstream.connect(Owner(), name * 22, clean=False, hello=Hello(level=wire.MQTT_5_0))
        if how == "reconnect":
            link.close()
            while name * 22 not in upstream._clearing:
                await asyncio.sleep(0)
        owner = Owner()
        began = asyncio.get_running_loop().time()
        link = await upstream.connect(owner, name * 22, clean=False, hello=Hello(level=wire.MQTT_5_0))
        assert not link.session_present
        await answered(link, owner)
        assert asyncio.get_running_loop().time() - began < 2, "and it waits for no time that is to run out"
        assert not upstream._clearing
        assert owner.closed == []


async def test_a_take_over_ends_the_older_connection_in_order(upstream, monkeypatch):
    """Not by a reset, which may cost another his connection."""
    resets = []
    monkeypatch.setattr(TcpLink, "abort", lambda self: resets.append(self))
    _, first = await connected(upstream)
    link, second = await connected(upstream)
    assert first.closed == [None]
    await answered(link, second)
    assert resets == []
    monkeypatch.undo()


async def test_the_stop_leaves_no_time_running_and_no_session_being_ended(upstream):
    """Of sessions that are away, and of those that the stop itself ends."""
    for name, expiry_s in ((A, 1), (B, 3600), ("C" * 22, NEVER)):
        link = await upstream.connect(Owner(), name, clean=False, hello=Hello(level=5, session_expiry_s=expiry_s))
        link.close()
        await link.wait_closed()
    timers = dict(upstream._expiring)
    assert timers.keys() == {A, B}
    await upstream.connect(Owner(), "D" * 22, clean=False, hello=Hello(level=wire.MQTT_5_0))
    await upstream.stop()
    assert all(timer.cancelled() for timer in timers.values())
    assert not upstream._clearing
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("expiry of")] == []


async def test_retained_messages_are_the_gates_and_rumqttd_has_none(upstream):
    """Published live without the flag, kept beside; cleared by place."""
    await upstream.publish("r/x", b"m", qos=1, retain=True)
    await upstream.publish("r/y", b"m", qos=1, retain=False)
    assert [message.topic for message in upstream.kept.match("#")] == ["r/x"]
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("r/#", 1))
    await answered(link, owner)
    assert owner.publishes == []
    await upstream.clear_retained("r")
    assert len(upstream.kept) == 0


def test_only_the_process_that_listens_is_taken_for_it():
    """Nobody listens, or another process, or that one, with a client or without, or there is a second listener."""
    with socket.socket() as serving, socket.socket() as second:
        for one in (serving, second):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        serving.bind(("127.0.0.1", 0))
        port = serving.getsockname()[1]
        with subprocess.Popen(["/bin/sleep", "60"], pass_fds=(serving.fileno(), second.fileno())) as holder:
            try:
                assert not listens(holder.pid, port)
                serving.listen()
                assert listens(holder.pid, port)
                assert not listens(os.getppid(), port)
                with socket.create_connection(("127.0.0.1", port)), serving.accept()[0]:
                    assert listens(holder.pid, port)
                second.bind(("127.0.0.1", port))
                second.listen()
                assert not listens(holder.pid, port)
            finally:
                holder.kill()


async def test_a_session_of_5_goes_on_for_a_client_of_3_1_1(upstream):
    """With what it has queued, properties and all, which a link of 3.1.1 would be ended over."""
    owner = Owner()
    hello = Hello(level=wire.MQTT_5_0, session_expiry_s=3600)
    link = await upstream.connect(owner, A, clean=False, hello=hello)
    link.write(wire.codec_of(5).encode_subscribe(1, [("x", 1)]))
    await owner.until(lambda: bool(owner.of(wire.SUBACK)))
    link.close()
    await link.wait_closed()
    await upstream.publish("x", b"m", qos=1, retain=False, properties=b"\x01\x01")
    link, owner = await connected(upstream, clean=False)
    assert link.session_present
    assert [message.payload for message in await owner.published(1)] == [b"m"]
    await subscribe(link, owner, ("x", 1))
    assert owner.closed == []


async def test_who_takes_its_port_when_it_has_died_is_told_nothing(upstream):
    """Any user of the machine may listen where it did: until it serves again the gate connects to nobody."""
    ports = [upstream._dial.port, upstream._dial5.port]
    callers = []

    def called():
        callers.append(1)
        return asyncio.Protocol()

    await upstream.child.stop()
    loop = asyncio.get_running_loop()
    squatters = [await loop.create_server(called, "127.0.0.1", port) for port in ports]
    async with asyncio.timeout(5):
        while upstream.reachable:
            await asyncio.sleep(0.01)
    for level in (wire.MQTT_3_1_1, wire.MQTT_5_0):
        with pytest.raises(UpstreamUnavailable):
            await upstream.connect(Owner(), A, clean=True, hello=Hello(level=level))
        with pytest.raises(UpstreamUnavailable):
            await upstream.publish("x", b"will", qos=1, retain=False, properties=b"\x01\x01" if level == 5 else b"")
    await asyncio.sleep(0.5)  # the service connection is tried again within this time
    assert callers == []
    for squatter in squatters:
        squatter.close()
