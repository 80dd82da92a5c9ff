"""The live sessions of this process: who is connected by what, found by everything that a change can touch.

A `Session` is opened by a synchronous `Sessions.open` after admission, rests on the records in `footing`, and ends
exactly once. The registry knows no protocol: it ends and swaps connections through the small `Connection` interface.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from authsvc.core.facts import Name
from authsvc.core.policy import Grant
from authsvc.core.reasons import Reason


class Will(StrEnum):
    """What becomes of a will when a connection ends (the table of what ends what)."""

    SEND = "send"  # judged against the current grant, then sent
    NEVER = "never"


class Connection(Protocol):
    """What the registry may do to a live connection. Every call is synchronous; none raises."""

    def end(self, reason: Reason, will: Will) -> None:
        """End it now by abort; idempotent. What is buffered towards the client is not sent."""

    def swap(self, grant: Grant) -> None:
        """Take the new grant in one step: memos emptied, filters no longer covered unsubscribed."""

    async def wait_ended(self) -> None:
        """Return when socket and upstream are gone and the will, if any, has been handed over."""


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """One live connection. `principal` and `client_id` never change; `grant` changes only by a swap."""

    id: str
    tenant: str
    principal: str  # "thing/{tenant}/{key}" or "ground/{tenant}/{token id}"
    client_id: str
    thing: str | None
    ground: str
    token_id: str
    secret_id: str
    grant: Grant
    connection: Connection
    footing: frozenset[Name]
    position: int  # feed position at the first read of its admission
    broker: str
    peer: str
    since_us: int
    expires_at_us: int | None
    persistent: bool
    own_changes: frozenset[int] = field(default_factory=frozenset)  # feed positions of its own registration
