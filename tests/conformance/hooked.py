"""The columns of brokers that ask our hooks: RabbitMQ and Aedes run here, the others are models.

One service answers all of them, each with its own name and secret; its hooks have a listener of their own.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from authsvc.brokerconfig.installation import Installation
from authsvc.brokerconfig.rendering import render
from tests.adapters.rabbitmq_broker import MANAGER, RabbitMQ
from tests.conformance.client import MqttClient
from tests.conformance.driver import Client, House, Missing, Service, Stage, Traits
from tests.conformance.models.emqx import Emqx
from tests.conformance.models.goauth import GoAuth
from tests.conformance.models.hooks import asking, management
from tests.conformance.models.mini import MiniBroker, ModelClient
from tests.conformance.models.nanomq import NanoMQ
from tests.conformance.models.vernemq import VerneMQ
from tests.live_service import free_ports

SECRET = "conformance-of-brokers"
AEDES = Path(__file__).parents[2] / "broker" / "aedes"


class Hooked:
    """A broker with a section `[brokers.NAME]` in the settings of the service that all of them ask."""

    def __init__(self, name: str, page: str, levels: tuple[int, ...], traits: Traits) -> None:
        self.name = name
        self.page = page
        self.levels = levels
        self.traits = traits
        self._service = Service("", "")

    @property
    def key(self) -> str:
        """Its name in the settings and in the paths of its hooks."""
        return self.name.lower()

    def section(self, house: House) -> dict[str, object]:
        """Return its settings, before anything runs."""
        return {"secret": SECRET}


class Model(Hooked):
    """A broker in this process, and its management interface, if it has one, on a port that the service is told."""

    headers: ClassVar[dict[str, str]] = {"X-Authsvc-Secret": SECRET}

    def __init__(
        self, name: str, page: str, levels: tuple[int, ...], traits: Traits, policy: Callable[[httpx.AsyncClient], Any]
    ) -> None:
        super().__init__(name, page, levels, traits)
        self._policy = policy
        self._port = 0
        self._hooks = ""

    def section(self, house: House) -> dict[str, object]:
        (self._port,) = free_ports(1)
        found = super().section(house)
        if hasattr(self._policy, "manage"):
            found |= {
                "management_url": f"http://127.0.0.1:{self._port}",
                "management_user": "manager",
                "management_password": SECRET,
            }
        return found

    def start(self, house: House) -> None:
        self._service = house.hooks()
        self._hooks = f"{house.hooks_url}/hooks/{self.key}"

    @asynccontextmanager
    async def stage(self, level: int) -> AsyncIterator[Stage]:
        async with asking(self._hooks, self.headers) as http:
            policy = self._policy(http)
            broker: MiniBroker = policy.broker

            async def open_client() -> Client:
                return ModelClient(broker, level)

            try:
                if hasattr(policy, "manage"):
                    async with management(self._port, policy.manage):
                        yield Stage(self._service, open_client)
                else:
                    yield Stage(self._service, open_client)
            finally:
                await broker.close()


class GoAuthModel(Model):
    """A model that is given what `authsvc config mosquitto-go-auth` prints, with the secret where the word stands."""

    headers: ClassVar[dict[str, str]] = {}  # the address shows it

    def __init__(self, name: str, page: str, levels: tuple[int, ...], traits: Traits) -> None:
        super().__init__(name, page, levels, traits, lambda http: GoAuth(http, self._conf))
        self._conf = ""

    @property
    def key(self) -> str:
        return "goauth"

    def start(self, house: House) -> None:
        super().start(house)
        installation = Installation(kind="mosquitto-go-auth", url=house.hooks_url, secret_file="/where/it/lies")
        (printed,) = render(installation)
        self._conf = printed.text.replace("SECRET@", f"{SECRET}@")


class Socketed(Hooked):
    """A broker that runs as a process."""

    port = 0

    @asynccontextmanager
    async def stage(self, level: int) -> AsyncIterator[Stage]:
        async def open_client() -> Client:
            return await MqttClient.open("127.0.0.1", self.port, level)

        yield Stage(self._service, open_client)


class Rabbit(Socketed):
    """Debian's RabbitMQ, a node of its own."""

    _node: RabbitMQ | None = None

    def section(self, house: House) -> dict[str, object]:
        folder = house.folder / "rabbitmq"
        folder.mkdir()
        host = house.hooks_url.removeprefix("http://")
        try:
            self._node = RabbitMQ(folder, hooks=f"http://authsvc:{SECRET}@{host}/hooks/{self.key}")
        except pytest.skip.Exception:
            return super().section(house)
        self.port = self._node.port
        return {
            **super().section(house),
            "management_url": self._node.management_url,
            "management_user": MANAGER,
            "management_password": SECRET,
        }

    def start(self, house: House) -> None:
        self._service = house.hooks()
        if self._node is None:
            raise Missing("rabbitmq-server is not installed")
        house.stack.callback(self._node.stop)
        self._node.start()


class AedesPackage(Socketed):
    """The npm package's own program."""

    def start(self, house: House) -> None:
        node = shutil.which("node")
        if node is None:
            raise Missing("node is not installed")
        if not (AEDES / "node_modules" / "aedes").is_dir():
            raise Missing("aedes is not installed: npm ci in broker/aedes")
        self._service = house.hooks()
        (self.port,) = free_ports(1)
        secret = house.folder / "aedes-secret"
        secret.write_text(SECRET)
        log = (house.folder / "aedes.log").open("wb")
        house.stack.callback(log.close)
        command = [node, "bin/authsvc-aedes.js", "--port", str(self.port), "--authsvc", house.hooks_url]
        process = subprocess.Popen(
            [*command, "--secret-file", str(secret)], cwd=AEDES, stdout=subprocess.PIPE, stderr=log
        )
        house.stack.callback(process.wait, 5)
        house.stack.callback(process.terminate)
        assert process.stdout is not None
        house.stack.callback(process.stdout.close)
        started = time.monotonic()
        assert process.stdout.readline().startswith(b"MQTT on"), (house.folder / "aedes.log").read_text()
        assert time.monotonic() - started < 10


def settings_of(brokers: Sequence[Hooked], house: House) -> str:
    """Return the settings of a service that all these brokers ask, as TOML."""
    lines = ["[hooks]", f'bind = "{house.hooks_url.removeprefix("http://")}"']
    for broker in brokers:
        lines.append(f"[brokers.{broker.key}]")
        lines += [f'{key} = "{value}"' for key, value in broker.section(house).items()]
    return "\n".join(lines) + "\n"


HOOKED: tuple[Hooked, ...] = (
    # Where a kick and a CONNECT of one client id meet, RabbitMQ may answer after seconds only: it queues its questions
    # to us on two connections, those of the kick behind that of the CONNECT which waits for it.
    Rabbit("RabbitMQ", "rabbitmq.md", (3, 4), Traits(settle_s=1.0, tells_gone=False, at_once=4)),
    AedesPackage("Aedes", "aedes.md", (3, 4), Traits(settle_s=0.3)),
    Model("EMQX", "emqx.md", (4, 5), Traits(settle_s=1.0, tells_gone=False, at_once=20), Emqx),
    Model("VerneMQ", "vernemq.md", (3, 4, 5), Traits(settle_s=1.0, tells_gone=False, at_once=20), VerneMQ),
    Model("NanoMQ", "nanomq.md", (4, 5), Traits(kicks=False, tells_gone=False, at_once=20), NanoMQ),
    GoAuthModel(
        "mosquitto-go-auth",
        "mosquitto-go-auth.md",
        (4, 5),  # what differs in 3.1 is in test_goauth_model.py
        Traits(kicks=False, tells_gone=False, at_once=20),
    ),
)
