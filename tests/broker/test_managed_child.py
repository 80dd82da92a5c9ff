"""Any program as a child: rights, restarts, output, its lock; what a broker would take seconds for, in shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import resource
import signal
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog

from broker.managed import child as managed
from broker.managed import launch
from broker.managed.child import BrokerNotStarted, Child, RunAs, ended, make_private, write_private
from tests.broker.upstreams import somebody

IS_ROOT = os.geteuid() == 0
SERVES = ("/bin/sh", "-c", "touch serves; exec sleep 60")


class Scripted:
    """A child whose starts run one command after the other, the last one for ever; it serves once it says so."""

    def __init__(self, folder: Path, *commands: Sequence[str] | OSError, run_as: RunAs | None = None) -> None:
        self.folder = folder / "c"
        self.told: list[bool] = []
        self.pids: list[int] = []
        self._commands = list(commands)
        self.child = Child(
            "something",
            folder=self.folder,
            run_as=run_as or RunAs(),
            prepare=self._prepare,
            is_ready=self._is_ready,
            changed=self.told.append,
        )

    def _prepare(self) -> Sequence[str]:
        (self.folder / "serves").unlink(missing_ok=True)
        command = self._commands.pop(0) if len(self._commands) > 1 else self._commands[0]
        if isinstance(command, OSError):
            raise command
        return command

    async def _is_ready(self, pid: int) -> bool:
        self.pids = [*dict.fromkeys((*self.pids, pid))]
        return (self.folder / "serves").exists()

    async def until(self, told: list[bool]) -> None:
        async with asyncio.timeout(8):
            while self.told != told:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def started(scripted: Scripted):
    await scripted.child.start()
    try:
        yield scripted.child
    finally:
        await scripted.child.stop()


def status_of(pid: int) -> dict[str, list[str]]:
    """Return what proc(5) says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.split() for key, _, value in (line.partition(":") for line in lines)}


@pytest.fixture
def quick(monkeypatch):
    """Restarts within tenths of a second."""
    monkeypatch.setattr(managed, "RESTART_FIRST_S", 0.05)
    monkeypatch.setattr(managed, "RESTART_MOST_S", 0.15)
    monkeypatch.setattr(managed, "READY_WITHIN_S", 0.7)


# --- rights ----------------------------------------------------------------------------------------------------------


async def test_it_has_the_rights_of_its_user_and_none_of_ours(tmp_path):
    """User, group, no other groups; its files are closed to others, also those that it makes itself."""
    if not IS_ROOT:
        pytest.skip("only root runs a child as another user")
    user = pwd.getpwnam("nobody")
    tmp_path.chmod(0o711)
    before = os.getgroups()
    os.setgroups([0, 4])
    try:
        async with started(Scripted(tmp_path, SERVES, run_as=somebody())) as child:
            status = status_of(child.pid)
    finally:
        os.setgroups(before)
    assert set(status["Uid"]) == {str(user.pw_uid)}
    assert set(status["Gid"]) == {str(user.pw_gid)}
    assert status["Groups"] == []
    for name in ("serves", "lock"):
        found = (tmp_path / "c" / name).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o600, user.pw_uid, user.pw_gid), name


async def test_ctrl_c_is_not_for_it_and_a_terminal_neither(tmp_path):
    """A session of its own, nothing to read; as many open files as we have ourselves, at the most."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[1]), limits[1]))
    try:
        async with started(Scripted(tmp_path, SERVES)) as child:
            assert os.getsid(child.pid) == child.pid
            assert Path(f"/proc/{child.pid}/fd/0").readlink() == Path(os.devnull)
            assert resource.prlimit(child.pid, resource.RLIMIT_NOFILE) == (limits[1], limits[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_directory_that_was_open_is_closed(tmp_path):
    """Whoever made it: its mode is 0700 and its owner the child's user from now on."""
    folder = tmp_path / "c"
    folder.mkdir()
    folder.chmod(0o755)
    make_private(folder, somebody())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == (somebody().uid if IS_ROOT else os.geteuid())


@pytest.mark.parametrize("old", ["open", "link", "dangling", "none"])
def test_a_private_file_takes_the_place_of_what_was_there(tmp_path, old):
    """Neither the mode nor the target of what the child left counts: it may be broken, and we may be root."""
    path, elsewhere = tmp_path / "file", tmp_path / "elsewhere"
    if old == "open":
        path.write_text("old and longer")
        path.chmod(0o666)
    elif old != "none":
        path.symlink_to(elsewhere)
    if old == "link":
        elsewhere.write_text("of somebody else")
    write_private(path, "new", somebody())
    assert path.read_text() == "new"
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_uid == (somebody().uid if IS_ROOT else os.geteuid())
    assert not elsewhere.exists() or elsewhere.read_text() == "of somebody else"


# --- start and restart -----------------------------------------------------------------------------------------------


async def test_a_start_that_is_given_up_leaves_no_child(tmp_path):
    """Ctrl-C while it begins."""
    scripted = Scripted(tmp_path, ("/bin/sleep", "60"))
    starting = asyncio.create_task(scripted.child.start())
    async with asyncio.timeout(5):
        while not scripted.pids:
            await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert scripted.child.pid is None
    assert not scripted.child.serves


async def test_restarts_that_fail_are_tried_again_less_and_less_often(tmp_path, quick):
    """One that ends at once, one that cannot be prepared, one that never serves: each is told, none is left behind."""
    scripted = Scripted(
        tmp_path,
        SERVES,
        ("/bin/sh", "-c", "echo no port; exit 3"),
        OSError(28, "no space"),
        ("/bin/sleep", "60"),
        SERVES,
    )
    with structlog.testing.capture_logs() as logs:
        async with started(scripted) as child:
            first = child.pid
            os.kill(first, signal.SIGKILL)
            await scripted.until([True, False, False, False, False, True])
            assert child.restarts == 4
            assert child.serves
            assert [Path(f"/proc/{pid}").exists() for pid in scripted.pids] == [False, False, False, True]
    waits = [entry["again_in_s"] for entry in logs if entry["event"] == "managed_broker_ended"]
    assert waits == [0.05, 0.1, 0.15, 0.15]
    problems = [entry["problem"] for entry in logs if entry["event"] == "managed_broker_not_started"]
    assert "status 3: no port" in problems[0]
    assert "no space" in problems[1]
    assert "does not serve" in problems[2]
    assert "no port" not in problems[2], "what another one said"


async def test_after_a_sound_life_the_back_off_begins_anew(tmp_path, quick, monkeypatch):
    """One that dies once a day does not stay away for the longest time."""
    scripted = Scripted(tmp_path, SERVES, ("/bin/false",), SERVES)
    with structlog.testing.capture_logs() as logs:
        async with started(scripted) as child:
            os.kill(child.pid, signal.SIGKILL)
            await scripted.until([True, False, False, True])
            monkeypatch.setattr(managed, "SOUND_AFTER_S", 0.2)
            await asyncio.sleep(0.4)
            os.kill(child.pid, signal.SIGKILL)
            await scripted.until([True, False, False, True, False, True])
    assert [entry["again_in_s"] for entry in logs if entry["event"] == "managed_broker_ended"] == [0.05, 0.1, 0.05]


async def test_one_that_has_died_does_not_serve_nor_the_next_before_it_is_ready(tmp_path, monkeypatch):
    """Who answers at its address in between is somebody else."""
    monkeypatch.setattr(managed, "RESTART_FIRST_S", 0.2)
    scripted = Scripted(tmp_path, SERVES, ("/bin/sh", "-c", "sleep 0.3; touch serves; exec sleep 60"))
    async with started(scripted) as child:
        os.kill(child.pid, signal.SIGKILL)
        async with asyncio.timeout(5):
            while child.pid is not None:
                assert child.serves
                await asyncio.sleep(0)
            while len(scripted.pids) < 2:
                assert not child.serves
                await asyncio.sleep(0.001)
            while not (tmp_path / "c" / "serves").exists():
                assert not child.serves
                await asyncio.sleep(0.001)
        await scripted.until([True, False, True])
        assert child.serves


async def test_nothing_is_restarted_after_the_end(tmp_path, quick):
    """`stop` ends the watch before the child: a death that it makes itself is none to mend."""
    scripted = Scripted(tmp_path, SERVES)
    async with started(scripted) as child:
        pass
    await asyncio.sleep(0.3)
    assert (child.pid, child.restarts, scripted.told) == (None, 0, [True])


async def test_it_is_asked_before_it_is_killed(tmp_path):
    """SIGTERM first, and time to save what it has."""
    saves = "trap 'sleep 0.2; touch saved; exit' TERM; touch serves; while :; do sleep 0.05; done"
    async with started(Scripted(tmp_path, ("/bin/sh", "-c", saves))):
        pass
    assert (tmp_path / "c" / "saved").exists()


@pytest.mark.parametrize(("status", "said"), [(3, "status 3"), (-9, "signal SIGKILL"), (-99, "signal 99")])
def test_an_exit_status_in_words(status, said):
    """As a person would say it."""
    assert ended(status) == said


# --- what it prints --------------------------------------------------------------------------------------------------


class Output:
    """A pipe with so many pieces in it."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = iter(pieces)

    async def read(self, _most: int) -> bytes:
        return next(self._pieces, b"")


async def test_a_line_without_an_end_costs_no_memory(tmp_path):
    """Megabytes of it: a part is kept, and a part of what follows is logged."""
    child = Scripted(tmp_path, SERVES).child
    tracemalloc.start()
    try:
        await child._print(Output(*(b"x" * 4096 for _ in range(1000))))
        before, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 200_000
    with structlog.testing.capture_logs() as logs:
        await child._print(Output(b"y" * 4000 + b"\n"))
    assert [len(entry["line"]) for entry in logs] == [managed.LINE_MOST]


async def test_what_it_says_with_its_last_breath_is_logged(tmp_path):
    """The pipe may hold more than was read when the process has gone."""
    speaks = "trap '(sleep 0.2; echo saved it) & exit' TERM; touch serves; while :; do sleep 0.05; done"
    with structlog.testing.capture_logs() as logs:
        async with started(Scripted(tmp_path, ("/bin/sh", "-c", speaks))):
            pass
    assert [entry["line"] for entry in logs if entry["event"] == "managed_broker_says"] == ["saved it"]


async def test_the_words_of_one_that_did_not_start_are_all_waited_for(tmp_path):
    """Why it could not start is what it says last."""
    scripted = Scripted(tmp_path, ("/bin/sh", "-c", "(sleep 0.2; echo port in use) & exit 3"))
    with pytest.raises(BrokerNotStarted, match="status 3: port in use"):
        await scripted.child.start()


# --- its lock --------------------------------------------------------------------------------------------------------


def launched(folder: Path, *, parent: int | None = None, lock: str = "lock") -> subprocess.CompletedProcess[str]:
    """Run a program by `launch` in the folder, as the user that we are, and return what became of it."""
    arguments = (lock, str(os.getpid() if parent is None else parent), "-1", "-1", "/bin/echo", "runs")
    command = [sys.executable, "-P", launch.__file__, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=30)


def test_nothing_runs_for_a_parent_that_is_gone(tmp_path):
    """It died between the start and the wish to die with it."""
    assert launched(tmp_path).stdout == "runs\n"
    done = launched(tmp_path, parent=os.getppid())
    assert (done.returncode, done.stdout) == (launch.REFUSED, "")
    assert "gone" in done.stderr


def test_a_lock_that_leads_elsewhere_is_not_followed(tmp_path):
    """Nothing is made or written where a link in the broker's directory points."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    done = launched(tmp_path)
    assert (done.returncode, done.stdout) == (launch.REFUSED, "")
    assert "cannot open `lock`" in done.stderr
    assert not (tmp_path / "elsewhere").exists()


async def test_the_lock_names_who_holds_it_and_nobody_before(tmp_path):
    """A longer id of an earlier one leaves no digits behind; held as long as the program lives, not its launcher."""
    scripted = Scripted(tmp_path, SERVES)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "lock").write_text("123456789012\n")
    async with started(scripted) as child:
        assert (tmp_path / "c" / "lock").read_text() == f"{child.pid}\n"
        async with asyncio.timeout(5):
            while Path(f"/proc/{child.pid}/comm").read_text() != "sleep\n":  # the shell, still
                await asyncio.sleep(0.01)
        held = [entry.readlink() for entry in Path(f"/proc/{child.pid}/fd").iterdir()]
        assert tmp_path / "c" / "lock" in held


async def test_a_holder_that_has_no_name_is_left_alone_and_told(tmp_path, monkeypatch):
    """What stands in the file is no process id: nobody is killed by guess."""
    monkeypatch.setattr(managed, "READY_WITHIN_S", 20.0)
    scripted = Scripted(tmp_path, SERVES)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "lock").write_text("no name\n")
    hold = "import fcntl; f = open('lock'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], cwd=tmp_path / "c", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        await asyncio.to_thread(holder.stdout.readline)
        with pytest.raises(BrokerNotStarted, match=r"status 78: an earlier broker still holds `lock`"):
            await scripted.child.start()
        assert holder.poll() is None
        holder.communicate(b"\n")
