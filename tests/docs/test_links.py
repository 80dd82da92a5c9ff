"""Links between the documents lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, links, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_and_anchors_resolve(page: Path):
    """The file is there, inside the repository, and has the heading."""
    wrong = []
    for target in links(page.read_text(encoding="utf-8")):
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        inside = file.is_relative_to(ROOT) and file.exists()
        if not inside or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            wrong.append(target)
    assert not wrong


def test_every_document_is_linked():
    """Who begins at the README finds every page by following links."""
    seen: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in links(page.read_text(encoding="utf-8")):
            file = (page.parent / target.partition("#")[0]).resolve()
            ahead += (
                sorted(file.glob("*.md")) if file.is_dir() else [file] if file.suffix == ".md" and file.exists() else []
            )
    assert not set(PAGES) - seen
