"""The process: first start, lock, listeners, signals, and when it refuses to start."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from authsvc.core import tokens
from authsvc.core.facts import TokenKind

STARTS_WITHIN_S = 20
RUN = "import sys; from authsvc.cli import main; sys.argv[0] = 'authsvc'; main()"


class Process:
    """`authsvc` as its user starts it, on free ports of the loopback."""

    def __init__(self, data: Path, *arguments: str, command: str = "up", env: dict[str, str] | None = None) -> None:
        binds = ["--http-bind", "127.0.0.1:0"] if "--http-bind" not in arguments else []
        if command == "up" and "--mqtt-bind" not in arguments:
            binds += ["--mqtt-bind", "127.0.0.1:0"]
        self.out = data.parent / f"out-{time.monotonic_ns()}"
        self.err = self.out.with_suffix(".err")
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, command, "--data", str(data), *binds, *arguments],
                stdout=out,
                stderr=err,
                env={**os.environ, **(env or {})},
                cwd=data.parent,
            )

    def ready(self) -> Process:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.said()
            if "HTTP API on" in self.out.read_text():
                return self
            time.sleep(0.02)
        raise AssertionError("not ready: " + self.said())

    def said(self) -> str:
        return self.out.read_text() + self.err.read_text()

    def ended(self) -> int:
        return self.process.wait(STARTS_WITHIN_S)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.ended()

    @property
    def url(self) -> str:
        return re.search(r"HTTP API on (http://\S+)", self.out.read_text())[1]

    def get(self, path: str, token: str = "") -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.get(self.url + path, headers=headers, timeout=5)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def started(data: Path) -> Iterator[list[Process]]:
    running: list[Process] = []
    yield running
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def test_the_first_start_and_what_it_leaves(data: Path, started: list[Process]):
    """Tenant, key and modes as promised; the key is shown nowhere; the second start makes no other."""
    one = Process(data).ready()
    started.append(one)
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for name in ("admin-token", "lock", "authsvc.db"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600, name
    key = (data / "admin-token").read_text().strip()
    assert tokens.parse(key).kind is TokenKind.ADMIN
    assert one.get("/readyz").status_code == 200
    assert one.get("/v1/tenants/default").status_code == 401
    assert one.get("/v1/tenants/default", key).json()["key"] == "default"
    assert [ground["key"] for ground in one.get("/v1/tenants/default/grounds", key).json()["items"]] == ["default"]
    assert re.search(r"MQTT listener `default` on 127\.0\.0\.1:\d+\n", one.out.read_text())
    assert one.stop() == 0
    assert key[6:] not in one.said()
    two = Process(data).ready()
    started.append(two)
    assert (data / "admin-token").read_text().strip() == key
    assert two.get("/v1/tenants/default", key).status_code == 200
    assert two.stop(signal.SIGINT) == 0


def test_a_second_process_names_the_first(data: Path, started: list[Process]):
    """The data directory belongs to one process."""
    one = Process(data, command="serve").ready()
    started.append(one)
    two = Process(data, command="serve")
    started.append(two)
    assert two.ended() == 1
    assert f"in use by process {one.process.pid}" in two.said()
    assert one.get("/readyz").status_code == 200


def test_the_key_of_the_environment_replaces_the_first(data: Path, started: list[Process]):
    """It is in force from that start on, nothing is written to the disk, and one that is malformed is refused."""
    for text in (tokens.mint(TokenKind.ADMIN), tokens.mint(TokenKind.ADMIN)):
        one = Process(data, command="serve", env={"AUTHSVC_ADMIN_TOKEN": text}).ready()
        started.append(one)
        assert one.get("/v1/tenants", text).status_code == 200
        assert not (data / "admin-token").exists()
        assert one.stop() == 0
        assert text[6:] not in one.said()
    for wrong in ("hunter2", tokens.mint(TokenKind.APP)):
        one = Process(data, command="serve", env={"AUTHSVC_ADMIN_TOKEN": wrong})
        started.append(one)
        assert one.ended() == 1
        assert "AUTHSVC_ADMIN_TOKEN" in one.said()
        assert wrong not in one.said()


@pytest.mark.parametrize("flag", ["--mqtt-bind", "--http-bind"])
def test_a_port_in_use_is_named(data: Path, started: list[Process], flag: str):
    """Exit status 1, and the operator reads which address it was."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        one = Process(data, flag, address)
        started.append(one)
        assert one.ended() == 1
    assert address in one.said()
    assert "in use" in one.said()


@pytest.mark.parametrize("flag", ["--mqtt-bind", "--http-bind"])
def test_plain_text_to_other_machines_is_refused_unless_allowed(data: Path, started: list[Process], flag: str):
    """A listener without TLS on every interface needs somebody's word for it."""
    one = Process(data, flag, "0.0.0.0:0")
    started.append(one)
    assert one.ended() == 1
    assert "allow_plaintext" in one.said()
    allowed = Process(data, flag, "0.0.0.0:0", env={"AUTHSVC__SERVICE__ALLOW_PLAINTEXT": "true"}).ready()
    started.append(allowed)
    assert allowed.stop() == 0


def test_a_missing_database_is_an_accident_and_not_a_first_start(data: Path, started: list[Process]):
    """Never an empty database with open doors where there was one."""
    one = Process(data, command="serve").ready()
    started.append(one)
    assert one.stop() == 0
    (data / "authsvc.db").unlink()
    for marker in ("admin-token", "initialised"):
        two = Process(data, command="serve")
        started.append(two)
        assert two.ended() == 1
        assert "is gone" in two.said()
        assert not (data / "authsvc.db").exists()
        (data / marker).unlink()


@pytest.mark.parametrize("damage", ["garbage", "foreign"])
def test_a_database_that_is_none_of_ours_refuses_the_start(data: Path, started: list[Process], damage: str):
    """Said in a sentence, without a traceback, and what is in the file is left alone."""
    data.mkdir(mode=0o700)
    if damage == "garbage":
        (data / "authsvc.db").write_bytes(b"not a database" * 1000)
    else:
        with sqlite3.connect(data / "authsvc.db") as connection:
            connection.execute("CREATE TABLE things (x)")
        connection.close()
    one = Process(data, command="serve")
    started.append(one)
    assert one.ended() == 1
    assert "cannot open the database" in one.said()
    assert "Traceback" not in one.said()
    if damage == "garbage":
        assert (data / "authsvc.db").read_bytes() == b"not a database" * 1000
    else:
        with sqlite3.connect(data / "authsvc.db") as connection:
            assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("things",)]
        connection.close()


def test_an_interrupted_first_start_is_completed(data: Path, started: list[Process]):
    """A key that was written while the database did not yet know it is replaced by one that works."""
    one = Process(data, command="serve").ready()
    started.append(one)
    assert one.stop() == 0
    (data / "initialised").unlink()
    (data / "admin-token").write_text("half")
    two = Process(data, command="serve").ready()
    started.append(two)
    key = (data / "admin-token").read_text().strip()
    assert two.get("/v1/tenants/default", key).status_code == 200


def test_a_crashed_task_ends_the_process_with_its_name(data: Path):
    """No half-alive service: status 1, and the log says which part it was."""
    crash = (
        "import sys; from authsvc.cli import main; from authsvc.service import Service\n"
        "import asyncio\n"
        "async def run(self):\n    await asyncio.sleep(0.3)\n    raise RuntimeError('boom')\n"
        "Service.run = run\n"
        "main()"
    )
    arguments = ["serve", "--data", str(data), "--http-bind", "127.0.0.1:0"]
    ended = subprocess.run(
        [sys.executable, "-c", crash, *arguments],
        capture_output=True,
        text=True,
        timeout=STARTS_WITHIN_S,
        check=False,
        cwd=data.parent,
    )
    assert ended.returncode == 1
    assert "boom" in ended.stderr
    assert '"task": "service"' in ended.stderr
