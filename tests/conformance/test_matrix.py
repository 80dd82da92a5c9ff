"""The pages say what the suite knows: the matrix is the one that was proven, and differences stand where one looks."""

from __future__ import annotations

import pytest

from tests.conformance import matrix
from tests.conformance.columns import BROKERS, COLUMNS
from tests.conformance.differences import DIFFERENCES, Difference
from tests.conformance.table import CASES


def test_the_page_shows_the_matrix() -> None:
    """`make conformance ARGS=--write` writes it."""
    assert matrix.in_page() == matrix.rendered()


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda one: f"{one.broker}: {one.says}")
def test_a_difference_stands_in_the_first_lines_of_the_brokers_page(difference: Difference) -> None:
    """Before the first heading, in the words that the difference quotes."""
    (page,) = {broker.page for broker in BROKERS if broker.name == difference.broker}
    first = (matrix.PAGE.parent / page).read_text().partition("\n## ")[0]
    assert difference.says in " ".join(first.replace("**", "").split())


def test_differences_speak_of_what_is_played() -> None:
    """No row for a case, a broker or a level that is not there, which nothing would ever check."""
    played = {
        (column.broker.name, case.name, column.level)
        for column in COLUMNS
        for case in CASES
        if column.level in case.levels
    }
    for one in DIFFERENCES:
        for case in one.cells:
            assert any((one.broker, case, level) in played for level in one.levels), (one.broker, case)


def test_names_of_cases_are_their_own() -> None:
    """A name is a row of the matrix."""
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
