"""`broker.yaml`: a plain amqtt configuration, read as listeners of the gate and the rest for amqtt.

The same file starts a stock amqtt. Here its listeners are opened by the gate, and amqtt gets none of its own.
"""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin

from authsvc.core.errors import InvalidInput
from broker.listeners import Listener
from broker.proxy_protocol import Network, network_of

DEFAULT_PORTS: Final = {"tcp": 1883, "ws": 8883}  # amqtt's own, also with TLS

_TOP: Final = frozenset({"listeners", "plugins", "timeout_disconnect_delay", "session_expiry_interval"})
_LISTENER: Final = frozenset(
    {"type", "bind", "max_connections", "ssl", "cafile", "capath", "cadata", "certfile", "keyfile", "proxy_protocol"}
)
_DECIDED_HERE: Final = "authsvc decides who connects and what he may do; take it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFile:
    """What the file says: where the gate listens, and what amqtt is given."""

    listeners: tuple[Listener, ...]
    amqtt: dict[str, Any]


def load_broker_config(path: Path) -> BrokerFile:
    """Return the parsed file. Raises InvalidInput (code `broker_config`) that names the file and the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(str(path), "", f"cannot be read: {error}") from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise _invalid(str(path), "", f"is not YAML{line}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise _invalid(str(path), "", "must be a mapping of keys")
    return parse_broker_config(content, where=str(path), folder=path.parent)


def parse_broker_config(content: Mapping[str, Any], *, where: str, folder: Path) -> BrokerFile:
    """Return the listeners and amqtt's part of a configuration; relative paths are taken from `folder`.

    Raises:
        InvalidInput: with the name `where` and the key in its message.
    """
    check_amqtt_config({str(key): value for key, value in content.items() if key != "listeners"}, where=where)
    rest = {_underscored(key): value for key, value in content.items() if key != "listeners"}
    listeners = content.get("listeners", {"default": {}})
    if not isinstance(listeners, Mapping) or not listeners:
        raise _invalid(where, "listeners", "must be a mapping of names to listeners")
    # As in amqtt: what a listener leaves out is taken from `default`
    common = _section(listeners.get("default"), where, "listeners.default")
    opened = tuple(
        _listener(str(name), {**common, **_section(entry, where, f"listeners.{name}")}, where=where, folder=folder)
        for name, entry in listeners.items()
    )
    rest["plugins"] = _plugins(rest.get("plugins"), where)
    return BrokerFile(listeners=opened, amqtt=rest)


def check_amqtt_config(config: Mapping[str, Any], *, where: str) -> None:
    """Refuse what would decide beside us, and what amqtt does not know.

    Raises:
        InvalidInput: an `auth` or `topic_check` section, an authentication or topic plugin, an unknown key.
    """
    for key in map(str, config):
        name = _underscored(key)
        if name in {"auth", "topic_check"}:
            raise _invalid(where, key, _DECIDED_HERE)
        if name == "sys_interval":
            raise _invalid(
                where, key, "is deprecated by amqtt; name `amqtt.plugins.sys.broker.BrokerSysPlugin` instead"
            )
        if name not in _TOP:
            raise _invalid(where, key, f"is unknown; known keys: {', '.join(sorted(_TOP))}")
    for path in _plugins(config.get("plugins"), where):
        _check_plugin(path, where)


def _check_plugin(path: str, where: str) -> None:
    key = f"plugins.{path}"
    module, _, name = path.rpartition(".")
    try:
        plugin = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise _invalid(where, key, f"cannot be imported: {error}") from error
    if not isinstance(plugin, type) or not issubclass(plugin, BasePlugin):
        raise _invalid(where, key, "is not a plugin of amqtt (a subclass of BasePlugin)")
    if issubclass(plugin, BaseAuthPlugin):
        raise _invalid(where, key, f"is an authentication plugin; {_DECIDED_HERE}")
    if issubclass(plugin, BaseTopicPlugin):
        raise _invalid(where, key, f"is a topic plugin; {_DECIDED_HERE}")


def _plugins(value: object, where: str) -> dict[str, dict[str, Any]]:
    """Return dotted path to configuration from any form that amqtt takes."""
    entries: list[object] = []
    if isinstance(value, Mapping):
        entries = [{path: config} for path, config in value.items()]
    elif isinstance(value, list):
        entries = list(value)
    elif value is not None:
        raise _invalid(where, "plugins", "must be a mapping of dotted paths to their configuration")
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if isinstance(entry, str):
            found[entry] = {}
        elif isinstance(entry, Mapping):
            for path, config in entry.items():
                found[str(path)] = _section(config, where, f"plugins.{path}")
        else:
            raise _invalid(where, "plugins", "must hold dotted paths of plugin classes")
    return found


def _listener(name: str, entry: Mapping[str, Any], *, where: str, folder: Path) -> Listener:
    at = f"listeners.{name}"
    for key in entry:
        if _underscored(str(key)) not in _LISTENER:
            raise _invalid(where, f"{at}.{key}", f"is unknown; known keys: {', '.join(sorted(_LISTENER))}")
    settings = {_underscored(str(key)): value for key, value in entry.items()}
    kind = settings.get("type", "tcp")
    if kind not in DEFAULT_PORTS:
        raise _invalid(where, f"{at}.type", f"is `{kind}`; known types: tcp, ws")
    bind = settings.get("bind", "0.0.0.0:1883")  # amqtt's default; plain text off loopback is refused later
    try:
        host, port = split_bind(str(bind), DEFAULT_PORTS[kind])
    except ValueError as error:
        raise _invalid(where, f"{at}.bind", f"is `{bind}`: {error}") from error
    most = settings.get("max_connections", 0)
    if not isinstance(most, int) or isinstance(most, bool):
        raise _invalid(where, f"{at}.max_connections", f"is `{most}`; a whole number is needed")
    wants_tls = settings.get("ssl", False)
    if not isinstance(wants_tls, bool):
        raise _invalid(where, f"{at}.ssl", f"is `{wants_tls}`; `true` or `false` is needed")
    return Listener(
        name=name,
        host=host,
        port=port,
        tls=_tls(settings, where=where, at=at, folder=folder) if wants_tls else None,
        websocket=kind == "ws",
        max_connections=most if most > 0 else None,  # amqtt: 0 and -1 are without limit
        proxies=_proxies(settings.get("proxy_protocol"), where, f"{at}.proxy-protocol"),
    )


def _proxies(value: object, where: str, key: str) -> tuple[Network, ...]:
    """Return the networks whose PROXY headers are believed: a key of our own, which a stock amqtt does not know."""
    entries = [value] if isinstance(value, str) else value
    if entries is None:
        return ()
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise _invalid(where, key, "must be a list of the proxies' addresses or networks, for example [10.0.0.5]")
    try:
        return tuple(network_of(entry) for entry in entries)
    except ValueError as error:
        raise _invalid(where, key, f"holds no network: {error}") from error


def split_bind(bind: str, default_port: int) -> tuple[str, int]:
    """Return host and port of amqtt's forms of `bind`; an empty host is every interface.

    `1883`, `:1883`, `host`, `host:1883`, `[::1]`, `[::1]:1883`, and empty. Raises ValueError.
    """
    if bind.startswith("["):
        host, bracket, after = bind[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise ValueError("expecting `[address]:port`")
        return host, _port(after.removeprefix(":"), default_port)
    host, colon, after = bind.rpartition(":")
    if colon:
        if ":" in host:
            raise ValueError("an IPv6 address stands in brackets: `[::1]:1883`")
        return host, _port(after, default_port)
    if not bind or bind.isdecimal():
        return "", _port(bind, default_port)
    return bind, default_port


def _port(text: str, default: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or int(text) > 65_535:
        raise ValueError(f"`{text}` is not a port number")
    return int(text)


def _tls(settings: Mapping[str, Any], *, where: str, at: str, folder: Path) -> ssl.SSLContext:
    files: dict[str, Path] = {}
    for key in ("certfile", "keyfile", "cafile", "capath"):
        if settings.get(key) is None:
            if key in {"certfile", "keyfile"}:
                raise _invalid(where, f"{at}.{key}", "is missing; `ssl: true` needs it")
            continue
        files[key] = folder / str(settings[key])
        if not files[key].exists():
            raise _invalid(where, f"{at}.{key}", f"does not exist: {files[key]}")
    try:
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH,
            cafile=files.get("cafile"),
            capath=files.get("capath"),
            cadata=settings.get("cadata"),
        )
        context.load_cert_chain(files["certfile"], files["keyfile"])
    except (ssl.SSLError, OSError) as error:
        raise _invalid(where, f"{at}.certfile", f"cannot be used for TLS: {error}") from error
    if {"cafile", "capath", "cadata"} & {key for key in settings if settings[key] is not None}:
        context.verify_mode = ssl.CERT_OPTIONAL  # as amqtt does: a certificate is checked if one is shown
    return context


def _section(value: object, where: str, key: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _invalid(where, key, "must be a mapping")
    return {str(name): setting for name, setting in value.items()}


def _underscored(key: object) -> str:
    return str(key).replace("-", "_")


def _invalid(where: str, key: str, problem: str) -> InvalidInput:
    at = f"{where}: `{key}`" if key else where
    return InvalidInput("broker_config", f"{at} {problem}", field=key)
