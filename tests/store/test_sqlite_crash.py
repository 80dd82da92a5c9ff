"""Kill -9 at random moments under load: what was answered is there, and nothing is half there."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from authsvc.store import Store
from tests.store.conftest import Clock

REPOSITORY = Path(__file__).parents[2]


def run_and_kill(path: Path, round_: int, after_s: float) -> tuple[set[str], set[str], float]:
    """Start the writer, kill it `after_s` after its first answer; return what it said was registered and deleted."""
    command = [sys.executable, "-m", "tests.store.crash_writer", str(path), str(round_)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        started = time.monotonic()
        # The pipe holds 64 KiB, over a thousand lines: the writer is not slowed within one round.
        time.sleep(after_s)
        process.kill()
        seconds = time.monotonic() - started
        lines = [first, *process.stdout.read().splitlines(keepends=True)]
    whole = [line.split() for line in lines if line.endswith("\n")]
    registered = {key for what, key, _ in whole if what == "registered"}
    deleted = {key for what, key, _ in whole if what == "deleted"}
    return registered, deleted, len(whole) / seconds


def check(path: Path, registered: set[str], deleted: set[str]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        things = {key for (key,) in connection.execute("SELECT key FROM things")}
        retired = {key for (key,) in connection.execute("SELECT key FROM retired")}
        ops = connection.execute("SELECT key, op FROM changes WHERE kind = 'thing'").fetchall()
        (used,) = connection.execute("SELECT used FROM licenses").fetchone()
        counted = dict(connection.execute("SELECT id, registered FROM tokens"))
        owned = dict(connection.execute("SELECT token_id, count(*) FROM things GROUP BY token_id"))
        (newest, rows) = connection.execute("SELECT max(position), count(*) FROM changes").fetchone()
    assert registered - things - retired == set(), "an answered registration is lost"
    assert deleted <= retired, "an answered deletion is lost"
    assert not things & retired, "a thing is half deleted"
    assert used == len(things), "a seat is half taken"
    assert {token: count for token, count in counted.items() if count} == owned, "a quota is half counted"
    assert sorted(key for key, op in ops if op == "registered") == sorted(things | retired)
    assert sorted(key for key, op in ops if op == "deleted") == sorted(retired)
    assert newest == rows, "a change row is missing"


@pytest.mark.parametrize("rounds", [4, pytest.param(30, marks=pytest.mark.slow)], ids=["4 kills", "30 kills"])
async def test_a_kill_at_a_random_moment_loses_nothing_answered_and_leaves_nothing_half(
    rounds: int, database_path: Path, clock: Clock
) -> None:
    """Under at least 100 writes a second; the same file is killed over and over and opened again."""
    moments = random.Random(20)
    registered: set[str] = set()
    deleted: set[str] = set()
    for round_ in range(rounds):
        more, gone, rate = run_and_kill(database_path, round_, moments.uniform(0.05, 0.6))
        assert rate > 100
        registered |= more
        deleted |= gone
        check(database_path, registered, deleted)
    store = await Store.open(database_path, now_us=clock)
    assert len((await store.things.list("acme", limit=1)).items) == 1
    await store.close()
