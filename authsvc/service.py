"""Who is connecting, what is it, and what may it do: the admission of a CONNECT and what the gate asks around it."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from authsvc.changes import ChangeFeed
from authsvc.core.credentials import ConnectRequest
from authsvc.core.facts import Refusal
from authsvc.core.policy import Decision
from authsvc.refusals import Refusals
from authsvc.sessions import Admitted, Session, Sessions
from authsvc.store import Store

__all__ = ["Admitted", "Service"]


class Service:
    """Everything that decides, around one store. Start it with `start`, and run `run` as a task."""

    store: Store
    feed: ChangeFeed
    sessions: Sessions
    refusals: Refusals

    def __init__(
        self,
        *,
        store: Store,
        now_us: Callable[[], int],
        random: Callable[[int], bytes] = secrets.token_bytes,
        persistent_sessions_per_principal: int = 100,
    ) -> None: ...

    async def start(self) -> None:
        """Take up position in the change feed; call it before `run` and before anything is admitted."""

    async def run(self) -> None:
        """Apply changes and end what expires, for ever; owned by the caller's task group."""

    async def admit(self, request: ConnectRequest, *, peer: str, broker: str) -> Admitted | Refusal:
        """Decide a CONNECT (flow steps 1 to 5) and write what it registers or binds; a refusal has changed nothing.

        Never raises `StoreUnavailable`: that is a refusal here. The refusal is recorded already.
        """
        raise NotImplementedError

    async def upstream_session(self, admitted: Admitted) -> tuple[str, bool] | Refusal:
        """Return the upstream client id and whether to connect it clean; call it under the session's lock.

        For a persistent session the row is kept or made; for a clean one a row that was there is wiped.
        Refused are ``session_limit`` and ``store_unavailable``; the refusal is recorded already.
        """
        raise NotImplementedError

    def refuse(
        self, refusal: Refusal, *, request: ConnectRequest | None, peer: str, tenant: str | None = None
    ) -> None:
        """Record a refusal of the gate's own (limits, time, broker) so that an operator can read it."""

    def denied(self, session: Session, action: str, topic: str, decision: Decision) -> None:
        """Record a publish, subscribe or delivery that was denied."""
