"""The CONNECT decision of a known thing, in process; and what a hundred times more things do to a CONNECT."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from authsvc.core import tokens
from authsvc.core.credentials import ConnectRequest
from authsvc.core.facts import TokenKind
from authsvc.core.policy import compile_grant
from authsvc.service import Admitted, Service
from authsvc.store import Store
from tests.bench import load, servers
from tests.bench.fleets import Fleet, prepare
from tests.bench.table import Row

DECISIONS = 2_000
KNOWN = 50
PROBES = 1_000  # as many as the smaller store has things: none is asked twice, so none is cached


def _now_us() -> int:
    return time.time_ns() // 1_000


def run(pairs: int) -> list[Row]:
    cached, read = asyncio.run(_in_process(pairs))
    return [
        Row("CONNECT decision, known thing", "one SQLite read per step", cached, read, read / cached, 3, "s"),
        Row("CONNECT decision, known thing", "60 µs", cached, 60e-6, cached / 60e-6, 1, "s", at_most=True),
    ]


async def _in_process(pairs: int) -> tuple[float, float]:
    """Return seconds per decision: by the service, and by the same reads from the same store without any cache."""
    with tempfile.TemporaryDirectory() as folder:
        store = await Store.open(Path(folder) / "authsvc.db", now_us=_now_us)
        service = Service(store=store, now_us=_now_us)
        await service.start()
        task = asyncio.create_task(service.run(), name="service")
        try:
            await store.tenants.create("bench")
            secret = tokens.mint(TokenKind.APP)
            digest = tokens.digest(secret)
            written = await store.app_tokens.create(
                "bench", name="t", definition="gateway", digest=digest, prefix=tokens.prefix(secret)
            )
            await service.feed.settle(written.position)
            requests = [
                ConnectRequest(
                    client_id=f"c{n}", clean_session=True, username=f"gw-{n}", password=secret.encode(), will=None
                )
                for n in range(KNOWN)
            ]
            for request in requests:
                outcome = await service.admit(request, peer="127.0.0.1:1", broker="bench")
                if not isinstance(outcome, Admitted):
                    raise RuntimeError(f"refused: {outcome}")
            await service.feed.settle(await store.last_position())
            cached, read = [], []
            for _ in range(pairs):
                started = time.perf_counter()
                for n in range(DECISIONS):
                    await service.admit(requests[n % KNOWN], peer="127.0.0.1:1", broker="bench")
                cached.append((time.perf_counter() - started) / DECISIONS)
                started = time.perf_counter()
                for n in range(DECISIONS // 10):
                    await _uncached(store, digest, f"gw-{n % KNOWN}")
                read.append((time.perf_counter() - started) / (DECISIONS // 10))
            return statistics.median(cached), statistics.median(read)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await store.close()


async def _uncached(store: Store, digest: bytes, key: str) -> None:
    """Ask what the service asks, in the same order, each time from the store."""
    pair = await store.token_by_digest(digest)
    tenant = await store.tenant("bench")
    thing = await store.thing("bench", key)
    definition = await store.definition("bench", "gateway")
    ground = await store.ground("bench", "default")
    if not (pair and tenant and thing and definition and ground):
        raise RuntimeError(f"`{key}` is not complete")
    compile_grant(
        principal=f"thing/bench/{key}",
        tenant="bench",
        ground=thing.ground,
        thing=key,
        definition=definition,
        client_id="c",
        expires_at_us=None,
    )


def scale(rounds: int) -> list[Row]:
    """CONNECT p99 over the network with 100,000 stored things against 1,000; each probe is another thing."""
    with servers.mosquitto() as broker, tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        few, many = [], []
        for _ in range(rounds):
            few.append(_p99(broker, Path(one), 1_000))
            many.append(_p99(broker, Path(two), 100_000))
        small, large = statistics.median(few), statistics.median(many)
    return [Row("CONNECT p99, 100,000 things", "1,000 things", large, small, large / small, 1.5, "s", at_most=True)]


def _p99(broker: servers.Address, data: Path, things: int) -> float:
    """Start the service anew, so that nothing is cached, and connect known things one after the other."""
    fresh = not any(data.iterdir())
    if fresh:
        with servers.authsvc(upstream=broker, data=data) as service:
            fleet = prepare(service)
            (data / "bench-token").write_text(fleet.app_token)
            fleet.register(1)
        _copy_things(data / "authsvc.db", things)
    with servers.authsvc(upstream=broker, data=data) as service:
        fleet = Fleet(service, (data / "bench-token").read_text(), "")
        step = max(1, things // PROBES)
        took = []
        for n in range(PROBES):
            started = time.perf_counter()
            with contextlib.closing(load.open_client(service.mqtt, fleet.login(n * step % things))):
                took.append(time.perf_counter() - started)
    return statistics.quantiles(took, n=100)[98]


def _copy_things(path: Path, count: int) -> None:
    """Fill the table with copies of the first thing, as if each had connected once."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        cursor = db.execute("SELECT * FROM things WHERE key = 'bench-000000'")
        columns = [column[0] for column in cursor.description]
        row = dict(zip(columns, cursor.fetchone(), strict=True))
        row.pop("id", None)
        copies = (
            {**row, "key": f"bench-{n:06d}", "name": f"bench-{n:06d}", "client_id": f"bench-{n:06d}"}
            for n in range(1, count)
        )
        names = ", ".join(row)
        marks = ", ".join(f":{name}" for name in row)
        db.executemany(f"INSERT INTO things ({names}) VALUES ({marks})", copies)
