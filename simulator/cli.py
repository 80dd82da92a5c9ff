"""The `simulator` command: run, list, report. Exit status 0 as expected, 1 not, 2 wrong usage."""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path
from typing import Annotated

import typer

from authsvc.cli.client import DEFAULT_URL, key_for
from authsvc.cli.operator import Data, Json, TenantKey, Url, example_of
from authsvc.cli.output import Output, console
from authsvc.cli.problems import CommandFailed
from simulator import report as reports
from simulator import scenarios
from simulator.places import Door
from simulator.runner import Where
from simulator.runner import run as play

app = typer.Typer(
    name="simulator",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # its boxes cut long option names in 80 columns
    pretty_exceptions_enable=False,
    epilog=example_of("simulator run quickstart"),
)


@app.callback()
def root() -> None:
    """Stand in for fleets of gateways, modules and applications, honest and hostile, and judge what is observed."""


@app.command("run", epilog=example_of("simulator run config/scenarios/quickstart.toml --mqtt 127.0.0.1:1883"))
def run(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A TOML file, or a name from `simulator list`.")],
    url: Url = DEFAULT_URL,
    mqtt: Annotated[
        str, typer.Option("--mqtt", metavar="HOST:PORT", envvar="SIMULATOR_MQTT", help="Where the broker listens.")
    ] = "127.0.0.1:1883",
    tenant: TenantKey = "default",
    data: Data = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Instead of the scenario's own.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write the report to this file, too.")] = None,
    as_json: Json = False,
) -> None:
    """Play a scenario against a running service; exit status 1 if an observation differs from its expectation."""
    try:
        loaded = scenarios.load(scenarios.find(scenario))
        where = Where(url=url, door=door(mqtt), tenant=tenant, key=key_for(url, data))
        raise_open_files()
        out = console(stderr=True)
        verdict = asyncio.run(play(loaded, where, seed=seed, say=lambda line: out.print(f"· {line}")))
    except (CommandFailed, scenarios.ScenarioInvalid) as failure:
        console(stderr=True).print(f"error: {failure}", soft_wrap=True)
        raise typer.Exit(1) from None
    if report is not None:
        report.write_text(verdict.to_json() + "\n", encoding="utf-8")
    _show(verdict, as_json=as_json)


@app.command("list", epilog=example_of("simulator list"))
def list_(as_json: Json = False) -> None:
    """List the scenarios that come with the simulator."""
    rows = []
    try:
        for path in scenarios.available():
            one = scenarios.load(path)
            rows.append(
                {"scenario": one.name, "title": one.title, "gateways": one.fleet.gateways, "seconds": one.duration_s}
            )
    except scenarios.ScenarioInvalid as failure:
        console(stderr=True).print(f"error: {failure}", soft_wrap=True)
        raise typer.Exit(1) from None
    columns = ("scenario", "gateways", "seconds", "title")
    Output(as_json=as_json).rows(rows, columns, key="scenario", empty="no scenario in config/scenarios")


@app.command("report", epilog=example_of("simulator report run.json"))
def report_(file: Annotated[Path, typer.Argument(metavar="FILE")], as_json: Json = False) -> None:
    """Show a report that `simulator run --report` wrote; exit status as that run's."""
    try:
        verdict = reports.read(file)
    except reports.ReportInvalid as failure:
        console(stderr=True).print(f"error: {failure}", soft_wrap=True)
        raise typer.Exit(1) from None
    _show(verdict, as_json=as_json)


def door(text: str) -> Door:
    """Return the address of ``HOST:PORT``. Raises CommandFailed."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise CommandFailed(f"`{text}` is not an address of the form HOST:PORT")
    return Door(host=host.strip("[]"), port=int(port))


def raise_open_files() -> None:
    """Raise the soft limit of open files to the hard one: every gateway is a connection of its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _show(verdict: reports.Report, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(verdict.to_json() + "\n")
    else:
        reports.show(verdict, console())
    raise typer.Exit(0 if verdict.ok else 1)


def main() -> None:
    """Run `simulator` with the process's arguments; does not return (exit status 0, 1 or 2)."""
    app()
