"""What every command promises: help with an example, status 2 for wrong usage, 1 and one clear line for failure."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from authsvc.cli.root import app as authsvc
from simulator.cli import app as simulator
from simulator.demo import app as demo
from tests.live_service import call, free_ports

KEY = "asadm_" + "x" * 49
RUN = CliRunner(
    env={"AUTHSVC_ADMIN_TOKEN": KEY, "AUTHSVC_URL": "", "AUTHSVC_TENANT": "", "COLUMNS": "200", "TERM": "dumb"}
)


def _paths(app: typer.Typer) -> list[tuple[str, ...]]:
    def walk(command: object, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        below = getattr(command, "commands", {})
        return [path] + [found for name, inner in below.items() for found in walk(inner, (*path, name))]

    return walk(typer.main.get_command(app), ())


COMMANDS = [
    pytest.param(app, path, id=" ".join((name, *path)))
    for name, app in (("authsvc", authsvc), ("simulator", simulator), ("demo", demo))
    for path in _paths(app)
]


@pytest.mark.parametrize(("app", "path"), COMMANDS)
def test_help_of_every_command_has_an_example(app: typer.Typer, path: tuple[str, ...]) -> None:
    """`--help` is exit status 0 and shows an example."""
    result = RUN.invoke(app, [*path, "--help"])
    assert result.exit_code == 0, result.output
    assert "Example: " in result.output


def test_all_commands_of_the_design_are_there() -> None:
    """The public commands do not go missing."""
    names = {" ".join(path) for path in _paths(authsvc)}
    nouns = {"tenant", "ground", "definition", "role", "license", "token", "thing", "session"}
    assert nouns | {"up", "serve", "refusals", "explain", "config", "doctor", "policy test"} <= names
    assert {
        f"{noun} {verb}" for noun in nouns - {"token", "session"} for verb in ("create", "list", "show", "delete")
    } <= names
    assert {f"token {verb}" for verb in ("create", "list", "show", "revoke", "regenerate")} <= names
    assert {" ".join(path) for path in _paths(simulator)} >= {"run", "list", "report"}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["frobnicate"], id="unknown command"),
        pytest.param(["ground", "create"], id="missing argument"),
        pytest.param(["ground", "list", "--frobnicate"], id="unknown option"),
        pytest.param(["license", "create", "l", "--seats", "many"], id="not a number"),
        pytest.param(["thing", "list", "--state", "sleepy"], id="not a choice"),
        pytest.param(["up", "--frobnicate"], id="up with unknown option"),
        pytest.param(["policy", "test"], id="policy test without file"),
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    """What cannot be understood is exit status 2."""
    assert RUN.invoke(authsvc, arguments).exit_code == 2


OPERATOR = [
    ["tenant", "list"],
    ["ground", "create", "g"],
    ["definition", "show", "d"],
    ["role", "delete", "r"],
    ["license", "update", "l", "--seats", "4"],
    ["token", "create", "t", "--quiet"],
    ["thing", "list", "--json"],
    ["session", "kick", "s"],
    ["refusals"],
    ["refusals", "--follow"],
    ["explain", "publish", "a/b", "--thing", "t"],
]


@pytest.mark.parametrize("arguments", OPERATOR, ids=" ".join)
def test_without_a_service_it_says_so(arguments: list[str]) -> None:
    """An operator command that finds no service names the address and the way out, on stderr, with status 1."""
    (port,) = free_ports(1)
    result = RUN.invoke(authsvc, [*arguments, "--url", f"http://127.0.0.1:{port}"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"error: no service answers at http://127.0.0.1:{port} : start one with authsvc up\n"


def test_without_service_and_key_the_missing_service_is_named_first(tmp_path) -> None:
    """Somebody who has not started anything is not sent looking for a key."""
    (port,) = free_ports(1)
    result = call("authsvc", "thing", "list", "--url", f"http://127.0.0.1:{port}", "--data", tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "no service answers" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(
            ["token", "create", "t", "--access", "read"], "needs its --ground", id="ground token without ground"
        ),
        pytest.param(
            ["token", "create", "t", "--thing", "a", "--license", "l"], "only app tokens", id="device with licence"
        ),
        pytest.param(
            ["token", "create", "t", "--thing", "a", "--ground", "g"], "name one of them", id="thing and ground"
        ),
        pytest.param(["token", "list", "--thing", "a", "--ground", "g"], "not both", id="list of both"),
        pytest.param(["ground", "delete", ""], "is not a key", id="empty key would be the list"),
        pytest.param(["thing", "delete", ".."], "is not a key", id="dots would be another path"),
        pytest.param(["explain", "publish", "a"], "name whose rules", id="explain nobody"),
        pytest.param(["definition", "create", "d", "--rule", "allow everything"], "not of the form", id="short rule"),
        pytest.param(
            ["role", "create", "r", "--rule", "allow publish a x=1"], "`x=1` is neither", id="unknown condition"
        ),
        pytest.param(["role", "create", "r", "--file", "/nowhere.json"], "cannot be read", id="missing file"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_asking(arguments: list[str], said: str) -> None:
    """A request that makes no sense fails with its reason, without a service."""
    result = RUN.invoke(authsvc, arguments)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "no service" not in result.stderr


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("two words", id="space"),
        pytest.param("asadm_\x00abc", id="control"),
        pytest.param("asadm_é", id="not ascii"),
    ],
)
def test_a_bad_admin_key_is_refused_and_not_shown(key: str, tmp_path) -> None:
    """What cannot be a key is never put into a header, nor on the terminal."""
    (tmp_path / "admin-token").write_text(key)
    (port,) = free_ports(1)
    result = RUN.invoke(authsvc, ["tenant", "list", "--data", str(tmp_path), "--url", f"http://127.0.0.1:{port}"])
    assert result.exit_code == 1
    assert key not in result.output


def test_list_of_scenarios_is_data() -> None:
    """`simulator list --json` names the quickstart."""
    result = RUN.invoke(simulator, ["list", "--json"])
    assert result.exit_code == 0
    assert [one["scenario"] for one in json.loads(result.stdout)] == ["quickstart"]
