"""A broker behind the gate by TCP, with a real Mosquitto: sessions, backpressure, losses, the gate's own errands."""

from __future__ import annotations

import asyncio
import time

import pytest

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.tcp import TcpUpstream
from broker.tcp.link import TcpLink
from tests.broker.link_owner import Owner, connected, subscribe, turns
from tests.broker.mosquitto import Mosquitto, free_port

A, B, C = "A" * 22, "B" * 22, "C" * 22


@pytest.fixture
async def mosquitto(tmp_path):
    running = Mosquitto(tmp_path)
    await running.start()
    yield running
    running.thaw() if running._process.returncode is None else None
    await running.stop()


@pytest.fixture
async def upstream(mosquitto):
    running = TcpUpstream("127.0.0.1", mosquitto.port, connect_timeout_s=1.0, ping_interval_s=0.2)
    await running.start()
    yield running
    await running.stop()


async def until(condition, *, within_s=5.0):
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_messages_go_through_in_both_directions(upstream):
    """What one session publishes the other receives."""
    one, first = await connected(upstream)
    two, second = await connected(upstream, B)
    await subscribe(one, first, ("x/#", 1))
    two.write(wire.encode_publish("x/1", b"m", qos=1, packet_id=3))
    assert (await first.published())[0].payload == b"m"
    await second.until(lambda: bool(second.of(wire.PUBACK)))


async def test_the_first_deliveries_of_a_subscription_are_not_held_back_for_acknowledgements(tmp_path):
    """Where Mosquitto leaves Nagle's algorithm on, a SUBACK not acknowledged at once holds back what follows it."""
    mosquitto = Mosquitto(tmp_path, nodelay=False)
    await mosquitto.start()
    upstream = TcpUpstream("127.0.0.1", mosquitto.port)
    await upstream.start()
    waits = []
    for upstream_id in (A, B, C):  # the best of them: other work on the machine only adds
        link, owner = await connected(upstream, upstream_id)
        await subscribe(link, owner, ("x", 0))
        link.subscribed([("x", 0)])
        started = time.perf_counter()
        await upstream.publish("x", b"m", qos=0, retain=False)
        await owner.published()
        waits.append(time.perf_counter() - started)
    await upstream.stop()
    await mosquitto.stop()
    assert min(waits) < 0.03  # held back it is 40 ms


async def test_a_unix_socket_serves_as_well(mosquitto):
    """`path` in place of host and port."""
    upstream = TcpUpstream(path=mosquitto.path)
    await upstream.start()
    try:
        assert upstream.reachable
        link, owner = await connected(upstream)
        assert await subscribe(link, owner, ("x", 0)) == b"\x00"
    finally:
        await upstream.stop()


async def test_session_present_is_what_the_broker_says_and_the_queue_comes_after_the_owner_has_the_link(upstream):
    """A resumed session's messages, which follow the CONNACK at once, are not lost and not early."""
    link, owner = await connected(upstream, clean=False)
    assert link.session_present is False
    await subscribe(link, owner, ("x", 1))
    link.write(wire.DISCONNECT_PACKET)
    link.close()
    await link.wait_closed()
    for number in range(50):
        await upstream.publish("x", b"%d" % number, qos=1, retain=False)
    link, owner = await connected(upstream, clean=False)
    assert link.session_present is True
    assert owner.packets == []
    messages = await owner.published(20)  # Mosquitto's window of messages in flight
    assert messages[0].payload == b"0"


async def test_a_wiped_session_does_not_come_back(upstream):
    """`clear_session` takes subscriptions and queue."""
    link, owner = await connected(upstream, clean=False)
    await subscribe(link, owner, ("x", 1))
    link.abort()
    await link.wait_closed()
    await upstream.publish("x", b"waits", qos=1, retain=False)
    await upstream.clear_session(A)
    link, owner = await connected(upstream, clean=False)
    assert link.session_present is False
    await subscribe(link, owner, ("y", 0))
    assert owner.publishes == []


async def test_a_second_connection_of_an_id_waits_for_the_first_to_go(upstream):
    """The owner of the old connection is told once; the new one works."""
    _, old = await connected(upstream, clean=False)
    link, owner = await connected(upstream, clean=False)
    assert old.closed == [None]
    await subscribe(link, owner, ("x", 0))
    assert owner.closed == []


@pytest.mark.parametrize("how", ["close", "abort", "stop"])
async def test_an_end_that_was_asked_for_is_told_once_and_without_an_error(upstream, how):
    """Whoever ends, the owner hears of it exactly once."""
    link, owner = await connected(upstream)
    if how == "stop":
        await upstream.stop()
    else:
        getattr(link, how)()
        getattr(link, how)()
    await link.wait_closed()
    link.close()
    link.abort()
    await turns()
    assert owner.closed == [None]


async def test_a_close_sends_what_was_written_even_if_deliveries_were_not_read(upstream):
    """With bytes unread a plain close would be a reset, which may cost the broker what it has not read."""
    listener, heard = await connected(upstream, C)
    await subscribe(listener, heard, ("last", 1))
    for _ in range(5):
        link, owner = await connected(upstream)
        await subscribe(link, owner, ("flood", 0))
        link.pause()
        link.write(wire.encode_publish("flood", b"p" * 10_000) * 20)
        link.write(wire.encode_publish("last", b"m") * 200)
        link.close()
        await link.wait_closed()
    await heard.published(1000)


async def test_the_loss_of_the_broker_ends_every_session_with_an_error(upstream, mosquitto):
    """Unexpected ends carry a reason; the upstream is no longer reachable, and new sessions are refused."""
    owners = [(await connected(upstream, f"{number:022d}"))[1] for number in range(5)]
    await mosquitto.stop()
    for owner in owners:
        assert isinstance(await owner.ended(), UpstreamUnavailable)
        assert len(owner.closed) == 1
    await until(lambda: not upstream.reachable)
    owner = Owner()
    with pytest.raises(UpstreamUnavailable, match="127.0.0.1"):
        await upstream.connect(owner, A, clean=True)
    with pytest.raises(UpstreamUnavailable):
        await upstream.publish("x", b"", qos=0, retain=False)
    assert owner.closed == []


async def test_the_service_connection_comes_back_by_itself(upstream, mosquitto):
    """After a restart of the broker nobody has to do anything."""
    await mosquitto.stop()
    await until(lambda: not upstream.reachable)
    await mosquitto.start()
    await until(lambda: upstream.reachable)
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 0))
    await upstream.publish("x", b"again", qos=1, retain=False)
    assert (await owner.published())[0].payload == b"again"


async def test_a_broker_that_is_not_there_at_the_start_is_found_later(tmp_path):
    """The order in which gate and broker start does not matter."""
    broker = Mosquitto(tmp_path)
    upstream = TcpUpstream("127.0.0.1", broker.port)
    await upstream.start()
    try:
        assert not upstream.reachable
        await broker.start()
        await until(lambda: upstream.reachable)
    finally:
        await upstream.stop()
        await broker.stop()


async def test_a_broker_that_does_not_answer_is_unreachable_within_ping_and_timeout(upstream, mosquitto):
    """A frozen process accepts connections and answers nothing: the ping tells, and a CONNECT times out."""
    assert upstream.reachable
    mosquitto.freeze()
    owner = Owner()
    with pytest.raises(UpstreamUnavailable):
        await upstream.connect(owner, A, clean=True)
    await until(lambda: not upstream.reachable)
    mosquitto.thaw()
    await until(lambda: upstream.reachable)
    assert owner.closed == []


async def test_a_port_that_speaks_another_protocol_is_an_error():
    """What answers without a CONNACK is not taken for a broker."""

    class Answer(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0)
    upstream = TcpUpstream("127.0.0.1", server.sockets[0].getsockname()[1], connect_timeout_s=1.0)
    with pytest.raises(UpstreamUnavailable):
        await upstream.connect(Owner(), A, clean=True)
    server.close()


async def test_nobody_listening_is_an_error_that_names_the_address():
    """The message says where the broker was looked for."""
    port = free_port()
    with pytest.raises(UpstreamUnavailable, match=f"127.0.0.1:{port}"):
        await TcpUpstream("127.0.0.1", port).connect(Owner(), A, clean=True)


async def test_a_slow_broker_pauses_the_client_and_a_fast_one_resumes_it(upstream, mosquitto):
    """What the broker does not take is not read from the client."""
    link, owner = await connected(upstream)
    mosquitto.freeze()
    packet = wire.encode_publish("x", b"p" * 100_000)
    for _ in range(200):
        link.write(packet)
        await turns(1)
        if owner.client_paused:
            break
    await owner.until(lambda: owner.client_paused == [True])
    mosquitto.thaw()
    await owner.until(lambda: owner.client_paused == [True, False])


async def test_a_paused_link_delivers_nothing_until_it_is_resumed(upstream):
    """Backpressure towards the broker: its socket is not read."""
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 0))
    link.pause()
    await upstream.publish("x", b"m", qos=1, retain=False)
    await asyncio.sleep(0.05)
    assert owner.publishes == []
    link.resume()
    await owner.published()


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_the_gate_publishes_in_its_own_name_with_every_qos(upstream, qos):
    """Wills whose link is gone go out here."""
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 2))
    await upstream.publish("x", b"will", qos=qos, retain=False)
    assert [(message.payload, message.qos) for message in await owner.published()] == [(b"will", qos)]


async def test_retained_messages_at_a_place_and_below_are_cleared_and_no_others(upstream):
    """Thousands of them too; those of a neighbour whose name begins alike stay."""
    for number in range(1500):
        await upstream.publish(f"t/g/a/{number}", b"p" * 100, qos=0, retain=True)
    await upstream.publish("t/g/a", b"m", qos=1, retain=True)
    await upstream.publish("t/g/ab/x", b"m", qos=1, retain=True)
    await upstream.clear_retained("t/g/a")
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("t/#", 0))
    await owner.published()
    link.write(wire.PINGREQ_PACKET)
    await owner.until(lambda: bool(owner.of(wire.PINGRESP)))
    assert [message.topic for message in owner.publishes] == ["t/g/ab/x"]


async def test_an_unknown_pubrel_is_answered_by_the_broker(upstream):
    """The capability `answers_pubrel` of Mosquitto's defaults is true."""
    link, owner = await connected(upstream)
    link.write(wire.encode_ack(wire.PUBREL, 9))
    await owner.until(lambda: bool(owner.of(wire.PUBCOMP)))
    assert upstream.capabilities.answers_pubrel


async def test_a_cancelled_connect_leaves_nothing_behind(upstream, mosquitto):
    """A client that has gone while it was connected upstream gives up its place."""
    mosquitto.freeze()
    owner = Owner()
    task = asyncio.create_task(upstream.connect(owner, A, clean=True))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    mosquitto.thaw()
    await until(lambda: not upstream._links or set(upstream._links) != {A} and A not in upstream._links)
    assert owner.closed == []


class EndedTransport(asyncio.Transport):
    """As uvloop's: whoever uses it after its end is told so by an exception."""

    def __init__(self):
        super().__init__()
        self.ended = False

    def __getattribute__(self, name):
        if name not in {"ended", "get_extra_info"} and object.__getattribute__(self, "ended"):
            raise RuntimeError(f"`{name}` of a closed transport")
        return object.__getattribute__(self, name)

    def write(self, data): ...
    def is_closing(self):
        return False


async def test_what_is_said_on_a_link_that_the_broker_ended_is_said_to_nobody():
    """A farewell may wait for an answer when the broker ends the connection: what it says then is no accident."""
    owner = Owner()
    link = TcpLink(owner, A, clean=True, gone=lambda _: None)
    transport = EndedTransport()
    link.connection_made(transport)
    transport.ended = True
    link.connection_lost(None)
    link.write(b"\xe0\0")
    link.pause()
    link.resume()
    link.subscribed([("a", 1)])
    link.close()
    link.abort()
    await link.wait_closed()
