"""Tables fit the terminal that they are shown in."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from authsvc.cli import output

COLUMNS = ("time", "client_id", "topic", "rule", "count")
TOPIC = "default/" + "x" * 30
ROW = {"time": "2026-11-21T23:04:13.453938Z", "client_id": "press-7", "topic": TOPIC, "rule": "", "count": 3}


def shown(monkeypatch: pytest.MonkeyPatch, width: int, *rows: dict[str, object]) -> list[str]:
    stream = io.StringIO()
    monkeypatch.setattr(output, "console", lambda: Console(file=stream, width=width))
    output.Output().rows(rows, COLUMNS, key="time", empty="")
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_a_table_that_fits_is_a_table(monkeypatch: pytest.MonkeyPatch):
    """One line of names, one line a row, times to the second."""
    lines = shown(monkeypatch, 120, ROW)
    assert lines[0].split() == ["time", "client", "id", "topic", "rule", "count"]
    assert lines[1].split() == ["2026-11-21T23:04:13Z", "press-7", TOPIC, "-", "3"]


def test_a_table_that_nearly_fits_loses_its_empty_columns(monkeypatch: pytest.MonkeyPatch):
    """A column in which nothing stands makes room for the others."""
    lines = shown(monkeypatch, 82, ROW, ROW)
    assert lines[0].split() == ["time", "client", "id", "topic", "count"]
    assert len(lines) == 3


def test_a_table_that_does_not_fit_becomes_one_field_to_a_line(monkeypatch: pytest.MonkeyPatch):
    """No value is torn over lines; rows are set apart by an empty one."""
    lines = shown(monkeypatch, 60, ROW, ROW)
    record = ["time       2026-11-21T23:04:13Z", "client id  press-7", f"topic      {TOPIC}", "count      3"]
    assert lines == [*record, "", *record]
