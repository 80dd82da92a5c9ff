"""`broker.yaml`: amqtt's own format becomes listeners of the gate; what would decide beside us is refused by name."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig

from authsvc.core.errors import InvalidInput
from broker.config_file import load_broker_config, split_bind
from broker.embedded import AmqttUpstream
from tests.broker.certificates import write_certificate

SHIPPED = Path(__file__).parents[2] / "config" / "broker.yaml"


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "broker.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate beside the file."""
    write_certificate(tmp_path)
    return tmp_path


def test_the_shipped_file_opens_one_listener_on_loopback():
    """`config/broker.yaml` works as it is, for us and for a stock amqtt."""
    import yaml

    file = load_broker_config(SHIPPED)
    assert [(listener.name, listener.host, listener.port, listener.tls) for listener in file.listeners] == [
        ("default", "127.0.0.1", 1883, None)
    ]
    BrokerConfig.from_dict(yaml.safe_load(SHIPPED.read_text()))


async def test_what_is_left_for_amqtt_starts_it_without_a_socket():
    """Amqtt gets its part of the file and no listener."""
    upstream = AmqttUpstream(load_broker_config(SHIPPED).amqtt)
    await upstream.start()
    assert all(server.instance is None for server in upstream.broker._servers.values())
    await upstream.stop()


def test_every_listener_becomes_one_of_the_gate(written, certificate):
    """TCP, WebSocket and TLS; what is left out comes from `default`, as in amqtt."""
    file = load_broker_config(
        written(
            """
            listeners:
              default: {type: tcp, bind: "127.0.0.1:0", max_connections: 50}
              inherits: {bind: "127.0.0.1:1"}
              web: {type: ws, bind: "[::1]:8083", max_connections: 0}
              tls: {bind: ":8883", ssl: true, certfile: server.crt, keyfile: server.key, max-connections: -1}
            plugins:
              amqtt.plugins.logging_amqtt.EventLoggerPlugin:
            session_expiry_interval: 60
            """
        )
    )
    found = {item.name: (item.host, item.port, item.websocket, item.max_connections) for item in file.listeners}
    assert found == {
        "default": ("127.0.0.1", 0, False, 50),
        "inherits": ("127.0.0.1", 1, False, 50),
        "web": ("::1", 8083, True, None),
        "tls": ("", 8883, False, None),
    }
    assert [item.name for item in file.listeners if item.tls is not None] == ["tls"]
    assert isinstance(file.listeners[3].tls, ssl.SSLContext)
    assert file.amqtt == {
        "plugins": {"amqtt.plugins.logging_amqtt.EventLoggerPlugin": {}},
        "session_expiry_interval": 60,
    }


def test_a_file_without_listeners_has_amqtts_default(written):
    """An empty file is amqtt's own default listener."""
    assert [(item.name, item.host, item.port) for item in load_broker_config(written("")).listeners] == [
        ("default", "0.0.0.0", 1883)
    ]


FORMS = ["", "1884", ":1884", "127.0.0.1:1884", "127.0.0.1", "localhost", "localhost:", "[::1]:1884", "[::1]", "[::]:0"]


@pytest.mark.parametrize("bind", FORMS)
def test_an_address_is_read_as_amqtt_reads_it(bind):
    """The same file listens on the same addresses with a stock amqtt, brackets aside."""
    host, port = Broker._split_bindaddr_port(bind, 1883)
    assert split_bind(bind, 1883) == ((host or "").strip("[]"), port)


@pytest.mark.parametrize("bind", ["[::1", "[::1]1883", "::1:1883", "host:port", "1.2.3.4:65536", "h:-1", "h:١٢"])
def test_an_address_that_cannot_be_meant_is_refused(bind):
    """Nothing is guessed."""
    with pytest.raises(ValueError):
        split_bind(bind, 1883)


AUTH = "amqtt.plugins.authentication.AnonymousAuthPlugin"
TOPIC = "amqtt.plugins.topic_checking.TopicAccessControlListPlugin"

REFUSED = {
    "auth section": ("auth: {allow-anonymous: true}", "auth", "authsvc decides"),
    "topic-check section": ("topic-check: {enabled: true}", "topic-check", "authsvc decides"),
    "authentication plugin": (f"plugins: {{{AUTH}: {{allow_anonymous: true}}}}", f"plugins.{AUTH}", "authentication"),
    "topic plugin in a list": (f"plugins: [{TOPIC}]", f"plugins.{TOPIC}", "topic plugin"),
    "plugin in a list of mappings": (f"plugins:\n  - {AUTH}:\n      x: 1", f"plugins.{AUTH}", "authentication"),
    "plugin that is not there": ("plugins: {no.such.Plugin: {}}", "plugins.no.such.Plugin", "cannot be imported"),
    "plugin that is none": ("plugins: {pathlib.Path: {}}", "plugins.pathlib.Path", "not a plugin"),
    "plugins as text": ("plugins: yes please", "plugins", "must be a mapping"),
    "unknown key": ("listener: {}", "listener", "unknown"),
    "sys_interval": ("sys_interval: 10", "sys_interval", "deprecated"),
    "listeners as list": ("listeners: [a]", "listeners", "mapping"),
    "no listener": ("listeners: {}", "listeners", "mapping"),
    "listener as text": ("listeners: {default: x}", "listeners.default", "mapping"),
    "unknown key of a listener": ("listeners: {default: {port: 1}}", "listeners.default.port", "unknown"),
    "unknown type": ("listeners: {default: {type: quic}}", "listeners.default.type", "quic"),
    "external": ("listeners: {default: {type: external}}", "listeners.default.type", "known types: tcp, ws"),
    "bind": ("listeners: {default: {bind: 'a:b'}}", "listeners.default.bind", "a:b"),
    "max_connections": ("listeners: {default: {max_connections: many}}", "listeners.default.max_connections", "many"),
    "ssl": ("listeners: {default: {ssl: 'on please'}}", "listeners.default.ssl", "true"),
    "no certificate": ("listeners: {default: {ssl: true}}", "listeners.default.certfile", "missing"),
    "no such certificate": (
        "listeners: {default: {ssl: true, certfile: a.crt, keyfile: a.key}}",
        "listeners.default.certfile",
        "does not exist",
    ),
    "a list": ("- a", "", "mapping"),
    "not yaml": ("a: [", "", "is not YAML in line"),
}


@pytest.mark.parametrize(("text", "key", "says"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_is_refused_with_file_and_key(written, text, key, says):
    """The message names the file, the key and what is wrong; nothing is ignored."""
    path = written(text)
    with pytest.raises(InvalidInput) as refused:
        load_broker_config(path)
    assert refused.value.code == "broker_config"
    assert refused.value.field == key
    assert str(path) in refused.value.detail
    assert says in refused.value.detail
    assert not key or f"`{key}`" in refused.value.detail


def test_a_file_that_is_not_there_is_named(tmp_path):
    """An operator's typing mistake in the path."""
    with pytest.raises(InvalidInput, match="absent.yaml"):
        load_broker_config(tmp_path / "absent.yaml")


def test_a_certificate_that_is_none_is_refused(written, certificate):
    """A file that exists and holds no key does not become a listener without TLS."""
    (certificate / "server.key").write_text("nonsense")
    with pytest.raises(InvalidInput, match="cannot be used for TLS"):
        load_broker_config(written("listeners: {default: {ssl: true, certfile: server.crt, keyfile: server.key}}"))
