"""Readers of the two line formats: ``key = value`` of VerneMQ and RabbitMQ, ``key value`` of Mosquitto."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# cuttlefish_parse.peg: keys of words joined by dots, `=`, the value to the end of the line, a comment behind ` #`.
_CUTTLEFISH = re.compile(r"^\s*([A-Za-z0-9_$/\\\-]+(?:\.[A-Za-z0-9_$/\\\-]+)*)\s*=\s*(.*?)\s*$")
_COMMENT_BEHIND = re.compile(r"\s+#.*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One option with its value, as written, and its line."""

    key: str
    value: str
    line: int


@dataclass(slots=True)
class Lines:
    """The options of a file in their order, and the lines that are none."""

    options: list[Line] = field(default_factory=list)
    unknown: list[tuple[int, str]] = field(default_factory=list)


def read_cuttlefish(text: str) -> Lines:
    """Return the options of a file of ``key = value`` lines."""
    read = Lines()
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip().lstrip("\ufeff")
        if not stripped or stripped.startswith(("#", "%")):
            continue
        match = _CUTTLEFISH.match(_COMMENT_BEHIND.sub("", stripped))
        if match is None:
            read.unknown.append((number, "this is no `key = value`"))
            continue
        value, hash_, _ = match[2].partition("#")
        if hash_:  # cuttlefish 3.0 ends the value there; to the grammar of older ones it is part of it
            read.unknown.append((number, "a `#` right behind a value: a comment to some versions, and not to others"))
        read.options.append(Line(key=match[1], value=value.strip("'\""), line=number))
    return read


def read_mosquitto(text: str) -> Lines:
    """Return the options of a file of ``key value`` lines (mosquitto.conf(5): comments are whole lines)."""
    read = Lines()
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip().lstrip("\ufeff")
        if not stripped or stripped.startswith("#"):
            continue
        key, _, value = stripped.partition(" ") if "\t" not in stripped.split(" ")[0] else stripped.partition("\t")
        if not re.fullmatch(r"[A-Za-z0-9_]+", key):
            read.unknown.append((number, "this is no option"))
            continue
        read.options.append(Line(key=key, value=value.strip(), line=number))
    return read
