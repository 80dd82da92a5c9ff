"""Runs against a real service: satisfied where all is well, and only there; honest when it is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.live_service import LiveService, call, clean_environment, live_service, program

SMALL = """
title = "four gateways"
seed = 3
duration_s = {duration_s}
[fleet]
gateways = 4
modules = 1
interval_s = 0.4
lost = 1
[[attackers]]
kind = "wrong_token"
attempts = 2
[[attackers]]
kind = "wildcard_grab"
filters = ["#", "{{tenant}}/{{ground}}/#"]
[[attackers]]
kind = "forbidden_will"
attempts = 1
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    with live_service(tmp_path_factory.mktemp("simulated")) as running:
        yield running


def _small(folder: Path, *, name: str = "small", duration_s: float = 2.0) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(SMALL.format(duration_s=duration_s))
    return path


def _where(service: LiveService) -> tuple[object, ...]:
    return ("--url", service.url, "--mqtt", service.mqtt, "--data", service.data)


def _judged(text: str) -> dict[str, bool]:
    return {f"{one['subject']} {one['claim']}": one["ok"] for one in json.loads(text)["expectations"]}


def _api(service: LiveService) -> httpx.Client:
    return httpx.Client(
        base_url=f"{service.url}/v1/tenants/default",
        headers={"Authorization": f"Bearer {service.key}"},
        trust_env=False,
    )


def test_quickstart_meets_its_expectations_and_its_report_reads_back(service: LiveService, tmp_path: Path) -> None:
    """The scenario that comes with the sources: exit 0, a table, and a report that shows the same verdict."""
    saved = tmp_path / "run.json"
    run = call("simulator", "run", "quickstart", *_where(service), "--report", saved)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "all 26 expectations met" in run.stdout
    read = json.loads(saved.read_text())
    assert (read["planned"], read["acknowledged"], read["lost"]) == (485, 485, 0)
    shown = call("simulator", "report", saved)
    assert (shown.returncode, shown.stdout) == (0, run.stdout)
    for token in ("asapp_", "asgnd_", "asdev_", "asadm_"):
        assert token not in run.stdout + run.stderr + saved.read_text()


def test_a_second_run_goes_on_from_the_first_even_after_things_were_deleted(
    service: LiveService, tmp_path: Path
) -> None:
    """Things, bindings and definition of the run before are no obstacle, nor are keys that somebody deleted."""
    scenario = _small(tmp_path, name="again")
    for seed in (3, 4):
        run = call("simulator", "run", scenario, *_where(service), "--seed", seed, "--json")
        assert run.returncode == 0, run.stdout + run.stderr
        with _api(service) as api:
            assert api.delete("/things/again-gw-001", params={"cascade": "true"}).status_code == 204


def test_it_leaves_no_connection_and_no_valid_token(service: LiveService, tmp_path: Path) -> None:
    """After a run nobody is connected and every token it made is revoked."""
    assert call("simulator", "run", _small(tmp_path), *_where(service)).returncode == 0
    with _api(service) as api:
        assert api.get("/sessions").json()["items"] == []
        for place in ("/grounds/small", "/grounds/small-other", "/things/small-device", "/things/small-intruder", ""):
            path = f"{place}/tokens" if place else "/app-tokens"
            assert api.get(path).json()["items"] == []


def test_rules_that_allow_the_forbidden_make_it_fail(tmp_path: Path) -> None:
    """Where the rules let the attackers in, the far end sees it: the verdict is built on observation."""
    with live_service(tmp_path) as open_door, _api(open_door) as api:
        rules = [{"effect": "allow", "action": action, "topic": "{tenant}/#"} for action in ("publish", "subscribe")]
        assert api.patch("/thing-definitions/thing", json={"rules": rules}).status_code == 200
        run = call("simulator", "run", _small(tmp_path), *_where(open_door), "--json")
    assert run.returncode == 1
    differing = {claim for claim, ok in _judged(run.stdout).items() if not ok}
    assert differing >= {
        "wildcard grab filters refused with 0x80",
        "wildcard grab messages received",
        "witness receives what it published into this ground",
        "witness receives what the device published there",
        "forbidden will 1 times on a gateway's topic",
        "witness receives the forbidden will",
    }
    assert _judged(run.stdout)["wrong token 2 times with a known client id"]


def test_a_broker_that_dies_is_reported_with_its_losses(tmp_path: Path) -> None:
    """SIGKILL of the service in mid-run: connections and reports are counted as lost, exit status 1, and soon."""
    with live_service(tmp_path) as doomed:
        run = _started(doomed, _small(tmp_path, duration_s=3.0))
        _await_line(run, "load and attacks")
        time.sleep(1.0)  # some of the load has to be on its way
        os.kill(doomed.process.pid, signal.SIGKILL)
        stdout, stderr = run.communicate(timeout=40)
    assert run.returncode == 1, stdout + stderr
    report = json.loads(stdout)
    assert report["unsent"] > 0
    assert report["acknowledged"] <= report["sent"] < report["planned"]
    judged = _judged(stdout)
    assert not judged["connections end though nobody ended them"]
    assert not judged["reports acknowledged at QoS 1"]
    assert "Traceback" not in stderr
    assert "never retrieved" not in stderr


def test_a_stall_of_the_broker_shows_in_the_delays(tmp_path: Path) -> None:
    """The service stands still for a second: what was due then is late by it, not left out, and nothing is lost."""
    with live_service(tmp_path) as stalling:
        run = _started(stalling, _small(tmp_path, duration_s=3.0))
        _await_line(run, "load and attacks")
        time.sleep(0.5)
        os.kill(stalling.process.pid, signal.SIGSTOP)
        time.sleep(1.0)
        os.kill(stalling.process.pid, signal.SIGCONT)
        stdout, stderr = run.communicate(timeout=40)
    report = json.loads(stdout)
    assert run.returncode == 0, stdout + stderr
    assert report["delivery_ms"]["count"] == report["planned"]
    assert report["delivery_ms"]["max"] >= 800
    assert report["delivery_ms"]["p95"] >= 200  # about a third of the load was due in the stall


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_it_with_disconnects_and_a_summary(service: LiveService, tmp_path: Path, number: int) -> None:
    """Every client says DISCONNECT, the tokens are revoked, the figures so far are shown, exit status 1."""
    name = f"sig{int(number)}"
    run = _started(service, _small(tmp_path, name=name, duration_s=30.0))
    _await_line(run, "load and attacks")
    run.send_signal(number)
    stdout, stderr = run.communicate(timeout=20)
    assert run.returncode == 1, stdout + stderr
    assert json.loads(stdout)["interrupted"] is True
    assert "Traceback" not in stderr
    ends = [json.loads(line) for line in service.log.read_text().splitlines() if '"session_ended"' in line]
    reasons = {end["reason"] for end in ends if f"{name}-" in end["client_id"]}
    assert reasons == {"disconnected"}
    with _api(service) as api:
        assert api.get("/sessions").json()["items"] == []
        assert api.get("/app-tokens").json()["items"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("nowhere",), "no scenario `nowhere`", id="unknown scenario"),
        pytest.param(("quickstart", "--mqtt", "1883"), "HOST:PORT", id="broker address"),
        pytest.param(("quickstart", "--url", "http://127.0.0.1:1"), "no service answers", id="no service"),
    ],
)
def test_what_cannot_be_run_is_status_1_with_a_reason(
    service: LiveService, arguments: tuple[str, ...], said: str
) -> None:
    """A run that could not begin says why on stderr."""
    run = call("simulator", "run", *arguments, "--data", service.data)
    assert (run.returncode, run.stdout) == (1, "")
    assert said in run.stderr


def _started(service: LiveService, scenario: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        program("simulator", "run", scenario, *_where(service), "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )


def _await_line(run: subprocess.Popen[str], text: str) -> None:
    assert run.stderr is not None
    for line in run.stderr:
        if text in line:
            return
    raise AssertionError(f"ended with status {run.wait()} before `{text}`")
