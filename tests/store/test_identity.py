"""The file's identity is checked from several threads at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from authsvc.store.identity import FileIdentity


def test_growth_seen_by_another_thread_is_no_truncation(tmp_path, monkeypatch):
    """A thread that took its size before another saw the file grow does not take the file for truncated."""
    path = tmp_path / "db"
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"db{suffix}").write_bytes(b"x" * 4096)
    identity = FileIdentity(path)
    identity.remember()
    identity.check()
    real_stat = os.stat
    grown = False

    def stat(target, *args, **kwargs):
        """Answer for the small file, then let it grow and be checked by another thread before the answer is used."""
        nonlocal grown
        answer = real_stat(target, *args, **kwargs)
        if target == str(path) and not grown:
            grown = True
            path.write_bytes(b"x" * 8192)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(identity.check).result()
        return answer

    monkeypatch.setattr("authsvc.store.identity.os.stat", stat)
    identity.check()
    assert grown
