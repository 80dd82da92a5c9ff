"""A restart brings everybody back at once, and some who never speak: each CONNECT is answered, memory is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from authsvc.core.reasons import Reason
from broker import gate as gate_module
from broker import wire
from broker.limits import Limits
from broker.listeners import BACKLOG
from broker.upstream import Upstream
from tests.broker.gate_rig import rig_on
from tests.broker.upstreams import started

STORM = 3_000
SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    """The doors do not depend on the broker: the one in this process."""
    async with started("amqtt", tmp_path) as running:
        yield running


@pytest.fixture
def files() -> Iterator[None]:
    """Two files for each connection of the storm, or no test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * STORM + 500
    if hard < needed:
        pytest.skip(f"{hard} open files are too few for {STORM} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_waiting_for_a_connect_has_room_for_two_full_queues() -> None:
    """One queue may be accepted in one turn of the loop, before any of its bytes is read, while the next one fills."""
    assert Limits().max_before_connect >= 2 * BACKLOG


@pytest.mark.skipif(not SOMAXCONN.exists() or int(SOMAXCONN.read_text()) < STORM, reason="the kernel's queue is short")
@pytest.mark.usefixtures("files")
async def test_everybody_who_connects_at_once_is_answered(upstream: Upstream) -> None:
    """All of a storm are queued, none by a second SYN, and each is answered on the connection that it made first."""
    with contextlib.ExitStack() as opened:
        async with rig_on(upstream) as rig:
            clients = [opened.enter_context(socket.socket()) for _ in range(STORM)]
            for number, client in enumerate(clients):
                client.setblocking(False)
                client.connect_ex(rig.address)
                # ENOTCONN here: the queue was full, and the kernel tries again in a second
                client.send(wire.encode_connect(client_id=f"{number}", username="", password=b"wrong"))
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(30):
                answers = [await loop.sock_recv(client, 4) for client in clients]
    assert {answer[:2] for answer in answers} == {b"\x20\x02"}


async def test_at_the_limit_of_connections_the_silent_make_room(upstream: Upstream) -> None:
    """As many silent sockets as there may be connections do not lock out a client with a valid token; sessions stay."""
    async with rig_on(upstream, limits=Limits(max_connections=6)) as rig:
        b = await rig.client("b")
        silent = [await rig.open() for _ in range(10)]
        a = await rig.client("a")
        await a.ping()
        await b.ping()
        assert await silent[0].closed(1)
        assert len(rig.gate) <= 6
        assert {refusal.reason for refusal in rig.service.refused} == {Reason.CONNECTION_LIMIT}


async def test_begun_connects_are_bounded_beside_silence(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of unfinished CONNECTs is bounded: the one begun first makes room, those who are silent need not."""
    monkeypatch.setattr(gate_module, "MAX_BEGUN", 3)
    async with rig_on(upstream) as rig:
        silent = await rig.open()
        begun = [await rig.open() for _ in range(5)]
        packet = wire.encode_connect(client_id="a", username="", password=b"a")
        for client in begun:
            await client.send(packet[:5])
            await asyncio.sleep(0.01)  # in this order
            await client.send(packet[5:10])
        for client in begun[:2]:
            assert await client.closed(1)
        assert len(rig.gate) == 4
        await begun[2].send(packet[10:])  # whole: it is no longer one of them
        assert await begun[2].connack() == 0
        more = await rig.open()
        await more.send(packet[:5])
        assert await silent.connect("b", "b") == 0
        assert len(rig.gate) == 5, "nobody else had to leave"
