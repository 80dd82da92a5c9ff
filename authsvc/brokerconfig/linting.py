"""Reads a broker's own configuration files and says what in them is unsafe, with the line."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from authsvc.brokerconfig.findings import Finding
from authsvc.brokerconfig.installation import version_of
from authsvc.brokerconfig.linters import emqx, goauth, mosquitto, nanomq, rabbitmq, vernemq
from authsvc.brokerconfig.linters.sources import Source
from authsvc.core.errors import InvalidInput

_INCLUDES: Final = re.compile(r"^[ \t]*include_dir[ \t]+(.*?)[ \t\r]*$", re.MULTILINE)  # of Mosquitto
MAX_FILE_BYTES: Final = 4 << 20  # no broker's configuration is larger; a device or a log by mistake is

_Linter = Callable[[Sequence[Source], tuple[int, ...]], Iterator[Finding]]
LINTERS: Final[Mapping[str, _Linter]] = {
    "emqx": emqx.lint,
    "vernemq": vernemq.lint,
    "rabbitmq": rabbitmq.lint,
    "nanomq": nanomq.lint,
    "mosquitto-go-auth": goauth.lint,
    "mosquitto": mosquitto.lint,
}


def lint(kind: str, files: Sequence[Path], *, version: str = "") -> list[Finding]:
    """Return what is unsafe, doubtful or not understood in `files` of a broker of this kind, by file and line.

    Where files say different things of one option, the later file counts. `version` is the broker's; without one the
    default of an option that is not set is taken to be the worst that any version has.

    Raises:
        InvalidInput: the broker or version is none, or a file cannot be read as text.
    """
    if kind == "aedes":
        raise InvalidInput("invalid", "Aedes has no configuration file: it is a program, which no reader can vouch for")
    if kind not in LINTERS:
        raise InvalidInput("invalid", f"no reader for `{kind[:40]}`; there are {', '.join(LINTERS)}", field="broker")
    sources = [_source(path) for path in files]
    order = {source.file: number for number, source in enumerate(sources)}
    found = set(LINTERS[kind](sources, version_of(version)))
    return sorted(found, key=lambda finding: (order[finding.file], finding.line, finding))


def _source(path: Path) -> Source:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            raise InvalidInput("invalid", f"`{path}` is no configuration file", field="broker-file")
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InvalidInput("invalid", f"cannot read `{path}`: {error.strerror}", field="broker-file") from None
    except UnicodeDecodeError:
        raise InvalidInput("invalid", f"`{path}` is not text in UTF-8", field="broker-file") from None
    return Source(file=str(path), text=text, mode=stat.S_IMODE(status.st_mode), included=_included(text))


def _included(text: str) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for match in _INCLUDES.finditer(text):
        with suppress(OSError, ValueError):  # another machine's file, perhaps: then nobody can say what is there
            found[match[1]] = frozenset(one.name for one in Path(match[1]).iterdir() if one.suffix == ".conf")
    return found
