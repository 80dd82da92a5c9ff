"""Which broker stands behind the gate, by the settings: one that runs elsewhere, or one that we run."""

from __future__ import annotations

import importlib.util
import ssl
from pathlib import Path
from typing import Literal

import structlog

from authsvc.first_start import StartError
from authsvc.listening import is_loopback, parse_bind
from authsvc.settings import MqttSection, Settings
from broker.embedded import AmqttUpstream
from broker.limits import Limits
from broker.managed.child import user_to_run_as
from broker.managed.mosquitto import find_mosquitto, managed_mosquitto
from broker.managed.rumqttd import managed_rumqttd
from broker.tcp import TcpUpstream
from broker.tcp.dial import Dial
from broker.upstream import Upstream

log = structlog.get_logger(__name__)

BROKER_FOLDERS = {"mosquitto": "mosquitto", "rumqttd": "rumqttd"}  # below the data directory
Broker = Literal["amqtt", "mosquitto", "rumqttd"]


def make_upstream(settings: Settings, amqtt: dict[str, object], limits: Limits, *, address: str = "") -> Upstream:
    """Return the broker to stand in front of, not started. Raises StartError and BrokerNotStarted.

    `address` (``host:port``, ``unix:PATH`` or a socket's path) stands in for `mqtt.upstream`; where both are empty,
    `mqtt.broker` says which broker is run.
    """
    mqtt = settings.mqtt
    where = address or mqtt.upstream
    if where:
        if "broker" in mqtt.model_fields_set:
            raise StartError(f"mqtt.broker (`{mqtt.broker}`) runs a broker and mqtt.upstream names another: give one")
        return TcpUpstream(dial=upstream_dial(where, settings), mqtt5=mqtt.upstream_mqtt5)
    broker, why = choose(mqtt.broker)
    if "broker" in mqtt.model_fields_set:
        log.info("broker_chosen", broker=broker, why=why)
    data = settings.service.data
    if broker == "mosquitto":
        return managed_mosquitto(data / BROKER_FOLDERS[broker], limits=limits, run_as=user_to_run_as(mqtt.run_as))
    if broker == "rumqttd":
        return managed_rumqttd(data / BROKER_FOLDERS[broker], limits=limits, run_as=user_to_run_as(mqtt.run_as))
    return AmqttUpstream(amqtt, max_retained=limits.max_retained_messages, max_retained_bytes=limits.max_retained_bytes)


def said_of_broker(settings: Settings) -> list[str]:
    """Return what to tell the operator of the broker that is run: nothing unless `mqtt.broker` was set."""
    if "broker" not in settings.mqtt.model_fields_set:
        return []
    broker, why = choose(settings.mqtt.broker)
    return [f"broker `{broker}`: {why}"]


def choose(setting: Literal["auto", "amqtt", "mosquitto", "rumqttd"]) -> tuple[Broker, str]:
    """Return which broker to run, and why in words."""
    if setting != "auto":
        return setting, "set by mqtt.broker"
    program = find_mosquitto()
    if program is not None:
        return "mosquitto", f"`{program}` is installed, and its sessions and queues survive a restart"
    if has_rumqttd():
        return "rumqttd", "mosquitto is not installed, the extra `rumqttd` is; nothing survives a restart"
    return "amqtt", "neither mosquitto nor the extra `rumqttd` is installed; for several hundred devices"


def has_rumqttd() -> bool:
    """Return whether the package that carries rumqttd is there."""
    return importlib.util.find_spec("iotcore") is not None


def upstream_dial(where: str, settings: Settings) -> Dial:
    """Return how an upstream that runs elsewhere is reached. Raises StartError naming the setting."""
    mqtt = settings.mqtt
    username, password = _credentials(mqtt)
    proxy = mqtt.upstream_proxy_protocol
    tls = _tls(mqtt)
    path = where.removeprefix("unix:")
    if path != where or "/" in path:
        if tls is not None:
            raise StartError("mqtt.upstream is a Unix socket: it takes no mqtt.upstream_tls")
        return Dial(path=Path(path), username=username, password=password, proxy_protocol=proxy)
    host, port = parse_bind(where, "upstream")
    if password is not None and tls is None and not settings.service.allow_plaintext and not is_loopback(host):
        raise StartError(
            f"mqtt.upstream_password_file would go to `{where}` in plain text; set mqtt.upstream_tls = true, "
            "or service.allow_plaintext = true"
        )
    return Dial(host=host, port=port, tls=tls, username=username, password=password, proxy_protocol=proxy)


def _credentials(mqtt: MqttSection) -> tuple[str | None, bytes | None]:
    path = mqtt.upstream_password_file
    if path is None:
        return mqtt.upstream_username or None, None
    if not mqtt.upstream_username:  # MQTT-3.1.2-22: no password without a user name
        raise StartError("mqtt.upstream_password_file needs mqtt.upstream_username")
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise StartError(f"mqtt.upstream_password_file: cannot read `{path}`: {error.strerror}") from error
    if not lines or not lines[0]:
        raise StartError(f"mqtt.upstream_password_file: the first line of `{path}` is empty")
    if path.stat().st_mode & 0o077:
        log.warning("password_file_readable_by_others", file=str(path), remedy=f"chmod 600 {path}")
    return mqtt.upstream_username, lines[0]


def _tls(mqtt: MqttSection) -> ssl.SSLContext | None:
    files = {
        "upstream_tls_ca": mqtt.upstream_tls_ca,
        "upstream_tls_cert": mqtt.upstream_tls_cert,
        "upstream_tls_key": mqtt.upstream_tls_key,
    }
    if not mqtt.upstream_tls:
        for name, file in files.items():
            if file is not None:
                raise StartError(f"mqtt.{name} is set, but mqtt.upstream_tls is not: the upstream would get plain text")
        return None
    for name, file in files.items():
        if file is not None and not file.is_file():
            raise StartError(f"mqtt.{name}: `{file}` is no file")
    if mqtt.upstream_tls_key is not None and mqtt.upstream_tls_cert is None:
        raise StartError("mqtt.upstream_tls_key needs mqtt.upstream_tls_cert")
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=mqtt.upstream_tls_ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.hostname_checks_common_name = False  # RFC 9525, 2: a name is a subject alternative name
        if mqtt.upstream_tls_cert is not None:
            context.load_cert_chain(mqtt.upstream_tls_cert, mqtt.upstream_tls_key, password="")
    except (ssl.SSLError, OSError) as error:
        raise StartError(f"mqtt.upstream_tls: cannot use the certificates: {error}") from error
    return context
