"""The process: how it starts, refuses to start, ends, and what it does when descriptors run out."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from authsvc.core import tokens
from authsvc.core.credentials import WillMessage
from authsvc.core.facts import TokenKind
from tests.broker.raw_client import RawClient
from tests.broker.upstreams import mosquitto_socket
from tests.e2e.crowd import Login, codes, join, leave
from tests.e2e.process import Process, T, running
from tests.live_service import call

END_S = 5.0
SLOW = pytest.mark.slow  # a variant of what runs by default


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=SLOW)], ids=["SIGTERM", "SIGINT"])
async def test_a_signal_ends_it_within_five_seconds_and_sends_all_wills(tmp_path: Path, number: int) -> None:
    """200 sessions with a will each: status 0, every client closed, and every will reaches a listener at the broker."""
    async with mosquitto_socket(tmp_path) as path, running(tmp_path, upstream=path) as process:
        await process.open_definition()
        app = (await process.app_token())["token"]
        reader, writer = await asyncio.open_unix_connection(str(path))
        witness = RawClient(reader, writer)
        assert await witness.connect("witness", None) == 0
        assert await witness.subscribe(("default/#", 1)) == [1]
        clients = []
        for n in range(200):
            will = WillMessage(topic=f"default/default/t{n}/will", payload=b"bye", qos=n % 3, retain=False)
            clients.append(await process.client(f"t{n}", app, will=will))
        assert await process.terminate(number) < END_S
        wills = {(await witness.delivery(2)).topic for _ in range(200)}
        assert len(wills) == 200
        assert all(await asyncio.gather(*(client.closed(1) for client in clients)))
        witness.cut()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_signals_that_come_while_it_ends_change_nothing(tmp_path: Path, number: int) -> None:
    """An impatient operator asks again until it has gone: status 0 all the same, at whatever instant they come."""
    async with running(tmp_path) as process:
        assert process.child is not None
        while process.child.poll() is None:
            process.child.send_signal(number)
            await asyncio.sleep(0.001)
        assert process.child.returncode == 0, process.log.read_text()[-3000:]


async def test_a_signal_ends_it_in_time_with_clients_that_do_not_read(tmp_path: Path) -> None:
    """Neither stuck clients, half CONNECTs nor an API request that never ends hold the end up."""
    async with running(tmp_path) as process:
        await process.open_definition()
        app = (await process.app_token())["token"]
        stuck = await process.client("a", app)
        await stuck.subscribe("default/default/a/#")
        for _ in range(40):
            stuck.writer.write(b"".join(_publish("default/default/a/x", 60_000)))
        half = [socket.create_connection(process.address) for _ in range(20)]
        for sock in half:
            sock.sendall(b"\x10\x40\x00\x04MQ")
        slow = socket.create_connection(("127.0.0.1", int(process.url.rpartition(":")[2])))
        slow.sendall(b"POST /v1/tenants HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert await process.terminate() < END_S
        for sock in (*half, slow):
            sock.close()


def _publish(topic: str, size: int) -> list[bytes]:
    from broker import wire

    return [wire.encode_publish(topic, b"x" * size)]


async def test_a_second_process_on_the_same_data_names_the_first(tmp_path: Path) -> None:
    """Exit status 1, its message names directory and process; the first goes on. After its end the next may start."""
    async with running(tmp_path) as process:
        second = await asyncio.to_thread(
            call, "authsvc", "up", "--data", process.data, "--mqtt-bind", "127.0.0.1:0", "--http-bind", "127.0.0.1:0"
        )
        assert second.returncode == 1
        assert f"in use by process {process.pid}" in second.stderr
        assert "Traceback" not in second.stderr
        await process.get("/v1/tenants")
        await process.kill()  # the lock ends with its holder, however that ended
        await process.start()
        await process.get("/v1/tenants")


@pytest.mark.parametrize(("flag", "name"), [("--mqtt-bind", "default"), ("--http-bind", "HTTP")])
def test_a_port_in_use_is_named(tmp_path: Path, flag: str, name: str) -> None:
    """Exit status 1 with the listener's name and address, no traceback, and nothing left running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        binds = {"--mqtt-bind": "127.0.0.1:0", "--http-bind": "127.0.0.1:0", flag: address}
        result = call("authsvc", "up", "--data", tmp_path / "var", *[part for pair in binds.items() for part in pair])
    assert result.returncode == 1
    assert name in result.stderr
    assert address in result.stderr
    assert "in use" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("flag", "host"), [("--mqtt-bind", "0.0.0.0"), ("--http-bind", "[::]")])
def test_an_open_address_without_tls_is_refused(tmp_path: Path, flag: str, host: str) -> None:
    """Exit status 1, and the message names the setting that would allow it."""
    binds = {"--mqtt-bind": "127.0.0.1:0", "--http-bind": "127.0.0.1:0", flag: f"{host}:0"}
    result = call("authsvc", "up", "--data", tmp_path / "var", *[part for pair in binds.items() for part in pair])
    assert result.returncode == 1
    assert "allow_plaintext" in result.stderr
    assert "Traceback" not in result.stderr


class TestAdminToken:
    """AUTHSVC_ADMIN_TOKEN and the file that stands in for it."""

    async def test_the_first_start_writes_it_once_and_only_for_its_owner(self, tmp_path: Path) -> None:
        """0600 in a directory of 0700, shown nowhere, never written again."""
        before = os.umask(0)  # the modes must not rest on the caller's
        try:
            async with running(tmp_path) as process:
                assert stat.S_IMODE(process.data.stat().st_mode) == 0o700
                for path in process.data.iterdir():
                    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
                assert stat.S_IMODE((process.data / "admin-token").stat().st_mode) == 0o600
                key = process.key
                assert key not in process.log.read_text()
                await process.terminate()
                await process.start()
                assert process.key == key
                await process.get("/v1/tenants")
                await process.terminate()
                (process.data / "admin-token").unlink()  # an operator who has taken it elsewhere
                await process.start()
                assert not (process.data / "admin-token").exists()
                await process.get("/v1/tenants")
        finally:
            os.umask(before)

    async def test_the_environment_gives_and_replaces_it(self, tmp_path: Path) -> None:
        """No file is written; a new value at the next start ends the old one; without it the last one stays."""
        first, second = tokens.mint(TokenKind.ADMIN), tokens.mint(TokenKind.ADMIN)
        process = Process(tmp_path)
        process.environment["AUTHSVC_ADMIN_TOKEN"] = first
        try:
            await process.start()
            assert not (process.data / "admin-token").exists()
            async with process.api_as(first) as api:
                assert (await api.get("/v1/tenants")).status_code == 200
            await process.terminate()
            process.environment["AUTHSVC_ADMIN_TOKEN"] = second
            await process.start()
            for key, status in ((first, 401), (second, 200)):
                async with process.api_as(key) as api:
                    assert (await api.get("/v1/tenants")).status_code == status
            await process.terminate()
            del process.environment["AUTHSVC_ADMIN_TOKEN"]
            await process.start()
            async with process.api_as(second) as api:
                assert (await api.get("/v1/tenants")).status_code == 200
            assert first not in process.log.read_text()
            assert second not in process.log.read_text()
            environ = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            assert b"asadm_" not in environ
        finally:
            await process.close()

    @pytest.mark.parametrize(
        "value",
        ["secret", tokens.mint(TokenKind.APP), tokens.mint(TokenKind.ADMIN)[:-1] + "!", " "],
        ids=["a word", "another kind", "a typo", "blank"],
    )
    def test_a_value_that_is_no_admin_token_refuses_the_start(self, tmp_path: Path, value: str) -> None:
        """Exit status 1, and the value is not in the message."""
        data = tmp_path / "var"
        binds = ("--mqtt-bind", "127.0.0.1:0", "--http-bind", "127.0.0.1:0")
        result = call("authsvc", "up", "--data", data, *binds, AUTHSVC_ADMIN_TOKEN=value)
        assert result.returncode == 1
        assert "AUTHSVC_ADMIN_TOKEN" in result.stderr
        if len(value) > 10:
            assert value not in result.stderr + result.stdout


async def test_descriptors_that_run_out_refuse_the_excess_and_nobody_else(tmp_path: Path) -> None:
    """400 connections with 256 files: who is in works, nobody is let in unchecked, room is used again."""
    process = Process(tmp_path)
    process.files = 256
    try:
        await process.start()
        await process.open_definition()
        app = (await process.app_token())["token"]
        live = await process.client("live", app)
        await process.api.aclose()  # its connections are descriptors of the service as well
        process._api = None
        logins = [Login(f"t{n}", app if n % 2 else app[:-1] + "!") for n in range(400)]
        members = await join(process.address, logins, at_once=400)
        found = codes(members)
        assert {code for n, code in enumerate(found) if n % 2 == 0} <= {3, 4, None}  # 3: throttled
        inside = found.count(0)
        assert 20 < inside < 200
        async with asyncio.timeout(1):
            await live.publish("default/default/live/x", qos=1)
        assert process.child is not None
        assert process.child.poll() is None
        await leave(members)

        async def room() -> bool:
            try:
                return await process.code("later", app) == 0
            except (OSError, TimeoutError):
                return False

        async with asyncio.timeout(6):
            while not await room():
                await asyncio.sleep(0.05)
        await process.sound("live", app)
        names = {t["key"] for t in await process.every(f"{T}/things")}
        assert len(names - {"live", "later"}) >= inside
        assert not {f"t{n}" for n in range(0, 400, 2)} & names
        assert process.log.stat().st_size < 2_000_000
        assert await process.terminate() < END_S
    finally:
        await process.close()


@pytest.mark.parametrize("when", ["at once", "when it is ready"])
async def test_a_terminal_that_went_away_does_not_end_it(tmp_path: Path, when: str) -> None:
    """Its output may be closed under it: a service that dies of a log line is a switch for whoever can make one."""
    process = Process(tmp_path)
    try:
        await process.start()
        await process.open_definition()
        app = (await process.app_token())["token"]
        await process.terminate()
        reading, writing = os.pipe()
        from tests.live_service import clean_environment, program

        environment = clean_environment()
        environment.pop("PYTHONUNBUFFERED", None)  # what is in a buffer is tried again at the exit
        child = subprocess.Popen(
            program("authsvc", "up", "--data", process.data, *process.binds),
            stdout=writing,
            stderr=writing,
            env=environment,
        )
        os.close(writing)
        process.child = child
        if when == "at once":
            os.close(reading)
        async with asyncio.timeout(10):
            while await _ready(process) != 200:
                await asyncio.sleep(0.05)
        if when != "at once":
            os.close(reading)
        for n in range(20):
            assert await process.code(f"t{n}", app) == 0
            assert await process.code(f"t{n}", "wrong") == 4
        assert child.poll() is None
        assert await process.terminate() < END_S
    finally:
        await process.close()


async def _ready(process: Process) -> int:
    import httpx

    try:
        return (await process.api.get("/readyz")).status_code
    except httpx.TransportError:
        return 0
