"""Connections by a compiled generator (`connector.c`): what a server admits, and how long each client waited."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.bench.load import Login

SOURCE = Path(__file__).with_name("connector.c")
LONGEST_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """`seconds` from the first connect(2) to the last CONNACK; the waits are those of single clients, in seconds."""

    count: int
    retried: int
    seconds: float
    p50: float
    p99: float
    longest: float

    @property
    def rate(self) -> float:
        return self.count / self.seconds


def connect(address: tuple[str, int], logins: Sequence[Login], *, at_once: int = 64, stay: bool = False) -> Connected:
    """Connect each login once, `at_once` at a time, and leave at once or `stay` until all are in.

    Raises RuntimeError when one is refused or nothing moves for a minute.
    """
    with _running(address, logins, str(at_once), str(int(stay))) as child:
        admitted, refused, retried, seconds, p50, p99, longest = _outcome(child)
    if int(refused):
        raise RuntimeError(f"{int(refused)} of {len(logins)} connections were refused")
    return Connected(
        count=int(admitted),
        retried=int(retried),
        seconds=float(seconds),
        p50=float(p50) / 1e6,
        p99=float(p99) / 1e6,
        longest=float(longest) / 1e6,
    )


@contextlib.contextmanager
def refused_beside(address: tuple[str, int], logins: Sequence[Login], *, rate: float) -> Iterator[None]:
    """Try each login once, `rate` of them a second, beside what the caller does; it ends when all are answered.

    Raises RuntimeError unless every one was refused.
    """
    with _running(address, logins, str(len(logins)), "0", str(rate)) as child:
        yield
        admitted, refused, *_ = _outcome(child)
    if int(admitted) or int(refused) != len(logins):
        raise RuntimeError(f"{admitted} of {len(logins)} connections that were to be refused were admitted")


def ceiling(count: int = 5_000) -> float:
    """Return connections a second of the generator where a CONNACK costs nothing: one fixed answer, by a bare loop."""
    packets = [Login(client_id=f"c{n}") for n in range(count)]
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        child = os.fork()
        if child == 0:
            _answer_for_ever(listening)
        try:
            return connect(listening.getsockname(), packets).rate
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _answer_for_ever(listening: socket.socket) -> NoReturn:
    """Accept, read once, answer CONNACK 0, close; in a process of its own that is killed."""
    while True:
        sock, _ = listening.accept()
        with sock, contextlib.suppress(OSError):
            sock.recv(4_096)
            sock.sendall(b"\x20\x02\x00\x00")


@contextlib.contextmanager
def _running(address: tuple[str, int], logins: Sequence[Login], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the generator, give it its packets, with the last of which it begins; it does not outlive the block."""
    packets = [login.packet() for login in logins]
    command = [_program(), address[0], str(address[1]), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin is not None
        try:
            child.stdin.write(b"".join(len(packet).to_bytes(4, "big") + packet for packet in packets))
            child.stdin.close()
            yield child
        finally:
            child.kill()  # nothing, if it has ended


def _outcome(child: subprocess.Popen[bytes]) -> list[str]:
    """Wait for the generator and return what it counted, in the order that `connector.c` names."""
    child.wait(LONGEST_S)
    assert child.stdout is not None
    assert child.stderr is not None
    if child.returncode != 0:
        raise RuntimeError(f"the generator ended with {child.returncode}: {child.stderr.read().decode().strip()}")
    return child.stdout.read().decode().split()


@functools.cache
def _program() -> str:
    """Compile the generator once a run and return its path. Raises RuntimeError without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise RuntimeError("no C compiler: apt-get install gcc")
    folder = tempfile.mkdtemp(prefix="authsvc-bench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = Path(folder) / "connector"
    subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE)], check=True, timeout=60)
    return str(program)
