"""Every case on every broker: the verdict of the table, or the difference that the broker's page states."""

from __future__ import annotations

import pytest

from tests.conformance.columns import COLUMNS
from tests.conformance.conftest import Play
from tests.conformance.differences import as_documented, expected
from tests.conformance.driver import Column
from tests.conformance.steps import Case
from tests.conformance.table import CASES

CELLS = [
    pytest.param(column, case, id=f"{column.name}: {case.name}".replace(" ", "_"))
    for column in COLUMNS
    for case in CASES
    if column.level in case.levels
]


@pytest.mark.parametrize(("column", "case"), CELLS)
def test_the_broker_gives_the_verdict_of_the_table(play: Play, column: Column, case: Case) -> None:
    """What differs is what the table of differences says, no more and no less."""
    outcome = play(column, case)
    if outcome.accident is not None:
        raise outcome.accident
    assert outcome.seen, "the case expects nothing"
    told = "\n".join(f"{one.label}: expected {one.expected}, seen {one.observed}" for one in outcome.seen)
    assert as_documented(outcome.different, column, case.name), f"{case.claim}\n{told}\n{expected(column, case.name)}"
