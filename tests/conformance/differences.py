"""Every difference that a broker may show, with what is seen instead and the words of its page that say so.

A difference that is not here fails; one that is here and does not occur any more fails too. `says` must stand in the
page before its first heading of the second level: whoever chooses a broker reads it there.
"""

from __future__ import annotations

from tests.conformance.difference import Difference
from tests.conformance.differences_of_goauth import GOAUTH
from tests.conformance.differences_of_hooks import OF_HOOKS
from tests.conformance.driver import Column
from tests.conformance.player import alike

NO_SHARED = {
    "shared: covered": {"SUBSCRIBE A $share/g/T/g1/A/#": "denied", "A receives": "nothing"},
    "5.0: shared": {"SUBSCRIBE A $share/g/T/g1/A/#": "denied"},
}
SHARED_IS_REFUSED = "A shared subscription is refused, whatever the grant says."

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        broker="amqtt",
        says="No shared subscriptions",
        sentence=SHARED_IS_REFUSED,
        cells={"shared: covered": NO_SHARED["shared: covered"]},
    ),
    Difference(
        broker="rumqttd",
        says="No shared subscriptions",
        sentence=SHARED_IS_REFUSED,
        cells=NO_SHARED,
    ),
    *OF_HOOKS,
    *GOAUTH,
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


def as_documented(different: dict[str, str], column: Column, case: str) -> bool:
    """Return whether what differed in a cell is what is documented, no more and no less."""
    wanted = expected(column, case)
    return different.keys() == wanted.keys() and all(alike(wanted[label], different[label]) for label in wanted)
