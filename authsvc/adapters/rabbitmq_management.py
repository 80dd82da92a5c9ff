"""How RabbitMQ is told to end a client: by taking its client id over, as MQTT itself does, or by the management API.

The management API lists a connection up to five seconds after it was made (it collects its figures so often), and
cannot close it before. A CONNECT with the same client id ends the former connection at once, wherever in the cluster
it is, without its will (RabbitMQ 3.10.8), and with clean session set deletes its queue. So that is tried first, at the
MQTT listener that the management API names; where there is none, the API closes the connection once it lists it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx

from authsvc.adapters.adapter import AttachedConfig
from authsvc.adapters.management import MANAGEMENT_TIMEOUT_S, ManagementUnavailable
from authsvc.locks import KeyedLocks
from broker.wire.encode import DISCONNECT_PACKET, encode_connect

LISTED_WITHIN_S: Final = 10.0  # collect_statistics_interval is 5 s; twice that, to be sure
_ANY: Final = ("::", "0.0.0.0")  # noqa: S104  # what a listener on all addresses is listed as
_COLUMNS: Final = "name,vhost,variable_map.client_id,client_properties.client_id"


@dataclass(slots=True, kw_only=True)
class Kick:
    """One client id that is being taken over; `registered` when RabbitMQ asked for a queue: the former is gone."""

    client_id: str
    wipe: bool
    registered: bool = False


class RabbitManagement:
    """`authsvc.adapters.management.Management` of a RabbitMQ. Its user must be a name that no client uses."""

    def __init__(self, config: AttachedConfig) -> None:
        self.user = config.management_user
        self.password = config.management_password
        self.kicking: dict[str, Kick] = {}
        self.deleting: set[str] = set()  # queues
        self._vhost = config.vhost
        self._tls = urlsplit(config.management_url).scheme == "https"
        self._host = urlsplit(config.management_url).hostname or "localhost"
        self._mqtt: tuple[str, int] | None = None
        self._recent: dict[str, float] = {}  # client id to when it was admitted, oldest first
        self._locks: KeyedLocks[str] = KeyedLocks()
        self._http = httpx.AsyncClient(
            base_url=config.management_url.rstrip("/"),
            auth=(self.user, self.password),
            timeout=MANAGEMENT_TIMEOUT_S,
            trust_env=False,
        )

    def admitted(self, client_id: str) -> None:
        """Note that the client id is about to connect: for some seconds no listing shows it."""
        self._recent.pop(client_id, None)
        self._recent[client_id] = time.monotonic()
        self._forget_listed()

    async def disconnect(self, client_id: str, *, wipe: bool) -> None:
        """End the client's connection; `wipe` deletes its queue. Raises ManagementUnavailable."""
        async with self._locks.hold(client_id):
            if not await self._take_over(Kick(client_id=client_id, wipe=wipe)):
                await self._close(client_id)
                if wipe:
                    await self._delete_queues(client_id)

    async def has_session(self, client_id: str) -> bool | None:
        """Return whether RabbitMQ has a connection or a queue of the client id, or may have one that it cannot list."""
        self._forget_listed()
        if client_id in self._recent:
            return True
        for queue in _subscription_queues(client_id):
            if await self._ask("GET", f"/api/queues/{_part(self._vhost)}/{_part(queue)}") is not None:
                return True
        return client_id in [listed for _, listed in await self._connections()]

    async def clients(self) -> frozenset[str] | None:
        """Return the client ids that RabbitMQ lists, and those that it will list soon."""
        listed = [client_id for _, client_id in await self._connections()]
        self._forget_listed()
        return frozenset([*listed, *self._recent])

    async def close(self) -> None:
        """Close the connections to the management API."""
        await self._http.aclose()

    async def _take_over(self, kick: Kick) -> bool:
        """Connect with the client id, which ends its connection; return whether it was done, False: try otherwise."""
        try:
            address = self._mqtt = self._mqtt or await self._find_mqtt()
            if address is None:
                return False
            self.kicking[kick.client_id] = kick
            async with asyncio.timeout(MANAGEMENT_TIMEOUT_S):
                code = await self._connect(kick, address)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self._mqtt = None  # it may have moved
            return False
        finally:
            self.kicking.pop(kick.client_id, None)
        # Without a wipe our own hook keeps the queue from us, which RabbitMQ answers with 3 after the take-over.
        return code == 0 or (kick.registered and not kick.wipe)

    async def _connect(self, kick: Kick, address: tuple[str, int]) -> int:
        context = ssl.create_default_context() if self._tls else None
        reader, writer = await asyncio.open_connection(*address, ssl=context)
        try:
            connect = encode_connect(
                client_id=kick.client_id,
                clean_session=kick.wipe,
                username=self.user,
                password=self.password.encode(),
            )
            writer.write(connect)
            connack = await reader.readexactly(4)
            if connack[3] == 0:
                writer.write(DISCONNECT_PACKET)
            return connack[3]
        finally:
            writer.close()
            with suppress(OSError, TimeoutError):
                await writer.wait_closed()

    async def _find_mqtt(self) -> tuple[str, int] | None:
        """Return where an MQTT listener is to be reached: at its own address, or at the host of the management."""
        overview = await self._ask("GET", "/api/overview", params={"columns": "listeners"})
        wanted = "mqtt/ssl" if self._tls else "mqtt"
        for listener in _dicts(overview.get("listeners") if isinstance(overview, dict) else None):
            host, port = listener.get("ip_address"), listener.get("port")
            if listener.get("protocol") == wanted and isinstance(port, int) and isinstance(host, str):
                return (self._host if self._tls or host in _ANY else host), port
        return None

    async def _close(self, client_id: str) -> None:
        found = [name for name, listed in await self._connections() if listed == client_id]
        for name in found:
            await self._ask("DELETE", f"/api/connections/{_part(name)}", headers={"X-Reason": "ended by authsvc"})
        self._forget_listed()
        if not found and client_id in self._recent:
            raise ManagementUnavailable("RabbitMQ does not list the connection yet")

    async def _delete_queues(self, client_id: str) -> None:
        for queue in _subscription_queues(client_id):
            self.deleting.add(queue)
            try:
                await self._ask("DELETE", f"/api/queues/{_part(self._vhost)}/{_part(queue)}")
            finally:
                self.deleting.discard(queue)

    async def _connections(self) -> list[tuple[str, str]]:
        """Return name and client id of each MQTT connection of our virtual host that is listed."""
        listed = await self._ask("GET", "/api/connections", params={"columns": _COLUMNS})
        if not isinstance(listed, list):  # an empty list would say that nobody is there
            raise ManagementUnavailable("RabbitMQ's management answered without a list of connections")
        found = []
        for connection in _dicts(listed):
            for where in ("variable_map", "client_properties"):
                told = connection.get(where)
                client_id = told.get("client_id") if isinstance(told, dict) else None
                name = connection.get("name")
                if isinstance(client_id, str) and isinstance(name, str) and connection.get("vhost") == self._vhost:
                    found.append((name, client_id))
                    break
        return found

    async def _ask(
        self, method: str, path: str, *, params: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> Any:
        """Return the JSON answered, True where there is none, None for 404. Raises ManagementUnavailable."""
        try:
            response = await self._http.request(method, path, params=params, headers=headers)
            if response.status_code == 404 and _is_unknown_object(response):
                return None
            if not response.is_success:
                raise ManagementUnavailable(f"RabbitMQ's management answered {response.status_code} to {method}")
            return response.json() if response.content else True
        except (httpx.HTTPError, ValueError) as error:
            raise ManagementUnavailable(f"RabbitMQ's management: {type(error).__name__}") from error

    def _forget_listed(self) -> None:
        listed_by_now = time.monotonic() - LISTED_WITHIN_S
        while self._recent:
            client_id, admitted = next(iter(self._recent.items()))
            if admitted > listed_by_now:
                return
            del self._recent[client_id]


def _is_unknown_object(response: httpx.Response) -> bool:
    """Return whether it is RabbitMQ that says so: a 404 of a proxy, which may dislike `%2F`, proves nothing."""
    content = response.json()
    return isinstance(content, dict) and content.get("reason") == "Not Found"


def _subscription_queues(client_id: str) -> tuple[str, str]:
    return f"mqtt-subscription-{client_id}qos1", f"mqtt-subscription-{client_id}qos0"


def _dicts(value: object) -> Iterable[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _part(text: str) -> str:
    return quote(text, safe="")
