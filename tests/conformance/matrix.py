"""The matrix as a page shows it: rows are cases, columns brokers, cells `same` or the number of a difference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.conformance.columns import BROKERS
from tests.conformance.differences import DIFFERENCES, documented
from tests.conformance.driver import LEVELS, Broker, Column
from tests.conformance.steps import Case
from tests.conformance.table import CASES

PAGE = Path(__file__).parents[2] / "docs" / "brokers" / "README.md"
BEGIN = "<!-- the matrix: written by `make conformance ARGS=--write`, not by hand -->"
END = "<!-- end of the matrix -->"


def rendered(cases: Sequence[Case] = CASES, brokers: Sequence[Broker] = BROKERS) -> str:
    """Return the matrix in Markdown, as the table of differences documents it."""
    columns = [levels for broker in brokers for levels in _columns(broker, cases)]
    lines = [
        "| case | " + " | ".join(_title(group) for group in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for case in cases:
        cells = [_cell(group, case) for group in columns]
        lines.append(f"| {_name(case)} | " + " | ".join(cells) + " |")
    lines += ["", "What differs:", ""]
    for number, one in enumerate(DIFFERENCES, 1):
        (page,) = {broker.page for broker in brokers if broker.name == one.broker}
        lines.append(f"{number}. [{one.broker}]({page}): {one.sentence}")
    return "\n".join(lines)


def in_page() -> str:
    """Return the matrix that stands in the page."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()


def write() -> None:
    """Put the matrix into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{rendered()}\n\n{END}{rest.partition(END)[2]}")


def _columns(broker: Broker, cases: Sequence[Case]) -> list[list[Column]]:
    """Return the broker's levels, those together whose cells are equal; a level without a row of its own joins."""
    groups: list[list[Column]] = []
    for level in broker.levels:
        column = Column(broker, level)
        for group in groups:
            if all(_alike(group, column, case) for case in cases):
                group.append(column)
                break
        else:
            groups.append([column])
    return groups


def _alike(group: list[Column], column: Column, case: Case) -> bool:
    if column.level not in case.levels:
        return True
    return all(
        documented(other, case.name) == documented(column, case.name) for other in group if other.level in case.levels
    )


def _title(group: list[Column]) -> str:
    broker = group[0].broker
    levels = ", ".join(LEVELS[column.level] for column in group)
    return f"[{broker.name}]({broker.page}) {levels}"


def _cell(group: list[Column], case: Case) -> str:
    columns = [column for column in group if column.level in case.levels]
    if not columns:
        return "–"
    numbers = [str(DIFFERENCES.index(one) + 1) for one in documented(columns[0], case.name)]
    return ", ".join(numbers) or "same"


def _name(case: Case) -> str:
    return case.name.replace("#", "\\#") if "`" not in case.name else case.name
