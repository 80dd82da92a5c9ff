"""Every command line that a document shows is one that the program understands."""

from __future__ import annotations

import re

import pytest
import typer.main

from authsvc.cli.root import app as authsvc
from simulator.cli import app as simulator
from tests.docs.pages import PAGES, ROOT, command_lines, name_of

PROGRAMS = {"authsvc": typer.main.get_command(authsvc), "simulator": typer.main.get_command(simulator)}

SHOWN = [
    pytest.param(words, id=f"{name_of(page)}: {' '.join(words)}")
    for page in PAGES
    for words in command_lines(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("words", SHOWN)
def test_command_is_understood(words: list[str]):
    """It parses, with its options and arguments; one named without them in a sentence names a command."""
    command, path, rest = PROGRAMS[words[0]], [words[0]], words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        path.append(rest.pop(0))
        command = command.commands[path[-1]]
    assert path[1:], "no command of ours"
    if not rest:
        return
    assert not hasattr(command, "commands"), f"`{rest[0]}` is no command of `{' '.join(path)}`"
    try:
        command.make_context(path[-1], ["x" if word.startswith("$") else word for word in rest])
    except Exception as error:
        raise AssertionError(f"{' '.join(path)}: {error}") from None


def test_documents_show_commands():
    """The reader of the pages has found them: a table of nothing proves nothing."""
    assert len(SHOWN) > 30
    shown = {" ".join(param.values[0][:3]) for param in SHOWN}
    assert {"authsvc token create", "authsvc admin-key create", "authsvc thing bind-module"} <= shown


def test_targets_of_make_exist():
    """`make …` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert target in targets, f"{name_of(page)}: make {target}"
