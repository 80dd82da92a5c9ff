"""Reads a broker's own configuration files and says what in them is unsafe, with the line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from authsvc.brokerconfig.findings import Finding


def lint(kind: str, files: Sequence[Path], *, version: str = "") -> list[Finding]:
    """Return what is unsafe, doubtful or not understood in `files` of a broker of this kind, in the order of lines.

    Raises:
        OSError: a file cannot be read.
    """
    raise NotImplementedError(kind, files, version)
