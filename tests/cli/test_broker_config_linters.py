"""What the linters say of single lines: addresses, listeners, second backends, and what is nothing to complain of."""

from __future__ import annotations

from pathlib import Path

import pytest

from authsvc.brokerconfig import linting
from authsvc.brokerconfig.keyvalue import read_cuttlefish
from authsvc.brokerconfig.linters.sources import Source, hook_url, host_of
from authsvc.brokerconfig.linting import lint
from authsvc.core.errors import InvalidInput


def said(kind: str, text: str, folder: Path) -> set[tuple[str, str, int]]:
    """Return severity, option and line of all that is found in a file with this text."""
    path = folder / "broker.conf"
    path.write_text(text)
    path.chmod(0o600)
    return {(one.severity, one.option, one.line) for one in lint(kind, [path])}


@pytest.mark.parametrize(
    ("url", "severities"),
    [
        ("http://127.0.0.1:8080/hooks/x/authn", []),
        ("https://authsvc.example/hooks/x/authn", []),
        ("http://10.0.0.1/hooks/x", ["unsafe"]),
        ("https://${clientid}.example/hooks/x", ["unsafe"]),
        ("ftp://127.0.0.1/hooks/x", ["unknown"]),
        ("http://[::1/hooks/x", ["unknown"]),
        ("http://127.0.0.1/authn", ["doubtful"]),
        ("http://127.0.0.1/hooks/x?key=abcdef", ["unsafe", "unsafe"]),
        ("http://u:abcdef@127.0.0.1/hooks/x", ["unsafe", "unsafe"]),
    ],
)
def test_an_address_of_a_hook(url: str, severities: list[str]) -> None:
    """In a file that everybody reads: a secret in it is told as such, too, and not shown."""
    found = list(hook_url(Source(file="f", text="", mode=0o644), 1, "url", url))
    assert [one.severity for one in found] == severities
    assert "abcdef" not in str(found)


@pytest.mark.parametrize(
    ("address", "host"),
    [("1883", "0.0.0.0"), (":1883", "0.0.0.0"), ("[::1]:1883", "::1"), ("/run/x.sock", None), ("none", None)],
)
def test_the_host_of_a_listener(address: str, host: str | None) -> None:
    """A port alone is every address."""
    assert host_of(address) == host


@pytest.mark.parametrize(
    "listener",
    ["listener 0 /run/b.sock", "listener 1884 127.0.0.1", "port 1884\nbind_address 127.0.0.1"],
)
def test_a_private_listener_of_mosquitto_may_ask_nobody(listener: str, tmp_path: Path) -> None:
    """A socket, loopback, and loopback as older files say it; a limit of 0 is none."""
    assert said("mosquitto", f"{listener}\nallow_anonymous true\nmessage_size_limit 0\n", tmp_path) == set()


def test_a_folder_of_mosquitto_is_not_read_for_being_the_files_own(tmp_path: Path) -> None:
    """What else is in it was not given."""
    text = f"listener 1884 127.0.0.1\nallow_anonymous true\ninclude_dir {tmp_path}\n"
    assert said("mosquitto", text, tmp_path) == set()
    (tmp_path / "other.conf").write_text("")
    assert said("mosquitto", text, tmp_path) == {("unknown", "include_dir", 3)}


def test_credentials_of_go_auth_do_not_hide_where_it_asks(tmp_path: Path) -> None:
    """The host stands behind them."""
    for host, unsafe in (("127.0.0.1", False), ("10.0.0.1", True)):
        found = said("mosquitto-go-auth", f"auth_opt_http_host authsvc:pw@{host}\n", tmp_path)
        assert (("unsafe", "auth_opt_http_host", 1) in found) is unsafe


@pytest.mark.parametrize("key", ["cached_backend", "cached_backend.authn", "cached_backend.authz"])
def test_what_decides_behind_rabbitmqs_cache_is_looked_at(key: str, tmp_path: Path) -> None:
    """In all of its three places."""
    text = "auth_backends.1 = cache\nauth_cache.{} = {}\n"
    assert ("unsafe", f"auth_cache.{key}", 2) in said("rabbitmq", text.format(key, "internal"), tmp_path)
    assert ("unsafe", f"auth_cache.{key}", 2) not in said("rabbitmq", text.format(key, "http"), tmp_path)


def test_a_comment_is_no_setting(tmp_path: Path) -> None:
    """Behind a value, and in Erlang terms."""
    (option,) = read_cuttlefish("mqtt.allow_anonymous = false  # true is unsafe").options
    assert option.value == "false"
    assert said("rabbitmq", "[{rabbitmq_auth_backend_http, [\n % {verify, verify_none}\n]}].\n", tmp_path) == set()


@pytest.mark.parametrize(
    ("value", "unsafe"), [("[vmq_webhooks]", False), ("[vmq_webhooks,vmq_passwd]", True), ("[vmq_passwd]", True)]
)
def test_the_plugins_of_one_listener_of_vernemq_are_ours_alone(value: str, unsafe: bool, tmp_path: Path) -> None:
    """One more is one that decides beside authsvc."""
    key = "listener.tcp.default.auth_plugins"
    assert (("unsafe", key, 1) in said("vernemq", f"{key} = {value}\n", tmp_path)) is unsafe


@pytest.mark.parametrize(("address", "unsafe"), [("", True), ("0.0.0.0", True), ("127.0.0.1", False)])
def test_the_rest_api_of_nanomq_is_open_unless_it_is_told(address: str, unsafe: bool, tmp_path: Path) -> None:
    """It publishes as it likes."""
    ip = f"ip_addr = {address}, " if address else ""
    found = said("nanomq", f"http_server {{ {ip}password = long-and-random }}\n", tmp_path)
    assert (("unsafe", "http_server", 1) in found) is unsafe


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"\xff\xfe\x00", "not text in UTF-8"), (b"# " + b"x" * 100, "no configuration file")],
    ids=["binary", "large"],
)
def test_what_is_no_configuration_is_not_read(
    content: bytes, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log, a device, a key store."""
    monkeypatch.setattr(linting, "MAX_FILE_BYTES", 50)
    path = tmp_path / "broker.conf"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=why):
        lint("emqx", [path])
