"""A real service behind real HTTP hooks, and a server of our own where EMQX's REST interface stands."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from authsvc.adapters.adapter import AttachedConfig
from authsvc.adapters.attached import Attached
from authsvc.adapters.routes import Hooks
from authsvc.core import tokens
from authsvc.core.facts import AdminRole, TokenKind
from authsvc.store import Store
from authsvc.web.app import create_app, create_hooks_app
from authsvc.web.server import make_server
from tests.service.conftest import Clock, T, World

SECRET = "a-secret-of-forty-characters-for-the-hook"
API_KEY, API_SECRET = "key", "an-api-secret"
WITHIN_S = 5.0


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[str]:
    """Serve an application on a free port of the loopback; yield its URL."""
    server = make_server(app, port=0)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{_port(server)}"
    finally:
        task.cancel()  # its own way out waits for ticks of a tenth of a second, at every test
        await asyncio.gather(task, return_exceptions=True)
        for listening in server.servers:
            listening.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()


def _port(server: uvicorn.Server) -> int:
    return server.servers[0].sockets[0].getsockname()[1]


class EmqxRest:
    """Stands where EMQX's REST interface stands: who is connected or kept there, and every kick with its time."""

    def __init__(self) -> None:
        self.connected: set[str] = set()
        self.kept: set[str] = set()
        self.kicks: list[tuple[float, str]] = []
        self.kicked = asyncio.Event()
        self.down = False
        self.hold: asyncio.Event | None = None  # kicks wait for it before they are done
        self.app = Starlette(
            routes=[
                Route("/api/v5/clients", self._list, methods=["GET"]),
                Route("/api/v5/clients/kickout/bulk", self._bulk, methods=["POST"]),
                Route("/api/v5/clients/{client_id:path}", self._client, methods=["GET", "DELETE"]),
            ]
        )

    def kicked_ids(self) -> list[str]:
        return [client_id for _, client_id in self.kicks]

    async def until_kicked(self, count: int) -> None:
        async with asyncio.timeout(WITHIN_S):
            while len(self.kicks) < count:
                self.kicked.clear()
                await self.kicked.wait()

    def _refusal(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "")
        if given != "Basic " + base64.b64encode(f"{API_KEY}:{API_SECRET}".encode()).decode():
            return JSONResponse({"code": "BAD_API_KEY_OR_SECRET"}, 401)
        return JSONResponse({"code": "INTERNAL_ERROR"}, 500) if self.down else None

    async def _kick(self, client_id: str) -> bool:
        if self.hold is not None:
            await self.hold.wait()
        there = client_id in self.connected | self.kept
        self.kicks.append((time.perf_counter(), client_id))
        self.connected.discard(client_id)
        self.kept.discard(client_id)
        self.kicked.set()
        return there

    async def _client(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        client_id = request.path_params["client_id"]
        unknown = JSONResponse({"code": "CLIENTID_NOT_FOUND", "message": "Client ID not found"}, 404)
        if request.method == "DELETE":
            return Response(status_code=204) if await self._kick(client_id) else unknown
        there = client_id in self.connected | self.kept
        return JSONResponse({"clientid": client_id, "connected": client_id in self.connected}) if there else unknown

    async def _bulk(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is None:
            for client_id in await request.json():
                await self._kick(client_id)
        return refusal or Response(status_code=204)

    async def _list(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        wanted = request.query_params.get("clientid")
        found = sorted(self.connected if "conn_state" in request.query_params else self.connected | self.kept)
        found = [client_id for client_id in found if wanted is None or client_id == wanted]
        size, page = int(request.query_params["limit"]), int(request.query_params.get("page", "1"))
        start = size * (page - 1)
        data = [{"clientid": client_id, "connected": True} for client_id in found[start : start + size]]
        return JSONResponse({"data": data, "meta": {"hasnext": start + size < len(found), "limit": size, "page": page}})


class HookWorld(World):
    """The world of tests/service with brokers attached; `post` asks as a broker does."""

    rest: EmqxRest
    url: str
    client: httpx.AsyncClient
    hooks: Hooks
    admin: str
    _stack: AsyncExitStack
    _api: httpx.AsyncClient | None = None
    _running: asyncio.Task[None] | None = None

    def attached(self, name: str = "emqx") -> Attached:
        return self.hooks.attached[name]

    async def open(self, rest_url: str, *configs: AttachedConfig) -> None:
        """Make the hooks, restore what the store remembers and serve them beside the HTTP API."""
        standard = AttachedConfig(
            name="emqx",
            kind="emqx",
            secrets=(SECRET,),
            management_url=rest_url,
            management_user=API_KEY,
            management_password=API_SECRET,
        )
        self.hooks = Hooks(self.service, configs or [standard])
        await self.hooks.start()
        self._running = asyncio.create_task(self.hooks.run())
        self._stack = AsyncExitStack()
        self.url = await self._stack.enter_async_context(served(create_hooks_app(self.hooks)))
        self.client = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=30)
        )

    async def shut(self, *, crash: bool = False) -> None:
        """End the hooks; a crash writes nothing that was owed."""
        await self._stack.aclose()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        for attached in self.hooks.attached.values():
            if crash and attached.management is not None:
                await attached.management.close()
            elif not crash:
                await attached.close()

    async def post(self, path: str, body: object, *, secret: str | None = SECRET) -> httpx.Response:
        headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
        return await self.client.post(f"/hooks/{path}", json=body, headers=headers)

    async def authn(self, secret: str, thing: str = "", *, client_id: str = "c1", broker: str = "emqx") -> dict:
        """Ask as EMQX asks at CONNECT; return its answer, with which EMQX has the client."""
        body = {"clientid": client_id, "username": thing, "password": secret, "peerhost": "192.0.2.1"}
        answer = await self.post(f"{broker}/authn", body)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        if found["result"] == "allow" and broker == "emqx":
            self.rest.connected.add(client_id)
        return found

    async def authz(self, client_id: str, action: str, topic: str, **more: object) -> str:
        """Ask as EMQX asks for one action; return its result."""
        body = {"clientid": client_id, "username": "x", "action": action, "topic": topic, "qos": "0", **more}
        if action == "publish":
            body.setdefault("retain", "false")
        answer = await self.post("emqx/authz", body)
        assert answer.status_code == 200
        return answer.json()["result"]

    async def device_token_of(self, thing: str, *, register_by: str = "") -> tuple[object, str]:
        """Return a device token of a thing, registered by an app token (a fresh one if none is named)."""
        if not register_by:
            _, register_by = await self.app_token()
        await self.admitted(register_by, thing, client_id="c1" if thing == "gw1" else "c9")
        return await self.device_token(thing)

    async def call(self, method: str, path: str, **more: object) -> httpx.Response:
        """Call the HTTP API as its operator."""
        if self._api is None:  # a third of a second to make: only where it is called
            app = create_app(self.service, now_us=self.clock.now_us)
            transport = httpx.ASGITransport(app=app)
            self._api = await self._stack.enter_async_context(
                httpx.AsyncClient(base_url="http://api", transport=transport)
            )
        return await self._api.request(method, path, headers={"authorization": f"Bearer {self.admin}"}, **more)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                await asyncio.sleep(0.005)


Restart = Callable[..., Awaitable[HookWorld]]


async def _started(path: Path, clock: Clock, rest: EmqxRest) -> HookWorld:
    store = await Store.open(path, now_us=clock.now_us)
    world = HookWorld(store, clock)
    world.rest = rest
    await world.start()
    return world


@pytest.fixture
async def rest() -> AsyncIterator[tuple[EmqxRest, str]]:
    emqx = EmqxRest()
    async with served(emqx.app) as url:
        yield emqx, url


@pytest.fixture
async def bare(tmp_path: Path, rest: tuple[EmqxRest, str]) -> AsyncIterator[HookWorld]:
    """The tenant and an admin key, and no hooks yet."""
    world = await _started(tmp_path / "authsvc.db", Clock(), rest[0])
    await world.store.tenants.create(T)
    world.admin = tokens.mint(TokenKind.ADMIN)
    await world.store.admin_keys.create(
        name="ops", role=AdminRole.OWNER, tenant=None, digest=tokens.digest(world.admin), prefix="asadm_"
    )
    await world.settle()
    yield world
    await world.stop()
    await world.store.close()


@pytest.fixture
async def hooked(bare: HookWorld, rest: tuple[EmqxRest, str]) -> AsyncIterator[HookWorld]:
    """One EMQX attached, with a REST interface."""
    await bare.open(rest[1])
    yield bare
    await bare.shut()


@pytest.fixture
async def restart(tmp_path: Path, bare: HookWorld, rest: tuple[EmqxRest, str]) -> AsyncIterator[Restart]:
    """Return what ends the first service (or a later one) and starts one on the same store."""
    running: list[HookWorld] = [bare]
    await bare.open(rest[1])

    async def again(*, crash: bool = True, meanwhile: Callable[[Store], Awaitable[object]] | None = None) -> HookWorld:
        last = running[-1]
        await last.shut(crash=crash)
        await last.stop()
        if meanwhile is not None:
            await meanwhile(last.store)
        if last is not bare:
            await last.store.close()
        world = await _started(tmp_path / "authsvc.db", last.clock, rest[0])
        world.admin = bare.admin
        running.append(world)
        await world.open(rest[1])
        return world

    yield again
    await running[-1].shut()
    if running[-1] is not bare:
        await running[-1].stop()
        await running[-1].store.close()
