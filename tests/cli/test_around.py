"""`authsvc doctor` looks for ways around the gate: real brokers on real addresses, real sockets with every mode."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from authsvc.cli import around
from authsvc.cli.around import knock, other_addresses, ways_around
from authsvc.settings import load_settings
from broker import wire
from broker.limits import Limits
from broker.managed.rumqttd import managed_rumqttd
from tests.broker.certificates import contexts
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


class Door(asyncio.Protocol):
    """A listener that answers a CONNECT with some bytes, and writes down what it hears."""

    answer = b""
    heard: list[bytes]

    def connection_made(self, transport):
        self.transport = transport
        self.heard.append(b"")

    def data_received(self, data):
        if not self.heard[-1]:
            self.transport.write(self.answer)
        self.heard[-1] += data


@asynccontextmanager
async def door(said: bytes, *, tls=None) -> AsyncIterator[tuple[int, list[bytes]]]:
    class Answering(Door):
        answer = said
        heard = []

    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, ssl=tls)
    yield server.sockets[0].getsockname()[1], Answering.heard
    server.close()


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (wire.encode_connack(0), "open"),
        (wire.encode_connack(5), "asks"),
        (b"HTTP", "asks"),
        (b"220\0", "asks"),
        (b"", "asks"),
    ],
    ids=["welcome", "refused", "http", "no-connack", "silence"],
)
async def test_a_knock_is_short_and_leaves_nothing_behind(monkeypatch, said, found):
    """A clean session under a name of its own, which says good-bye; whoever says nothing is not waited for."""
    monkeypatch.setattr(around, "TIMEOUT_S", 0.3)
    async with door(said) as (port, heard), asyncio.timeout(5):
        for _ in range(2):
            assert await asyncio.to_thread(knock, "127.0.0.1", port) == found
        await asyncio.sleep(0.05)
    connects = [wire.parse_connect(one[: 2 + one[1]]) for one in heard]
    assert len({connect.client_id for connect in connects}) == 2
    assert all(connect.clean_session and connect.username is None for connect in connects)
    assert all(one.endswith(wire.DISCONNECT_PACKET) is (found == "open") for one in heard)


async def test_a_door_with_tls_is_knocked_at_through_it(tmp_path, monkeypatch):
    """Whoever signed its certificate; plain text to it, or TLS to a plain one, is let in by nobody."""
    monkeypatch.setattr(around, "TIMEOUT_S", 0.5)
    server, _ = contexts(tmp_path)
    async with door(wire.encode_connack(0), tls=server) as (port, _):
        assert await asyncio.to_thread(knock, "127.0.0.1", port, tls=True) == "open"
        assert await asyncio.to_thread(knock, "127.0.0.1", port) == "asks"
    async with door(wire.encode_connack(0)) as (port, _):
        assert await asyncio.to_thread(knock, "127.0.0.1", port, tls=True) == "asks"


@pytest.mark.parametrize(
    ("here", "there", "bind", "said"),
    [
        ("asks", "asks", "127.0.0.1:1883", ["warn: it asks who comes, but bind it"]),
        ("asks", "open", "127.0.0.1:1883", ["fail: other machines pass by the gate"]),
        (
            "open",
            "asks",
            "127.0.0.1:1883",
            ["warn: it asks who comes, but bind it", "warn: every user of this machine"],
        ),
        ("asks", "shut", "127.0.0.1:1883", ["ok: asks who comes"]),
        ("asks", "open", "192.0.2.1:1884", ["ok: asks who comes"]),
        ("asks", "open", "192.0.2.1:1883", ["fail: other machines pass by the gate"]),
        ("asks", "open", "192.0.2.2:1884", ["fail: other machines pass by the gate"]),
        ("asks", "open", "[::]:1884", ["ok: asks who comes"]),
    ],
)
def test_what_is_said_of_a_port_here_and_on_another_address(monkeypatch, here, there, bind, said):
    """The gate's own listener is no way around: that is the same address and port, or every address."""
    monkeypatch.setattr(around, "other_addresses", lambda: ["192.0.2.1"])
    for name in ("127.0.0.1", "localhost"):
        monkeypatch.setattr(around, "knock", lambda host, *_, name=name, **__: here if host == name else there)
        findings = [f"{state}: {detail}" for state, detail in found(mqtt__upstream=f"{name}:1884", mqtt__bind=bind)]
        assert len(findings) == len(said), findings
        for finding, (state, _, part) in zip(findings, (one.partition(": ") for one in said), strict=True):
            assert finding.startswith(state)
            assert part in finding


def test_what_is_no_address_is_said():
    """Before anything is knocked at."""
    assert found(mqtt__upstream="broker:mqtt")[0][0] == "fail"


def test_other_addresses_are_those_that_others_reach(monkeypatch):
    """Of both families; not loopback, and not those of one cable only."""
    tables = {
        "/proc/net/fib_trie": "  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- 192.0.2.7\n     /32 host LOCAL\n"
        "  |-- 192.0.2.255\n     /32 link BROADCAST\n  |-- 169.254.0.9\n     /32 host LOCAL\n",
        "/proc/net/if_inet6": "00000000000000000000000000000001 01 80 10 80 lo\n"
        "20010db8000000000000000000000007 02 40 00 00 eth0\nfe800000000000000000000000000007 02 40 20 80 eth0\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda self, **_: tables[str(self)])
    assert other_addresses() == ["192.0.2.7", "2001:db8::7"]


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


def test_a_folder_where_each_may_end_his_own_files_only_keeps_the_socket(tmp_path):
    """The sticky bit, as in /tmp; a link to a socket is judged by where it leads."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent != Path("/tmp") and parent.is_relative_to("/tmp"):
            parent.chmod(0o755)
    folder, links = tmp_path / "run", tmp_path / "links"
    folder.mkdir()
    links.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "b.sock"))
        (folder / "b.sock").chmod(0o700)
        (links / "b.sock").symlink_to(folder / "b.sock")
        folder.chmod(0o1777)
        assert [state for state, _ in found(mqtt__upstream=f"unix:{folder / 'b.sock'}")] == ["ok"]
        folder.chmod(0o777)
        assert found(mqtt__upstream=f"unix:{links / 'b.sock'}")[0][0] == "fail"


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


@pytest.mark.parametrize(
    ("listens", "mode", "door_there", "states"),
    [
        ("127.0.0.1", 0o600, "asks", ["ok", "ok"]),
        ("127.0.0.1", 0o640, "asks", ["fail", "ok", "ok"]),
        ("127.0.0.1", 0o600, "open", ["fail", "fail"]),
        ("0.0.0.0", 0o600, "asks", ["fail", "fail"]),
        (None, 0o600, "asks", ["warn"]),
    ],
    ids=["well", "readable", "open", "everywhere", "unreadable"],
)
def test_what_is_said_of_a_managed_rumqttd(tmp_path, monkeypatch, listens, mode, door_there, states):
    """Its file and both its listeners; a file that cannot be read is no reason to fall."""
    monkeypatch.setattr(around, "knock", lambda *_: door_there)
    config = tmp_path / "rumqttd" / "rumqttd.toml"
    config.parent.mkdir()
    parts = [f'[{version}.1]\nlisten = "{listens}:1"\n' for version in ("v4", "v5")]
    config.write_text("".join(parts) if listens else "= no TOML")
    config.chmod(mode)
    assert [state for state, _ in found(mqtt__broker="rumqttd", service__data=tmp_path)] == states


def test_the_embedded_broker_has_no_door():
    """Nor has a managed one that never ran."""
    assert [state for state, _ in found()] == ["ok"]
    assert [state for state, _ in found(mqtt__broker="mosquitto", service__data="/nowhere")] == ["ok"]
