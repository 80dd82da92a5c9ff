"""The columns are played once a session, all cases of a column side by side; a test looks at one cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conformance.driver import Column
from tests.conformance.running import Outcome, Playhouse, playhouse
from tests.conformance.steps import Case

Play = Callable[[Column, Case], Outcome]


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playhouse]:
    with playhouse(tmp_path_factory.mktemp("conformance")) as running:
        yield running


@pytest.fixture(scope="session")
def play(request: pytest.FixtureRequest, house: Playhouse) -> Play:
    """Return what a cell saw; the first call for a column plays all of its cases that were selected."""
    selected: dict[Column, list[Case]] = {}
    for item in request.session.items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if "column" in params and "case" in params:
            selected.setdefault(params["column"], []).append(params["case"])
    outcomes: dict[Column, dict[str, Outcome]] = {}

    def outcome(column: Column, case: Case) -> Outcome:
        missing = house.missing(column.broker)
        if missing is not None:
            pytest.skip(missing)
        if column not in outcomes:
            outcomes[column] = house.run(column, selected[column])
        return outcomes[column][case.name]

    return outcome
