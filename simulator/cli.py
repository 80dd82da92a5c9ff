"""The `simulator` command: run, list, report."""

from __future__ import annotations

import typer

app = typer.Typer(name="simulator", no_args_is_help=True, add_completion=False)


@app.callback()
def root() -> None:
    """Stand in for fleets of gateways, modules and applications, honest and hostile."""


def main() -> None:
    """Run `simulator` with the process's arguments; does not return (exit status 0, 1 or 2)."""
    app()
