"""Creates and migrates the database file: numbered plain SQL, each in one transaction with its version number.

A new file is built beside the path and linked to it when it is complete, so that an empty file at the path is never
"a new database": it is a truncated one, and refused. Synchronous: runs on a thread before the engine opens.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from secrets import token_hex
from urllib.parse import quote

from authsvc.core.errors import StoreUnavailable

APPLICATION_ID = 0x61757468  # "auth": PRAGMA application_id of our files
MIGRATION_LOCK_S = 10.0  # another process that migrates is waited for this long


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered script; `statements` are run in order, in one transaction."""

    version: int
    name: str
    statements: tuple[str, ...]


def known_migrations() -> tuple[Migration, ...]:
    """Return the migrations of this program in order, read from the package's `schema/sqlite` files."""
    found = []
    for file in resources.files("authsvc.store").joinpath("schema/sqlite").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match:
            text = file.read_text(encoding="utf-8")
            found.append(Migration(version=int(match[1]), name=match[2], statements=tuple(_statements(text))))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise StoreUnavailable("the schema files of this installation are not numbered 1, 2, 3…: reinstall it")
    return tuple(found)


def _statements(text: str) -> Iterator[str]:
    pending = ""
    for line in text.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
    if re.sub(r"--[^\n]*", "", pending).strip():
        raise StoreUnavailable("a schema file of this installation ends within a statement: reinstall it")


def database_uri(path: Path) -> str:
    """Return the URI that opens the file for reading and writing and never creates it."""
    return f"file:{quote(str(path))}?mode=rw"


def prepare(path: Path, *, create: bool = True, migrations: Sequence[Migration] | None = None) -> None:
    """Bring the file at `path` to this program's schema, in WAL mode and with mode 0600; create it if it is missing.

    Resumes after a crash at any instant; of two processes that start at once one migrates and the other waits.

    Raises:
        StoreUnavailable: missing (and `create` False, or its write-ahead log is there alone), empty, not ours,
            newer than this program, locked for longer than `MIGRATION_LOCK_S`, not writable.
    """
    migrations = known_migrations() if migrations is None else migrations
    try:
        if not path.exists():
            _create(path, create=create, migrations=migrations)
        if path.stat().st_size == 0:
            raise StoreUnavailable(f"database `{path}` is empty: it was truncated; restore it from a backup")
        path.chmod(0o600)
        with closing(_connect(path)) as connection:
            _migrate(connection, path, migrations=migrations)
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"database `{path}` cannot be opened: {error}") from error


def _create(path: Path, *, create: bool, migrations: Sequence[Migration]) -> None:
    log = path.with_name(path.name + "-wal")
    if not create:
        raise StoreUnavailable(f"database `{path}` does not exist")
    if log.exists():
        raise StoreUnavailable(f"database `{path}` is gone but `{log.name}` is there: restore it, or remove both")
    building = path.with_name(f".{path.name}.new-{token_hex(4)}")
    os.close(os.open(building, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with closing(_connect(building)) as connection:
            _migrate(connection, building, migrations=migrations)
        try:
            os.link(building, path)
        except FileExistsError:
            return  # another process was first: its file is as good
        _sync_directory(path.parent)
    finally:
        for suffix in ("", "-wal", "-shm"):
            building.with_name(building.name + suffix).unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(database_uri(path), uri=True, isolation_level=None, timeout=MIGRATION_LOCK_S)


def _migrate(connection: sqlite3.Connection, path: Path, *, migrations: Sequence[Migration]) -> None:
    newest = len(migrations)
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # Nobody needs the write lock to find that there is nothing to do: a backup may hold it for long.
    while _version(connection, path, newest) < newest:
        # IMMEDIATE: the version is read under the write lock, so the loser of a race sees the winner's work.
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = _version(connection, path, newest)
            if version == newest:
                return
            migration = migrations[version]
            for statement in migration.statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {migration.version}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _version(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreUnavailable(f"`{path}` is not a database of authsvc")
    if version > newest:
        raise StoreUnavailable(
            f"database `{path}` has schema {version}, this program knows schemas up to {newest}: "
            "start a newer program, or restore a backup made before the upgrade"
        )
    return version
