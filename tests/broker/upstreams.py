"""The brokers that tests put behind the gate: amqtt in this process, and Mosquitto and rumqttd of their own."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from authsvc.upstreams import has_rumqttd
from broker.embedded import AmqttUpstream
from broker.limits import Limits
from broker.managed.child import RunAs, user_to_run_as
from broker.managed.rumqttd import managed_rumqttd
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


def somebody() -> RunAs:
    """Return whom a managed broker may run as here: tests are often run by root, and no broker is."""
    return user_to_run_as("nobody" if os.geteuid() == 0 else "")


@asynccontextmanager
async def rumqttd(folder: Path) -> AsyncIterator[Upstream]:
    """Run a rumqttd as `authsvc up --broker rumqttd` does."""
    if not has_rumqttd():
        pytest.skip("the extra `rumqttd` is not installed")
    upstream = managed_rumqttd(folder / "rumqttd", limits=Limits(), run_as=somebody())
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()


KINDS = {"amqtt": lambda _: embedded(), "mosquitto": mosquitto, "rumqttd": rumqttd}


@asynccontextmanager
async def started(kind: str, folder: Path) -> AsyncIterator[Upstream]:
    """Start the upstream of that name, one of `KINDS`."""
    async with KINDS[kind](folder) as upstream:
        yield upstream
