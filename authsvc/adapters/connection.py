"""What the session registry ends and swaps where the socket belongs to a broker that was only told what it may do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from authsvc.core.policy import Grant
from authsvc.core.reasons import Reason
from authsvc.sessions import Session, Will

if TYPE_CHECKING:
    from authsvc.adapters.attached import Attached

DENIALS_RECORDED_PER_S = 50  # of one connection


class HookConnection:
    """`authsvc.sessions.Connection` of a session on an attached broker."""

    __slots__ = ("_attached", "_denied", "_denied_since", "client_id", "held", "session", "username")

    def __init__(self, attached: Attached, client_id: str, grant: Grant, username: str) -> None:
        self._attached = attached
        self._denied = 0  # since `_denied_since`
        self._denied_since = 0.0
        self.client_id = client_id
        self.held = grant  # what the broker was told
        self.username = username
        self.session: Session | None = None  # set when it is open

    def end(self, reason: Reason, will: Will) -> None:
        """Have the broker end the connection, unless it does so by itself because the client id was taken over."""
        self._attached.ended(self, reason, will)

    def swap(self, grant: Grant) -> None:
        """Have the broker follow the new grant, as its adapter does."""
        self._attached.swapped(self, grant)

    async def wait_ended(self) -> None:
        """Return at once: what the broker still has of it is ended by its own kick."""

    def may_record(self) -> bool:
        """Return whether one more denial is recorded: of a flood a sample is enough."""
        now = asyncio.get_running_loop().time()
        if now - self._denied_since >= 1.0:
            self._denied_since, self._denied = now, 0
        self._denied += 1
        return self._denied <= DENIALS_RECORDED_PER_S
