"""What a documented difference is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Seen = Mapping[str, str]  # label of an observation -> what is seen instead of what the case expects


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that a broker does otherwise, and the cases that show it."""

    broker: str
    says: str  # in the page's first lines
    sentence: str  # in the matrix
    cells: Mapping[str, Seen]  # by the case's name
    levels: tuple[int, ...] = (3, 4, 5)
