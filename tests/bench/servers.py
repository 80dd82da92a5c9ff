"""The servers that are compared, each a process of its own on loopback, started and ended by a context manager."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Address = tuple[str, int]
ADMIN = "AUTHSVC_ADMIN_TOKEN"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def _process(command: list[str], port: int, *, env: dict[str, str] | None = None) -> Iterator[int]:
    """Run the command until the block ends, once `port` accepts; yield its process id. Errors show its output."""
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **(env or {})})
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if child.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    raise RuntimeError(f"{command[0]} did not start: {output.read().decode()[-2000:]}")
                time.sleep(0.05)
            yield child.pid
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextlib.contextmanager
def mosquitto() -> Iterator[Address]:
    """Anonymous Mosquitto, nothing persisted, no limit on what is queued for a client."""
    port = free_port()
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n"
            "log_type none\nuser root\n"
        )
        with _process([program, "-c", str(config)], port):
            yield ("127.0.0.1", port)


@contextlib.contextmanager
def stock_amqtt(plugin: str = "") -> Iterator[Address]:
    """Stock amqtt, anonymous; with `plugin` a topic plugin of that dotted name as well."""
    port = free_port()
    with _process([sys.executable, "-m", "tests.bench.stock_amqtt", str(port), plugin], port):
        yield ("127.0.0.1", port)


@dataclass(slots=True)
class Service:
    """A running authsvc: where it listens, and a small client for its API."""

    mqtt: Address
    http: str
    pid: int
    token: str = field(repr=False)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self.http + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None


@contextlib.contextmanager
def authsvc(*, upstream: Address | None = None, data: Path | None = None) -> Iterator[Service]:
    """`authsvc up` with the embedded broker, or before `upstream`."""
    from authsvc.core import tokens
    from authsvc.core.facts import TokenKind

    mqtt, http = free_port(), free_port()
    token = tokens.mint(TokenKind.ADMIN)
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("authsvc")), "up", "--data", str(data or folder)]
        command += ["--mqtt-bind", f"127.0.0.1:{mqtt}", "--http-bind", f"127.0.0.1:{http}"]
        if upstream:
            command += ["--upstream", f"{upstream[0]}:{upstream[1]}"]
        # The others log errors or nothing: a line for each session would be compared with no line.
        with _process(command, mqtt, env={ADMIN: token, "AUTHSVC__LOG__LEVEL": "warning"}) as pid:
            service = Service(("127.0.0.1", mqtt), f"http://127.0.0.1:{http}", pid, token)
            deadline = time.monotonic() + 10
            while True:
                with contextlib.suppress(OSError):
                    service.call("GET", "/readyz")
                    break
                if time.monotonic() > deadline:
                    raise RuntimeError("authsvc is not ready after 10 s")
                time.sleep(0.05)
            yield service
