"""The servers that are compared, each a process of its own on loopback, started and ended by a context manager."""

from __future__ import annotations

import contextlib
import hashlib
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
from base64 import b64encode
from collections.abc import Iterator, Mapping
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
def mosquitto(*settings: str) -> Iterator[Address]:
    """Mosquitto, nothing persisted, no limit on what is queued for a client; anonymous unless `settings` say more."""
    port = free_port()
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "mosquitto.conf"
        lines = [
            f"listener {port} 127.0.0.1",
            "max_queued_messages 0",
            "max_inflight_messages 0",
            "log_type none",
            "user root",
            *(settings or ("allow_anonymous true",)),
        ]
        config.write_text("\n".join(lines) + "\n")
        with _process([program, "-c", str(config)], port):
            yield ("127.0.0.1", port)


@contextlib.contextmanager
def mosquitto_password_file(passwords: Mapping[str, str]) -> Iterator[Address]:
    """Mosquitto that checks user names against a password file, and topics against an ACL file of one pattern."""
    with tempfile.TemporaryDirectory() as folder:
        users, topics = Path(folder) / "passwords", Path(folder) / "topics"
        users.write_text("".join(f"{name}:{password}\n" for name, password in passwords.items()))
        subprocess.run(["mosquitto_passwd", "-U", str(users)], check=True, timeout=120)
        topics.write_text("pattern readwrite default/default/%u/#\n")
        with mosquitto("allow_anonymous false", f"password_file {users}", f"acl_file {topics}") as address:
            yield address


@contextlib.contextmanager
def mosquitto_dynamic_security(passwords: Mapping[str, str]) -> Iterator[Address]:
    """Mosquitto with its dynamic-security plugin: one client for each user name, all with one role."""
    plugin = next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "dynamic-security.json"
        config.write_text(json.dumps(_dynamic_security(passwords)))
        with mosquitto("allow_anonymous false", f"plugin {plugin}", f"plugin_opt_config_file {config}") as address:
            yield address


def _dynamic_security(passwords: Mapping[str, str]) -> dict[str, Any]:
    iterations = 101  # what the plugin writes by itself
    salt = b"\0" * 12
    acls = [
        {"acltype": kind, "topic": "default/default/#", "priority": 0, "allow": True}
        for kind in ("publishClientSend", "publishClientReceive", "subscribePattern")
    ]
    clients = [
        {
            "username": name,
            "password": b64encode(hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)).decode(),
            "salt": b64encode(salt).decode(),
            "iterations": iterations,
            "roles": [{"rolename": "bench"}],
        }
        for name, password in passwords.items()
    ]
    access = {"publishClientSend": False, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    return {
        "defaultACLAccess": access,
        "clients": clients,
        "groups": [],
        "roles": [{"rolename": "bench", "acls": acls}],
    }


@contextlib.contextmanager
def stock_amqtt(plugin: str = "") -> Iterator[Address]:
    """Stock amqtt, anonymous; with `plugin` a topic plugin of that dotted name as well."""
    port = free_port()
    with _process([sys.executable, "-m", "tests.bench.stock_amqtt", str(port), plugin], port):
        yield ("127.0.0.1", port)


@contextlib.contextmanager
def empty_route() -> Iterator[Address]:
    """The web stack of the hooks with a route that does nothing."""
    port = free_port()
    with _process([sys.executable, "-m", "tests.bench.empty_route", str(port)], port):
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
def authsvc(
    *, upstream: Address | None = None, data: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """`authsvc up` with the embedded broker, or before `upstream`; `env` holds more settings."""
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
        with _process(command, mqtt, env={ADMIN: token, "AUTHSVC__LOG__LEVEL": "warning", **(env or {})}) as pid:
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
