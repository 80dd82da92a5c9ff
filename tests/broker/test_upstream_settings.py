"""Which broker stands behind, by the settings; what contradicts itself or would send a password in clear is refused."""

from __future__ import annotations

import importlib.util
import re
import ssl
from pathlib import Path

import pytest
import structlog

from authsvc import upstreams
from authsvc.core.errors import AuthsvcError
from authsvc.settings import load_settings
from authsvc.upstreams import choose, make_upstream, said_of_broker
from broker.embedded import AmqttUpstream
from broker.limits import Limits
from broker.managed.child import RunAs
from broker.tcp import TcpUpstream
from tests.broker.certificates import write_certificate


def made(tmp_path: Path, **mqtt: object):
    flags = {"service.data": tmp_path, **{f"mqtt.{name}": value for name, value in mqtt.items()}}
    return make_upstream(load_settings(flags=flags, environ={}), {}, Limits())


def test_without_a_setting_it_is_amqtt_and_nothing_is_said(tmp_path):
    """As ever."""
    assert isinstance(made(tmp_path), AmqttUpstream)
    assert said_of_broker(load_settings(environ={})) == []


@pytest.mark.parametrize(
    ("mosquitto", "rumqttd", "broker", "why"),
    [
        ("/usr/sbin/mosquitto", True, "mosquitto", "/usr/sbin/mosquitto.*survive a restart"),
        ("/usr/sbin/mosquitto", False, "mosquitto", "is installed"),
        (None, True, "rumqttd", "mosquitto is not installed.*nothing survives"),
        (None, False, "amqtt", "neither.*several hundred"),
    ],
)
def test_auto_takes_the_best_that_is_there_and_says_why(monkeypatch, mosquitto, rumqttd, broker, why):
    """Mosquitto, else rumqttd, else amqtt."""
    monkeypatch.setattr(upstreams, "find_mosquitto", lambda: mosquitto)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if rumqttd else None)
    chosen, said = choose("auto")
    assert chosen == broker
    settings = load_settings(flags={"mqtt.broker": "auto"}, environ={})
    (line,) = said_of_broker(settings)
    assert line == f"broker `{broker}`: {said}"
    assert re.search(why, said)


@pytest.mark.parametrize(
    ("where", "address"),
    [
        ("127.0.0.1:1884", "127.0.0.1:1884"),
        ("[::1]:1884", "[::1]:1884"),
        ("/run/broker.sock", "/run/broker.sock"),
        ("unix:/run/broker.sock", "/run/broker.sock"),
        ("unix:broker.sock", "broker.sock"),
    ],
)
def test_an_upstream_is_a_port_or_a_socket(tmp_path, where, address):
    """Both forms of a socket's path."""
    upstream = made(tmp_path, upstream=where)
    assert isinstance(upstream, TcpUpstream)
    assert upstream.address == address


@pytest.mark.parametrize("where", ["127.0.0.1:1884", "unix:/run/broker.sock"])
def test_what_the_settings_say_of_an_upstream_counts_for_both_forms(tmp_path, where):
    """User, password, header and version; a user alone is one without a password."""
    file = tmp_path / "password"
    file.write_text("a secret")
    file.chmod(0o600)
    login = {"upstream_username": "gate", "upstream_password_file": file}
    upstream = made(tmp_path, upstream=where, upstream_proxy_protocol=True, upstream_mqtt5="yes", **login)
    dial = upstream._dial
    assert (dial.username, dial.password, dial.proxy_protocol) == ("gate", b"a secret", True)
    assert upstream.capabilities.mqtt5 is True
    bare = made(tmp_path, upstream=where, upstream_username="gate")._dial
    assert (bare.username, bare.password, bare.proxy_protocol) == ("gate", None, False)
    assert made(tmp_path, upstream=where)._dial.username is None


def test_an_address_that_is_given_stands_in_for_the_setting(tmp_path):
    """`authsvc up --upstream` is the nearer word."""
    settings = load_settings(flags={"mqtt.upstream": "127.0.0.1:1884"}, environ={})
    assert make_upstream(settings, {}, Limits(), address="127.0.0.1:1885").address == "127.0.0.1:1885"


@pytest.mark.parametrize("broker", ["mosquitto", "rumqttd"])
def test_a_managed_broker_runs_as_the_user_that_is_named_in_a_folder_of_its_own(monkeypatch, tmp_path, broker):
    """Below the data directory, with the limits that hold for the gate."""
    seen = {}
    monkeypatch.setattr(upstreams, "user_to_run_as", {"somebody": RunAs(uid=7, gid=8)}.get)
    monkeypatch.setattr(upstreams, f"managed_{broker}", lambda folder, **options: seen.update(options, folder=folder))
    made(tmp_path, broker=broker, run_as="somebody")
    assert seen == {"folder": tmp_path / broker, "limits": Limits(), "run_as": RunAs(uid=7, gid=8)}


def test_the_limits_of_retained_messages_hold_in_amqtt(tmp_path):
    """It has them in memory."""
    settings = load_settings(flags={"service.data": tmp_path}, environ={})
    upstream = make_upstream(settings, {}, Limits(max_retained_messages=2, max_retained_bytes=5_000))
    for topic in ("a", "b", "c"):
        upstream.retain(topic, b"1", qos=0)
    assert len(upstream._kept) == 2
    upstream.retain("a", b"x" * 5_000, qos=0)
    assert len(upstream._kept) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"upstream": "127.0.0.1:1884", "broker": "mosquitto"}, "give one"),
        ({"upstream": "nowhere"}, "no address"),
        ({"upstream": "/run/x.sock", "upstream_tls": True}, "Unix socket"),
        ({"upstream": "127.0.0.1:1884", "upstream_tls_ca": "ca.pem"}, "upstream_tls is not"),
        (
            {"upstream": "127.0.0.1:1884", "upstream_tls": True, "upstream_tls_key": __file__},
            "needs mqtt.upstream_tls_cert",
        ),
        ({"upstream": "127.0.0.1:1884", "upstream_tls": True, "upstream_tls_ca": __file__}, "cannot use the cert"),
        ({"upstream": "127.0.0.1:1884", "upstream_tls": True, "upstream_tls_ca": "/nowhere/ca.pem"}, "is no file"),
        ({"upstream": "127.0.0.1:1884", "upstream_password_file": "/nowhere"}, "needs mqtt.upstream_username"),
        (
            {"upstream": "127.0.0.1:1884", "upstream_username": "u", "upstream_password_file": "/nowhere"},
            "cannot read `/nowhere`",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_by_its_name(tmp_path, settings, said):
    """Before anything is opened."""
    with pytest.raises(AuthsvcError, match=said):
        made(tmp_path, **settings)


def test_a_password_leaves_the_machine_by_tls_only(tmp_path):
    """Plain text on loopback is fine; elsewhere it takes TLS, or the setting that allows plain text."""
    file = tmp_path / "password"
    file.write_text("a secret\nnot this\n")
    file.chmod(0o600)
    login = {"upstream_username": "gate", "upstream_password_file": file}
    assert made(tmp_path, upstream="127.0.0.1:1884", **login)._dial.password == b"a secret"
    with pytest.raises(AuthsvcError, match="plain text"):
        made(tmp_path, upstream="192.0.2.1:1884", **login)
    named = {f"mqtt.{name}": value for name, value in login.items()}
    plain = load_settings(
        flags={"mqtt.upstream": "192.0.2.1:1884", "service.allow_plaintext": True, **named}, environ={}
    )
    assert make_upstream(plain, {}, Limits())._dial.tls is None
    certificate, _ = write_certificate(tmp_path)
    upstream = made(tmp_path, upstream="192.0.2.1:8883", upstream_tls=True, upstream_tls_ca=certificate, **login)
    assert upstream._dial.tls.check_hostname
    assert "a secret" not in repr(upstream._dial)
    file.write_text("\n")
    with pytest.raises(AuthsvcError, match="empty"):
        made(tmp_path, upstream="127.0.0.1:1884", **login)


def test_a_password_file_that_others_read_is_told(tmp_path):
    """With what to do; the password is not."""
    file = tmp_path / "password"
    file.write_text("a secret")
    for mode, warned in ((0o600, False), (0o640, True), (0o604, True)):
        file.chmod(mode)
        with structlog.testing.capture_logs() as logs:
            made(tmp_path, upstream="127.0.0.1:1884", upstream_username="gate", upstream_password_file=file)
        assert [entry["event"] for entry in logs] == ["password_file_readable_by_others"] * warned
        assert "a secret" not in str(logs)


def test_tls_to_an_upstream_believes_who_is_named_and_shows_who_we_are(tmp_path):
    """The given authority alone, TLS 1.2 at least, names in the subject alternative name only (RFC 9525)."""
    certificate, key = write_certificate(tmp_path)
    tls = {"upstream": "192.0.2.1:8883", "upstream_tls": True, "upstream_tls_ca": certificate}
    context = made(tmp_path, **tls)._dial.tls
    assert context.cert_store_stats()["x509"] == 1
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert not context.hostname_checks_common_name
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_cert_chain", lambda _, *files, **options: shown.append((files, options)))
        made(tmp_path, **tls, upstream_tls_cert=certificate, upstream_tls_key=key)
    assert shown == [((certificate, key), {"password": ""})], "and nobody is asked for the password of a key"
    with pytest.raises(AuthsvcError, match="cannot use the certificates"):
        made(tmp_path, **tls, upstream_tls_cert=certificate)
