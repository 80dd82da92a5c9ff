"""What the gate still has to clear upstream: sessions that were wiped and retained messages below a place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ClearingKind(StrEnum):
    SESSION = "session"
    RETAINED = "retained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clearing:
    """One task of the gate: clear the upstream session with this id, or what is retained at and below this topic."""

    id: int
    kind: ClearingKind
    target: str
    since_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSession:
    """A persistent session of a principal and client id, and the id under which the broker behind the gate knows it.

    `expiry_s` is how long it is kept after its connection (MQTT 5.0, 3.1.2.11.2), None for ever; `expires_at_us` is
    when it ends, None while its client is connected or it never does.
    """

    principal: str
    client_id: str
    upstream_id: str
    tenant: str
    thing: str
    ground: str
    token_id: str
    secret_id: str
    since_us: int
    expiry_s: int | None = None
    expires_at_us: int | None = None
