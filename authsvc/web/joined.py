"""Writes that go out as one: head and body of a short answer in one packet, and one system call, instead of two."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.types import Scope

_JOIN: Final = "authsvc.join"


class JoinedWrites:
    """A connection's transport as uvicorn uses it, which can be told to hold a write back for the next one."""

    __slots__ = ("_held", "_holds", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._holds = False  # the next write
        self._held = b""
        self.is_closing = transport.is_closing  # asked several times a request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def offer(self, scope: Scope) -> None:
        """Let the application of a request ask for it, by `join`."""
        scope[_JOIN] = self._hold

    def write(self, data: bytes) -> None:
        if self._holds:
            self._holds, self._held = False, data
        elif self._held:
            held, self._held = self._held, b""
            self._transport.write(held + data)
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Write what is held back, if nothing followed it: the answer to a HEAD has no body."""
        self._holds = False
        if self._held:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def _hold(self) -> None:
        self._holds = True


def join(scope: Scope) -> None:
    """Have the head of the answer go out with the first part of its body: for an answer that is there as a whole."""
    hold = scope.get(_JOIN)
    if hold is not None:  # another server has no such thing
        hold()
