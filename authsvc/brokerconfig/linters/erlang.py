"""EMQX's acl.conf: Erlang terms, each ended by a dot; any rule that allows decides beside authsvc."""

from __future__ import annotations

import re
from collections.abc import Iterator

from authsvc.brokerconfig.findings import Finding
from authsvc.brokerconfig.linters.sources import Source

_TOKEN = re.compile(r"%[^\n]*|\"(?:\\.|[^\"\\])*\"|<<|>>|\.(?=\s|$|%)|\s+|[^%\"\s.]+|.")


def looks_like_terms(text: str) -> bool:
    """Return whether a file holds Erlang terms rather than HOCON or JSON."""
    stripped = "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("%"))
    return re.match(r"\s*\{\s*(allow|deny)\s*,", stripped) is not None


def terms(text: str) -> tuple[list[tuple[int, str]], int]:
    """Return (line, term without blanks) of each term, and the line of an unfinished one at the end, or 0."""
    found: list[tuple[int, str]] = []
    line, begun, current = 1, 0, ""
    for match in _TOKEN.finditer(text):
        part = match[0]
        if part == "." and current:
            found.append((begun, current))
            current = ""
        elif not part.isspace() and not part.startswith("%"):
            begun = begun if current else line
            current += part
        line += part.count("\n")
    return found, begun if current else 0


def lint_acl(source: Source) -> Iterator[Finding]:
    """Yield the rules of an acl.conf that allow, and denials that do not reach topics which begin with ``$``."""
    found, unfinished = terms(source.text)
    if unfinished:
        yield source.unknown(unfinished, "syntax", "a term without its dot")
    for line, term in found:
        if re.fullmatch(r"\{allow,(all|\{security_profile,\w+\})\}", term):
            meaning = "everybody may do everything that no rule before it denies"
            if "security_profile" in term:
                meaning = "everybody may do everything unless EMQX_SECURITY_PROFILE=hardened, the default from 6.3"
            yield source.unsafe(line, "allow", meaning, "{deny, all}., better no file source at all")
        elif term.startswith("{allow,"):
            meaning = "it allows without authsvc; a client chooses its user name and client id, an address is shared"
            yield source.unsafe(line, "allow", meaning, "remove the rule and the file source")
        elif term.startswith("{deny,"):
            topics = re.findall(r"(\{eq,)?\"([^\"]*)\"", term)
            if any(topic == "#" and not equal for equal, topic in topics) and not any(
                topic.startswith("$SYS") for _, topic in topics
            ):
                meaning = "`#` does not match topics that begin with `$`, so $SYS stays open to a later rule"
                yield source.unsafe(line, "deny", meaning, '{deny, all}. or add "$SYS/#"')
        else:
            yield source.unknown(line, "rule", "neither allow nor deny")
