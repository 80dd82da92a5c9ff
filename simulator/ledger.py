"""What happened in a run, as the actors saw it: written down while it happens, judged afterwards by the oracle.

Times are seconds of the monotonic clock since the load began; before that they are negative.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One message that an actor received; `id` is "" when its payload carries none."""

    at_s: float
    topic: str
    id: str


@dataclass(slots=True, kw_only=True)
class Ledger:
    """The run's record. Keys of the dictionaries are actors (thing keys, witness names) or message ids."""

    began: float = field(default_factory=time.monotonic)
    connack: dict[str, int] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)  # connections that ended though nobody here ended them
    sent: dict[str, float] = field(default_factory=dict)  # handed to the socket
    acknowledged: dict[str, float] = field(default_factory=dict)  # PUBACK received
    unsent: set[str] = field(default_factory=set)  # due, but there was no connection
    received: dict[str, list[Receipt]] = field(default_factory=dict)
    attempts: dict[str, list[int]] = field(default_factory=dict)  # CONNACK codes of an attacker; -1: closed without
    granted: dict[str, list[tuple[str, int]]] = field(default_factory=dict)  # (filter, SUBACK code)
    sessions: frozenset[str] = frozenset()  # things with a live session, as the service said in mid-run
    things: frozenset[str] = frozenset()  # things of the ground, as the service said at the end
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False

    def now_s(self) -> float:
        return time.monotonic() - self.began

    def begin(self) -> None:
        """Start the load's clock."""
        self.began = time.monotonic()

    def receive(self, actor: str, topic: str, payload: bytes) -> None:
        """Write down that `actor` received a message just now."""
        self.received.setdefault(actor, []).append(Receipt(at_s=self.now_s(), topic=topic, id=identity(payload)))

    def ids(self, actor: str) -> list[str]:
        """Return the ids of what `actor` received, in order, repetitions included."""
        return [receipt.id for receipt in self.received.get(actor, ())]


def identity(payload: bytes) -> str:
    """Return the id that a payload of ours carries, else ""."""
    try:
        value = json.loads(payload)
    except ValueError:
        return ""
    found = value.get("id") if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""
