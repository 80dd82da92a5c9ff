"""How answers are shown: tables for people, ``--json`` for scripts, ``--quiet`` for one value in a shell variable.

Data goes to stdout, remarks and errors to stderr, so that a pipe sees data only.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDE = 10_000  # characters a line where stdout is no terminal: what is read by grep is never torn over lines
_FRACTION = re.compile(r"(?<=^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+Z$")  # of times: --json has it
_STATES = {"active": "green", "blocked": "red", "suspended": "red", "ok": "green", "warn": "yellow", "fail": "bold red"}


def console(*, stderr: bool = False) -> Console:
    """Return a console for stdout or stderr that never interprets data as markup."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        width=None if stream.isatty() else _WIDE,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One command's way of showing things."""

    as_json: bool = False
    quiet: bool = False

    def rows(self, items: Iterable[Mapping[str, Any]], columns: Sequence[str], *, key: str, empty: str) -> None:
        """Show a list: a table of `columns`, a JSON array, or with --quiet the `key` of each on a line."""
        found = list(items)
        if self.as_json:
            self._json(found)
        elif self.quiet:
            for item in found:
                sys.stdout.write(f"{item[key]}\n")
        elif not found:
            self.note(empty)
        else:
            self.print_rows(found, columns)

    def print_rows(self, found: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Print a table; in a terminal too narrow for it, without empty columns, or else one field to a line."""
        out = console()
        shown = table(found, columns)
        if _too_wide(shown, out):
            columns = [column for column in columns if any(_plain(item.get(column)) != "-" for item in found)]
            shown = table(found, columns)
        if not _too_wide(shown, out):
            out.print(shown)
            return
        for number, item in enumerate(found):
            if number:
                out.print()
            given = {column: item.get(column) for column in columns if _plain(item.get(column)) != "-"}
            out.print(fields(given))

    def one(self, item: Mapping[str, Any], *, key: str) -> None:
        """Show one object: its fields, JSON, or with --quiet its `key` alone."""
        if self.as_json:
            self._json(item)
        elif self.quiet:
            sys.stdout.write(f"{item[key]}\n")
        else:
            console().print(fields(item))

    def secret(self, item: Mapping[str, Any], *, what: str) -> None:
        """Show what was just created with its secret `token`: with --quiet the secret alone."""
        if self.as_json:
            self._json(item)
        elif self.quiet:
            sys.stdout.write(f"{item['token']}\n")
        else:
            console().print(fields({name: value for name, value in item.items() if name != "token"}))
            self.note(f"{what}: shown now and never again")
            sys.stdout.write(f"{item['token']}\n")

    def done(self, sentence: str) -> None:
        """Say that something was done that leaves nothing to show."""
        if self.as_json:
            self._json({"done": sentence})
        elif not self.quiet:
            self.note(sentence)

    def note(self, sentence: str) -> None:
        """Say something beside the data, on stderr."""
        if not self.quiet:
            console(stderr=True).print(sentence)

    def line(self, item: Mapping[str, Any]) -> None:
        """Print one object as one line of JSON, at once: for lists without an end."""
        sys.stdout.write(json.dumps(item) + "\n")
        sys.stdout.flush()

    def _json(self, value: object) -> None:
        json.dump(value, sys.stdout, indent=2)  # ASCII: a topic may hold control characters for terminals
        sys.stdout.write("\n")


def table(items: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """Return a table with one row per item."""
    shown = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        shown.add_column(column.replace("_", " "), overflow="fold")
    for item in items:
        shown.add_row(*(cell(item.get(column)) for column in columns))
    return shown


def _too_wide(shown: Table, out: Console) -> bool:
    return Measurement.get(out, out.options.update(max_width=10_000), shown).maximum > out.width


def fields(item: Mapping[str, Any]) -> Table:
    """Return an object as two columns, nested lists of objects (rules) one to a line."""
    shown = Table(box=None, pad_edge=False, show_header=False, show_edge=False)
    shown.add_column(style="bold")
    shown.add_column(overflow="fold")
    for name, value in item.items():
        shown.add_row(name.replace("_", " "), cell(value))
    return shown


def cell(value: object) -> Text:
    """Return a value as text: lists by commas, objects as ``name=value``, nothing as a dash."""
    plain = _plain(value)
    return Text(plain, style=_STATES.get(plain, ""))


def _plain(value: object) -> str:
    if value is None or value in ("", [], ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        if {"effect", "action", "topic"} <= value.keys():
            return _rule(value)
        return "  ".join(f"{name}={_plain(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        nested = any(isinstance(inner, Mapping) for inner in value)
        return ("\n" if nested else ", ").join(_plain(inner) for inner in value)
    text = "".join(character if character.isprintable() or character == "\n" else "?" for character in str(value))
    return _FRACTION.sub("Z", text)


def _rule(rule: Mapping[str, Any]) -> str:
    conditions = "".join(
        f" {name}={_plain(rule[name]) if name != 'retain' else str(rule[name]).lower()}"
        for name in ("qos_max", "retain")
        if rule.get(name) is not None
    )
    return f"{rule['effect']} {rule['action']} {rule['topic']}{conditions}"
