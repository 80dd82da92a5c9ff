"""What a linter says of a place in a broker's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["unsafe", "doubtful", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """One line of a file that is `unsafe`, `doubtful`, or `unknown`: not understood, so not vouched for.

    `line` counts from 1; 0 speaks of the file as a whole, as what is missing from it does. No text of the file but
    names of options stands in the others, so that no secret gets out by way of a finding.
    """

    file: str
    line: int
    severity: Severity
    option: str
    meaning: str
    instead: str
