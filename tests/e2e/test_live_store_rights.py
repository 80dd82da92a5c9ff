"""Promise 11 where the operating system says no: nothing may be written, files lose their rights, disks theirs."""

from __future__ import annotations

import asyncio
import os
import resource
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.crowd import pulse_of
from tests.e2e.process import Process, T, running
from tests.live_service import call

UNAVAILABLE = 3


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    async with running(tmp_path) as started:
        await started.open_definition()
        yield started


@contextmanager
def _no_write_beyond(process: Process, size: int) -> Iterator[None]:
    """Let the process write no file beyond that size; its log as little as its database."""
    before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)


async def test_a_process_that_may_write_nothing_keeps_the_known_and_refuses_the_new(process: Process) -> None:
    """The kernel refuses every write, those of the log included: nobody is let in by accident, nothing crashes."""
    app = (await process.app_token())["token"]
    live = await process.client("known", app)
    assert await live.subscribe(("default/default/known/x", 1)) == [1]
    with _no_write_beyond(process, 1):
        async with pulse_of(live) as pulse:
            for n in range(5):
                codes = [process.code("known", app, f"c{n}"), process.code(f"n{n}", app), process.code("x", "wrong")]
                assert await asyncio.gather(*codes) == [0, UNAVAILABLE, 4]
                assert (await process.api.post(f"{T}/things", json={"key": f"w{n}"})).status_code == 503
                assert (await process.api.get(f"{T}/things")).status_code == 200
        await live.publish("default/default/known/x", b"alive", qos=1)
        assert (await live.delivery()).payload == b"alive"
        assert pulse.worst_s < 0.2
    async with asyncio.timeout(6):
        while await process.code("n0", app) != 0:
            await asyncio.sleep(0.1)
    assert {t["key"] for t in await process.every(f"{T}/things")} == {"known", "n0"}
    assert process.query("PRAGMA integrity_check") == [("ok",)]
    assert await process.terminate() < 5


class TestWithoutTheRightsOfRoot:
    """Root may do everything, so these run without that capability; others have none to lose."""

    @pytest.fixture
    async def bound(self, tmp_path: Path) -> AsyncIterator[Process]:
        process = Process(tmp_path)
        if os.geteuid() == 0:
            process.without = ("dac_override", "dac_read_search")
        try:
            await process.start()
            await process.open_definition()
            yield process
        finally:
            await process.close()

    async def test_files_that_lose_their_rights_open_no_door(self, bound: Process) -> None:
        """What is open stays open and true: what is answered is in the file."""
        app = (await bound.app_token())["token"]
        await bound.code("known", app)
        for path in bound.data.glob("authsvc.db*"):
            path.chmod(0)
        answers = [await bound.code(key, app) for key in ("known", "new")]
        assert answers in ([0, 0], [0, UNAVAILABLE], [UNAVAILABLE, UNAVAILABLE])
        assert await bound.terminate() < 5
        await bound.start()  # its own file gets back the rights that it should have
        assert stat.S_IMODE(bound.database.stat().st_mode) == 0o600
        stored = {key for (key,) in bound.query("SELECT key FROM things")}
        assert ("new" in stored) is (answers[1] == 0)

    async def test_a_database_without_write_permission_is_no_start(self, bound: Process) -> None:
        """A message that names the file, not a stack."""
        await bound.terminate()
        bound.database.chmod(0o400)
        bound.data.chmod(0o500)
        try:
            bound.spawn()
            assert await bound.ended() == 1
            last = bound.log.read_text().splitlines()[-1]
            assert str(bound.data) in last
            assert "Traceback" not in bound.log.read_text()
        finally:
            bound.data.chmod(0o700)

    async def test_a_data_directory_that_others_may_read_is_pointed_out(self, bound: Process) -> None:
        """It starts, and says in its log what is wrong and the way out."""
        await bound.terminate()
        bound.data.chmod(0o755)
        await bound.start()
        assert f"chmod 700 {bound.data}" in bound.log.read_text()


def test_a_data_directory_on_a_read_only_disk_is_no_start(tmp_path: Path) -> None:
    """The message says that it cannot be written, and nothing is left open."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no right to mount: {mounted.stderr.decode().strip()}")
    try:
        binds = ("--mqtt-bind", "127.0.0.1:0", "--http-bind", "127.0.0.1:0")
        result = call("authsvc", "up", "--data", place / "var", *binds)
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    assert result.returncode == 1
    assert "Read-only file system" in result.stderr
    assert "Traceback" not in result.stderr
