"""What looks at processes or starts one: the doctor, `serve`, a port in use, a second process on the same data."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.live_service import LiveService, call, clean_environment, free_ports, program, wait_ready


def test_doctor_is_content_with_a_running_service(service: LiveService) -> None:
    """Nothing fails, and each thing that was promised is looked at."""
    run = call("authsvc", "doctor", "--data", service.data, "--mqtt-bind", service.mqtt, "--url", service.url, "--json")
    checks = {check["check"]: check["state"] for check in json.loads(run.stdout)}
    assert run.returncode == 0, run.stdout
    assert {"settings", "data directory", "secret files", "lock", "SQLite", "database", "HTTP API"} <= checks.keys()
    assert {"MQTT listener", "upstream", "open files", "clock"} <= checks.keys()
    assert checks["HTTP API"] == checks["MQTT listener"] == checks["database"] == "ok"


def _broken_database(data: Path) -> None:
    path = data / "authsvc.db"
    path.touch(mode=0o600)
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        pytest.param(lambda data: data.chmod(0o755), "data directory", id="directory open to others"),
        pytest.param(lambda data: (data / "admin-token").chmod(0o644), "secret files", id="admin key open to others"),
        pytest.param(_broken_database, "database", id="damaged database"),
    ],
)
def test_doctor_finds_what_is_wrong(tmp_path: Path, spoil, check: str) -> None:
    """What is spoilt fails its own check, with status 1."""
    data = tmp_path / "var"
    data.mkdir(mode=0o700)
    (data / "admin-token").touch(mode=0o600)
    spoil(data)
    run = call("authsvc", "doctor", "--data", data, "--json")
    assert run.returncode == 1
    assert {one["check"] for one in json.loads(run.stdout) if one["state"] == "fail"} == {check}


def test_doctor_finds_a_missing_upstream_and_a_misspelt_setting(tmp_path: Path) -> None:
    """The broker behind the gate and the settings file are looked at, too."""
    run = call("authsvc", "doctor", "--data", tmp_path / "var", "--upstream", "127.0.0.1:1", "--json")
    assert run.returncode == 1
    assert "upstream" in {one["check"] for one in json.loads(run.stdout) if one["state"] == "fail"}
    config = tmp_path / "authsvc.toml"
    config.write_text("[mqtt]\nbnid = '127.0.0.1:1'\n")
    run = call("authsvc", "doctor", "--config", config)
    assert run.returncode == 1
    assert "bnid" in run.stdout


def test_serve_answers_http_and_opens_no_broker(tmp_path: Path) -> None:
    """`authsvc serve` is the API alone, and ends cleanly."""
    (port,) = free_ports(1)
    data = tmp_path / "var"
    arguments = program("authsvc", "serve", "--data", data, "--http-bind", f"127.0.0.1:{port}")
    with subprocess.Popen(
        arguments, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            wait_ready(f"http://127.0.0.1:{port}", process, Path("/dev/null"))
            run = call("authsvc", "tenant", "list", "--quiet", "--data", data, AUTHSVC_URL=f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
        output = process.stdout.read().decode()
        assert process.wait(10) == 0, output
    assert run.stdout == "default\n", run.stderr + output
    assert "MQTT" not in output


def test_a_port_in_use_is_status_1_with_its_name(service: LiveService, tmp_path: Path) -> None:
    """Which address could not be had is said in one line, and nothing is left running."""
    run = call("authsvc", "up", "--data", tmp_path / "var", "--mqtt-bind", service.mqtt, "--http-bind", "127.0.0.1:0")
    assert run.returncode == 1
    assert service.mqtt in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("command", ["up", "serve"])
def test_a_second_process_on_the_same_data_is_status_1_and_names_the_first(service: LiveService, command: str) -> None:
    """The data directory belongs to one process."""
    run = call("authsvc", command, "--data", service.data, "--http-bind", "127.0.0.1:0")
    assert run.returncode == 1
    assert str(service.process.pid) in run.stderr
    assert "Traceback" not in run.stderr
