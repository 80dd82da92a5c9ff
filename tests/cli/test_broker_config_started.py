"""The printed configurations start the real brokers that are here, and what they promise holds there."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from authsvc.brokerconfig.installation import Installation
from authsvc.brokerconfig.rendering import render
from tests.adapters.aedes_broker import PACKAGE, installed
from tests.adapters.rabbitmq_broker import MANAGER, RabbitMQ
from tests.broker.mosquitto import Mosquitto
from tests.broker.raw_client import RawClient
from tests.live_service import LiveService, call, free_ports, live_service

SECRET = secrets.token_hex(16)
USER_OF_ROOT = "user root\n" if os.geteuid() == 0 else ""  # or Mosquitto gives up the right to its own folder


class _Printed(Mosquitto):
    """Mosquitto with the printed file, its folder, and the socket that its rig waits for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        text = render(Installation(kind="mosquitto", bind=f"127.0.0.1:{self.port}"))[0].text
        more = f"persistence_location {folder}/\nlistener 0 {self.path}\n"
        self._config.write_text(f"{text}{more}{USER_OF_ROOT}")


async def test_the_printed_mosquitto_conf_starts_mosquitto_and_the_gate_stands_before_it(tmp_path: Path) -> None:
    """A device connects to the gate, and its message comes through Mosquitto to itself."""
    broker = _Printed(tmp_path)
    try:
        await broker.start()
        with live_service(tmp_path, "--upstream", f"127.0.0.1:{broker.port}") as service:
            token = _token(service)
            client = await RawClient.connected(("127.0.0.1", service.port), "d1", token, username="d1")
            assert await client.subscribe("default/default/d1/command/#") == [0]
            await client.disconnect()
    finally:
        await broker.stop()


def test_the_printed_mosquitto_conf_opens_a_socket_where_asked() -> None:
    """A path is a Unix socket, which no other machine reaches."""
    text = render(Installation(kind="mosquitto", bind="/run/mosquitto/gate/gate.sock"))[0].text
    assert "\nlistener 0 /run/mosquitto/gate/gate.sock\n" in text
    assert "127.0.0.1" not in text


def _token(service: LiveService) -> str:
    made = call(
        "authsvc", "token", "create", "t", "--definition", "thing", "--quiet", "--url", service.url,
        AUTHSVC_ADMIN_TOKEN=service.key,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def _issued(folder: Path) -> tuple[Path, Path, Path]:
    """Return an authority, and a certificate for localhost that it issued, with its key: Erlang takes no other."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("authority", "localhost")]
    now = dt.datetime.now(dt.UTC)
    paths = [folder / "ca.crt", folder / "issued.crt", folder / "issued.key"]
    for number, (path, key, name) in enumerate(zip(paths, keys, names, strict=False)):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(names[0]).public_key(key.public_key())
        builder = builder.serial_number(number + 1).not_valid_before(now - dt.timedelta(hours=1))
        builder = builder.not_valid_after(now + dt.timedelta(hours=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=number == 0, path_length=None), critical=True)
        address = x509.DNSName("localhost")
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        path.write_bytes(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths[2].write_bytes(keys[1].private_bytes(serialization.Encoding.PEM, *form))
    return paths[0], paths[1], paths[2]


@pytest.fixture(scope="module", params=["by a secret", "by a client certificate over TLS"])
def attached(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LiveService, RabbitMQ]]:
    """A service and a RabbitMQ that knows of it what `authsvc config rabbitmq` prints, and shows who it is so."""
    folder = tmp_path_factory.mktemp("printed")
    broker = RabbitMQ(folder, hooks="http://127.0.0.1:1/hooks/rabbitmq")
    shown = ["--secret-file", "/etc/authsvc/rabbitmq.secret"]
    settings = {
        "AUTHSVC__BROKERS__RABBITMQ__SECRET": SECRET,
        "AUTHSVC__BROKERS__RABBITMQ__MANAGEMENT_URL": broker.management_url,
        "AUTHSVC__BROKERS__RABBITMQ__MANAGEMENT_USER": MANAGER,
        "AUTHSVC__BROKERS__RABBITMQ__MANAGEMENT_PASSWORD": SECRET,
    }
    url = ""
    if "TLS" in request.param:
        ca, certificate, key = _issued(folder)
        shown = ["--tls-ca", ca, "--tls-cert", certificate, "--tls-key", key]
        (port,) = free_ports(1)
        url = f"https://localhost:{port}"
        del settings["AUTHSVC__BROKERS__RABBITMQ__SECRET"]
        settings |= {
            "AUTHSVC__HOOKS__BIND": f"127.0.0.1:{port}",
            "AUTHSVC__HOOKS__TLS_CERT": str(certificate),
            "AUTHSVC__HOOKS__TLS_KEY": str(key),
            "AUTHSVC__HOOKS__TLS_CLIENT_CA": str(ca),
        }
    with live_service(tmp_path_factory.mktemp("service"), settings=settings) as service:
        printed = call(
            "authsvc", "config", "rabbitmq", "--version", "3.10.8", "--url", url or service.url, *shown,
            "--bind", f"127.0.0.1:{broker.port}", "--management-url", broker.management_url,
            "--output", folder / "made",
        )  # fmt: skip
        assert printed.returncode == 0, printed.stderr
        text = (folder / "made" / "rabbitmq.conf").read_text()
        assert SECRET not in text
        (folder / "rabbitmq.conf").write_text(text.replace(":SECRET@", f":{SECRET}@") + "log.console.level = info\n")
        for name in {"enabled_plugins", "advanced.config"} & {path.name for path in (folder / "made").iterdir()}:
            (folder / name).write_text((folder / "made" / name).read_text())
        try:
            broker.start()
            yield service, broker
        finally:
            broker.stop()


async def test_the_printed_rabbitmq_conf_starts_rabbitmq_and_lets_a_device_in(
    attached: tuple[LiveService, RabbitMQ],
) -> None:
    """Who has a token connects to RabbitMQ and subscribes to what is its own."""
    service, broker = attached
    client = await RawClient.connected(("127.0.0.1", broker.port), "d1", _token(service), username="d1")
    assert await client.subscribe(("default/default/d1/command/#", 1)) == [1]
    await client.disconnect()


@pytest.mark.parametrize(
    ("username", "password"),
    [
        pytest.param("guest", "guest", id="the user that every installation has"),
        pytest.param("d1", "nonsense", id="no token"),
        pytest.param(None, None, id="anonymous"),
    ],
)
async def test_rabbitmq_with_the_printed_conf_lets_nobody_else_in(
    attached: tuple[LiveService, RabbitMQ], username: str | None, password: str | None
) -> None:
    """No guest, nobody without a token, nobody without a name."""
    client = await RawClient.open(("127.0.0.1", attached[1].port))
    assert await client.connect("d2", password, username=username) != 0
    client.cut()


def test_rabbitmq_with_the_printed_conf_speaks_no_amqp(attached: tuple[LiveService, RabbitMQ]) -> None:
    """Its other protocol would be another way to the same queues."""
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", attached[1].amqp_port), 1).close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", 5672), 1).close()


async def test_the_printed_aedes_program_runs_and_lets_a_device_in(tmp_path: Path) -> None:
    """Node finds the two packages that it names; a token opens a session, nonsense does not."""
    binary = installed()
    modules = tmp_path / "node_modules"
    modules.mkdir()
    (modules / "aedes").symlink_to(PACKAGE / "node_modules" / "aedes")
    (modules / "authsvc-aedes").symlink_to(PACKAGE)
    secret_file, (port,) = tmp_path / "aedes.secret", free_ports(1)
    secret_file.write_text(SECRET + "\n")
    with live_service(tmp_path, settings={"AUTHSVC__BROKERS__AEDES__SECRET_FILE": str(secret_file)}) as service:
        installation = Installation(
            kind="aedes", url=service.url, secret_file=str(secret_file), bind=f"127.0.0.1:{port}"
        )
        (tmp_path / "aedes.mjs").write_text(render(installation)[0].text)
        process = await asyncio.create_subprocess_exec(binary, str(tmp_path / "aedes.mjs"))
        try:
            client = await _connected(port, _token(service))
            assert await client.subscribe("default/default/d1/command/#") == [0]
            await client.disconnect()
            other = await RawClient.open(("127.0.0.1", port))
            assert await other.connect("d2", "nonsense", username="d2") == 4
            other.cut()
        finally:
            process.terminate()
            await process.wait()


async def _connected(port: int, token: str) -> RawClient:
    """Return a session as soon as the broker listens and has found the service."""
    async with asyncio.timeout(20):
        while True:
            try:
                client = await RawClient.open(("127.0.0.1", port))
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
                continue
            if await client.connect("d1", token, username="d1") == 0:
                return client
            client.cut()
            await asyncio.sleep(0.05)
