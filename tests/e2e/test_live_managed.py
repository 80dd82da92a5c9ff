"""`authsvc up --broker …` as an operator runs it: it says which and why, and no broker outlives the service."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from authsvc.core.credentials import WillMessage
from authsvc.upstreams import has_rumqttd
from broker.managed.mosquitto import find_mosquitto
from tests.broker.raw_client import RawClient, close_all
from tests.live_service import LiveService, call, free_ports, live_service


def installed(broker: str) -> None:
    if not (find_mosquitto() if broker != "rumqttd" else has_rumqttd()):
        pytest.skip(f"{broker} is not installed")


def config(folder: Path) -> Path:
    """Return a settings file: tests are often run by root, and no broker is."""
    path = folder / "authsvc.toml"
    path.write_text('[mqtt]\nrun_as = "nobody"\n' if os.geteuid() == 0 else "")
    return path


def lock_holder(service: LiveService, broker: str) -> int:
    return int((service.data / broker / "lock").read_text())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> None:
    async with asyncio.timeout(5):
        while alive(pid):
            await asyncio.sleep(0.01)


def app_token(service: LiveService) -> str:
    return _minted(service, "app-tokens", {"name": "t", "thing_definition": "thing"})


def ground_token(service: LiveService) -> str:
    return _minted(service, "grounds/default/tokens", {"name": "r", "access": "read"})


def _minted(service: LiveService, where: str, body: dict[str, str]) -> str:
    answer = httpx.post(
        f"{service.url}/v1/tenants/default/{where}",
        headers={"Authorization": f"Bearer {service.key}"},
        json=body,
        trust_env=False,
    )
    return str(answer.json()["token"])


TOPIC = "default/default/s1/command/x"


@pytest.mark.parametrize("broker", ["mosquitto", "rumqttd", "auto"])
async def test_a_managed_broker_serves_and_goes_with_the_service(tmp_path, broker):
    """A thing subscribes; the broker's process is gone when SIGTERM has been answered; the operator was told which."""
    installed(broker)
    with live_service(tmp_path, "--broker", broker, "--config", config(tmp_path)) as service:
        chosen = "mosquitto" if broker == "auto" else broker
        pid = lock_holder(service, chosen)
        thing = await RawClient.connected(("127.0.0.1", service.port), "s1", app_token(service), username="s1")
        assert await thing.subscribe((TOPIC, 1)) == [1]
        await thing.publish("default/default/s1/state/x", b"1", qos=1)
        said = call("authsvc", "doctor", "--data", service.data, "--url", service.url, "--mqtt-bind", service.mqtt)
        assert f"a managed broker: `{chosen}`" in said.stdout, "though the flag of `up` stands in no file"
        assert alive(pid)
        done = call(
            *("authsvc", "doctor", "--data", service.data, "--url", service.url, "--mqtt-bind", service.mqtt),
            AUTHSVC__MQTT__BROKER=chosen,
        )
        assert done.returncode == 0, done.stdout
        await close_all()
    assert not alive(pid)
    assert f"broker `{chosen}`: " in service.log.read_text()


async def test_a_session_and_its_queue_survive_a_restart_of_everything(tmp_path):
    """The service and its Mosquitto end in order; both are back with what they had."""
    installed("mosquitto")
    options = ("--broker", "mosquitto", "--config", config(tmp_path))
    with live_service(tmp_path, *options) as service:
        token = app_token(service)
        address = ("127.0.0.1", service.port)
        thing = await RawClient.connected(address, "s1", token, username="s1", clean=False)
        assert await thing.subscribe((TOPIC, 1)) == [1]
        await thing.disconnect()
    with live_service(tmp_path, *options) as service:
        address = ("127.0.0.1", service.port)
        thing = await RawClient.connected(address, "s1", token, username="s1", clean=False)
        assert thing.session_present
        await close_all()


async def test_the_broker_keeps_the_wills_that_the_end_of_the_service_sends(tmp_path):
    """SIGTERM: the gate says farewell for its clients, and only then the broker is told to save and go."""
    installed("mosquitto")
    options, topic = ("--broker", "mosquitto", "--config", config(tmp_path)), "default/default/s1/state/gone"
    with live_service(tmp_path, *options) as service:
        token, address = ground_token(service), ("127.0.0.1", service.port)
        reader = await RawClient.connected(address, "reader", token, clean=False)
        assert await reader.subscribe((topic, 1)) == [1]
        await reader.disconnect()
        will = WillMessage(topic=topic, payload=b"bye", qos=1, retain=False)
        await RawClient.connected(address, "s1", app_token(service), username="s1", will=will)
    with live_service(tmp_path, *options) as service:
        reader = await RawClient.connected(("127.0.0.1", service.port), "reader", token, clean=False)
        assert reader.session_present
        assert (await reader.delivery(2)).payload == b"bye"
        await close_all()


@pytest.mark.parametrize("broker", ["mosquitto", "rumqttd"])
async def test_no_broker_outlives_a_service_that_was_killed(tmp_path, broker):
    """kill -9; and the next start has one broker again, with the session."""
    installed(broker)
    options = ("--broker", broker, "--config", config(tmp_path))
    with live_service(tmp_path, *options) as service:
        pid = lock_holder(service, broker)
        service.process.send_signal(signal.SIGKILL)
        service.process.wait()
        await gone(pid)
    with live_service(tmp_path, *options) as service:
        assert lock_holder(service, broker) != pid


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--broker", "mosquitto", "--upstream", "127.0.0.1:1"), "give one"),
        (("--broker", "nanomq"), "mqtt.broker"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(tmp_path, options, said):
    """Status 1 and the way out."""
    mqtt, http = free_ports(2)
    binds = ("--mqtt-bind", f"127.0.0.1:{mqtt}", "--http-bind", f"127.0.0.1:{http}")
    done = call("authsvc", "up", "--data", tmp_path / "var", *binds, *options)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_as_root_it_is_refused_without_a_user(tmp_path):
    """And says which setting names one."""
    if os.geteuid() != 0:
        return
    installed("mosquitto")
    mqtt, http = free_ports(2)
    binds = ("--mqtt-bind", f"127.0.0.1:{mqtt}", "--http-bind", f"127.0.0.1:{http}")
    done = call("authsvc", "up", "--data", tmp_path / "var", *binds, "--broker", "mosquitto")
    assert done.returncode == 1
    assert "mqtt.run_as" in done.stderr
