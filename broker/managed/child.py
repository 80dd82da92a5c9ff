"""One child process: started, watched, restarted with back-off, stopped. What it prints goes to our log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from authsvc.core.errors import AuthsvcError
from broker.listeners import raise_open_file_limit
from broker.managed import launch

log = structlog.get_logger(__name__)

READY_WITHIN_S = 15.0
LOOK_AGAIN_S = 0.02
STOP_WITHIN_S = 2.5  # it saves what it has; the end of the service waits no longer than that
RESTART_FIRST_S = 0.2
RESTART_MOST_S = 10.0
SOUND_AFTER_S = 30.0  # of life: the next end begins the back-off anew
LINES_KEPT = 10
LINES_PER_S = 20  # of its output that are logged
LINE_MOST = 500


class BrokerNotStarted(AuthsvcError):  # noqa: N818  # the name says what happened
    """A managed broker cannot run; the message says why and the way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAs:
    """The user that the child becomes. `uid` -1: the one that this process has."""

    uid: int = -1
    gid: int = -1


def user_to_run_as(name: str) -> RunAs:
    """Return whom a managed broker runs as. Raises BrokerNotStarted: as root a user must be named, and not root."""
    if os.geteuid() != 0:
        if name and pwd.getpwuid(os.geteuid()).pw_name != name:
            raise BrokerNotStarted(f"mqtt.run_as names `{name}`, but only root can run the broker as another user")
        return RunAs()
    if not name:
        raise BrokerNotStarted(
            "a broker is not run as root: start authsvc as a user of its own, or name one in mqtt.run_as "
            "(for example `mosquitto` or `nobody`)"
        )
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise BrokerNotStarted(f"mqtt.run_as names `{name}`, which is no user of this machine") from None
    if found.pw_uid == 0:
        raise BrokerNotStarted(f"mqtt.run_as names `{name}`, which is root; name another user")
    return RunAs(uid=found.pw_uid, gid=found.pw_gid)


class Child:
    """Runs one program in `folder`, as its working directory and with its lock there.

    `prepare` is called before each start and returns the command; `is_ready` says whether what was started, given by
    its process id, serves. `changed` is told True when it serves and False when it has ended.
    """

    def __init__(
        self,
        name: str,
        *,
        folder: Path,
        run_as: RunAs,
        prepare: Callable[[], Sequence[str]],
        is_ready: Callable[[int], Awaitable[bool]],
        changed: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.restarts = 0
        self._folder = folder
        self._run_as = run_as
        self._prepare = prepare
        self._is_ready = is_ready
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._serves = False  # what runs, if anything does
        self._watch: asyncio.Task[None] | None = None
        self._said: deque[str] = deque(maxlen=LINES_KEPT)
        self._printing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def serves(self) -> bool:
        """Whether it runs and has been seen to serve: who answers at its address otherwise is somebody else."""
        return self._serves and self.pid is not None

    async def start(self) -> None:
        """Return when it serves. Raises BrokerNotStarted with what it printed if it ends before, or never serves."""
        make_private(self._folder, self._run_as)
        try:
            await self._begin()
        except BaseException:
            await self._end()
            raise
        self._watch = asyncio.create_task(self._keep_running(), name=f"watching {self.name}")

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL if it takes too long."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        await self._end()

    async def _begin(self) -> None:
        self._serves = False
        command = self._prepare()
        raise_open_file_limit()
        ids = (str(os.getpid()), str(self._run_as.uid), str(self._run_as.gid))
        self._said.clear()
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", launch.__file__, "lock", *ids, *command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            start_new_session=True,  # Ctrl-C in a terminal is for us: the broker ends last
        )
        assert process.stdout is not None
        self._printing = asyncio.create_task(self._print(process.stdout), name=f"output of {self.name}")
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                while not await self._is_ready(process.pid):
                    if process.returncode is not None:
                        await self._printing
                        raise BrokerNotStarted(f"{self.name} ended with {ended(process.returncode)}: {self._last()}")
                    await asyncio.sleep(LOOK_AGAIN_S)
        except TimeoutError:
            raise BrokerNotStarted(f"{self.name} does not serve after {READY_WITHIN_S:.0f} s: {self._last()}") from None
        log.info("managed_broker_started", broker=self.name, pid=process.pid)
        self._serves = True
        self._changed(True)

    async def _keep_running(self) -> None:
        wait_s = RESTART_FIRST_S
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            if self._process is not None and self._process.returncode is None:
                await self._process.wait()
            self._changed(False)
            if loop.time() - began > SOUND_AFTER_S:
                wait_s = RESTART_FIRST_S
            status = self._process.returncode if self._process is not None else None
            log.error("managed_broker_ended", broker=self.name, status=ended(status), again_in_s=wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, RESTART_MOST_S)
            self.restarts += 1
            try:
                await self._begin()
            except (BrokerNotStarted, OSError) as error:
                log.error("managed_broker_not_started", broker=self.name, problem=str(error))  # noqa: TRY400
                await self._end()

    async def _end(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_WITHIN_S):
                        await process.wait()
                    break
        if self._printing is not None:
            await asyncio.wait({self._printing}, timeout=0.5)
            self._printing.cancel()
            await asyncio.gather(self._printing, return_exceptions=True)
            self._printing = None

    async def _print(self, output: asyncio.StreamReader) -> None:
        """Log what it says, a bounded part of it, and remember the last lines."""
        loop = asyncio.get_running_loop()
        second, lines, rest = 0.0, 0, b""
        while data := await output.read(4096):
            *whole, rest = (rest + data).split(b"\n")
            rest = rest[:LINE_MOST]
            for line in whole:
                text = line[:LINE_MOST].decode("utf-8", "replace").strip()
                if not text:
                    continue
                self._said.append(text)
                if loop.time() - second >= 1.0:
                    second, lines = loop.time(), 0
                lines += 1
                if lines <= LINES_PER_S:
                    log.warning("managed_broker_says", broker=self.name, line=text)

    def _last(self) -> str:
        return " | ".join(self._said) or "it printed nothing"


def make_private(folder: Path, run_as: RunAs) -> None:
    """Make the directory, 0700 and of the child's user. Raises BrokerNotStarted."""
    try:
        folder.mkdir(mode=0o700, parents=False, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchmod(descriptor, 0o700)
            if run_as.uid >= 0:
                os.fchown(descriptor, run_as.uid, run_as.gid)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BrokerNotStarted(f"cannot use `{folder}` for the broker: {error.strerror}") from error


def write_private(path: Path, text: str, run_as: RunAs) -> None:
    """Write a file that only the child's user reads, in place of the one that was there."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        if run_as.uid >= 0:
            os.fchown(descriptor, run_as.uid, run_as.gid)
        file.write(text)


def ended(status: int | None) -> str:
    """Return an exit status in words."""
    if status is not None and status < 0:
        try:
            return f"signal {signal.Signals(-status).name}"
        except ValueError:
            return f"signal {-status}"
    return f"status {status}"
