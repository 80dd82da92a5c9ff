"""The broker behind goes away and comes back: told at once, opened a few at a time, nothing that it saved is lost."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.tcp import TcpUpstream
from tests.broker.link_owner import Owner, connected, subscribe
from tests.broker.mosquitto import Mosquitto, free_port

A, B = "A" * 22, "B" * 22


async def until(condition, *, within_s=8.0):
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def mosquitto(tmp_path):
    running = Mosquitto(tmp_path, persistence=True)
    await running.start()
    yield running
    await running.stop()


async def killed(mosquitto: Mosquitto) -> None:
    mosquitto._process.send_signal(signal.SIGKILL)
    await mosquitto._process.wait()
    mosquitto.path.unlink(missing_ok=True)


async def test_while_the_broker_is_away_a_session_is_refused_at_once(mosquitto):
    """Nobody waits for what is known; the message says that it is tried again."""
    upstream = TcpUpstream(path=mosquitto.path, connect_timeout_s=5.0)
    await upstream.start()
    await killed(mosquitto)
    await until(lambda: not upstream.reachable)
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(UpstreamUnavailable, match="tried again"):
            await upstream.connect(Owner(), A, clean=True)
    assert time.monotonic() - began < 0.5
    await upstream.stop()


async def test_a_crowd_is_opened_a_few_at_a_time(tmp_path):
    """Two hundred at once, never more than the bound under way; all get in."""
    open_now = most = 0

    class Slow(asyncio.Protocol):
        """Answers a CONNECT after a while."""

        def connection_made(self, transport):
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            self.transport = transport

        def data_received(self, data):
            if data[0] == wire.CONNECT:
                asyncio.get_running_loop().call_later(0.01, self.answer)

        def answer(self):
            nonlocal open_now
            open_now -= 1
            if not self.transport.is_closing():
                self.transport.write(wire.encode_connack(0))

    server = await asyncio.get_running_loop().create_server(Slow, "127.0.0.1", 0)
    upstream = TcpUpstream("127.0.0.1", server.sockets[0].getsockname()[1], opens_at_once=7, mqtt5="no")
    links = await asyncio.gather(*(upstream.connect(Owner(), f"{n:022d}", clean=True) for n in range(200)))
    assert most == 7
    assert len(links) == 200
    await upstream.stop()
    server.close()


async def test_who_waits_for_its_turn_is_told_when_the_broker_goes(mosquitto):
    """A queue that nobody works off any more is emptied by the refusal, not by everybody's own time limit."""
    upstream = TcpUpstream("127.0.0.1", mosquitto.port, opens_at_once=2, connect_timeout_s=1.0, ping_interval_s=0.2)
    await upstream.start()
    mosquitto.freeze()
    began = time.monotonic()
    asked = [upstream.connect(Owner(), f"{n:022d}", clean=True) for n in range(50)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(answer, UpstreamUnavailable) for answer in answers)
    assert time.monotonic() - began < 4, "25 turns of a second each"
    mosquitto.thaw()
    await upstream.stop()


async def test_the_service_connection_backs_off_and_does_not_hammer():
    """Tried again after a growing, random time: a dozen attempts in the first seconds at most."""
    port, attempts = free_port(), []

    class Refuse(asyncio.Protocol):
        def connection_made(self, transport):
            attempts.append(time.monotonic())
            transport.abort()

    server = await asyncio.get_running_loop().create_server(Refuse, "127.0.0.1", port)
    upstream = TcpUpstream("127.0.0.1", port)
    await upstream.start()
    await asyncio.sleep(1.5)
    gaps = [later - earlier for earlier, later in zip(attempts, attempts[1:], strict=False)]
    assert 2 <= len(attempts) <= 8
    assert gaps[-1] > gaps[0]
    await upstream.stop()
    server.close()


async def _publish_until_it_goes(upstream: TcpUpstream, qos: int, went: asyncio.Event) -> list[tuple[int, float]]:
    """Publish numbers until the broker is gone; return those that were acknowledged, with the time of each."""
    owner = Owner()
    link = await upstream.connect(owner, B, clean=False)
    acknowledged: list[tuple[int, float]] = []
    number = 0
    kind = wire.PUBACK if qos == 1 else wire.PUBCOMP
    while not owner.closed:
        number += 1
        packet_id = number % 60_000 + 1
        link.write(wire.encode_publish("q", b"%d" % number, qos=qos, packet_id=packet_id))
        count = len(owner.of(kind))
        if qos == 2:
            await owner.until(lambda n=number: bool(owner.closed) or len(owner.of(wire.PUBREC)) >= n)
            link.write(wire.encode_ack(wire.PUBREL, packet_id))
        await owner.until(lambda count=count: bool(owner.closed) or len(owner.of(kind)) > count)
        if len(owner.of(kind)) > count:
            acknowledged.append((number, time.time()))
            if number >= 300:
                went.set()
    return acknowledged


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
async def test_what_was_acknowledged_to_a_session_is_there_after_the_broker_came_back(mosquitto, tmp_path, qos, how):
    """Ended in order: all of it. Killed: all that Mosquitto had acknowledged before it last wrote its file.

    Mosquitto acknowledges before it writes (its page says so): what came after the last snapshot is its loss, to which
    the gate adds none.
    """
    upstream = TcpUpstream(path=mosquitto.path)
    await upstream.start()
    link, owner = await connected(upstream, clean=False)
    await subscribe(link, owner, ("q", 2))
    link.abort()
    await link.wait_closed()
    went = asyncio.Event()
    publishing = asyncio.create_task(_publish_until_it_goes(upstream, qos, went))
    await went.wait()
    mosquitto._process.send_signal(how)
    await mosquitto._process.wait()
    acknowledged = await publishing
    saved = (tmp_path / "mosquitto.db").stat().st_mtime
    mosquitto.path.unlink(missing_ok=True)
    await mosquitto.start()
    await until(lambda: upstream.reachable)
    owner = Owner()
    link = await upstream.connect(owner, A, clean=False)
    assert link.session_present
    kept = [number for number, at in acknowledged if how == signal.SIGTERM or at < saved - 0.05]
    assert len(kept) > 100
    received: list[int] = []
    while not received or received[-1] < kept[-1]:
        await owner.until(lambda: len(owner.publishes) > len(received))
        for message in owner.publishes[len(received) :]:
            received.append(int(message.payload))
            link.write(wire.encode_ack(wire.PUBACK if message.qos == 1 else wire.PUBREC, message.packet_id))
            if message.qos == 2:
                link.write(wire.encode_ack(wire.PUBCOMP, message.packet_id))
    assert [number for number in received if number <= kept[-1]] == kept
    await upstream.stop()


async def test_clients_are_told_and_are_back_without_a_herd_upstream(mosquitto):
    """A hundred sessions end with the broker; all reconnect at once, and all are in soon after it is back."""
    upstream = TcpUpstream(path=mosquitto.path, opens_at_once=8)
    await upstream.start()
    owners = [(await connected(upstream, f"{number:022d}"))[1] for number in range(100)]
    await killed(mosquitto)
    for owner in owners:
        assert isinstance(await owner.ended(), UpstreamUnavailable)

    async def returns(number: int) -> None:
        while True:
            try:
                await connected(upstream, f"{number:022d}")
            except UpstreamUnavailable:
                await asyncio.sleep(0.02)
            else:
                return

    returning = [asyncio.create_task(returns(number)) for number in range(100)]
    await asyncio.sleep(0.2)
    await mosquitto.start()
    async with asyncio.timeout(8):
        await asyncio.gather(*returning)
    await upstream.stop()
