"""Whether the file at the path is still the one that is open, and whole.

SQLite goes on committing into a file that was deleted or replaced, and serves a truncated one from its cache. It is
asked by `stat` alone: to open the file by ourselves and close it would drop SQLite's own locks on it (fcntl(2)).
"""

from __future__ import annotations

import os
from pathlib import Path

from authsvc.core.errors import StoreUnavailable


class FileIdentity:
    """Device and inode of the database file, its log and its index, remembered from when they were opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._paths = (str(path), f"{path}-wal", f"{path}-shm")
        self._known: list[tuple[int, int]] = []
        self._size = 0  # the file never shrinks: nothing here vacuums

    def remember(self) -> None:
        """Take what is at the paths now as the open files; call before and after opening and compare."""
        self._known = [(stat.st_dev, stat.st_ino) for stat in map(os.stat, self._paths)]

    def check(self) -> None:
        """Raise StoreUnavailable if a file is gone, replaced or shorter than it was. Safe on any thread."""
        # Taken before the stat: another thread may see the file grow between our stat and our comparison.
        least = self._size
        for path, known in zip(self._paths, self._known, strict=False):
            try:
                stat = os.stat(path)  # noqa: PTH116  # three a commit: no Path is made for them
            except FileNotFoundError:
                raise StoreUnavailable(f"`{path}` was deleted: put the same file back, or stop and restore") from None
            except OSError as error:
                raise StoreUnavailable(f"`{path}` cannot be reached: {error.strerror}") from None
            if (stat.st_dev, stat.st_ino) != known:
                raise StoreUnavailable(f"`{path}` was replaced by another file: put the first one back, or restart")
            if path == self._paths[0]:
                if stat.st_size < least:
                    raise StoreUnavailable(f"`{path}` was truncated: stop, and restore it from a backup")
                self._size = max(self._size, stat.st_size)
