"""A real Mosquitto on a free loopback port or a Unix socket, for the time of a test."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from pathlib import Path

import pytest

BINARY = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """Started by `start`, ended by `stop`; between the two by `start` again on the same port."""

    def __init__(
        self, folder: Path, *, port: int | None = None, persistence: bool = False, nodelay: bool = True
    ) -> None:
        if BINARY is None:
            pytest.skip("mosquitto is not installed")
        self.port = port or free_port()
        self.path = folder / "mosquitto.sock"
        self._config = folder / "mosquitto.conf"
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"listener 0 {self.path}",
            "allow_anonymous true",
            "max_queued_messages 5000",
            f"set_tcp_nodelay {str(nodelay).lower()}",  # false is Mosquitto's own default
        ]
        if os.geteuid() == 0:
            lines.append("user root")  # or it would give up the right to its own folder
        if persistence:
            lines += [
                "persistence true",
                f"persistence_location {folder}/",
                "autosave_on_changes true",
                "autosave_interval 1",
            ]
        self._config.write_text("\n".join(lines) + "\n")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            BINARY, "-c", str(self._config), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(5):
            while True:
                try:
                    for reach in (
                        lambda: asyncio.open_connection("127.0.0.1", self.port),
                        lambda: asyncio.open_unix_connection(self.path),
                    ):
                        _, writer = await reach()
                        writer.close()
                        await writer.wait_closed()
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    return

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(19)  # SIGSTOP

    def thaw(self) -> None:
        self._process.send_signal(18)  # SIGCONT
