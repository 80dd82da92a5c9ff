"""The operator's side of the HTTP API: one connection to a running service, its answers as plain JSON values."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from authsvc.cli.problems import CommandFailed, refused

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_DATA = Path("var")
TIMEOUT_S = 30.0
_PAGE = 1000  # the largest page the API gives

Object = dict[str, Any]


def admin_key(data: Path | None) -> str:
    """Return the admin key: of `data` if it is named, else AUTHSVC_ADMIN_TOKEN, else of ``var/admin-token``.

    Raises:
        CommandFailed: there is none, it cannot be read, or it is no key; the message never shows it.

    """
    key = os.environ.get("AUTHSVC_ADMIN_TOKEN", "").strip()
    source = "AUTHSVC_ADMIN_TOKEN"
    if data is not None or not key:
        path = (data or DEFAULT_DATA) / "admin-token"
        source = f"`{path}`"
        try:
            key = path.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            way_out = "name the service's data directory with --data, or set AUTHSVC_ADMIN_TOKEN"
            raise CommandFailed(f"no admin key: {source} does not exist; {way_out}") from None
        except OSError as error:
            raise CommandFailed(f"no admin key: {source} cannot be read: {error.strerror}") from None
    if not key.isascii() or not key.isprintable() or " " in key or not key:
        raise CommandFailed(f"{source} does not hold an admin key: one line, asadm_ and 49 letters and digits")
    return key


def part(value: str) -> str:
    """Return `value` as one part of a URL's path; refuses what would name another path."""
    if value in {"", ".", ".."}:
        raise CommandFailed(f"`{value}` is not a key")
    return quote(value, safe="")


def key_for(url: str, data: Path | None) -> str:
    """Return the key of `admin_key`; where there is none, say first whether a service runs at all."""
    try:
        return admin_key(data)
    except CommandFailed:
        with Api(url, "none") as stranger:
            stranger.get("/healthz")
        raise


class Api:
    """One service. Use as a context manager; every method raises CommandFailed, with `Refused` for a problem answer."""

    def __init__(self, url: str, key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        try:
            self._http = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
                timeout=timeout_s,
                trust_env=False,  # a proxy of the environment must not see the admin key
            )
        except (httpx.InvalidURL, ValueError):
            raise CommandFailed(f"`{url}` is not a URL: write it like {DEFAULT_URL}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, object] | None = None,
    ) -> Any:
        """Return the decoded answer, None for 204. `query` entries that are None or "" are left out."""
        params = {name: _query(value) for name, value in (query or {}).items() if value not in (None, "")}
        try:
            answer = self._http.request(method, path, params=params or None, json=body)
        except httpx.UnsupportedProtocol:
            raise CommandFailed(f"`{self.url}` is not a URL: write it like {DEFAULT_URL}") from None
        except httpx.ConnectError:
            raise CommandFailed(f"no service answers at {self.url} : start one with authsvc up") from None
        except httpx.TimeoutException:
            raise CommandFailed(f"the service at {self.url} did not answer within {TIMEOUT_S:.0f} s") from None
        except httpx.HTTPError as error:
            raise CommandFailed(f"the connection to {self.url} broke ({type(error).__name__})") from None
        return body_of(answer)

    def get(self, path: str, **query: object) -> Any:
        return self.call("GET", path, query=query)

    def items(self, path: str, *, limit: int | None = None, **query: object) -> Iterator[Object]:
        """Yield the items of a list, page by page, at most `limit` of them (None: all)."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = self.call("GET", path, query={**query, "limit": size, "cursor": cursor})
            found = page["items"]
            yield from found
            cursor = page.get("next")
            if left is not None:
                left -= len(found)
            if cursor is None or not found:
                return


def _query(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def body_of(answer: httpx.Response) -> Any:
    """Return what the service answered, None for an empty answer. Raises what `refused` makes of everything else."""
    if answer.status_code == httpx.codes.NO_CONTENT:
        return None
    try:
        decoded = answer.json()
    except ValueError:
        decoded = None
    if not answer.is_success or decoded is None:
        raise refused(answer.status_code, decoded)
    return decoded
