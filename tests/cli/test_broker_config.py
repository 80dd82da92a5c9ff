"""`authsvc config BROKER`: complete files for every broker, safe ones only, and never a secret."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from authsvc.brokerconfig.hocon import read_hocon
from authsvc.brokerconfig.installation import HOOKED, KINDS, Installation
from authsvc.brokerconfig.linting import LINTERS, lint
from authsvc.brokerconfig.rendering import VERNEMQ_HOOKS, default_files, render
from authsvc.brokerconfig.sections import settings_lines
from authsvc.cli.root import app
from authsvc.core.errors import InvalidInput
from tests.docs.pages import ROOT

RUN = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
REMAKE = "python -m authsvc.brokerconfig config"
TLS = {
    "url": "https://auth.example.com:8443/mqtt",
    "tls_ca": "/etc/ca.pem",
    "tls_cert": "/e/b.crt",
    "tls_key": "/e/b.key",
}
OPEN = {"bind": "0.0.0.0:8883", "bind_cert": "/etc/b/server.crt", "bind_key": "/etc/b/server.key"}
VARIANTS = [
    pytest.param(kind, version, options, id=f"{kind} {version or 'newest'} {name}")
    for kind in KINDS
    for version in {"emqx": ("", "5.0", "5.3", "5.8", "6.2"), "rabbitmq": ("", "3.10.8", "4.0")}.get(kind, ("",))
    for name, options in (
        ("here", {}),
        ("over TLS", TLS),
        ("over TLS by secret", {**TLS, "tls_cert": "", "tls_key": "", "secret_file": "/etc/s e/secret"}),
        ("open to the network", OPEN),
    )
    if not (kind in {"nanomq", "mosquitto-go-auth"} and "TLS" in name) and not (kind == "mosquitto" and name != "here")
]


@pytest.mark.parametrize("name", sorted(default_files()))
def test_the_files_in_config_are_those_that_are_printed(name: str) -> None:
    """Byte for byte, so that nobody edits one of the two."""
    there = (ROOT / "config" / name).read_text(encoding="utf-8")
    assert there == default_files()[name], f"config/{name} is not what is printed; make it anew with: {REMAKE}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_prints_the_main_file(kind: str) -> None:
    """What it prints on stdout is the file and nothing else."""
    result = RUN.invoke(app, ["config", kind])
    assert result.exit_code == 0
    assert result.stdout == render(Installation(kind=kind))[0].text


@pytest.mark.parametrize(("kind", "version", "options"), [one for one in VARIANTS if one.values[0] in LINTERS])
def test_printed_files_pass_their_own_linter(kind: str, version: str, options: dict[str, str], tmp_path: Path) -> None:
    """Whatever the options: nothing unsafe, nothing doubtful, nothing that was not understood."""
    files = render(Installation(kind=kind, version=version, **options))
    paths = [tmp_path / file.name for file in files]
    for path, file in zip(paths, files, strict=True):
        path.write_text(file.text)
        path.chmod(0o640)
    assert lint(kind, paths, version=version) == []


@pytest.mark.parametrize(("kind", "version", "options"), VARIANTS)
def test_files_hold_what_was_asked_for_and_no_template_sign(kind: str, version: str, options: dict[str, str]) -> None:
    """Every file that was named stands in it; lines fit a page; nothing is left unfilled."""
    files = render(Installation(kind=kind, version=version, **options))
    together = "".join(file.text for file in files)
    assert "@{" not in together
    for file in files:
        assert file.text.endswith("\n")
        assert not file.text.endswith("\n\n")
        assert all(line == line.rstrip() and len(line) <= 130 for line in file.text.splitlines())
    for option, value in options.items():
        if value and option not in {"bind", "url"}:
            assert value in together, option
    if kind in HOOKED and kind not in {"aedes", "mosquitto-go-auth"}:
        assert ("auth.example.com:8443/mqtt/hooks/" if options.get("url") else "127.0.0.1:8080/hooks/") in together


@pytest.mark.parametrize("kind", KINDS)
def test_the_settings_are_toml_that_the_service_knows(kind: str) -> None:
    """`--settings` prints a section whose keys are settings; it stands in the printed file as a comment, too."""
    from authsvc.settings import BrokerSection, MqttSection

    result = RUN.invoke(app, ["config", kind, "--settings"])
    assert result.exit_code == 0
    sections = tomllib.loads(result.stdout)
    if kind == "mosquitto":
        assert set(sections["mqtt"]) <= set(MqttSection.model_fields)
        return
    ((name, section),) = sections["brokers"].items()
    assert set(section) <= set(BrokerSection.model_fields)
    assert section.get("kind", name) in {"emqx", "vernemq", "rabbitmq", "nanomq", "goauth", "aedes"}
    text = render(Installation(kind=kind))[0].text
    assert all(line in text for line in result.stdout.splitlines())


@pytest.mark.parametrize("kind", HOOKED)
def test_every_address_is_a_route_of_the_adapter(kind: str) -> None:
    """The paths that are printed are those that `authsvc` answers."""
    from authsvc.adapters.routes import adapter_of

    ours = "goauth" if kind == "mosquitto-go-auth" else kind
    if kind == "aedes":
        return  # its package makes the paths itself
    text = render(Installation(kind=kind))[0].text
    marker = f"/hooks/{ours}"
    found = set()
    for line in text.splitlines():
        if marker in line and not line.startswith("#"):
            found.add(line.split(marker, 1)[1].split('"')[0].strip().lstrip("/"))
    assert found
    assert found <= set(adapter_of(ours).routes)


def test_a_name_of_its_own_gives_another_section_and_other_paths() -> None:
    """Two EMQX are two brokers."""
    result = RUN.invoke(app, ["config", "emqx", "--name", "emqx-east", "--json"])
    shown = json.loads(result.stdout)
    assert tomllib.loads(shown["settings"])["brokers"]["emqx-east"]["kind"] == "emqx"
    assert "/hooks/emqx-east/authn" in shown["files"][0]["text"]


def test_versions_get_the_options_that_they_know() -> None:
    """An option that a version does not know would keep the broker from starting."""
    old, middle, new = (render(Installation(kind="emqx", version=version))[0].text for version in ("5.0", "5.8", "5.9"))
    assert "enabled = false" in old
    assert "${qos}" not in old
    assert "${qos}" in middle
    assert "node_cache" not in middle
    assert new.count("node_cache") == 2
    assert "anonymous_login_user" not in render(Installation(kind="rabbitmq", version="3.10.8"))[0].text
    assert "anonymous_login_user = none" in render(Installation(kind="rabbitmq", version="4.1"))[0].text


def test_vernemq_gets_all_six_hooks() -> None:
    """MQTT 3 and MQTT 5, each with register, publish and subscribe."""
    text = render(Installation(kind="vernemq"))[0].text
    assert len(VERNEMQ_HOOKS) == 6
    assert all(f".hook = {hook}\n" in text for hook in VERNEMQ_HOOKS)


def test_rabbitmq_before_4_gets_its_tls_by_erlang_terms() -> None:
    """The third file is there, and only then."""
    names = [file.name for file in render(Installation(kind="rabbitmq", version="3.10.8", **TLS))]
    assert names == ["rabbitmq.conf", "enabled_plugins", "advanced.config"]
    assert len(render(Installation(kind="rabbitmq", version="4.0", **TLS))) == 2


def test_secrets_are_words_to_replace() -> None:
    """The file of the secret is named, never read: not even if it is there."""
    for kind in ("emqx", "rabbitmq", "vernemq", "nanomq", "mosquitto-go-auth"):
        for file in render(Installation(kind=kind, secret_file="/etc/hostname")):
            assert Path("/etc/hostname").read_text().strip() + "\n" not in file.text
        assert "SECRET" in render(Installation(kind=kind, secret_file="/etc/hostname"))[0].text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["hivemq"], "no broker `hivemq`", id="unknown broker"),
        pytest.param(["rumqttd"], "up --broker rumqttd", id="rumqttd is managed"),
        pytest.param(["emqx", "--url", "http://auth.example.com"], "--url: passwords would cross", id="http far away"),
        pytest.param(["emqx", "--url", "http://u:p@127.0.0.1"], "without user name", id="secret in url"),
        pytest.param(["emqx", "--url", "https://a/b?c=d", "--tls-ca", "/a"], "without user name, query", id="query"),
        pytest.param(["emqx", "--url", 'https://a/"b', "--tls-ca", "/a"], "path holds more", id="quote in url"),
        pytest.param(["emqx", "--url", "ftp://127.0.0.1"], "give http(s)", id="ftp"),
        pytest.param(["emqx", "--url", "http://127.0.0.1:99999"], "no URL", id="port"),
        pytest.param(["emqx", "--url", "https://a.example"], "--tls-ca: name what issued", id="https without CA"),
        pytest.param(
            ["rabbitmq", "--url", "https://a.example", "--tls-ca", "/a"], "show who it is", id="https, nobody shown"
        ),
        pytest.param(["rabbitmq", "--url", "https://192.0.2.1"], "by a name only", id="rabbitmq and an address"),
        pytest.param(["nanomq", "--url", "https://a.example"], "TLS", id="nanomq has no TLS"),
        pytest.param(["emqx", "--tls-ca", "/a"], "certificates need an https", id="CA without https"),
        pytest.param(["emqx", "--bind", "0.0.0.0:1883"], "--bind: clients would send passwords", id="open without TLS"),
        pytest.param(["mosquitto", "--bind", "0.0.0.0:1884"], "passes by it", id="upstream open"),
        pytest.param(["emqx", "--bind", "1883"], "not of the form HOST:PORT", id="port alone"),
        pytest.param(["emqx", "--bind-cert", "/a"], "belong together", id="certificate without key"),
        pytest.param(["emqx", "--secret-file", '/a"\nx'], "a file's name holds no", id="line in a path"),
        pytest.param(["vernemq", "--secret-file", "/a # b"], "a file's name holds no", id="comment in a path"),
        pytest.param(["emqx", "--secret-file", "/a/${HOME}"], "a file's name holds no", id="substitution in a path"),
        pytest.param(["emqx", "--name", "Emqx!"], "no name of a broker", id="bad name"),
        pytest.param(["emqx", "--version", "five"], "is no version", id="bad version"),
        pytest.param(["emqx", "--file", "acl.conf"], "no file `acl.conf`", id="no such file"),
    ],
)
def test_what_cannot_be_made_safe_is_refused(arguments: list[str], said: str) -> None:
    """Exit status 1, one line on stderr, nothing on stdout."""
    result = RUN.invoke(app, ["config", *arguments])
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr


def test_output_writes_all_files_and_replaces_none(tmp_path: Path) -> None:
    """A second time it refuses: a broker's configuration is not overwritten by accident."""
    folder = tmp_path / "made"
    assert RUN.invoke(app, ["config", "rabbitmq", "--output", str(folder)]).exit_code == 0
    assert {path.name for path in folder.iterdir()} == {"rabbitmq.conf", "enabled_plugins"}
    again = RUN.invoke(app, ["config", "rabbitmq", "--output", str(folder)])
    assert again.exit_code == 1
    assert "exists" in again.stderr


def test_values_are_escaped_for_their_file() -> None:
    """What HOCON reads back is what was given."""
    path = "/etc/b r/ü,[1]:=.pem"
    text = render(Installation(kind="emqx", url="https://a.example", tls_ca=path))[0].text
    document = read_hocon(text)
    assert document.get("authentication", "1", "ssl", "cacertfile").value == path
    assert document.unknown == []


def test_the_aedes_program_is_javascript(tmp_path: Path) -> None:
    """Node parses it, in each form."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    for number, options in enumerate(({}, TLS, OPEN)):
        path = tmp_path / f"{number}.mjs"
        path.write_text(render(Installation(kind="aedes", **options))[0].text)
        done = subprocess.run([node, "--check", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("option", ["url", "name", "kind", "version", "bind"])
def test_an_installation_says_which_option_is_wrong(option: str) -> None:
    """Library users get InvalidInput."""
    with pytest.raises(InvalidInput):
        Installation(**{"kind": "emqx", option: "\n"})


def test_settings_of_the_gate_name_its_upstream() -> None:
    """Mosquitto behind the gate has no section of its own."""
    assert tomllib.loads(settings_lines(Installation(kind="mosquitto")))["mqtt"]["upstream"] == "127.0.0.1:1884"


def test_emqx_puts_no_question_behind_another() -> None:
    """By default it sends a hundred on one connection, and a CONNECT that waits for the management holds them all."""
    text = RUN.invoke(app, ["config", "emqx"]).stdout
    assert text.count("pool_size") == text.count("enable_pipelining = 1 ") == 2
