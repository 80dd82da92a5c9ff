"""What one connection is denied, on its way to the list of refusals: of a flood only a sample."""

from __future__ import annotations

RECORDED_PER_S = 50


class Denials:
    """Counts the denials of one connection by the second; made with the first of them."""

    __slots__ = ("_count", "_since")

    def __init__(self, now: float) -> None:
        self._since = now
        self._count = 0

    def sampled(self, now: float) -> bool:
        """Count one more; return whether it is to be recorded: the first `RECORDED_PER_S` of a second are."""
        if now - self._since >= 1.0:
            self._since, self._count = now, 0
        self._count += 1
        return self._count <= RECORDED_PER_S
