"""The `authsvc` command with all its parts."""

from __future__ import annotations

import typer

app = typer.Typer(name="authsvc", no_args_is_help=True, add_completion=False)


@app.callback()
def root() -> None:
    """Authentication and authorisation service that an MQTT broker plugs in."""


def run() -> None:
    """Run the command line and exit."""
    app()
