"""The settings in docs/operations.md and config/authsvc.toml are those of the program."""

from __future__ import annotations

import re

from authsvc.settings import described
from tests.docs.pages import text_of

BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->"


def table() -> str:
    """Return the table as it has to stand in docs/operations.md."""
    lines = ["| setting | default | meaning | environment |", "|---|---|---|---|"]
    for name, variable, default, meaning in described():
        shown = f"`{default}`" if default else "empty"
        lines.append(f"| `{name}` | {shown} | {meaning.rstrip('.')} | `{variable}` |")
    return "\n".join(lines) + "\n"


def test_the_table_of_settings_is_that_of_the_program():
    """Names, defaults, meanings and environment variables, all of them and in order."""
    page = text_of("docs/operations.md")
    shown = page[page.index(BEGIN) + len(BEGIN) : page.index(END)]
    assert shown == table(), f"docs/operations.md needs this table:\n{table()}"


def test_the_shipped_file_says_what_the_table_says():
    """Each setting stands in config/authsvc.toml, below a comment that is its meaning."""
    lines = text_of("config/authsvc.toml").splitlines()
    for name, _, _, meaning in described():
        key = name.rpartition(".")[2]
        at = [n for n, line in enumerate(lines) if re.match(rf"(# )?{key} = ", line)]
        assert at, f"`{name}` is missing"
        assert any(lines[n - 1] == f"# {meaning}" for n in at), f"`{name}`: the comment is not `{meaning}`"
