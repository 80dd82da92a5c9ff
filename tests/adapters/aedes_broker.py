"""A real Aedes, from npm, with our package attached: what the tests of the adapter start."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "broker" / "aedes"
PROGRAM = PACKAGE / "bin" / "authsvc-aedes.js"
OLDEST_NODE = 20
STARTS_WITHIN_S = 20


def node() -> str:
    """Return node's path; skip where it is missing or too old."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed (Debian: nodejs, or nodejs.org); version 20 or newer is needed")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(re.sub(r"\D.*", "", version.removeprefix("v"))) < OLDEST_NODE:
        pytest.skip(f"node {version.strip()} is too old: {OLDEST_NODE} or newer is needed")
    return found


def installed() -> str:
    """Return node's path; skip where Aedes has not been installed beside the package."""
    found = node()
    if not (PACKAGE / "node_modules" / "aedes").is_dir():
        pytest.skip(f"Aedes is missing: npm ci --prefix {PACKAGE.relative_to(Path.cwd())} (make test runs it)")
    return found


@dataclass(frozen=True)
class AedesBroker:
    host: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def says(self, event: str, *, count: int = 1, within_s: float = 10) -> str:
        """Wait until the agent has told of an event so often; return its log."""
        deadline = time.monotonic() + within_s
        while True:
            log = self.log.read_text()
            if log.count(f'"event":"{event}"') >= count:
                return log
            assert self.process.poll() is None, log
            assert time.monotonic() < deadline, f"no `{event}`:\n{log}"
            time.sleep(0.01)


@contextmanager
def aedes_broker(
    folder: Path, url: str, *arguments: object, secret: str = "", attached: bool = True, port: int = 0
) -> Iterator[AedesBroker]:
    """Yield a running broker whose agent has compared its sessions (`attached`); it must end with status 0."""
    binary = installed()
    log = folder / "aedes.log"
    command = [binary, PROGRAM, "--port", port, "--authsvc", url, *arguments]
    if secret:
        secret_file = folder / "aedes-secret"
        secret_file.write_text(secret + "\n")
        command += ["--secret-file", secret_file]
    with log.open("ab") as errors:
        process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=errors, env=dict(os.environ))
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()  # the end of file where it failed
        found = re.fullmatch(r"MQTT on (.*):(\d+)\n", line)
        assert found, f"{line}{log.read_text()}"
        broker = AedesBroker(host=found[1], port=int(found[2]), log=log, process=process)
        if attached:
            broker.says("attached")
        yield broker
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
