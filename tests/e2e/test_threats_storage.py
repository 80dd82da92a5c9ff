"""The store fails or hangs at each question of a first CONNECT: refused in time, nothing left, then admitted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import BindClientId
from broker.limits import Limits
from tests.broker.upstreams import embedded
from tests.e2e.system import OWN, System, system_on

ASKED = [
    "token_by_digest",
    "tenant",
    "thing_or_retired",
    "definition",
    "ground",
    "persistent_count",
    "register",
    "open_upstream_session",
]


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """The broker does not matter here: the one in this process."""
    async with embedded() as upstream, system_on(upstream, tmp_path, limits=Limits(admission_s=0.3)) as running:
        yield running
        await running.sound()


@pytest.mark.parametrize("fault", ["fails", "breaks", "hangs"])
async def test_a_first_connect_meets_a_fault(system: System, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """CONNACK 3 in time, live sessions go on, and the same CONNECT is admitted when the store is well again."""
    living = await system.client("A1", clean=False)
    asked_of: list[str] = []

    def faulty(asked: str) -> Any:
        async def call(*_: Any, **__: Any) -> Any:
            asked_of.append(asked)
            if fault == "hangs":
                await asyncio.Event().wait()
            raise StoreUnavailable("broken for the test") if fault == "fails" else RuntimeError("broken for the test")

        return call

    for asked in ASKED:
        tenant = asked.replace("_", "-")  # of its own: nothing of it is in a cache yet
        await system.do(system.store.tenants.create(tenant))
        await system.do(system.store.definitions.create(tenant, "dev", rules=OWN, bind_client_id=BindClientId.NEVER))
        await system.do(system.store.grounds.create(tenant, "g"))
        secret = await system.app_token(asked, tenant, ground="g")
        with monkeypatch.context() as patched:
            patched.setattr(system.store, asked, faulty(asked))
            started = asyncio.get_running_loop().time()
            assert await system.code("new", secret, username="new", clean=False) == 3, asked
            assert asyncio.get_running_loop().time() - started < 3.0  # it may take 5
            assert asked in asked_of
            await living.ping()
            assert not [session for session in system.service.sessions if session.client_id == "new"]
            assert not system.gate.admission.tasks
        things = await system.store.things.list(tenant, limit=10)
        assert len(things.items) == (1 if asked == "open_upstream_session" else 0)
        again = await system.client(asked, "new", username="new", clean=False)
        assert not again.session_present
        await again.disconnect()
