"""The data directory: its lock, its database, and what the very first start puts into them.

<data>/lock            held by the running process, with its pid
<data>/authsvc.db      the database
<data>/initialised     written when the first start was complete: from then on a missing database is an accident
<data>/admin-token     the first admin key, 0600, unless AUTHSVC_ADMIN_TOKEN gave it
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from authsvc.core import tokens
from authsvc.core.errors import AuthsvcError, StoreUnavailable
from authsvc.core.facts import TokenKind
from authsvc.store import Store

log = structlog.get_logger(__name__)

DATABASE = "authsvc.db"
LOCK = "lock"
INITIALISED = "initialised"
ADMIN_TOKEN = "admin-token"  # noqa: S105  # the name of the file
ADMIN_TOKEN_VARIABLE = "AUTHSVC_ADMIN_TOKEN"  # noqa: S105  # the name of it
FIRST_KEY = "first"


class StartError(AuthsvcError):
    """The service cannot start; the message says why and the way out."""


def make_data_directory(data: Path) -> None:
    """Create the data directory with mode 0700; one that is there is left as it is. Raises StartError."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(data.stat().st_mode)
    except OSError as error:
        raise StartError(f"cannot use the data directory `{data}`: {error.strerror}") from error
    if mode & 0o077:
        log.warning("data_directory_readable_by_others", data=str(data), mode=oct(mode), remedy=f"chmod 700 {data}")


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the lock of the data directory. Raises StartError naming the process that holds it."""
    path = data / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"cannot open `{path}`: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise StartError(
                f"the data directory `{data}` is in use by process {holder}; end it, or give another with --data"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


async def open_store(data: Path, *, now_us: Callable[[], int]) -> Store:
    """Open the database; create it only in a directory that never had one. Raises StartError."""
    path = data / DATABASE
    seen = [name for name in (INITIALISED, ADMIN_TOKEN) if (data / name).exists()]
    if seen and not path.exists():
        files = " and ".join(f"`{data / name}`" for name in seen)
        raise StartError(
            f"`{path}` is gone, though {files} say that it was there; restore it from a backup, "
            "or remove them as well to begin with an empty database and a new admin key"
        )
    try:
        return await Store.open(path, now_us=now_us, create=not seen)
    except StoreUnavailable as error:
        raise StartError(f"cannot open the database `{path}`: {error}") from error


async def prepare(store: Store, data: Path, *, random: Callable[[int], bytes], given_token: str | None) -> str | None:
    """Make what a first start makes, and set the first admin key if the environment gives it.

    Returns the path of a newly written admin key, for the operator; the key itself is shown nowhere. A first start
    that was interrupted is completed by the next. Raises StartError.
    """
    initialised = data / INITIALISED
    is_first = not initialised.exists()
    try:
        if is_first:
            await store.ensure_default_tenant()
        written: str | None = None
        if given_token is not None:
            parsed = tokens.parse(given_token)
            if parsed is None or parsed.kind is not TokenKind.ADMIN:
                raise StartError(
                    f"{ADMIN_TOKEN_VARIABLE} is no admin token (`asadm_` and 49 characters); "
                    f"unset it to have one made and written to `{data / ADMIN_TOKEN}`"
                )
            await store.admin_keys.replace_first(name=FIRST_KEY, digest=parsed.digest, prefix=parsed.prefix)
        elif is_first:
            text = tokens.mint(TokenKind.ADMIN, random)
            write_secret(data / ADMIN_TOKEN, text)
            await store.admin_keys.replace_first(name=FIRST_KEY, digest=tokens.digest(text), prefix=tokens.prefix(text))
            written = str(data / ADMIN_TOKEN)
        if is_first:
            write_secret(initialised, "")
    except StoreUnavailable as error:
        raise StartError(f"the database in `{data}` cannot be written: {error}") from error
    except OSError as error:
        raise StartError(f"cannot write into `{data}`: {error.strerror}") from error
    return written


def write_secret(path: Path, text: str) -> None:
    """Write a file of mode 0600 that is whole or not there, also after a crash."""
    temporary = path.with_name(path.name + ".new")
    with suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{text}\n".encode() if text else b"")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
