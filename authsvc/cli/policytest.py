"""`authsvc policy test`: decides the cases of policy files (`policyfile`) and compares; needs no service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authsvc.cli.operator import Json, Quiet, example_of, failures, group
from authsvc.cli.output import Output


def add(app: typer.Typer) -> None:
    """Add the group to `app`."""
    policy = group(app, "policy", "Policy tests: access rules tested as data.")

    @policy.callback()
    def only_group() -> None:
        """Policy tests: access rules tested as data."""

    @policy.command("test", epilog=example_of("authsvc policy test tests/policies/*.toml"))
    def test(
        files: Annotated[
            list[Path], typer.Argument(metavar="FILE...", help="TOML files with [grants.*] and [[case]].")
        ],
        as_json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Decide every case of the files and compare; needs no service. Exit status 1 if one differs."""
        from authsvc.cli.policyfile import run_file  # noqa: PLC0415  # core and pydantic are not loaded for others

        with failures():
            outcomes = [outcome for path in files for outcome in run_file(path)]
            out = Output(as_json=as_json, quiet=quiet)
            failed = [outcome for outcome in outcomes if outcome.wrong]
            shown = outcomes if as_json else failed
            rows = [{"file": one.file, "case": one.name, "ok": not one.wrong, "wrong": one.wrong} for one in shown]
            if as_json or failed:
                out.rows(rows, ("file", "case", "wrong"), key="case", empty="")
            if not as_json:
                out.note(f"{len(outcomes) - len(failed)} of {len(outcomes)} cases as expected")
            if failed:
                raise typer.Exit(1)
