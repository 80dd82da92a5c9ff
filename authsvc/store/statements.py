"""The named statements of `queries/*.sql`, loaded once per engine through aiosql."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

import aiosql


def load_statements(driver: str = "sqlite3") -> Mapping[str, str]:
    """Return name → SQL text in the driver's parameter style, from every file of the package's `queries` folder."""
    folder = resources.files("authsvc.store").joinpath("queries")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    statements: dict[str, str] = {}
    for file in files:
        queries = aiosql.from_str(file.read_text(encoding="utf-8"), driver)
        for name in queries.available_queries:
            if name.endswith("_cursor"):  # aiosql's twin of every select
                continue
            if name in statements:
                raise ValueError(f"statement `{name}` is defined twice; the second time in `{file.name}`")
            statements[name] = getattr(queries, name).sql
    return statements
