"""What docs/operations.md tells operators to do works, and what it says of logs and files is so."""

from __future__ import annotations

import ast
import asyncio
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from broker.config_file import load_broker_config
from tests.broker.mosquitto import BINARY
from tests.broker.raw_client import RawClient
from tests.docs.pages import ROOT, blocks, text_of, without_blocks
from tests.live_service import LiveService, call, clean_environment, free_ports, live_service

PAGE = text_of("docs/operations.md")


def _section(heading: str) -> str:
    begin = PAGE.index(f"\n## {heading}\n")
    end = PAGE.find("\n## ", begin + 4)
    return PAGE[begin : end if end > 0 else None]


def _logged() -> dict[str, set[str]]:
    """Return the events that the sources log, by level."""
    found: dict[str, set[str]] = {}
    for file in [*(ROOT / "authsvc").rglob("*.py"), *(ROOT / "broker").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            event = node.args[0]
            if not (isinstance(event, ast.Constant) and isinstance(event.value, str)):
                continue
            owner = ast.unparse(node.func.value)
            if owner in {"log", "_log"}:
                level = {"exception": "error"}.get(node.func.attr, node.func.attr)
                found.setdefault(level, set()).add(event.value)
            elif ast.unparse(node.func) == "self._failed" and file.name == "changes.py":
                found.setdefault("error", set()).add(event.value)
    return found


def test_every_event_of_the_logs_is_in_the_table_under_its_level():
    """The table is all there is to alert on."""
    table = {
        level: set(re.findall(r"`(\w+)`", events))
        for level, events in re.findall(r"^\| (info|warning|error|critical|debug) \| (.+) \|$", PAGE, re.MULTILINE)
    }
    assert _logged() == table


def test_every_reason_for_not_being_ready_is_told():
    """The names in `reasons` of `/readyz` stand in the section on probes."""
    sources = "".join((ROOT / file).read_text() for file in ("authsvc/web/probes.py", "authsvc/run.py"))
    names = set(re.findall(r'(?:reasons|checks)\["(\w+)"\]', sources))
    assert names >= {"store", "feed", "upstream"}
    section = _section("Probes, signals, exit status")
    assert all(f"`{name}`" in section for name in names)


def test_every_limit_says_what_its_refusal_looks_like():
    """Each key of `[limits]` is in the table of refusals."""
    from authsvc.settings import LimitsSection

    section = _section("Limits and what a refusal looks like")
    missing = [name for name in LimitsSection.model_fields if f"`{name}`" not in section]
    assert not missing


def test_the_table_of_what_ends_what_is_that_of_the_store():
    """Events that wipe or clear in the store's transactions are in the table with these words."""
    section = without_blocks(_section("What ends what"))
    rows = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in _rows(section)}
    assert rows["thing blocked or deleted"] == ["ends", "never", "wiped", "cleared"]
    assert rows["client-id binding reset"] == ["ends", "sent", "wiped", "kept"]
    assert rows["`regenerate` without overlap, token revoked, tenant suspended"][:3] == ["ends", "never", "wiped"]


def _rows(section: str) -> list[list[str]]:
    lines = [line.strip().strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [cells for cells in lines if not set(cells[0].strip()) <= {"-"}]


def test_the_unit_is_one_that_systemd_understands(tmp_path: Path):
    """`systemd-analyze verify` has nothing to say of it, but that the program and the user are not here."""
    (unit,) = blocks(_section("As a service"), "ini")
    assert "StateDirectory=authsvc\n" in unit
    assert int(re.search(r"LimitNOFILE=(\d+)", unit)[1]) > 20_200  # 10,000 clients and their upstream connections
    analyse = shutil.which("systemd-analyze")
    if analyse is None:
        return
    path = tmp_path / "authsvc.service"
    path.write_text(unit.replace("/opt/authsvc/.venv/bin/authsvc", "/bin/sh"))
    said = subprocess.run([analyse, "verify", str(path)], capture_output=True, text=True, check=False).stderr
    assert not [line for line in said.splitlines() if "authsvc.service" in line and "User" not in line], said


def test_the_listeners_file_opens_tcp_tls_and_websocket(tmp_path: Path):
    """With a certificate beside it, the file is taken as it stands."""
    text, proxied = blocks(_section("TLS and WebSocket"), "yaml")
    (tmp_path / "broker.yaml").write_text(text)
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(tmp_path / "server.key"), "-out", str(tmp_path / "server.crt")]
    subprocess.run([*make, "-subj", "/CN=localhost", "-days", "1", *files], check=True, capture_output=True)
    listeners = load_broker_config(tmp_path / "broker.yaml").listeners
    kinds = {one.name: (one.websocket, one.tls is not None, one.port) for one in listeners}
    assert kinds == {"default": (False, False, 1883), "tls": (False, True, 8883), "wss": (True, True, 8884)}
    (tmp_path / "proxied.yaml").write_text(proxied)
    (behind,) = load_broker_config(tmp_path / "proxied.yaml").listeners
    assert [str(network) for network in behind.proxies] == ["10.0.0.5/32", "10.0.1.0/24"]


def _api(service: LiveService) -> httpx.Client:
    return httpx.Client(
        base_url=f"{service.url}/v1/tenants/default",
        headers={"Authorization": f"Bearer {service.key}"},
        trust_env=False,
        timeout=20,
    )


async def _code(service: LiveService, key: str, token: str) -> int | None:
    client = await RawClient.open(("127.0.0.1", service.port))
    code = await client.connect(key, token, username=key)
    client.cut()
    return code


def _shell(script: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("python3", sys.executable)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_backup_made_while_it_runs_is_restored_as_described(tmp_path: Path):
    """Copied among writes; in the restored one things are there, what was revoked before stays so, modes are closed."""
    backup, restore = blocks(_section("Backup and restore"), "sh")
    with live_service(tmp_path) as service, _api(service) as api:
        kept = api.post("/app-tokens", json={"name": "kept", "thing_definition": "thing"}).json()
        gone = api.post("/app-tokens", json={"name": "gone", "thing_definition": "thing"}).json()
        assert await _code(service, "s1", kept["token"]) == 0
        assert api.delete(f"/app-tokens/{gone['id']}").status_code == 204

        async def write() -> None:
            for number in range(100):
                await asyncio.to_thread(api.post, "/grounds", json={"key": f"g{number}"})

        writing = asyncio.create_task(write())
        said = await asyncio.to_thread(_shell, backup, tmp_path)
        await writing
        assert said == "ok\n"
        late = api.post("/app-tokens", json={"name": "late", "thing_definition": "thing"}).json()
        assert api.delete(f"/app-tokens/{kept['id']}").status_code == 204
    assert stat.S_IMODE((tmp_path / "backup.db").stat().st_mode) == 0o600
    assert "?mode=ro" in backup, "a second connection must not write"
    _shell(restore, tmp_path)
    with live_service(tmp_path) as service, _api(service) as api:
        assert [thing["key"] for thing in api.get("/things").json()["items"]] == ["s1"]
        assert await _code(service, "s1", gone["token"]) == 4, "revoked before the backup"
        assert await _code(service, "s1", late["token"]) == 4, "made after the backup"
        assert await _code(service, "s1", kept["token"]) == 0, "revoked after the backup: the page warns of it"
        assert stat.S_IMODE((service.data / "authsvc.db").stat().st_mode) == 0o600


async def test_files_in_the_data_directory_are_those_of_the_table(tmp_path: Path):
    """Every file that a running service has is named, with its mode."""
    section = _section("The data directory")
    with live_service(tmp_path) as service:
        assert stat.S_IMODE(service.data.stat().st_mode) == 0o700
        for path in service.data.iterdir():
            name = path.name.replace("authsvc.db-", "-")
            row = re.search(rf"^\| .*`{re.escape(name)}`.* \| (0\d+) \|", section, re.MULTILINE)
            assert row is not None, path.name
            assert stat.S_IMODE(path.stat().st_mode) == int(row[1], 8), path.name


async def test_mosquitto_with_the_configuration_of_the_page_stands_behind_the_gate(tmp_path: Path):
    """`authsvc up --upstream` in front of it: a thing registers, its message is routed, the doctor is content."""
    if BINARY is None:
        pytest.skip("mosquitto is not installed")
    (config,) = blocks(_section("In front of Mosquitto"), "conf")
    (port,) = free_ports(1)
    assert "listener 1884 127.0.0.1\n" in config
    store = tmp_path / "mosquitto"
    store.mkdir()
    own = f"persistence_location {store}/\nuser root\n"  # what the packaged mosquitto.conf says of its own
    path = tmp_path / "behind.conf"
    path.write_text(config.replace("listener 1884", f"listener {port}") + own)
    broker = await asyncio.create_subprocess_exec(
        BINARY, "-c", str(path), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        with live_service(tmp_path, "--upstream", f"127.0.0.1:{port}") as service, _api(service) as api:
            token = api.post("/app-tokens", json={"name": "t", "thing_definition": "thing"}).json()["token"]
            reader = api.post("/grounds/default/tokens", json={"name": "r", "access": "read"}).json()["token"]
            address = ("127.0.0.1", service.port)
            hearing = await RawClient.connected(address, "r", reader, username="r")
            assert await hearing.subscribe(("default/default/#", 1)) == [1]
            thing = await RawClient.connected(address, "s1", token, username="s1")
            await thing.publish("default/default/s1/state/t", b"21", qos=1)
            heard = await hearing.delivery()
            assert (heard.topic, heard.payload) == ("default/default/s1/state/t", b"21")
            await thing.disconnect()
            await hearing.disconnect()
            done = call(
                *("authsvc", "doctor", "--data", service.data, "--url", service.url),
                *("--mqtt-bind", service.mqtt, "--upstream", f"127.0.0.1:{port}"),
            )
            assert done.returncode == 0, done.stdout
    finally:
        broker.terminate()
        await broker.wait()
