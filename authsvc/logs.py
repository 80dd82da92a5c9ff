"""Structured logs in which no secret can appear: human on a terminal, JSON otherwise."""

from __future__ import annotations

from typing import TextIO


def configure_logs(*, level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Route structlog and the standard library's logging through one chain to `stream` (default stderr).

    `form` is ``human``, ``json`` or ``auto`` (human on a terminal). Anything that looks like one of our tokens is
    replaced and control characters are escaped in every value, whoever logged it.
    """
