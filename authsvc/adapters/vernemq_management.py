"""How VerneMQ is told to end a client: its HTTP API, which is its command line in another dress.

``GET /api/v1/session/disconnect?client-id=X&--cleanup`` with an API key of the scope `mgmt`. The client id is put
between quotes into a query by VerneMQ itself (vmq_info_cli.erl), unescaped: a client id with a quote in it could end
everybody's session. So such client ids are refused at CONNECT (`nameable`) and never sent.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final
from urllib.parse import quote

import httpx

from authsvc.adapters.adapter import AttachedConfig
from authsvc.adapters.management import MANAGEMENT_TIMEOUT_S, ManagementUnavailable

MAX_LISTED: Final = 100_000
_ONE_ROW: Final = "--limit=1&--rowtimeout=5000"  # by default a session has 100 ms to answer, or is left out
_GONE_AFTER_S: Final = (0.01, 0.05, 0.2)  # a connection ends a moment after it was told to
# `"` and `\` end or bend the query's string, `=` and `,` divide its parameters, `~` begins a pattern.
_UNNAMEABLE: Final = re.compile('["\\\\=,~\x00-\x1f\x7f]')


def nameable(client_id: str) -> bool:
    """Return whether VerneMQ's command line can name this client id, and no other with it.

    It reads `true` and `false` as truth values, and the bytes beyond ASCII one by one.
    """
    return client_id.isascii() and _UNNAMEABLE.search(client_id) is None and client_id not in ("true", "false")


class VerneManagement:
    """`authsvc.adapters.management.Management` of a VerneMQ; the API key is the password, or else the user."""

    def __init__(self, config: AttachedConfig) -> None:
        key = config.management_password or config.management_user
        self._http = httpx.AsyncClient(
            base_url=config.management_url.rstrip("/"),
            headers={"x-api-key": key} if key else {},
            timeout=MANAGEMENT_TIMEOUT_S,
            trust_env=False,
        )

    async def disconnect(self, client_id: str, *, wipe: bool) -> None:
        """End the client's connection; `wipe` also removes its subscriptions and queue. Raises ManagementUnavailable.

        VerneMQ publishes the client's will then, and offers no way not to. It says `Done` also when it passed over a
        session that was slow to answer; so it is asked whether it is gone.
        """
        if not nameable(client_id):  # it was never admitted
            return
        await self._get(f"session/disconnect?client-id={_value(client_id)}{'&--cleanup' if wipe else ''}")
        left = "" if wipe else "=true"
        for wait_s in _GONE_AFTER_S:
            if not await self._rows(f"session/show?--client_id={_value(client_id)}&--is_online{left}&{_ONE_ROW}"):
                return
            await asyncio.sleep(wait_s)
        raise ManagementUnavailable("VerneMQ still has the session")

    async def has_session(self, client_id: str) -> bool | None:
        """Return whether VerneMQ has a session of the client id, connected or not."""
        if not nameable(client_id):
            return False
        rows = await self._rows(f"session/show?--client_id={_value(client_id)}&--is_online&{_ONE_ROW}")
        return bool(rows)

    async def clients(self) -> frozenset[str] | None:
        """Return the client ids that are connected, or None when there are too many to list."""
        rows = await self._rows(f"session/show?--client_id&--is_online=true&--limit={MAX_LISTED}&--rowtimeout=5000")
        if len(rows) >= MAX_LISTED:
            return None
        return frozenset([row["client_id"] for row in rows if isinstance(row.get("client_id"), str)])

    async def close(self) -> None:
        """Close the connections to the API."""
        await self._http.aclose()

    async def _rows(self, path: str) -> list[dict[str, Any]]:
        answer = await self._get(path)
        table = answer.get("table") if isinstance(answer, dict) else None
        if not isinstance(table, list):
            raise ManagementUnavailable("VerneMQ's HTTP API answered without a table")
        return [row for row in table if isinstance(row, dict)]

    async def _get(self, path: str) -> Any:
        """Return the JSON answered. Raises ManagementUnavailable."""
        try:
            response = await self._http.get(f"/api/v1/{path}")
            if response.status_code != 200:
                raise ManagementUnavailable(f"VerneMQ's HTTP API answered {response.status_code}")
            return response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ManagementUnavailable(f"VerneMQ's HTTP API: {type(error).__name__}") from error


def _value(client_id: str) -> str:
    return quote(client_id, safe="")
