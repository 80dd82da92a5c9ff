"""A real `authsvc up` on free loopback ports, for tests that look at it from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

READY_WITHIN_S = 30


@dataclass(frozen=True)
class LiveService:
    url: str
    mqtt: str
    data: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def key(self) -> str:
        return (self.data / "admin-token").read_text().strip()

    @property
    def port(self) -> int:
        return int(self.mqtt.rpartition(":")[2])


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on; all are held open until all are known, so that they differ."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def program(name: str, *arguments: object) -> list[str]:
    """Return the command line of one of our programs, run by this interpreter."""
    module = {"authsvc": "authsvc.cli", "simulator": "simulator.cli"}[name]
    return [sys.executable, "-c", f"from {module} import main; main()", *map(str, arguments)]


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment without settings of ours, so that a developer's own do not reach the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AUTHSVC", "SIMULATOR"))}
    return {**kept, "COLUMNS": "120", **more}


def call(name: str, *arguments: object, timeout_s: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of our programs to its end and return status, stdout and stderr."""
    return subprocess.run(
        program(name, *arguments),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=clean_environment(**environment),
    )


@contextmanager
def live_service(folder: Path, *arguments: object, settings: Mapping[str, str] | None = None) -> Iterator[LiveService]:
    """Yield a service that is ready; it is ended by SIGTERM, and must then end with status 0 unless it was killed.

    `settings` are environment variables.
    """
    mqtt, http = free_ports(2)
    data, log = folder / "var", folder / "service.log"
    binds = ("--mqtt-bind", f"127.0.0.1:{mqtt}", "--http-bind", f"127.0.0.1:{http}")
    with log.open("wb") as output:
        process = subprocess.Popen(
            program("authsvc", "up", "--data", data, *binds, *arguments),
            stdout=output,
            stderr=output,
            env=clean_environment(**(settings or {})),
        )
    service = LiveService(url=f"http://127.0.0.1:{http}", mqtt=f"127.0.0.1:{mqtt}", data=data, log=log, process=process)
    try:
        wait_ready(service.url, process, log)
        yield service
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the service at `url` says that it is ready; fail with its log if it ends or takes too long."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"not ready within {READY_WITHIN_S} s:\n{log.read_text()}")
