"""How a broker is told: end this client's connection, and whom do you have? Each adapter gives one of these."""

from __future__ import annotations

from typing import Protocol

from authsvc.core.errors import AuthsvcError

MANAGEMENT_TIMEOUT_S = 5.0  # of one request


class ManagementUnavailable(AuthsvcError):  # noqa: N818  # like StoreUnavailable
    """The broker's management did not do what it was asked; the caller tries again later."""


class Management(Protocol):
    """One broker's management interface. Every wait is bounded; nothing but `ManagementUnavailable` is raised."""

    async def disconnect(self, client_id: str, *, wipe: bool) -> None:
        """End the client's connection; `wipe` also what the broker keeps for it. Idempotent: no such client is fine."""

    async def has_session(self, client_id: str) -> bool | None:
        """Return whether the broker has a connection or a kept session of the client id; None: cannot be told."""

    async def clients(self) -> frozenset[str] | None:
        """Return the client ids that are connected now, all of them; None: cannot be told."""

    async def close(self) -> None:
        """Close what is open. Nothing is asked afterwards."""
