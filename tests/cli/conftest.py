"""A running service for the commands: one for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live_service import LiveService, live_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    with live_service(tmp_path_factory.mktemp("operated")) as running:
        yield running
