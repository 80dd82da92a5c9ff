"""Creating and upgrading the file: crashes in the middle, two at once, older and foreign programs."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from authsvc.core.errors import StoreUnavailable
from authsvc.store import Store
from authsvc.store.faults import has_reset_race
from authsvc.store.migrations import Migration, known_migrations, prepare
from tests.store.conftest import Clock

REPOSITORY = Path(__file__).parents[2]


def migrations(*extra: tuple[str, ...]) -> list[Migration]:
    known = list(known_migrations())
    for statements in extra:
        known.append(Migration(version=len(known) + 1, name="extra", statements=statements))
    return known


def schema_version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_new_file_appears_complete_private_and_in_wal_mode(database_path: Path) -> None:
    """It is built beside the path and linked: nobody ever sees a half-made one, and nothing is left over."""
    prepare(database_path)
    assert database_path.stat().st_mode & 0o777 == 0o600
    assert schema_version(database_path) == len(known_migrations())
    with closing(sqlite3.connect(database_path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert [path.name for path in database_path.parent.iterdir()] == [database_path.name]


def test_a_migration_that_breaks_off_leaves_the_version_before_and_is_resumed(database_path: Path) -> None:
    """Each migration and its number are one transaction."""
    prepare(database_path)
    before = schema_version(database_path)
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        prepare(database_path, migrations=migrations(("CREATE TABLE extra (a)", "INSERT INTO nowhere VALUES (1)")))
    assert schema_version(database_path) == before
    assert "extra" not in tables(database_path)
    prepare(database_path, migrations=migrations(("CREATE TABLE extra (a)", "INSERT INTO extra VALUES (1)")))
    assert schema_version(database_path) == before + 1
    assert "extra" in tables(database_path)


MIGRATE = """
import os, signal, sqlite3, sys
from pathlib import Path
from authsvc.store.migrations import Migration, known_migrations, prepare
known = list(known_migrations())
rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) "
known.append(Migration(version=len(known) + 1, name="long", statements=(
    "CREATE TABLE extra (a)", rows + "INSERT INTO extra SELECT i FROM n")))
print("begin", flush=True)
prepare(Path(sys.argv[1]), migrations=known)
print("end", flush=True)
"""


def start(script: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


def test_a_kill_in_the_middle_of_a_migration_is_resumed(database_path: Path) -> None:
    """SIGKILL while statements run: the next start finds the old schema whole and migrates again."""
    prepare(database_path)
    before = schema_version(database_path)
    with start(MIGRATE, database_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.kill()
    assert schema_version(database_path) == before
    assert "extra" not in tables(database_path)
    prepare(database_path, migrations=migrations(("CREATE TABLE extra (a)",)))
    assert schema_version(database_path) == before + 1


def test_of_two_processes_at_once_one_creates_and_both_open(database_path: Path) -> None:
    """Six at once on a missing file: one file, one schema, no left-overs, no error."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom authsvc.store.migrations import prepare\nprepare(Path(sys.argv[1]))"
    )
    running = [start(script, database_path) for _ in range(6)]
    for process in running:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    assert schema_version(database_path) == len(known_migrations())
    assert [path.name for path in database_path.parent.iterdir()] == [database_path.name]


def test_an_older_program_refuses_a_newer_schema_and_says_what_to_do(database_path: Path) -> None:
    """It changes nothing and names both versions."""
    prepare(database_path, migrations=migrations(("CREATE TABLE extra (a)",)))
    newer = len(known_migrations()) + 1
    with pytest.raises(StoreUnavailable, match=f"schema {newer}, this program knows schemas up to {newer - 1}"):
        prepare(database_path)
    assert schema_version(database_path) == newer


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"not a database, but long enough to be one" * 100, "not a database")],
    ids=["empty", "garbage"],
)
async def test_what_is_not_our_database_is_refused_and_kept(
    content: bytes, words: str, database_path: Path, clock: Clock
) -> None:
    """An empty file is a truncated one, never a reason to begin anew with open doors."""
    database_path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=words):
        await Store.open(database_path, now_us=clock)
    assert database_path.read_bytes() == content


async def test_another_programs_database_is_refused(database_path: Path, clock: Clock) -> None:
    """A SQLite file without our application id is not migrated."""
    with closing(sqlite3.connect(database_path)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
        connection.commit()
    with pytest.raises(StoreUnavailable, match="not a database of authsvc"):
        await Store.open(database_path, now_us=clock)
    assert tables(database_path) == {"theirs"}


async def test_a_missing_file_beside_its_log_is_refused(database_path: Path, clock: Clock) -> None:
    """Somebody deleted the database: a new one would be a new world with the old doors."""
    database_path.with_name(database_path.name + "-wal").write_bytes(b"x")
    with pytest.raises(StoreUnavailable, match="is gone"):
        await Store.open(database_path, now_us=clock)
    assert not database_path.exists()


async def test_a_missing_file_is_not_created_when_it_must_be_there(database_path: Path, clock: Clock) -> None:
    """`create=False` is for whoever knows that it has started before."""
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await Store.open(database_path, now_us=clock, create=False)
    assert not database_path.exists()


async def test_a_file_that_was_readable_by_others_is_closed_to_them(database_path: Path, clock: Clock) -> None:
    """Modes are set at each start."""
    prepare(database_path)
    database_path.chmod(0o644)
    store = await Store.open(database_path, now_us=clock)
    assert database_path.stat().st_mode & 0o777 == 0o600
    await store.close()


async def test_a_copy_made_while_it_writes_opens_elsewhere(database_path: Path, tmp_path: Path, clock: Clock) -> None:
    """`VACUUM INTO`, as a backup does it, gives a consistent file; what was revoked stays revoked in it."""
    store = await Store.open(database_path, now_us=clock)
    await store.tenants.create("acme")
    token = await store.app_tokens.create("acme", name="t", digest=b"d" * 32, prefix="asapp_abcd")
    await store.app_tokens.delete("acme", token.value.id)
    copy = tmp_path / "backup.db"

    def back_up() -> None:
        with closing(sqlite3.connect(database_path)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))

    writes = [store.grounds.create("acme", f"g{number}") for number in range(50)]
    await asyncio.gather(asyncio.to_thread(back_up), *writes)
    await store.close()
    restored = await Store.open(copy, now_us=clock)
    found = await restored.token_by_digest(b"d" * 32)
    assert found is not None
    assert found[0].revoked_at_us is not None
    assert found[1].revoked_at_us is not None
    await restored.close()


@pytest.mark.parametrize(
    ("version", "racy"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_old_sqlite_versions_with_the_reset_race_are_known(version: tuple[int, ...], racy: bool) -> None:
    """Fixed in 3.51.3, and in the back-ports 3.50.7 and 3.44.6."""
    assert has_reset_race(version) is racy


async def test_a_racy_sqlite_is_noted_and_stops_nothing(database_path: Path, clock: Clock) -> None:
    """It is a note in the state, for the operator."""
    store = await Store.open(database_path, now_us=clock)
    assert bool(store.state.notes) is has_reset_race(sqlite3.sqlite_version_info)
    assert store.state.writable
    await store.close()


def test_an_unprivileged_program_refuses_a_file_that_it_may_not_write(database_path: Path) -> None:
    """chmod 0400 under another owner: it says so and stops; as nobody, for root may write everything."""
    if os.geteuid() != 0:
        pytest.skip("needs another user")
    prepare(database_path)
    known = known_migrations()  # here: they are files of a checkout that may be closed to others
    home = Path("/tmp") / f"authsvc-test-{os.getpid()}"
    home.mkdir()
    try:
        path = home / "authsvc.db"
        shutil.copy(database_path, path)
        path.chmod(0o444)
        home.chmod(0o755)
        pid = os.fork()
        if pid == 0:
            os.setgid(65534)
            os.setuid(65534)
            try:
                prepare(path, migrations=known)
            except StoreUnavailable:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    finally:
        shutil.rmtree(home)
