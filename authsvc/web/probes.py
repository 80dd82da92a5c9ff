"""Readiness: what is missing, in words that may be shown to anybody (the probes take no key)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from authsvc.service import Service

Check = Callable[[], str | None]


def readiness_of(service: Service, checks: Mapping[str, Check]) -> dict[str, str]:
    """Return what is wrong by name, empty when the service may be sent clients.

    A store that can be read but not written is ready: known things are admitted without a write.
    """
    reasons: dict[str, str] = {}
    if not service.store.state.readable:
        reasons["store"] = "cannot be read"
    if not service.feed.healthy:
        reasons["feed"] = "changes cannot be read"
    for name, check in checks.items():
        wrong = check()
        if wrong:
            reasons[name] = wrong
    return reasons
