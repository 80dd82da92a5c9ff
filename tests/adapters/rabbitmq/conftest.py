"""One RabbitMQ for the session, and a fresh service behind its hooks for each test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from authsvc.adapters.routes import Hooks
from tests.adapters.rabbitmq.rig import SECRET, Rig, config_of, serving
from tests.adapters.rabbitmq_broker import RabbitMQ
from tests.broker.raw_client import close_all
from tests.live_service import free_ports
from tests.service.conftest import World, world

__all__ = ["world"]


@pytest.fixture(scope="session")
def hooks_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory, hooks_port: int) -> Iterator[RabbitMQ]:
    """A node that asks at `hooks_port`, started once: it takes a quarter of a minute."""
    hooks = f"http://authsvc:{SECRET}@127.0.0.1:{hooks_port}/hooks/rabbit"
    broker = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"), hooks=hooks)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture
async def rig(rabbit: RabbitMQ, world: World, hooks_port: int) -> AsyncIterator[Rig]:  # noqa: F811
    """The service of `world`, asked by the broker."""
    hooks = Hooks(world.service, [config_of(rabbit)])
    made = Rig(rabbit, world, hooks)
    task = asyncio.create_task(hooks.run(), name="hooks")
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serving(hooks, hooks_port))
        made.stop_serving = stack.aclose
        yield made
        await close_all()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await hooks.close()
