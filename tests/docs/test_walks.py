"""The walks of README and quickstart, run as they stand against a live service, and what the README shows compared."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, text_of
from tests.live_service import clean_environment, free_ports, wait_ready

MARK = "@@@ next command @@@"


class Desk:
    """A directory with `authsvc up` running in it, and programs that use its ports instead of the usual ones."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("mosquitto_pub") is None:
            pytest.skip("mosquitto-clients are not installed")
        self.folder = folder
        self.mqtt, self.http = free_ports(2)
        self.url = f"http://127.0.0.1:{self.http}"
        self.log = folder / "service.log"
        bin_ = folder / "bin"
        bin_.mkdir()
        main = "from authsvc.cli import main; main()"
        self._program(bin_ / "authsvc", f"exec {sys.executable} -c '{main}' \"$@\"")
        self._program(bin_ / "simulator", f"exec {sys.executable} -c '{main.replace('authsvc', 'simulator')}' \"$@\"")
        for name in ("mosquitto_pub", "mosquitto_sub"):
            self._program(bin_ / name, f'exec {shutil.which(name)} -p {self.mqtt} "$@"')
        (folder / "tests").symlink_to(ROOT / "tests")
        (folder / "config").symlink_to(ROOT / "config")
        self.environment = clean_environment(
            PATH=f"{bin_}:{os.environ['PATH']}",
            PYTHONPATH=str(ROOT),
            AUTHSVC_URL=self.url,
            SIMULATOR_MQTT=f"127.0.0.1:{self.mqtt}",
            AUTHSVC__MQTT__BIND=f"127.0.0.1:{self.mqtt}",
            AUTHSVC__HTTP__BIND=f"127.0.0.1:{self.http}",
        )

    @staticmethod
    def _program(path: Path, line: str) -> None:
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def up(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as output:
            process = subprocess.Popen(
                ["authsvc", "up"], stdout=output, stderr=output, env=self.environment, cwd=self.folder
            )
        wait_ready(self.url, process, self.log)
        return process

    def printed_at_the_start(self) -> str:
        """Return what `authsvc up` has printed, once the line that it prints last is there."""
        deadline = time.monotonic() + 10
        while '"event": "ready"' not in self.log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.log.read_text()

    def run(self, commands: list[str]) -> list[str]:
        """Run commands in one shell; return what each printed, on stdout and stderr."""
        script = f"\necho '{MARK}'\n".join(commands)
        done = subprocess.run(
            ["bash", "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
            env=self.environment,
            cwd=self.folder,
        )
        printed = done.stdout.split(f"{MARK}\n")
        assert len(printed) == len(commands), done.stdout
        return printed


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    process = made.up()
    yield made
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0, made.log.read_text()


def alike(text: str) -> list[str]:
    """Return the lines without what differs from run to run: times, ids, ports, secrets, the width of columns."""
    for pattern, name in (
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (r"127\.0\.0\.1:\d+", "ADDRESS"),
        (r"\basapp_\w{4}\b", "PREFIX"),
        (r"\b[0-9A-Za-z]{22}\b", "ID"),
        (r" +", " "),
    ):
        text = re.sub(pattern, name, text)
    return [line.strip() for line in text.splitlines()]


def check_shown(shown: str, printed: str, command: str) -> None:
    """`…` on a line of its own stands for any lines."""
    expected, found = alike(shown), alike(printed)
    if expected[-1:] == ["…"]:
        expected = expected[:-1]
        assert len(found) > len(expected), command
        found = found[: len(expected)]
    assert found == expected, f"{command}\nprinted:\n{printed}\nREADME.md shows:\n{shown}"


def walk_of(page: str) -> list[tuple[str, str]]:
    """Return (command, what it is shown to print) of the console blocks, in order."""
    steps: list[tuple[str, str]] = []
    for block in blocks(text_of(page), "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], ""))
            else:
                steps[-1] = (steps[-1][0], steps[-1][1] + line + "\n")
    return steps


def test_the_two_minutes_of_the_readme_are_as_shown(desk: Desk):
    """Every command of the walk, in order, in one shell; what is printed is what the README shows."""
    steps = walk_of("README.md")
    assert [command.split()[0] for command, _ in steps[:2]] == ["python3", "authsvc"]
    check_shown(steps[1][1], desk.printed_at_the_start(), steps[1][0])
    rest = steps[2:]
    for (command, shown), printed in zip(rest, desk.run([command for command, _ in rest]), strict=True):
        check_shown(shown, printed, command)


def test_the_quickstart_runs_as_it_stands(desk: Desk):
    """Every block, in order, in one shell that ends at the first failure."""
    page = text_of("docs/quickstart.md")
    walk = [block for block in blocks(page, "sh") if "authsvc up" not in block]
    assert len(walk) >= 6
    (printed,) = desk.run(["set -euo pipefail\n" + "".join(walk) + "echo walked"])
    assert printed.rstrip().endswith("walked"), printed
    assert "default/default/gateway-1/command/restart now" in printed
    assert re.search(r"all \d+ expectations met", printed)
    assert re.search(r"reason +rule_denies", printed)
    assert re.search(r"publish +default/default/pump-1/state/calibration +rule_denies", printed)
    assert re.search(r"(\d+) of \1 cases as expected", printed)


def test_the_first_call_of_the_http_page_works(desk: Desk):
    """The `curl` line, with the port of this service."""
    (line,) = blocks(text_of("docs/http-api.md"), "sh")
    (printed,) = desk.run([line.replace("http://127.0.0.1:8080", desk.url)])
    assert '"key":"default"' in printed.replace(" ", ""), printed
