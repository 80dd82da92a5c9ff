"""docs/security.md names tests that exist and files that are there."""

from __future__ import annotations

import ast
import re

from tests.docs.pages import ROOT, text_of

PAGE = text_of("docs/security.md")


def _named() -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def test_every_test_that_is_named_exists():
    """A promise must not rest on a test that was renamed away."""
    missing = []
    for file, name in _named():
        path = ROOT / file
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module(body=[], type_ignores=[])
        names = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
        if name not in names:
            missing.append(f"{file}::{name}")
    assert not missing


def test_each_of_the_twelve_promises_names_its_tests():
    """Twelve headings, each with at least three tests below it."""
    promises = PAGE[PAGE.index("## The promises") : PAGE.index("## What is not promised")]
    parts = re.split(r"^### ", promises, flags=re.MULTILINE)[1:]
    assert [part.split(".")[0] for part in parts] == [str(number) for number in range(1, 13)]
    for part in parts:
        assert len(re.findall(r"`tests/", part)) >= 3, part.splitlines()[0]


def test_files_that_are_named_are_there():
    """Where a mechanism is said to live, it lives."""
    for file in set(re.findall(r"`((?:authsvc|broker)/[\w/]+\.py)`", PAGE)):
        assert (ROOT / file).exists(), file


def test_the_pattern_for_secret_scanners_finds_every_kind_of_token():
    """What the page tells scanners to look for is what is minted."""
    from authsvc.core.facts import TokenKind
    from authsvc.core.tokens import mint

    pattern = re.search(r"`(as\([^`]+)`", PAGE)
    assert pattern is not None
    for kind in TokenKind:
        assert re.fullmatch(pattern[1], mint(kind)), kind
