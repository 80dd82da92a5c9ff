"""`authsvc doctor` looks for ways around the gate: real brokers on real addresses, real sockets with every mode."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from authsvc.cli import around
from authsvc.cli.around import knock, other_addresses, ways_around
from authsvc.settings import load_settings
from broker.limits import Limits
from broker.managed.rumqttd import managed_rumqttd
from tests.broker.mosquitto import Mosquitto, free_port
from tests.broker.upstreams import somebody


def found(**flags: object) -> list[tuple[str, str]]:
    settings = load_settings(flags={name.replace("__", "."): value for name, value in flags.items()}, environ={})
    return [(finding.state, finding.detail) for finding in ways_around(settings)]


@pytest.fixture
async def mosquitto(tmp_path: Path):
    running = Mosquitto(tmp_path)
    yield running
    await running.stop()


async def test_a_broker_on_loopback_that_asks_nobody_is_doubtful(mosquitto):
    """Every user of the machine gets in: a warning with the way out, no failure."""
    await mosquitto.start()
    ((state, detail),) = await asyncio.to_thread(found, mqtt__upstream=f"127.0.0.1:{mosquitto.port}")
    assert state == "warn"
    assert "every user of this machine" in detail
    assert "mqtt.upstream_username" in detail


async def test_a_broker_on_all_addresses_is_found_on_each(mosquitto, monkeypatch):
    """Knocked at from outside: whoever reaches that address passes by the gate."""
    addresses = other_addresses() or ["127.0.0.2"]  # a machine without a network has that one, too
    monkeypatch.setattr(around, "other_addresses", lambda: addresses)
    text = mosquitto._config.read_text().replace(f"listener {mosquitto.port} 127.0.0.1", f"listener {mosquitto.port}")
    mosquitto._config.write_text(text)
    await mosquitto.start()
    findings = await asyncio.to_thread(found, mqtt__upstream=f"127.0.0.1:{mosquitto.port}")
    failed = [detail for state, detail in findings if state == "fail"]
    assert any(f"{addresses[0]}:{mosquitto.port}" in detail and "127.0.0.1" in detail for detail in failed)


async def test_the_gate_itself_on_another_address_is_no_way_around(mosquitto, monkeypatch):
    """The same port number on an address where the gate listens."""
    await mosquitto.start()
    monkeypatch.setattr(around, "other_addresses", lambda: ["127.0.0.1"])
    where = f"127.0.0.1:{mosquitto.port}"
    found_ = await asyncio.to_thread(found, mqtt__upstream=where, mqtt__bind=f"0.0.0.0:{mosquitto.port}")
    assert [state for state, _ in found_] == ["warn"]


async def test_a_broker_that_asks_is_well(mosquitto):
    """Without credentials nobody comes in."""
    text = mosquitto._config.read_text().replace("allow_anonymous true", "allow_anonymous false")
    mosquitto._config.write_text(text)
    await mosquitto.start()
    assert knock("127.0.0.1", mosquitto.port) == "asks"
    assert [state for state, _ in await asyncio.to_thread(found, mqtt__upstream=f"127.0.0.1:{mosquitto.port}")] == [
        "ok"
    ]


async def test_a_broker_elsewhere_that_asks_nobody_fails(mosquitto, monkeypatch):
    """The network is the only wall then, and doctor cannot see it."""
    await mosquitto.start()
    monkeypatch.setattr(around, "_is_loopback", lambda _: False)
    ((state, detail),) = await asyncio.to_thread(found, mqtt__upstream=f"127.0.0.1:{mosquitto.port}")
    assert (state, "anybody" in detail) == ("fail", True)


def test_nobody_there_is_said():
    """Nothing can be told of a door that is not there."""
    ((state, detail),) = found(mqtt__upstream=f"127.0.0.1:{free_port()}")
    assert (state, "start the broker" in detail) == ("warn", True)


@pytest.mark.parametrize(
    ("socket_mode", "folder_mode", "state", "said"),
    [
        (0o700, 0o700, "ok", "its owner only"),
        (0o777, 0o700, "ok", "its owner only"),
        (0o700, 0o755, "ok", "its owner only"),
        (0o777, 0o755, "fail", "every user of this machine"),
        (0o770, 0o710, "warn", "members of group"),
        (0o770, 0o755, "warn", "members of group"),
        (0o700, 0o777, "fail", "another socket in the place"),
    ],
)
def test_who_may_connect_to_a_socket_is_told_by_the_modes_on_the_way(
    tmp_path, monkeypatch, socket_mode, folder_mode, state, said
):
    """The socket's own, and those of every directory above it."""
    for parent in tmp_path.parents:  # pytest's own directories are closed; here they are taken for open
        if parent != Path("/tmp") and os.access(parent, os.W_OK) and parent.is_relative_to("/tmp"):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "b.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(socket_mode)
        folder.chmod(folder_mode)
        findings = found(mqtt__upstream=f"unix:{path}")
    assert any(one == state and said in detail for one, detail in findings), findings


def test_what_is_no_socket_is_said(tmp_path):
    """A file, or nothing at all."""
    (tmp_path / "file").write_text("")
    assert found(mqtt__upstream=str(tmp_path / "file"))[0][0] == "fail"
    assert found(mqtt__upstream=str(tmp_path / "nothing"))[0][0] == "warn"


async def test_a_managed_rumqttd_is_for_the_gate_alone(tmp_path):
    """Its file is closed, both listeners ask; a file that others read is a failure."""
    pytest.importorskip("iotcore")
    upstream = managed_rumqttd(tmp_path / "rumqttd", limits=Limits(), run_as=somebody())
    await upstream.start()
    try:
        flags = {"mqtt__broker": "rumqttd", "service__data": tmp_path}
        assert [state for state, _ in await asyncio.to_thread(found, **flags)] == ["ok", "ok"]
        (tmp_path / "rumqttd" / "rumqttd.toml").chmod(0o644)
        assert (await asyncio.to_thread(found, **flags))[0][0] == "fail"
    finally:
        await upstream.stop()


def test_the_embedded_broker_has_no_door():
    """Nor has a managed one that never ran."""
    assert [state for state, _ in found()] == ["ok"]
    assert [state for state, _ in found(mqtt__broker="mosquitto", service__data="/nowhere")] == ["ok"]
