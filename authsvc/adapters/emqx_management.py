"""EMQX's REST interface: ends a client and what is kept of it, and says whom it has. Requests carry an API key (Basic).

A kick there always ends the session with the connection (emqx_cm.erl, `kick_session`); ending one and keeping the
other is not on offer. Client ids travel percent-encoded; ``.`` and ``..``, which every client on the way would resolve,
travel in a body or a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import httpx

from authsvc.adapters.adapter import AttachedConfig
from authsvc.adapters.management import MANAGEMENT_TIMEOUT_S, Management, ManagementUnavailable

_PAGE: Final = 1_000
_MOST_PAGES: Final = 1_000
_DOTS: Final = (".", "..")


def management(config: AttachedConfig) -> Management | None:
    """Return the way to EMQX's REST interface, or None without a `management_url`."""
    return EmqxManagement(config) if config.management_url else None


class EmqxManagement:
    """`management_user` and `management_password` are an API key and its secret; `management_url` has no path."""

    def __init__(self, config: AttachedConfig) -> None:
        self._client = httpx.AsyncClient(
            base_url=f"{config.management_url}/api/v5",
            auth=httpx.BasicAuth(config.management_user, config.management_password),
            timeout=MANAGEMENT_TIMEOUT_S,
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=32),
            trust_env=False,
        )

    async def disconnect(self, client_id: str, *, wipe: bool) -> None:  # noqa: ARG002  # EMQX always wipes
        if client_id in _DOTS:
            await self.disconnect_many([client_id])
            return
        answer = await self._ask("DELETE", f"/clients/{quote(client_id, safe='')}")
        if answer.status_code not in (200, 204) and not _is_unknown_client(answer):
            raise _unexpected(answer)

    async def disconnect_many(self, client_ids: Sequence[str]) -> None:
        """End all these clients by one request; unknown ones are fine."""
        answer = await self._ask("POST", "/clients/kickout/bulk", json=list(client_ids))
        if answer.status_code not in (200, 204):
            raise _unexpected(answer)

    async def has_session(self, client_id: str) -> bool | None:
        if client_id in _DOTS:
            answer = await self._ask("GET", "/clients", params={"clientid": client_id, "limit": 1})
            return bool(_page(answer)[0])
        answer = await self._ask("GET", f"/clients/{quote(client_id, safe='')}")
        if answer.status_code == 200:
            return True
        if _is_unknown_client(answer):
            return False
        raise _unexpected(answer)

    async def clients(self) -> frozenset[str] | None:
        found: set[str] = set()
        for number in range(1, _MOST_PAGES + 1):
            parameters = {"conn_state": "connected", "limit": _PAGE, "page": number}
            page, more = _page(await self._ask("GET", "/clients", params=parameters))
            found.update(page)
            if not more:
                return frozenset(found)
        return None

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, method: str, path: str, **rest: Any) -> httpx.Response:
        try:
            return await self._client.request(method, path, **rest)
        except httpx.HTTPError as error:
            raise ManagementUnavailable(f"EMQX's REST interface: {type(error).__name__}") from None


def _page(answer: httpx.Response) -> tuple[list[str], bool]:
    try:
        content = answer.json() if answer.status_code == 200 else None
        clients = [client["clientid"] for client in content["data"]]  # type: ignore[index]
        meta = content["meta"]  # type: ignore[index]
        return clients, bool(meta["hasnext"] if "hasnext" in meta else len(clients) == _PAGE)
    except (ValueError, KeyError, TypeError):
        raise _unexpected(answer) from None


def _is_unknown_client(answer: httpx.Response) -> bool:
    """Return whether it is EMQX that says so: another server's 404 must not count as a kick."""
    if answer.status_code != 404:
        return False
    try:
        content = answer.json()
        return "code" in content and "client" in answer.text.lower()  # CLIENTID_NOT_FOUND, "Client id not found"
    except (ValueError, TypeError):
        return False


def _unexpected(answer: httpx.Response) -> ManagementUnavailable:
    hint = "; check `management_user` and `management_password`" if answer.status_code in (401, 403) else ""
    return ManagementUnavailable(f"EMQX's REST interface answered {answer.status_code}{hint}")
