"""`authsvc doctor --broker KIND --broker-file FILE…`: what is unsafe in a broker's own configuration, with the line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from authsvc.cli.output import Output
from authsvc.cli.problems import CommandFailed

COLUMNS = ("place", "severity", "option", "meaning", "instead")


def examine_broker(kind: str, files: Sequence[Path], *, version: str, out: Output) -> bool:
    """Print what is found in `files` and return whether nothing in them is unsafe or was not understood."""
    from authsvc.brokerconfig.linting import lint  # noqa: PLC0415  # not loaded for other commands
    from authsvc.core.errors import InvalidInput  # noqa: PLC0415

    try:
        found = lint(kind, files, version=version)
    except InvalidInput as error:
        raise CommandFailed(error.detail) from None
    rows = [
        {"place": f"{finding.file}:{finding.line}" if finding.line else finding.file, **asdict(finding)}
        for finding in found
    ]
    out.rows(rows, COLUMNS, key="place", empty="nothing unsafe found")
    return not any(finding.severity in {"unsafe", "unknown"} for finding in found)
