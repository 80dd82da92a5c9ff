"""The `authsvc` command with all its parts."""

from __future__ import annotations

import typer

from authsvc.cli import (
    admins,
    brokerconfig,
    definitions,
    doctor,
    places,
    policytest,
    starting,
    things,
    tokens,
    watching,
)
from authsvc.cli.operator import example_of

app = typer.Typer(
    name="authsvc",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # its boxes cut long option names in 80 columns
    pretty_exceptions_enable=False,  # locals hold secrets
    epilog=example_of("authsvc up --data var"),
)


@app.callback()
def root() -> None:
    """Authentication and authorisation service that an MQTT broker plugs in."""


for chapter in (starting, places, definitions, tokens, things, watching, admins, policytest, brokerconfig, doctor):
    chapter.add(app)


def run() -> None:
    """Run the command line and exit."""
    app()
