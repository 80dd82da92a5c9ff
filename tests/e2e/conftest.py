"""Fixtures of the attacks: the whole product on each of the two brokers."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.upstream import Upstream
from tests.broker.upstreams import started
from tests.e2e.process import Process
from tests.e2e.system import System, system_on


@pytest.fixture(params=["amqtt", "mosquitto"])
async def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Upstream]:
    async with started(request.param, tmp_path) as running:
        yield running


@pytest.fixture
async def system(upstream: Upstream, tmp_path: Path) -> AsyncIterator[System]:
    async with system_on(upstream, tmp_path) as running:
        yield running
        await running.sound()


@pytest.fixture(scope="session")
def shared_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One `authsvc up` for all tests that need no other: a start takes longer than most of them."""
    process = Process(tmp_path_factory.mktemp("shared"))
    try:
        asyncio.run(process.start())
        yield process
        asyncio.run(process.terminate())
    finally:
        asyncio.run(process.close())


_tenants = itertools.count(1)


@pytest.fixture
async def shared(shared_process: Process) -> AsyncIterator[Process]:
    """The shared process, with a tenant for this test alone; it may be killed and started again."""
    process = copy.copy(shared_process)
    process.tenant = f"tenant{next(_tenants)}"
    try:
        await process.post("/v1/tenants", {"key": process.tenant})
        yield process
    finally:
        await process.leave()
        shared_process.child = process.child
