"""Fixtures of the attacks: the whole product on each of the two brokers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.upstream import Upstream
from tests.broker.upstreams import started
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
