"""Becomes the broker: takes the lock, gives up rights, asks to die with its parent, and runs the program.

A file that is run by path, with the standard library only: between the fork of a process with threads and its exec
nothing but C may run safely, so all this is done after an exec of its own. What is held stays held by the program:

* the lock, by an open descriptor: as long as the broker lives, whoever started it, no second one begins;
* nothing is done with our rights in the broker's directory, or to a process that a file in it names;
* the parent-death signal, which survives execve(2) but not a change of user: so it comes after that (prctl(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

PR_SET_PDEATHSIG = 1
EARLIER_ENDS_WITHIN_S = 5.0  # it saves what it has; then it is killed
LOOK_AGAIN_S = 0.02
REFUSED = 78  # EX_CONFIG: what is printed says why


def main(arguments: list[str]) -> None:
    """Run ``LOCK PARENT-PID UID GID PROGRAM ARGUMENT…``; a UID of -1 keeps the user."""
    lock, parent, uid, gid, *program = arguments
    run = _prepared(program)
    os.umask(0o077)
    if int(uid) >= 0:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    _take(lock)
    _die_with(int(parent))
    run()


def _prepared(program: list[str]) -> Callable[[], object]:
    """Return what runs the program. rumqttd is a module, loaded now: its later user may not be able to read it."""
    if program[0] != "rumqttd":
        return lambda: os.execv(program[0], program)  # noqa: S606  # no shell is wanted
    import logging  # noqa: PLC0415  # of this program alone

    from iotcore.iotcore import IotCoreBroker  # noqa: PLC0415

    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    # Its spans of single packets come out as errors, payload and all.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)

    # It looks its file up by an absolute path, which its later user may not be able to follow either: read now.
    broker = IotCoreBroker(config_path=program[1])
    broker.check_ports()
    return broker.run_forever


def _take(lock: str) -> None:
    """Hold the lock; whoever has it from an earlier start is ending, or is ended."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        _refuse(f"cannot open `{lock}` in the broker's directory: {error.strerror}; what is there must be its user's")
    os.set_inheritable(descriptor, True)
    for last in (False, True):
        until = time.monotonic() + EARLIER_ENDS_WITHIN_S
        while time.monotonic() < until:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(LOOK_AGAIN_S)
                continue
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
            return
        holder = os.pread(descriptor, 32, 0).strip()
        if last or not holder.isdigit():
            break
        with contextlib.suppress(PermissionError, ProcessLookupError):  # as our own user: others are safe from it
            os.kill(int(holder), signal.SIGKILL)  # it holds the lock, so it lives and the id is its own
    _refuse(f"an earlier broker still holds `{lock}` and cannot be ended")


def _die_with(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "prctl") or libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        _refuse("this system has no PR_SET_PDEATHSIG; run the broker yourself and give it as mqtt.upstream")
    if os.getppid() != parent:  # it died before we asked
        _refuse("the service that wanted a broker is gone")


def _refuse(problem: str) -> NoReturn:
    sys.stderr.write(problem + "\n")
    sys.exit(REFUSED)


if __name__ == "__main__":
    main(sys.argv[1:])
