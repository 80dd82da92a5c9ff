"""Every command line that a document shows is one that the program understands."""

from __future__ import annotations

import re

import click
import pytest
import typer.main

from authsvc.cli.root import app as authsvc
from simulator.cli import app as simulator
from tests.docs.pages import PAGES, ROOT, command_lines, name_of

PROGRAMS = {"authsvc": typer.main.get_command(authsvc), "simulator": typer.main.get_command(simulator)}
PLACEHOLDERS = {"DIR", "FILE", "HOST:PORT", "ID", "KEY"}

SHOWN = [
    pytest.param(words, id=f"{name_of(page)}: {' '.join(words)}")
    for page in PAGES
    for words in command_lines(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("words", SHOWN)
def test_command_is_understood(words: list[str]):
    """It parses, with its options and arguments; one named without them in a sentence names a command."""
    command, path, rest = PROGRAMS[words[0]], [words[0]], words[1:]
    context = command.make_context(words[0], [], resilient_parsing=True)
    while rest and isinstance(command, click.Group) and rest[0] in command.commands:
        command = command.commands[rest[0]]
        path.append(rest.pop(0))
        context = click.Context(command, info_name=path[-1], parent=context)
    assert path[1:], f"no command: {words}"
    if not rest or isinstance(command, click.Group):
        assert not rest, f"`{rest[0]}` is no command of `{' '.join(path)}`"
        return
    command.make_context(path[-1], [re.sub(r"^\$\(.*|^\$\w+$", "x", word) for word in rest], parent=context.parent)


def test_documents_show_commands():
    """The reader of the pages has found them: a table of nothing proves nothing."""
    assert len(SHOWN) > 40
    shown = {" ".join(param.values[0][:3]) for param in SHOWN}
    assert {"authsvc token create", "authsvc admin-key create", "authsvc thing bind-module"} <= shown


def test_targets_of_make_exist():
    """`make …` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert target in targets, f"{name_of(page)}: make {target}"
