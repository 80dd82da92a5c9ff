"""The columns of the gate: `authsvc up` in front of a real broker of each kind, as operators run it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conformance.client import MqttClient
from tests.conformance.driver import Client, House, Missing, Service, Stage, Traits
from tests.live_service import live_service

SETTINGS = {
    # The suite is one address that offers many bad credentials on purpose.
    "AUTHSVC__LIMITS__FAILED_CONNECT_BURST": "100000",
    "AUTHSVC__LOG__LEVEL": "warning",
    **({"AUTHSVC__MQTT__RUN_AS": "nobody"} if os.geteuid() == 0 else {}),  # a managed broker is not run as root
}


class Gate:
    """A gate with the embedded broker; other brokers are named by `upstream`."""

    traits = Traits()

    def __init__(self, name: str, page: str, levels: tuple[int, ...]) -> None:
        self.name = name
        self.page = page
        self.levels = levels
        self._service = Service("", "")
        self._port = 0

    def start(self, house: House) -> None:
        folder = house.folder / self.name.replace(" ", "-")
        folder.mkdir()
        live = house.stack.enter_context(live_service(folder, *self.upstream(house, folder), settings=SETTINGS))
        self._service = Service(live.url, live.key)
        self._port = live.port

    def upstream(self, house: House, folder: Path) -> tuple[object, ...]:
        """Return the arguments of `authsvc up` that put this broker behind the gate."""
        return ("--broker", "amqtt")

    @asynccontextmanager
    async def stage(self, level: int) -> AsyncIterator[Stage]:
        async def open_client() -> Client:
            return await MqttClient.open("127.0.0.1", self._port, level)

        yield Stage(self._service, open_client)


class Rumqttd(Gate):
    """rumqttd as `authsvc up --broker rumqttd` runs it, from the extra of that name."""

    def upstream(self, house: House, folder: Path) -> tuple[object, ...]:
        if importlib.util.find_spec("iotcore") is None:
            raise Missing("the extra authsvc[rumqttd] is not installed")
        return ("--broker", "rumqttd")


class BehindMosquitto(Gate):
    """A Mosquitto of its own on a Unix socket, nothing changed in its configuration but what the page demands."""

    def upstream(self, house: House, folder: Path) -> tuple[object, ...]:
        binary = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if binary is None:
            raise Missing("mosquitto is not installed")
        socket, config = folder / "mosquitto.sock", folder / "mosquitto.conf"
        config.write_text(f"user root\nlistener 0 {socket}\nallow_anonymous true\nlog_type none\n")
        process = subprocess.Popen([binary, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        house.stack.callback(process.wait, 5)
        house.stack.callback(process.terminate)
        for _ in range(500):
            if socket.exists():
                return ("--upstream", socket)
            time.sleep(0.01)
        raise AssertionError("mosquitto did not open its socket within 5 s")
