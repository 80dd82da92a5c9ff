"""Every difference that a broker may show, with what is seen instead and the words of its page that say so.

A difference that is not here fails; one that is here and does not occur any more fails too. `says` must stand in the
page before its first heading of the second level: whoever chooses a broker reads it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.conformance.driver import Column

Seen = Mapping[str, str]  # label of an observation -> what is seen instead of what the case expects


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that a broker does otherwise, and the cases that show it."""

    broker: str
    says: str  # in the page's first lines
    sentence: str  # in the matrix
    cells: Mapping[str, Seen]  # by the case's name
    levels: tuple[int, ...] = (3, 4, 5)


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        broker="amqtt",
        says="No shared subscriptions",
        sentence="A shared subscription is refused, whatever the grant says.",
        cells={"shared: covered": {"SUBSCRIBE A $share/g/T/g1/A/#": "denied 0x80", "A receives": "nothing"}},
    ),
)


def documented(column: Column, case: str) -> list[Difference]:
    """Return the differences that this cell must show."""
    return [
        one
        for one in DIFFERENCES
        if one.broker == column.broker.name and column.level in one.levels and case in one.cells
    ]


def expected(column: Column, case: str) -> dict[str, str]:
    """Return what must be seen in this cell instead of what the case expects, by label."""
    seen: dict[str, str] = {}
    for one in documented(column, case):
        seen |= one.cells[case]
    return seen
