"""A real RabbitMQ with its MQTT plugin on free loopback ports, for the time of a test session.

It is an own node: own name, cookie, home, database and port mapper in one temporary directory, so that a RabbitMQ of
the system is neither seen nor touched. Node and port mapper are ended by their process ids.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from tests.live_service import free_ports

# Debian's /usr/sbin/rabbitmq-server changes to the user `rabbitmq` and its home; the script behind it does not.
SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
EPMD = shutil.which("epmd")
PLUGINS = ("rabbitmq_mqtt", "rabbitmq_auth_backend_http", "rabbitmq_management")
MANAGER = "authsvc-manager"
READY_WITHIN_S = 90
PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class RabbitMQ:
    """Started by `start`, ended by `stop`; its HTTP backend asks at `hooks` (a URL that ends in the broker's name)."""

    def __init__(self, folder: Path, *, hooks: str, mqtt_lines: Sequence[str] = ()) -> None:
        if not SCRIPT.exists() or EPMD is None:
            pytest.skip("rabbitmq-server is not installed")
        self.folder = folder
        self.port, self.management_port, self.amqp_port, dist_port, self._epmd_port = free_ports(5)
        self.management_url = f"http://127.0.0.1:{self.management_port}"
        self.log = folder / "rabbit.log"
        (folder / "rabbitmq.conf").write_text("\n".join([*self._config(hooks), *mqtt_lines]) + "\n")
        (folder / "enabled_plugins").write_text("[" + ",".join(PLUGINS) + "].\n")
        cookie = folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        self._environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node: one process, one id
            "RABBITMQ_NODENAME": f"test-{secrets.token_hex(4)}@localhost",
            "RABBITMQ_DIST_PORT": str(dist_port),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "feature_flags"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_PLUGINS_EXPAND_DIR": str(folder / "plugins-expand"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "rabbit.pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false +S 1:1 +sbwt none +sbwtdcpu none"
            ),
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def _config(self, hooks: str) -> list[str]:
        return [
            f"listeners.tcp.1 = 127.0.0.1:{self.amqp_port}",
            f"mqtt.listeners.tcp.1 = 127.0.0.1:{self.port}",
            "management.tcp.ip = 127.0.0.1",
            f"management.tcp.port = {self.management_port}",
            "mqtt.allow_anonymous = false",
            "mqtt.vhost = /",
            "mqtt.exchange = amq.topic",
            "auth_backends.1 = http",
            "auth_http.http_method = post",
            *[f"auth_http.{path}_path = {hooks}/{path}" for path in ("user", "vhost", "resource", "topic")],
            "log.console.level = info",
        ]

    def start(self) -> None:
        """Return when MQTT and management answer; fail with the node's log if it ends or takes too long."""
        assert EPMD is not None
        with self.log.open("wb") as output:
            mapper = [EPMD, "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            for command in (mapper, [str(SCRIPT)]):
                process = subprocess.Popen(
                    command,
                    env=self._environment,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    preexec_fn=_end_with_parent,
                )
                self._processes.append(process)
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._ready():
            assert self._processes[-1].poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"not ready within {READY_WITHIN_S} s:\n{self.log.read_text()}"
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            httpx.get(f"{self.management_url}/api/overview", trust_env=False)
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except (httpx.TransportError, OSError):
            return False
        return b"Server startup complete" in self.log.read_bytes()

    def stop(self) -> None:
        """End node and port mapper. What the node holds is thrown away with its directory, so it is not asked."""
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        self._processes.clear()
