"""Which broker stands behind, by the settings; what contradicts itself or would send a password in clear is refused."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from authsvc import upstreams
from authsvc.core.errors import AuthsvcError
from authsvc.settings import load_settings
from authsvc.upstreams import choose, make_upstream, said_of_broker
from broker.embedded import AmqttUpstream
from broker.limits import Limits
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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"upstream": "127.0.0.1:1884", "broker": "mosquitto"}, "give one"),
        ({"upstream": "nowhere"}, "no address"),
        ({"upstream": "/run/x.sock", "upstream_tls": True}, "Unix socket"),
        ({"upstream": "127.0.0.1:1884", "upstream_tls_ca": "ca.pem"}, "upstream_tls is not"),
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
    certificate, _ = write_certificate(tmp_path)
    upstream = made(tmp_path, upstream="192.0.2.1:8883", upstream_tls=True, upstream_tls_ca=certificate, **login)
    assert upstream._dial.tls.check_hostname
    assert "a secret" not in repr(upstream._dial)
    file.write_text("\n")
    with pytest.raises(AuthsvcError, match="empty"):
        made(tmp_path, upstream="127.0.0.1:1884", **login)
