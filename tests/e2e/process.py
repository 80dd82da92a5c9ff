"""The product as its users run it: `authsvc up` as a process, its API by HTTP, its data directory across restarts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.broker.raw_client import RawClient, close_all
from tests.live_service import clean_environment, free_ports, program

T = "/v1/tenants/default"
OWN_RULES = [
    {"effect": "allow", "action": "publish", "topic": "{tenant}/{ground}/{thing}/#"},
    {"effect": "allow", "action": "subscribe", "topic": "{tenant}/{ground}/{thing}/#"},
]
SPY_RULES = [
    {"effect": "allow", "action": "publish", "topic": "#"},
    {"effect": "allow", "action": "subscribe", "topic": "#"},
]


class Process:
    """One data directory and the process on it. `start` and `kill` may be repeated; ports and admin key stay.

    What has no other tenant in its call is of `tenant`.
    """

    def __init__(self, folder: Path, *, upstream: Path | None = None, **settings: Any) -> None:
        self.data = folder / "var"
        self.log = folder / "service.log"
        mqtt, http = free_ports(2)
        self.address = ("127.0.0.1", mqtt)
        self.url = f"http://127.0.0.1:{http}"
        self.binds = ["--mqtt-bind", f"127.0.0.1:{mqtt}", "--http-bind", f"127.0.0.1:{http}"]
        self.more = ["--upstream", str(upstream)] if upstream else []
        self.environment = {f"AUTHSVC__{name.upper()}": str(value) for name, value in settings.items()}
        self.files = 0  # limit of open files; 0: as inherited
        self.without: tuple[str, ...] = ()  # capabilities it must do without: root may do everything
        self.child: subprocess.Popen[bytes] | None = None
        self.tenant = "default"
        self._api: httpx.AsyncClient | None = None

    @property
    def at(self) -> str:
        """The API's path of the tenant."""
        return f"/v1/tenants/{self.tenant}"

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    @property
    def database(self) -> Path:
        return self.data / "authsvc.db"

    @property
    def key(self) -> str:
        return (self.data / "admin-token").read_text().strip()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process, wait for nothing."""
        files = self.files

        def limited() -> None:
            if files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        command = program("authsvc", "up", "--data", self.data, *self.binds, *self.more)
        if self.without:
            command = ["setpriv", "--bounding-set", ",".join(f"-{name}" for name in self.without), *command]
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                env=clean_environment(**self.environment),
                preexec_fn=limited,
            )
        return self.child

    async def start(self) -> None:
        """Start the process and wait until it is ready."""
        child = self.spawn()
        deadline = time.monotonic() + 30
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                assert child.poll() is None, self.log.read_text()
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return
                assert time.monotonic() < deadline, self.log.read_text()
                await asyncio.sleep(0.03)

    async def ended(self, patience_s: float = 30) -> int:
        """Wait for the end of the process; return its status."""
        assert self.child is not None
        return await asyncio.to_thread(self.child.wait, patience_s)

    async def terminate(self, number: int = signal.SIGTERM) -> float:
        """End it in order; return the seconds that took. Fail unless the status is 0."""
        assert self.child is not None
        began = time.monotonic()
        self.child.send_signal(number)
        status = await self.ended()
        assert status == 0, f"status {status}: {self.log.read_text()[-3000:]}"
        return time.monotonic() - began

    async def kill(self) -> None:
        """End it as a power cut does."""
        assert self.child is not None
        self.child.kill()
        await self.ended()

    async def leave(self) -> None:
        """Close everything of this event loop."""
        await close_all()
        if self._api is not None:
            await self._api.aclose()
            self._api = None

    async def close(self) -> None:
        """Leave, and end the process."""
        await self.leave()
        if self.child is not None and self.child.poll() is None:
            self.child.kill()
            await self.ended()

    # --- the API -----------------------------------------------------------------------------------------------------

    @property
    def api(self) -> httpx.AsyncClient:
        """A client with the first admin key; it lives as long as this object."""
        if self._api is None:
            self._api = self.api_as(self.key)
        return self._api

    def api_as(self, key: str) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=32, keepalive_expiry=2)
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=20, limits=limits)

    async def post(self, path: str, body: dict[str, Any], *, status: int = 201) -> Any:
        return await self._call("POST", path, body, status)

    async def patch(self, path: str, body: dict[str, Any], *, status: int = 200) -> Any:
        return await self._call("PATCH", path, body, status)

    async def get(self, path: str, *, status: int = 200) -> Any:
        return await self._call("GET", path, None, status)

    async def delete(self, path: str, *, status: int = 204) -> Any:
        return await self._call("DELETE", path, None, status)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None, status: int) -> Any:
        answer = await self.api.request(method, path, json=body)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def every(self, path: str) -> list[Any]:
        """Return all items of a list, page by page."""
        items: list[Any] = []
        joint = "&" if "?" in path else "?"
        cursor = ""
        while True:
            page = await self.get(f"{path}{joint}limit=1000{cursor}")
            items += page["items"]
            if page["next"] is None:
                return items
            cursor = f"&cursor={page['next']}"

    # --- what many tests begin with ----------------------------------------------------------------------------------

    async def open_definition(self, tenant: str = "", **more: Any) -> None:
        """Create the definition `dev`: everything below its own place, no binding of client ids."""
        body = {"key": "dev", "rules": OWN_RULES, "bind_client_id": "never", **more}
        await self.post(f"/v1/tenants/{tenant or self.tenant}/thing-definitions", body)

    async def app_token(self, tenant: str = "", **more: Any) -> dict[str, Any]:
        body = {"name": "fleet", "thing_definition": "dev", **more}
        return await self.post(f"/v1/tenants/{tenant or self.tenant}/app-tokens", body)

    async def device_token(self, thing: str, **more: Any) -> dict[str, Any]:
        return await self.post(f"{self.at}/things/{thing}/tokens", {"name": "device", **more})

    async def spy(self) -> RawClient:
        """Connect a client that sees everything of the tenant, by a platform role."""
        ops = f"{self.tenant}-ops"
        await self.post("/v1/tenants", {"key": ops})
        await self.post("/v1/roles", {"key": ops, "rules": SPY_RULES})
        await self.post(f"/v1/tenants/{ops}/things", {"key": "spy"})
        token = await self.post(f"/v1/tenants/{ops}/app-tokens", {"name": "spy", "roles": [f"platform/{ops}"]})
        spy = await self.client("spy", token["token"])
        assert await spy.subscribe((f"{self.tenant}/#", 1), ("end", 1)) == [1, 1]
        return spy

    async def client(self, thing: str, secret: str, client_id: str | None = None, **fields: Any) -> RawClient:
        """Connect; fail unless admitted."""
        return await RawClient.connected(self.address, client_id or thing, secret, username=thing, **fields)

    async def code(self, thing: str, secret: str, client_id: str | None = None, **fields: Any) -> int | None:
        """Try to connect; return the code (None: closed without one), the connection cut afterwards."""
        client = await RawClient.open(self.address)
        code = await client.connect(client_id or thing, secret, username=thing, **fields)
        client.cut()
        return code

    async def sound(self, thing: str, secret: str) -> None:
        """A client gets a QoS 1 round trip within a second, and the process has logged no traceback."""
        async with asyncio.timeout(1):
            client = await self.client(thing, secret, "sound")
            topic = f"{self.tenant}/default/{thing}/sound"
            assert await client.subscribe((topic, 1)) == [1]
            await client.publish(topic, b"ok", qos=1)
            assert (await client.delivery()).payload == b"ok"
            await client.disconnect()
        assert "Traceback" not in self.log.read_text()

    # --- what the machine says ---------------------------------------------------------------------------------------

    def memory_mb(self) -> float:
        """Return the resident memory of the process, in MB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def open_files(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database file itself; only while the process is ended, or for reading."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return list(connection.execute(sql, values))


@asynccontextmanager
async def running(folder: Path, **options: Any) -> AsyncIterator[Process]:
    """Yield a process that is ready; whatever it is then, it is gone at the end."""
    process = Process(folder, **options)
    try:
        await process.start()
        yield process
    finally:
        await process.close()
