"""The two brokers that tests put behind the gate: amqtt in this process, and a Mosquitto of their own."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.embedded import AmqttUpstream
from broker.tcp import TcpUpstream
from broker.upstream import Upstream

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


@asynccontextmanager
async def embedded() -> AsyncIterator[Upstream]:
    """Start amqtt in this process."""
    upstream = AmqttUpstream()
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()


@asynccontextmanager
async def mosquitto_socket(folder: Path) -> AsyncIterator[Path]:
    """Run a Mosquitto on a Unix socket of its own: no port to collide on."""
    if not Path(MOSQUITTO).exists():
        pytest.skip("mosquitto is not installed")
    path = folder / "mosquitto.sock"
    config = folder / "mosquitto.conf"
    config.write_text(
        f"user root\nlistener 0 {path}\nallow_anonymous true\npersistence false\nlog_type none\n"
        "max_inflight_messages 0\nmax_queued_messages 10000\n"
    )
    process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(5):
            while not _listens(path):
                await asyncio.sleep(0.01)
        yield path
    finally:
        process.terminate()
        process.wait(5)


def _listens(path: Path) -> bool:
    """Try it: the file is there before anybody listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@asynccontextmanager
async def mosquitto(folder: Path) -> AsyncIterator[Upstream]:
    """Run a Mosquitto and connect to it."""
    async with mosquitto_socket(folder) as path:
        upstream = TcpUpstream(path=path)
        await upstream.start()
        try:
            yield upstream
        finally:
            await upstream.stop()


@asynccontextmanager
async def started(kind: str, folder: Path) -> AsyncIterator[Upstream]:
    """Start the upstream of that name: `amqtt` or `mosquitto`."""
    async with embedded() if kind == "amqtt" else mosquitto(folder) as upstream:
        yield upstream
