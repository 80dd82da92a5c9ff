"""Where the service listens: addresses from settings and broker file, and which of them are refused."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import replace
from typing import Any

from authsvc.core.errors import InvalidInput
from authsvc.first_start import StartError
from authsvc.settings import Settings
from broker.config_file import load_broker_config
from broker.listeners import Listener

DEFAULT_LISTENER = "default"
HTTP_BACKLOG = 512


def parse_bind(text: str, what: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[ipv6]:port``. Raises StartError naming `what`."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise StartError(f"{what}: `{text}` is no address; give host:port, for example 127.0.0.1:1883 or [::1]:1883")
    return host, int(port)


def mqtt_listeners(settings: Settings) -> tuple[list[Listener], dict[str, Any]]:
    """Return the gate's listeners and amqtt's part of the broker file. Raises StartError.

    `mqtt.bind` makes the listener `default`; where a broker file has one, only if it was set on purpose.
    """
    listeners: list[Listener] = []
    amqtt: dict[str, Any] = {}
    given = "bind" in settings.mqtt.model_fields_set
    if settings.mqtt.broker_config is not None:
        try:
            file = load_broker_config(settings.mqtt.broker_config)
        except InvalidInput as error:
            raise StartError(error.detail) from None
        listeners, amqtt = list(file.listeners), file.amqtt
    if given or not listeners:
        host, port = parse_bind(settings.mqtt.bind, "mqtt.bind")
        at = next((n for n, listener in enumerate(listeners) if listener.name == DEFAULT_LISTENER), None)
        if at is None:
            listeners.insert(0, Listener(name=DEFAULT_LISTENER, host=host, port=port))
        else:
            listeners[at] = replace(listeners[at], host=host, port=port)
    for listener in listeners:
        if listener.tls is None:
            check_plaintext(listener.host, listener.port, f"MQTT listener `{listener.name}`", settings)
    return listeners, amqtt


def check_plaintext(host: str | None, port: int, what: str, settings: Settings) -> None:
    """Raise StartError if the address can be reached from other machines and plain text there was not allowed."""
    if settings.service.allow_plaintext or is_loopback(host):
        return
    raise StartError(
        f"{what} on `{host or '*'}:{port}` would carry tokens without TLS to other machines; give it a certificate, "
        "bind it to 127.0.0.1 behind a TLS proxy, or set `service.allow_plaintext = true`"
    )


def is_loopback(host: str | None) -> bool:
    """Return whether only this machine reaches the address; a name other than `localhost` is not trusted to be it."""
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def http_socket(settings: Settings) -> socket.socket:
    """Return the bound socket of the HTTP API, not listening yet. Raises StartError naming the address."""
    host, port = parse_bind(settings.http.bind, "http.bind")
    check_plaintext(host, port, "the HTTP API", settings)
    return bound_socket(host, port, "HTTP API")


def bound_socket(host: str, port: int, what: str) -> socket.socket:
    """Return a socket that is bound to the address. Raises StartError naming it and `what`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"{what}: cannot listen on `{host}:{port}`: {error.strerror}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
        bound.listen(HTTP_BACKLOG)  # a port that another process listens on shows itself here
    except OSError as error:
        bound.close()
        raise StartError(f"{what}: cannot listen on `{host}:{port}`: {error.strerror}") from error
    return bound


def shown(host: str, port: int) -> str:
    """Return the address as an operator writes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
