"""Policy tests as data: they pass when the rules do what is written, and fail when they do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from authsvc.cli.root import app

POLICIES = sorted((Path(__file__).parent.parent / "policies").glob("*.toml"))
RUN = CliRunner(env={"COLUMNS": "200"})
GRANT = '[grants.t]\nthing = "t"\ndefinition = { key = "thing" }\n'


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_policies_of_the_repository_hold(path: Path) -> None:
    """Every policy test that comes with the sources passes."""
    result = RUN.invoke(app, ["policy", "test", str(path)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("case", "said"),
    [
        pytest.param("allowed = false", "allowed is True, expected False", id="decision"),
        pytest.param('allowed = true\nrule = "definition/thing#1"', "rule is definition/thing#0", id="rule"),
        pytest.param('allowed = true\nreason = "rule_denies"', "reason is rule_allows", id="reason"),
    ],
)
def test_a_difference_is_named_and_is_status_1(tmp_path: Path, case: str, said: str) -> None:
    """Decision, reason and rule are each compared."""
    path = tmp_path / "p.toml"
    path.write_text(GRANT + f'[[case]]\naction = "publish"\ntopic = "default/default/t/state/x"\n{case}\n')
    result = RUN.invoke(app, ["policy", "test", str(path)])
    assert result.exit_code == 1
    assert said in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(GRANT + "case = []\n", "case", id="nothing tested"),
        pytest.param(
            GRANT + '[[case]]\naction = "publish"\ntopic = "x"\nallowed = true\nalowed = 1\n', "alowed", id="typo"
        ),
        pytest.param(
            GRANT + '[[case]]\ngrant = "u"\naction = "publish"\ntopic = "x"\nallowed = true\n', "`u`", id="no grant"
        ),
        pytest.param(
            '[grants.t]\ndefinition.key = "d"\n'
            'definition.rules = [{ effect = "allow", action = "publish", topic = "other/#" }]\n'
            '[[case]]\naction = "publish"\ntopic = "x"\nallowed = true\n',
            "rule_outside_tenant",
            id="a rule that the service would refuse",
        ),
        pytest.param("[grants\n", "not TOML", id="not TOML"),
    ],
)
def test_a_file_that_is_no_policy_test_is_status_1(tmp_path: Path, text: str, said: str) -> None:
    """A mistake in the file never counts as a passed test."""
    path = tmp_path / "p.toml"
    path.write_text(text)
    result = RUN.invoke(app, ["policy", "test", str(path)])
    assert result.exit_code == 1
    assert said in result.stderr


def test_json_lists_every_case(tmp_path: Path) -> None:
    """`--json` shows all cases with their outcome."""
    result = RUN.invoke(app, ["policy", "test", "--json", *map(str, POLICIES)])
    outcomes = json.loads(result.stdout)
    assert len(outcomes) >= 15
    assert all(one["ok"] for one in outcomes)
