"""What the models have in common with real brokers: they ask by HTTP, and are told by HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx

Answer = tuple[int, Any]  # status, JSON
Handler = Callable[[str, str, dict[str, list[str]], Any], Awaitable[Answer]]  # method, path, query, JSON body


def asking(url: str, headers: dict[str, str]) -> httpx.AsyncClient:
    """Return a client of our hooks."""
    limits = httpx.Limits(max_connections=16, max_keepalive_connections=16)
    return httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=5, limits=limits)


@asynccontextmanager
async def management(port: int, handler: Handler) -> AsyncIterator[None]:
    """Serve a broker's management interface on a loopback port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                method, target, _ = lines[0].split(" ")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                parts = urlsplit(target)
                query = parse_qs(parts.query, keep_blank_values=True)
                status, answer = await handler(method, unquote(parts.path), query, json.loads(body) if body else None)
                content = b"" if answer is None else json.dumps(answer).encode()
                type_ = "Content-Type: application/json\r\n" if content else ""
                writer.write(f"HTTP/1.1 {status} X\r\n{type_}Content-Length: {len(content)}\r\n\r\n".encode() + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the caller has closed, or the stage is over
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
