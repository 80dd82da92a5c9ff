"""Admissions that take their time: refused when it is over, and nothing of them goes on; in time, nothing is left."""

from __future__ import annotations

import asyncio

import pytest

from broker.limits import Limits
from broker.upstream import Upstream
from tests.broker.gate_rig import rig_on
from tests.broker.upstreams import embedded


@pytest.fixture
async def upstream():
    async with embedded() as running:
        yield running


async def until(condition) -> None:
    async with asyncio.timeout(2):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_admission_that_was_refused_for_its_time_does_not_go_on(upstream: Upstream) -> None:
    """Whatever it waits for may never come: its task ends with the refusal."""
    async with rig_on(upstream, limits=Limits(admission_s=0.1)) as rig:
        rig.service.may_admit.clear()
        client = await rig.open()
        assert await client.connect("a", "a") == 3
        await until(lambda: not rig.gate.admission.tasks)
        rig.service.may_admit.set()
        assert rig.service.sessions.find("t", thing="a") == []


async def test_an_admission_in_time_is_not_refused_afterwards(upstream: Upstream) -> None:
    """Neither the client nor the log hears of a time that was kept; no task is left."""
    async with rig_on(upstream, limits=Limits(admission_s=0.2)) as rig:
        rig.service.may_admit.clear()
        client = await rig.open()
        connecting = asyncio.create_task(client.connect("a", "a"))
        await until(lambda: rig.gate.admission.tasks)
        rig.service.may_admit.set()
        assert await connecting == 0
        await until(lambda: not rig.gate.admission.tasks)
        await asyncio.sleep(0.3)
        await client.ping()
        assert rig.service.refused == []
