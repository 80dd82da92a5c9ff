"""`python -m tests.conformance [--write] [BROKER…]`: play everything and print the matrix.

Exit status 0: every cell is the same or documented, and the page shows it; 1: not so; 2: usage. With `--write` the
page gets the matrix.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.conformance import matrix
from tests.conformance.columns import BROKERS, COLUMNS
from tests.conformance.differences import as_documented, expected
from tests.conformance.running import Playhouse, playhouse
from tests.conformance.table import CASES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__.split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="put the matrix into docs/brokers/README.md")
    parser.add_argument(
        "brokers", nargs="*", metavar="BROKER", help="play these only: " + ", ".join(b.name for b in BROKERS)
    )
    given = parser.parse_args()
    wrong = set(given.brokers) - {broker.name for broker in BROKERS}
    if wrong:
        parser.error(f"unknown broker: {', '.join(sorted(wrong))}")
    with tempfile.TemporaryDirectory() as folder, playhouse(Path(folder)) as house:
        failures = _played(house, given.brokers or [broker.name for broker in BROKERS])
    if given.write:
        matrix.write()
    print(matrix.rendered())
    if matrix.in_page() != matrix.rendered():
        failures.append(f"{matrix.PAGE} does not show this matrix: make conformance ARGS=--write")
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if failures else 0


def _played(house: Playhouse, brokers: list[str]) -> list[str]:
    """Play the columns of these brokers; return what is not as documented."""
    failures = []
    for column in COLUMNS:
        if column.broker.name not in brokers:
            continue
        missing = house.missing(column.broker)
        if missing is not None:
            failures.append(f"{column.name}: {missing}")
            continue
        for name, outcome in house.run(column, CASES).items():
            if outcome.accident is not None:
                failures.append(f"{column.name}: {name}: {outcome.accident!r}")
            elif not as_documented(outcome.different, column, name):
                failures.append(f"{column.name}: {name}: seen {outcome.different}, documented {expected(column, name)}")
    return failures


sys.exit(main())
