"""The complete, safe configuration of each broker, from one template per file.

A template's `@{name}` is filled with text that is escaped for its file's syntax here: JSON strings for HOCON and TOML
(both take them as they are), plain words for the line formats, whose values `installation` has checked to hold no
comment sign, quotation mark or control character. Sources of each broker's syntax stand beside its function.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final
from urllib.parse import urlsplit

from authsvc.brokerconfig.installation import KINDS, Installation, is_loopback
from authsvc.brokerconfig.sections import MANAGEMENT, quoted, settings_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """One file of a broker: the name that it has in ``config/``, and its whole text."""

    name: str
    text: str


class _Template(string.Template):
    delimiter = "@"


def render(installation: Installation) -> tuple[Rendered, ...]:
    """Return the files that the broker of `installation` needs, the main one first."""
    return _FILES[installation.kind](installation)


def default_files() -> dict[str, str]:
    """Return what stands in ``config/``: every file of every broker, for an installation on one machine."""
    return {file.name: file.text for kind in KINDS for file in render(Installation(kind=kind))}


def _fill(template: str, installation: Installation, values: Mapping[str, str]) -> str:
    text = resources.files("authsvc.brokerconfig").joinpath("templates", template).read_text(encoding="utf-8")
    given = {
        "made_by": f"authsvc config {installation.kind}",
        "version": f" {installation.version}" if installation.version else "",
        "settings": _as_comments(installation),
        **values,
    }
    # A line that is nothing but a block which is empty in this case is left out.
    empty = {f"@{{{name}}}" for name, value in given.items() if not value}
    kept = "\n".join(line for line in text.splitlines() if line not in empty)
    return _Template(kept).substitute(given).rstrip() + "\n"


def _as_comments(installation: Installation) -> str:
    lines = ["# The settings of authsvc that belong to it:"]
    lines += [f"#   {line}" for line in settings_lines(installation).splitlines()]
    if installation.secure and installation.tls_cert:
        lines += [
            "#   [hooks]  # a listener that answers only who shows a certificate",
            '#   bind = "HOST:PORT"',
            '#   tls_cert = "…"',
            '#   tls_key = "…"',
            '#   tls_client_ca = "…"  # what issued the certificate of this broker',
        ]
    return "\n".join(lines)


def _management_port(installation: Installation) -> str:
    """Return the port of the management interface on this machine, that of `management_url` if it is here."""
    url = installation.management_url or MANAGEMENT[installation.kind]
    parts = urlsplit(url)
    here = parts.scheme == "http" and is_loopback(parts.hostname or "")
    return str(parts.port if here and parts.port else urlsplit(MANAGEMENT[installation.kind]).port)


def _caller(installation: Installation) -> str:
    """Return how authsvc knows a broker whose HTTP client sends no header of our choice."""
    if installation.tls_cert:
        return "# It shows the client certificate below to authsvc; keep its key readable for the broker alone."
    if installation.secret_file:
        return (
            f"# SECRET, in the addresses below, stands for the content of {installation.secret_file} : put it there\n"
            "# (letters and digits need no escaping), and let only the broker read this file: mode 0640 or less.\n"
            "# It is sent as the password of Basic authentication, since this broker sends no header of our choice."
        )
    return (
        "# It sends no secret: whoever can ask 127.0.0.1 on this machine can ask the hooks. With --secret-file it\n"
        "# shows one in the address."
    )


def _emqx(installation: Installation) -> tuple[Rendered, ...]:
    """EMQX 5.0 to 6.

    emqx/emqx: apps/emqx_auth_http/src/emqx_authn_http_schema.erl and emqx_authz_http_schema.erl (fields; https needs
    `ssl.enable`), apps/emqx/src/emqx_schema.erl (`no_match`, `cache`; listeners: `enabled` up to 5.2, `enable`
    after), emqx_auth_cache_schema.erl (`node_cache` since 5.9), changes/v5.0.12-en.md (elements of arrays by
    environment variables). `${qos}` and `${retain}` are known to the authorizer since 5.3,
    `${peerport}` to the authenticator since 5.9.
    """
    enable = "enable" if installation.at_least(5, 3) else "enabled"
    opened = "ssl" if installation.bind_cert else "tcp"
    listeners = []
    for protocol in ("tcp", "ssl", "ws", "wss"):
        if protocol != opened:
            listeners.append(f"  {protocol}.default.{enable} = false")
            continue
        listeners += [f"  {protocol}.default {{", f"    {enable} = true", f"    bind = {quoted(installation.bind)}"]
        if installation.bind_cert:
            listeners += [
                "    ssl_options {",
                f"      certfile = {quoted(installation.bind_cert)}",
                f"      keyfile = {quoted(installation.bind_key)}",
                "    }",
            ]
        listeners.append("  }")
    ssl = []
    if installation.secure:
        ssl += ["ssl {", "  enable = true", "  verify = verify_peer"]
        for key, file in (
            ("cacertfile", installation.tls_ca),
            ("certfile", installation.tls_cert),
            ("keyfile", installation.tls_key),
        ):
            ssl += [f"  {key} = {quoted(file)}"] if file else []
        ssl.append("}")
    node_cache = installation.at_least(5, 9)
    values = {
        "secret_file": installation.secret_file,
        "listeners": "\n".join(listeners),
        "authn_url": quoted(f"{installation.hooks}/authn"),
        "authz_url": quoted(f"{installation.hooks}/authz"),
        "peerport": '      peerport = "${peerport}"' if installation.at_least(5, 9) else "",
        "ssl": "\n".join(f"    {line}" for line in ssl),
        "authz_ssl": "\n".join(f"      {line}" for line in ssl),
        "authentication_settings": (
            "\n# A cached answer would let a revoked token in again.\n"
            "authentication_settings {\n  node_cache {\n    enable = false\n  }\n}"
            if node_cache
            else ""
        ),
        "node_cache": "  node_cache {\n    enable = false\n  }" if node_cache else "",
        "qos_and_retain": '        qos = "${qos}"\n        retain = "${retain}"' if installation.at_least(5, 3) else "",
    }
    return (Rendered(name="emqx.conf", text=_fill("emqx.conf", installation, values)),)


VERNEMQ_HOOKS: Final = tuple(
    f"{hook}{suffix}" for suffix in ("", "_m5") for hook in ("auth_on_register", "auth_on_publish", "auth_on_subscribe")
)

_VERNEMQ_TELLS: Final = ("on_client_gone", "on_client_offline")


def _vernemq(installation: Installation) -> tuple[Rendered, ...]:
    """VerneMQ 1.13 to 2.2.

    vernemq/vernemq: apps/vmq_server/priv/vmq_server.schema (plugins.vmq_passwd and vmq_acl are on by default),
    apps/vmq_webhooks/priv/vmq_webhooks.schema; vernemq/vmq-docs: plugindevelopment/webhookplugins.md.
    """
    kind = "ssl" if installation.bind_cert else "tcp"
    listeners = [f"listener.{kind}.default = {installation.bind}"]
    if installation.bind_cert:
        listeners += [
            f"listener.ssl.certfile = {installation.bind_cert}",
            f"listener.ssl.keyfile = {installation.bind_key}",
        ]
    listeners.append(f"listener.{kind}.allowed_protocol_versions = 3,4,5")
    hooks = []
    for hook in (*VERNEMQ_HOOKS, *_VERNEMQ_TELLS):
        name = f"vmq_webhooks.{hook}"
        hooks += [f"{name}.hook = {hook}", f"{name}.endpoint = {installation.hooks_with_secret}"]
        if "publish" in hook:
            hooks.append(f"{name}.no_payload = on")
    tls = []
    if installation.secure:
        tls = [
            "vmq_webhooks.verify_peer = on",
            "vmq_webhooks.tls_version = tlsv1.2",
            *([f"vmq_webhooks.cafile = {installation.tls_ca}"] if installation.tls_ca else []),
            *([f"vmq_webhooks.certfile = {installation.tls_cert}"] if installation.tls_cert else []),
            *([f"vmq_webhooks.keyfile = {installation.tls_key}"] if installation.tls_key else []),
        ]
    values = {
        "caller": _caller(installation),
        "management_port": _management_port(installation),
        "listeners": "\n".join(listeners),
        "hooks": "\n".join(hooks),
        "tls": "\n".join(["", *tls]) if tls else "",
    }
    return (Rendered(name="vernemq.conf", text=_fill("vernemq.conf", installation, values)),)


def _rabbitmq(installation: Installation) -> tuple[Rendered, ...]:
    """RabbitMQ 3.9 to 4.3.

    rabbitmq/rabbitmq-server: deps/rabbitmq_mqtt/priv/schema (allow_anonymous is true by default),
    deps/rabbitmq_auth_backend_http/README.md and priv/schema (`auth_http.ssl_options` since 4.0, before that in
    advanced.config), deps/rabbit/priv/schema (`anonymous_login_user` since 4.0).
    """
    listeners = ["mqtt.listeners.tcp.1 = " + installation.bind]
    if installation.bind_cert:
        listeners = [
            "mqtt.listeners.tcp = none",
            "mqtt.listeners.ssl.1 = " + installation.bind,
            f"ssl_options.certfile = {installation.bind_cert}",
            f"ssl_options.keyfile = {installation.bind_key}",
        ]
    files = []
    tls: list[str] = []
    if installation.secure:
        given = (
            ("cacertfile", installation.tls_ca),
            ("certfile", installation.tls_cert),
            ("keyfile", installation.tls_key),
        )
        if installation.at_least(4, 0):
            tls = [f"auth_http.ssl_options.{key} = {file}" for key, file in given if file]
            tls.append("auth_http.ssl_options.verify = verify_peer")
        else:
            options = "\n".join(f"      {{{key}, {quoted(file)}}}," for key, file in given if file)
            text = _fill("advanced.config", installation, {"options": options})
            files.append(Rendered(name="advanced.config", text=text))
    values = {
        "advanced": " and advanced.config" if files else "",
        "caller": _caller(installation),
        "listeners": "\n".join(listeners),
        "management_port": _management_port(installation),
        "anonymous": "anonymous_login_user = none" if installation.at_least(4, 0) else "",
        "hooks": installation.hooks_with_secret,
        "tls": "\n".join(tls),
    }
    main = Rendered(name="rabbitmq.conf", text=_fill("rabbitmq.conf", installation, values))
    plugins = Rendered(name="enabled_plugins", text=_fill("enabled_plugins", installation, {}))
    return (main, plugins, *files)


def _nanomq(installation: Installation) -> tuple[Rendered, ...]:
    """NanoMQ 0.19 and later.

    nanomq/nanomq: docs/en_US/config-description/acl.md (allow_anonymous and no_match allow by default) and listener.md;
    nanomq/NanoNNG: src/sp/protocol/mqtt/auth_http.c (JSON is escaped, forms were not always; nobody is verified;
    requests without headers carry no parameters), src/supplemental/nanolib/conf_ver2.c (`auth.http_auth`, `include`).
    """
    kind = "ssl" if installation.bind_cert else "tcp"
    listeners = [f"listeners.{kind} {{", f"  bind = {quoted(installation.bind)}"]
    if installation.bind_cert:
        listeners += [
            f"  keyfile = {quoted(installation.bind_key)}",
            f"  certfile = {quoted(installation.bind_cert)}",
            "  verify_peer = false",
        ]
    headers = f"/etc/nanomq/{installation.name}-headers.conf"
    values = {
        "secret_file": installation.secret_file,
        "headers_file": headers,
        "headers_path": quoted(headers),
        "listeners": "\n".join([*listeners, "}"]),
        "auth_url": quoted(f"{installation.hooks}/auth"),
        "acl_url": quoted(f"{installation.hooks}/acl"),
    }
    return (Rendered(name="nanomq.conf", text=_fill("nanomq.conf", installation, values)),)


def _mosquitto_listener(installation: Installation) -> str:
    """Return the arguments of ``listener`` (mosquitto.conf(5): port and address, or 0 and a socket path since 2.0)."""
    if installation.bind.startswith("/"):
        return f"0 {installation.bind}"
    return f"{installation.port} {installation.host.strip('[]')}"


def _goauth(installation: Installation) -> tuple[Rendered, ...]:
    """Mosquitto 1.6 to 2.0 with mosquitto-go-auth 3 (iegomez/mosquitto-go-auth: README.md, backends/http.go)."""
    listeners = [f"listener {_mosquitto_listener(installation)}"]
    if installation.bind_cert:
        listeners += [f"certfile {installation.bind_cert}", f"keyfile {installation.bind_key}"]
    parts = urlsplit(installation.hooks)
    values = {
        "listeners": "\n".join(listeners),
        "caller": _caller(installation),
        "http_host": ("authsvc:SECRET@" if installation.secret_file else "") + (parts.hostname or ""),
        "http_port": str(parts.port or 80),
        "hooks_path": parts.path,
    }
    text = _fill("mosquitto-go-auth.conf", installation, values)
    return (Rendered(name="mosquitto-go-auth.conf", text=text),)


def _mosquitto(installation: Installation) -> tuple[Rendered, ...]:
    """Mosquitto 2.0 and later behind the gate (mosquitto.conf(5))."""
    values = {"listener": _mosquitto_listener(installation), "upstream": installation.bind}
    return (Rendered(name="mosquitto.conf", text=_fill("mosquitto.conf", installation, values)),)


def _aedes(installation: Installation) -> tuple[Rendered, ...]:
    """Aedes 1 with the adapter of ``broker/aedes`` (its index.d.ts); strings of JSON are strings of JavaScript."""
    secure = bool(installation.bind_cert)
    files = (("ca", installation.tls_ca), ("cert", installation.tls_cert), ("key", installation.tls_key))
    tls = ",\n".join(f"    {key}: readFileSync({quoted(file)})" for key, file in files if file)
    options = ""
    if secure:
        pair = (("cert", installation.bind_cert), ("key", installation.bind_key))
        options = "{\n" + ",\n".join(f"  {key}: readFileSync({quoted(file)})" for key, file in pair) + "\n}, "
    values = {
        "settings": _as_comments(installation).replace("#", "//", 1).replace("\n#", "\n//"),
        "server": "tls" if secure else "net",
        "readers": "import { readFileSync } from 'node:fs'" if tls or secure else "",
        "url": quoted(installation.url),
        "name": quoted(installation.name),
        "secret_file": quoted(installation.secret_file),
        "tls": f"  tls: {{\n{tls}\n  }}" if tls else "",
        "options": options,
        "port": installation.port,
        "host": quoted(installation.host.strip("[]")),
    }
    text = _fill("aedes.mjs", installation, values).replace(",\n})", "\n})")
    return (Rendered(name="aedes.mjs", text=text),)


_FILES: Final[Mapping[str, Callable[[Installation], tuple[Rendered, ...]]]] = {
    "emqx": _emqx,
    "vernemq": _vernemq,
    "rabbitmq": _rabbitmq,
    "nanomq": _nanomq,
    "mosquitto-go-auth": _goauth,
    "mosquitto": _mosquitto,
    "aedes": _aedes,
}
