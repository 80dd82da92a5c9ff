"""The documents as the tests read them: blocks of code, commands, links, headings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = r"^```(\w*)\n(.*?)^```$"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language, in order."""
    return [body for given, body in re.findall(_BLOCK, text, re.MULTILINE | re.DOTALL) if given == language]


def without_blocks(text: str) -> str:
    return re.sub(_BLOCK, "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", without_blocks(text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return found


def links(text: str) -> list[str]:
    """Return the targets of all links that are no URL."""
    found = re.findall(r"\]\(([^)\s]+)\)", without_blocks(text))
    return [target for target in found if "://" not in target]


def command_lines(text: str) -> list[list[str]]:
    """Return the words of each command of ours that a page shows, in blocks and in running text."""
    shown: list[str] = []
    for language in ("sh", "console", ""):
        for block in blocks(text, language):
            lines = block.replace("\\\n", " ").splitlines()
            shown += [line.removeprefix("$ ") for line in lines if language != "console" or line.startswith("$ ")]
    shown += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", without_blocks(text))]
    found = []
    for line in shown:
        for inner in _commands_within(line):
            found.append(inner)
    return found


def _commands_within(line: str) -> list[list[str]]:
    found = []
    for match in re.finditer(r"(?:^|\$\(|&& |; |\"\$\()(authsvc|simulator) ", line):
        rest = line[match.start(1) :]
        opened = line[: match.start(1)].endswith("$(")
        try:
            words = shlex.split(_until_closed(rest) if opened else rest, comments=True)
        except ValueError:
            words = rest.split()
        ends = [at for at, word in enumerate(words) if word in {"&&", "||", "|", "&", ";", "<<"}]
        found.append(words[: ends[0]] if ends else words)
    return found


def _until_closed(text: str) -> str:
    depth = 1
    for at, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return text[:at]
        if character == "|" and depth == 1:
            return text[:at]
    return text
