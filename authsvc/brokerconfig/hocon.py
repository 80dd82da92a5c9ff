"""A reader of HOCON that keeps the lines: enough of it for the files of EMQX and NanoMQ, and open about the rest.

HOCON is a superset of JSON (its specification: HOCON.md of lightbend/config; EMQX's dialect of it: emqx/hocon). Objects
merge, arrays and plain values replace what stood at their path, elements of an array are named 1, 2, … as EMQX does.
What is not followed is listed, never guessed: substitutions in `Document.unknown`, inclusions in `Document.included`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A plain value (its text without quotes) at a path, with the line of its key; empty arrays have ``value`` "[]"."""

    path: Path
    value: str
    line: int


@dataclass(slots=True)
class Document:
    """What was read: values in the order of lines, the lines of objects and arrays, and what was not understood."""

    entries: dict[Path, Entry] = field(default_factory=dict)
    opened: dict[Path, int] = field(default_factory=dict)
    unknown: list[tuple[int, str]] = field(default_factory=list)
    included: list[tuple[int, Path, str]] = field(default_factory=list)  # line, where, what
    emptied: list[tuple[int, Path]] = field(default_factory=list)  # where `{}` was written

    def get(self, *path: str) -> Entry | None:
        """Return the value at a path, None if there is none."""
        return self.entries.get(path)

    def line(self, *path: str) -> int:
        """Return the line of whatever stands at a path; of the nearest part of it that exists; else 0."""
        for length in range(len(path), 0, -1):
            part = path[:length]
            if part in self.entries:
                return self.entries[part].line
            if part in self.opened:
                return self.opened[part]
        return 0

    def has(self, *path: str) -> bool:
        """Return whether anything stands at a path: a value, an object or an array."""
        return path in self.entries or path in self.opened or bool(self.below(*path))

    def below(self, *path: str) -> list[str]:
        """Return the keys right below a path, in the order in which they were first written."""
        depth = len(path)
        found = {one[depth]: None for one in (*self.opened, *self.entries) if len(one) > depth and one[:depth] == path}
        keys = list(found)
        return sorted(keys, key=int) if keys and all(key.isdecimal() for key in keys) else keys

    def replace(self, path: Path) -> None:
        """Forget what stands at a path and below it."""
        depth = len(path)
        for table in (self.entries, self.opened):
            for key in [key for key in table if key[:depth] == path]:
                del table[key]


class _Reader:
    def __init__(self, text: str, document: Document, first_line: int) -> None:
        self._text = text
        self._at = 0
        self._line = first_line
        self.document = document

    def read(self) -> Document:
        self._blank(newlines=True)
        braced = self._peek() == "{"
        if braced:
            self._next()
        self._members((), until="}" if braced else "")
        return self.document

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._text[at] if at < len(self._text) else ""

    def _next(self) -> str:
        character = self._peek()
        self._at += 1
        if character == "\n":
            self._line += 1
        return character

    def _blank(self, *, newlines: bool) -> None:
        while character := self._peek():
            if character == "#" or (character == "/" and self._peek(1) == "/"):
                while self._peek() not in {"", "\n"}:
                    self._next()
            elif character == "\n" and not newlines:
                return
            elif character.isspace() or character == "\ufeff" or (newlines and character == ","):
                self._next()
            else:
                return

    def _skip_line(self, why: str) -> None:
        self.document.unknown.append((self._line, why))
        while self._peek() not in {"", "\n"}:
            self._next()

    def _members(self, base: Path, *, until: str) -> None:
        while True:
            self._blank(newlines=True)
            character = self._peek()
            if not character:
                if until:
                    self.document.unknown.append((self._line, f"the file ends before `{until}`"))
                return
            if character == until:
                self._next()
                return
            if character in "}]":
                self._next()
                self.document.unknown.append((self._line, f"`{character}` closes nothing"))
                continue
            self._member(base)

    def _member(self, base: Path) -> None:
        line = self._line
        keys = self._key()
        if not keys:
            self._skip_line("this is no key")
            return
        self._blank(newlines=False)
        if keys == ("include",) and self._peek() not in {"=", ":", "{"}:
            target = ""
            while self._peek() not in {"", "\n", "}"}:
                target += self._next()
            self.document.included.append((line, base, target.strip().strip('"')))
            return
        path = (*base, *keys)
        appended = self._text.startswith("+=", self._at)
        if appended:
            self._at += 1
        if self._peek() in {"=", ":"}:
            self._next()
            self._blank(newlines=True)
        elif self._peek() != "{":
            self._skip_line("a key without a value")
            return
        for length in range(len(base) + 1, len(path)):
            self.document.opened.setdefault(path[:length], line)
        if appended:
            number = len(self.document.below(*path)) + 1
            self.document.opened.setdefault(path, line)
            path = (*path, str(number))
        self._value(path, line)

    def _key(self) -> Path:
        parts: list[str] = []
        current = ""
        started = False
        while character := self._peek():
            if character == '"':
                current += self._quoted()
                started = True
            elif character == ".":
                self._next()
                parts.append(current.strip())
                current, started = "", False
            elif character in '{}[]:=,\n#"' or self._text.startswith("+=", self._at) or self._including(parts, current):
                break
            else:
                current += self._next()
                started = True
        if started:
            parts.append(current.strip())
        return tuple(parts) if all(parts) else ()

    def _including(self, parts: list[str], current: str) -> bool:
        return not parts and current == "include" and self._peek().isspace()

    def _value(self, path: Path, line: int) -> None:
        character = self._peek()
        if character == "{":
            self._next()
            if path in self.document.entries:
                del self.document.entries[path]
            self.document.opened.setdefault(path, line)
            begun = self._at
            self._members(path, until="}")
            if self._text[begun : self._at - 1].isspace() or begun == self._at - 1:
                self.document.emptied.append((line, path))
            return
        self.document.replace(path)
        if character == "[":
            self._next()
            self._array(path, line)
            return
        self.document.entries[path] = Entry(path=path, value=self._scalar(), line=line)

    def _array(self, path: Path, line: int) -> None:
        self.document.opened[path] = line
        number = 0
        while True:
            self._blank(newlines=True)
            character = self._peek()
            if not character:
                self.document.unknown.append((self._line, "the file ends inside an array"))
                return
            if character == "]":
                self._next()
                break
            if character in "}:=":
                self._next()
                self.document.unknown.append((self._line, f"`{character}` inside an array"))
                continue
            number += 1
            self._value((*path, str(number)), self._line)
        if not number:
            self.document.entries[path] = Entry(path=path, value="[]", line=line)

    def _scalar(self) -> str:
        line = self._line
        text = ""
        while character := self._peek():
            if character == '"':
                text += self._quoted()
            elif self._text.startswith("${", self._at):
                self.document.unknown.append((line, "a substitution: what it becomes cannot be told from this file"))
                while self._peek() not in {"", "\n", "}"}:
                    text += self._next()
                if self._peek() == "}":
                    text += self._next()
            elif character in "}],\n" or character == "#" or self._text.startswith("//", self._at):
                break
            elif character in "{[":
                self._skip_line("a value joined to an object or array")
                break
            else:
                text += self._next()
        return text.strip()

    def _quoted(self) -> str:
        if self._text.startswith('"""', self._at):
            end = self._text.find('"""', self._at + 3)
            end = len(self._text) if end < 0 else end
            text = self._text[self._at + 3 : end]
            self._line += text.count("\n")
            self._at = end + 3
            return text
        self._next()
        text = ""
        while (character := self._peek()) not in {"", '"'}:
            if character == "\n":
                self.document.unknown.append((self._line, "a quoted text without its end"))
                return text
            text += self._next()
            if character == "\\" and self._peek():
                text = text[:-1] + {"n": "\n", "t": "\t"}.get(self._peek(), self._peek())
                self._next()
        self._next()
        return text


def read_hocon(*texts: str) -> Document:
    """Return what `texts` say, as one file of them all would; never raises: what was not read is in `unknown`.

    Lines are counted on from text to text, each of which has one more than it has ends of lines.
    """
    document = Document()
    line = 1
    for text in texts:
        _Reader(text, document, line).read()
        line += text.count("\n") + 1
    _note_objects_over_arrays(document)
    return document


def _note_objects_over_arrays(document: Document) -> None:
    """Add to `unknown` where an array has become an object, or both at once: which of them stands is not guessed."""
    children: dict[Path, dict[bool, int]] = {}  # is the key a number: line of the first such key
    lines = {**document.opened, **{path: entry.line for path, entry in document.entries.items()}}
    for path, line in lines.items():
        if path:
            children.setdefault(path[:-1], {}).setdefault(path[-1].isdecimal(), line)
    mixed = [(keys[False], path) for path, keys in children.items() if len(keys) > 1]
    emptied = [(line, path) for line, path in document.emptied if True in children.get(path, {})]
    document.unknown += [(line, "an object in the place of an array") for line, _ in (*mixed, *emptied)]
