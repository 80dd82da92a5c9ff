"""Which brokers are attached, who may call their hooks, and what keeps the service from starting."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from authsvc.adapters.configuring import attached_configs, check_callers, hooks_address
from authsvc.first_start import StartError
from authsvc.settings import Settings, load_settings
from tests.adapters.conftest import SECRET
from tests.broker.certificates import write_certificate
from tests.service.test_run import Process


def settings_of(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "a.toml"
    file.write_text(text)
    return load_settings(file, environ={})


def start(settings: Settings) -> None:
    """Do what the start does before anything is opened."""
    check_callers(settings, attached_configs(settings))
    hooks_address(settings)


REFUSED = [
    pytest.param("[brokers.mine]\n", ["brokers.mine.kind", "emqx", "vernemq"], id="no kind"),
    pytest.param('[brokers.x]\nkind = "hivemq"\n', ["hivemq", "known kinds"], id="unknown kind"),
    pytest.param('[brokers.emqx]\nsecret = "short"\n', ["brokers.emqx", "16"], id="short secret"),
    pytest.param('[brokers.emqx]\nsecret = "0123456789 abcdef"\n', ["without spaces"], id="a space in the secret"),
    pytest.param('[brokers.emqx]\nprevious_secret = "short"\n', ["brokers.emqx", "16"], id="short previous secret"),
    pytest.param('[brokers.emqx]\nsecret_file = "/none"\n', ["secret_file", "/none"], id="no secret file"),
    pytest.param(
        f'[brokers.emqx]\nsecret = "{SECRET}"\nsecret_file = "/none"\n', ["one or the other"], id="secret twice"
    ),
    pytest.param('[brokers.emqx]\nmanagement_url = "127.0.0.1:1"\n', ["management_url"], id="no URL"),
    pytest.param('[brokers.emqx]\nmanagement_url = "http://u:p@h:1"\n', ["management_url"], id="password in the URL"),
    pytest.param('[service]\nname = "emqx"\n[brokers.emqx]\n', ["service.name"], id="the gate's own name"),
    pytest.param('[http]\nbind = "0.0.0.0:1"\n[brokers.emqx]\n', ["brokers.emqx", "`secret`"], id="open to others"),
    pytest.param('[hooks]\nbind = "0.0.0.0:1"\n[brokers.emqx]\n', ["brokers.emqx", "`secret`"], id="own, open"),
    pytest.param(
        f'[hooks]\nbind = "0.0.0.0:1"\n[brokers.emqx]\nsecret = "{SECRET}"\n', ["without TLS"], id="own, plain"
    ),
    pytest.param('[hooks]\ntls_cert = "c"\ntls_key = "k"\n[brokers.emqx]\n', ["hooks.bind"], id="TLS without bind"),
    pytest.param('[hooks]\nbind = "127.0.0.1:1"\ntls_cert = "c"\n[brokers.emqx]\n', ["go together"], id="no key"),
    pytest.param(
        '[hooks]\nbind = "127.0.0.1:1"\ntls_client_ca = "c"\n[brokers.emqx]\n', ["needs both"], id="no certificate"
    ),
]


@pytest.mark.parametrize(("text", "named"), REFUSED)
def test_what_is_not_safe_does_not_start(tmp_path: Path, text: str, named: list[str]) -> None:
    """The message names the setting and the way out, and no secret."""
    with pytest.raises(StartError) as caught:
        start(settings_of(tmp_path, text))
    for part in named:
        assert part in str(caught.value)
    assert SECRET not in str(caught.value)


STARTED = [
    pytest.param("[brokers.emqx]\n", id="loopback without a secret"),
    pytest.param(
        f'[service]\nallow_plaintext = true\n[http]\nbind = "0.0.0.0:1"\n[brokers.emqx]\nsecret = "{SECRET}"\n',
        id="others with a secret",
    ),
    pytest.param(
        '[hooks]\nbind = "0.0.0.0:1"\ntls_cert = "c"\ntls_key = "k"\ntls_client_ca = "a"\n[brokers.emqx]\n',
        id="client certificates",
    ),
    pytest.param('[http]\nbind = "127.0.0.1:1"\n[brokers.my-emqx]\nkind = "emqx"\n', id="a name of its own"),
]


@pytest.mark.parametrize("text", STARTED)
def test_what_knows_its_callers_starts(tmp_path: Path, text: str) -> None:
    """By a secret, by certificates, or by being on this machine."""
    start(settings_of(tmp_path, text))


def test_secrets_come_from_a_file_too(tmp_path: Path) -> None:
    """One per line: the present one and the one before it; the password likewise."""
    (tmp_path / "s").write_text(f"{SECRET}\n{SECRET}-old\n")
    (tmp_path / "p").write_text("management\n")
    text = f'[brokers.emqx]\nsecret_file = "{tmp_path}/s"\nmanagement_password_file = "{tmp_path}/p"\n'
    (config,) = attached_configs(settings_of(tmp_path, text))
    assert config.secrets == (SECRET, f"{SECRET}-old")
    assert config.management_password == "management"  # noqa: S105


@pytest.fixture
def running() -> Iterator[list[Process]]:
    found: list[Process] = []
    yield found
    for process in found:
        process.process.kill()
        process.process.wait()


def run(tmp_path: Path, running: list[Process], text: str) -> Process:
    (tmp_path / "a.toml").write_text(text)
    process = Process(tmp_path / "var", "--config", str(tmp_path / "a.toml"), command="serve")
    running.append(process)
    return process.ready()


def test_the_process_serves_hooks_beside_its_api(tmp_path: Path, running: list[Process]) -> None:
    """`authsvc serve` with a broker: its path answers, another's does not, and it ends cleanly."""
    process = run(tmp_path, running, f'[brokers.emqx]\nsecret = "{SECRET}"\n')
    headers = {"x-authsvc-secret": SECRET}
    answer = httpx.post(f"{process.url}/hooks/emqx/authn", json={"clientid": "c"}, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"result": "deny"})
    assert httpx.post(f"{process.url}/hooks/emqx/authn", json={}).status_code == 401
    assert httpx.post(f"{process.url}/hooks/vernemq/authn", json={}, headers=headers).status_code == 404
    assert process.stop() == 0


def test_an_answer_without_end_ends_with_the_process(tmp_path: Path, running: list[Process]) -> None:
    """The event stream of an Aedes comes to its own end at SIGTERM: nothing is cut off, and no error is logged."""
    process = run(tmp_path, running, f'[brokers.aedes]\nsecret = "{SECRET}"\n')
    url = f"{process.url}/hooks/aedes/events?node=n&run=r"
    with httpx.stream("GET", url, headers={"x-authsvc-secret": SECRET}, timeout=20) as answer:
        lines = answer.iter_lines()
        assert '"hello"' in next(lines)
        assert process.stop() == 0
        assert list(lines) == []
    assert '"level": "error"' not in process.said()


def test_a_listener_of_its_own_demands_a_client_certificate(tmp_path: Path, running: list[Process]) -> None:
    """Without one there is no answer at all; with one no secret is needed, and the API is not there."""
    certificate, key = write_certificate(tmp_path)
    process = run(
        tmp_path,
        running,
        f'[hooks]\nbind = "127.0.0.1:0"\ntls_cert = "{certificate}"\ntls_key = "{key}"\n'
        f'tls_client_ca = "{certificate}"\n[brokers.emqx]\n',
    )
    url = next(line.split(" on ")[1] for line in process.said().splitlines() if line.startswith("hooks on "))
    assert url.startswith("https://127.0.0.1:")
    context = ssl.create_default_context(cafile=str(certificate))
    with pytest.raises(httpx.TransportError), httpx.Client(verify=context) as client:
        client.post(f"{url}/hooks/emqx/authn", json={})
    context.load_cert_chain(certificate, key)
    with httpx.Client(verify=context) as client:
        assert client.post(f"{url}/hooks/emqx/authn", json={}).json() == {"result": "deny"}
        assert client.get(f"{url}/v1/tenants").status_code == 404
    assert httpx.post(f"{process.url}/hooks/emqx/authn", json={}).status_code == 404
    assert process.stop() == 0


def test_a_broker_without_known_callers_keeps_the_process_from_starting(tmp_path: Path, running: list[Process]) -> None:
    """Exit status 1 and a message, before anything listens."""
    (tmp_path / "a.toml").write_text('[service]\nallow_plaintext = true\n[http]\nbind = "0.0.0.0:0"\n[brokers.emqx]\n')
    arguments = ("--config", str(tmp_path / "a.toml"), "--http-bind", "0.0.0.0:0")
    process = Process(tmp_path / "var", *arguments, command="serve")
    running.append(process)
    assert process.ended() == 1
    assert "brokers.emqx" in process.said()
