"""Several files of ``key = value`` lines as one configuration: a later line replaces an earlier one of the same key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from authsvc.brokerconfig.findings import Finding
from authsvc.brokerconfig.keyvalue import Line, Lines
from authsvc.brokerconfig.linters.sources import TRUE, Source


class Together:
    """What the files say of each key, with file and line; what is missing is said of the last file, line 0."""

    def __init__(self, read: Sequence[tuple[Source, Lines]]) -> None:
        self._read = read
        self._found: dict[str, tuple[Source, Line]] = {
            option.key: (source, option) for source, lines in read for option in lines.options
        }

    def unknown(self) -> Iterator[Finding]:
        """Yield the lines that were not understood."""
        for source, lines in self._read:
            for number, why in lines.unknown:
                yield source.unknown(number, "syntax", why)

    def source(self, key: str) -> Source:
        """Return the file that has the key; the last of all if none has."""
        return self._found[key][0] if key in self._found else self._read[-1][0]

    def line(self, key: str) -> int:
        """Return the line of the key, 0 if it is nowhere."""
        return self._found[key][1].line if key in self._found else 0

    def value(self, key: str) -> str | None:
        """Return the value of the key, None if it is nowhere."""
        return self._found[key][1].value if key in self._found else None

    def on(self, key: str, *, default: bool = False) -> bool:
        """Return whether the key is switched on; `default` where it is not set."""
        value = self.value(key)
        return default if value is None else value.lower() in TRUE

    def by_default(self, key: str) -> str:
        """Return what to add to a meaning if the key is not set."""
        return "" if key in self._found else " (by default)"

    def matching(self, pattern: str) -> Iterator[tuple[Source, Line, re.Match[str]]]:
        """Yield the keys that match as a whole."""
        for key, (source, option) in self._found.items():
            if match := re.fullmatch(pattern, key):
                yield source, option, match

    def unsafe(self, key: str, meaning: str, instead: str) -> Finding:
        """Return a finding at the key's place."""
        return self.source(key).unsafe(self.line(key), key, meaning, instead)

    def doubtful(self, key: str, meaning: str, instead: str) -> Finding:
        """Return a finding at the key's place."""
        return self.source(key).doubtful(self.line(key), key, meaning, instead)

    def unknown_at(self, key: str, meaning: str) -> Finding:
        """Return a finding at the key's place."""
        return self.source(key).unknown(self.line(key), key, meaning)
