"""Store, service and hooks in this process, asked by the one RabbitMQ of the test session."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from authsvc.adapters.adapter import AttachedConfig
from authsvc.adapters.rabbitmq_management import RabbitManagement
from authsvc.adapters.routes import Hooks
from authsvc.core.facts import Effect, Rule, RuleAction
from authsvc.refusals import RefusalRecord
from authsvc.sessions import Session
from authsvc.web.server import make_server
from tests.adapters.rabbitmq_broker import MANAGER, RabbitMQ
from tests.broker.raw_client import RawClient
from tests.service.conftest import T, World

SECRET = "a-secret-that-only-rabbitmq-knows"
MANAGER_PASSWORD = "the-password-of-the-manager"


class Rig:
    """A broker, and the service that answers it for the time of one test."""

    def __init__(self, rabbit: RabbitMQ, world: World, hooks: Hooks) -> None:
        self.rabbit = rabbit
        self.world = world
        self.hooks = hooks
        self.attached = hooks.attached["rabbit"]
        self.stop_serving: Callable[[], Awaitable[None]]

    @property
    def management(self) -> RabbitManagement:
        assert isinstance(self.attached.management, RabbitManagement)
        return self.attached.management

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.rabbit.port

    async def connect(self, client_id: str, secret: str, thing: str = "", **fields: object) -> RawClient:
        """Return a client that RabbitMQ has admitted."""
        return await RawClient.connected(self.address, client_id, secret, username=thing, **fields)

    async def code(self, client_id: str, secret: str | None, thing: str | None = "", **fields: object) -> int | None:
        """Return the CONNACK code of an attempt; the connection is closed."""
        client = await RawClient.open(self.address)
        code = await client.connect(client_id, secret, username=thing, **fields)
        client.cut()
        return code

    async def open(self) -> RawClient:
        return await RawClient.open(self.address)

    def refusal(self) -> RefusalRecord:
        """Return the last refusal, of whatever tenant."""
        return max((*self.world.service.refusals.last(T), *self.world.service.refusals.last(None)), key=lambda r: r.id)

    async def management_idle(self) -> None:
        """Return when RabbitMQ was told everything."""
        async with asyncio.timeout(15):
            while len(self.attached.kicks or ()):
                await asyncio.sleep(0.01)

    def session(self, client_id: str) -> Session:
        session = self.attached.session(client_id)
        assert session is not None, client_id
        return session


def config_of(rabbit: RabbitMQ) -> AttachedConfig:
    return AttachedConfig(
        name="rabbit",
        kind="rabbitmq",
        secrets=(SECRET,),
        management_url=rabbit.management_url,
        management_user=MANAGER,
        management_password=MANAGER_PASSWORD,
    )


def listening(port: int) -> socket.socket:
    """Return a socket that takes connections from now on, whoever serves them later."""
    found = socket.socket(
        socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # asyncio sets TCP_NODELAY on these only
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", port))
    found.listen(512)
    found.setblocking(False)
    return found


@asynccontextmanager
async def serving(app: ASGIApp, port: int) -> AsyncIterator[None]:
    """Serve the application on a port of the loopback interface."""
    with listening(port) as web:
        server = make_server(app, sock=web)
        task = asyncio.create_task(server.serve(), name="hooks")
        try:
            yield
        finally:
            server.should_exit = True
            await task


def allow(action: RuleAction, topic: str, **conditions: object) -> Rule:
    return Rule(effect=Effect.ALLOW, action=action, topic=topic, **conditions)


def deny(action: RuleAction, topic: str) -> Rule:
    return Rule(effect=Effect.DENY, action=action, topic=topic)


async def device(world: World, thing: str, *rules: Rule) -> str:
    """Make a thing whose definition has these rules (or those built in) and return a token for it."""
    definition = "thing"
    if rules:
        definition = f"of-{thing.replace('.', '-').replace('*', '-')}"
        await world.store.definitions.create(T, definition, rules=rules)
    await world.store.things.create(T, thing, definition=definition)
    await world.settle()
    return (await world.device_token(thing))[1]


async def witness(world: World) -> str:
    """Return a token whose thing `spy` may publish and subscribe everything, by a platform role."""
    rules = (allow(RuleAction.PUBLISH, "#"), allow(RuleAction.SUBSCRIBE, "#"))
    await world.store.roles.create("", "spy", rules=rules)
    await world.store.things.create(T, "spy")
    await world.settle()
    return (await world.app_token(definition="", auto_register=False, roles=("platform/spy",)))[1]
