"""From the settings ``[hooks]`` and ``[brokers.NAME]`` to what is attached; no door without knowing its callers.

A hook's answer opens a broker's door, so its caller must be known: by a shared secret, by a client certificate, or by
being on this machine.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from authsvc.adapters.adapter import AttachedConfig
from authsvc.adapters.caller import MIN_SECRET_CHARACTERS
from authsvc.adapters.routes import MODULES
from authsvc.first_start import StartError
from authsvc.listening import check_plaintext, is_loopback, parse_bind
from authsvc.settings import BrokerSection, Settings

_SCHEMES: Final = ("http", "https")


def attached_configs(settings: Settings) -> list[AttachedConfig]:
    """Return a configuration for each attached broker. Raises StartError that names the setting and the way out."""
    return [_config(name, section, settings) for name, section in settings.brokers.items()]


def hooks_address(settings: Settings) -> tuple[str, int] | None:
    """Return where the hooks listen by themselves, or None: the HTTP API's listener serves them. Raises StartError."""
    hooks = settings.hooks
    if not hooks.bind:
        if hooks.tls_cert or hooks.tls_key or hooks.tls_client_ca:
            raise StartError(
                "`hooks.tls_cert`, `tls_key` and `tls_client_ca` need `hooks.bind`: a listener of their own"
            )
        return None
    host, port = parse_bind(hooks.bind, "hooks.bind")
    if (hooks.tls_cert is None) != (hooks.tls_key is None) or (hooks.tls_client_ca and hooks.tls_cert is None):
        raise StartError("`hooks.tls_cert` and `hooks.tls_key` go together, and `hooks.tls_client_ca` needs both")
    if hooks.tls_cert is None:
        check_plaintext(host, port, "the listener of the hooks", settings)
    return host, port


def check_callers(settings: Settings, configs: list[AttachedConfig]) -> None:
    """Raise StartError if a broker's hooks could be called by whoever reaches their listener."""
    if settings.hooks.bind and settings.hooks.tls_client_ca:
        return
    bind = settings.hooks.bind or settings.http.bind
    if is_loopback(parse_bind(bind, "hooks.bind")[0]):
        return
    for config in configs:
        if not config.secrets:
            raise StartError(
                f"`brokers.{config.name}` has no `secret`, and other machines can call its hooks on `{bind}`; "
                "set one, demand client certificates (`hooks.tls_client_ca`), or bind to 127.0.0.1"
            )


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return how the hooks' own listener speaks TLS, or None. Raises StartError naming the file."""
    hooks = settings.hooks
    if hooks.tls_cert is None or hooks.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(hooks.tls_cert, hooks.tls_key)
        if hooks.tls_client_ca is not None:
            context.load_verify_locations(hooks.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"hooks: cannot use the TLS files: {error}") from error
    return context


def _config(name: str, section: BrokerSection, settings: Settings) -> AttachedConfig:
    kind = section.kind or name
    if kind not in MODULES:
        raise StartError(f"`brokers.{name}.kind`: `{kind}` is no kind of broker; known kinds: {', '.join(MODULES)}")
    if name == settings.service.name:
        raise StartError(f"`brokers.{name}`: the gate's sessions go by that name (`service.name`); choose another")
    url = section.management_url.rstrip("/")
    parts = urlsplit(url)
    if url and (parts.scheme not in _SCHEMES or not parts.hostname or parts.username or parts.query or parts.fragment):
        raise StartError(f"`brokers.{name}.management_url` must be `http(s)://host:port`; user and password go apart")
    password = section.management_password.get_secret_value()
    if section.management_password_file is not None:
        password = _read(section.management_password_file, f"brokers.{name}.management_password_file").strip()
    return AttachedConfig(
        name=name,
        kind=kind,
        secrets=_secrets(name, section),
        management_url=url,
        management_user=section.management_user,
        management_password=password,
        vhost=section.vhost,
        hold_s=section.hold_s,
    )


def _secrets(name: str, section: BrokerSection) -> tuple[str, ...]:
    found = [section.secret.get_secret_value(), section.previous_secret.get_secret_value()]
    if section.secret_file is not None:
        if any(found):
            raise StartError(
                f"`brokers.{name}.secret_file` replaces `secret` and `previous_secret`: set one or the other"
            )
        found = [line.strip() for line in _read(section.secret_file, f"brokers.{name}.secret_file").splitlines()]
        if not any(found):
            raise StartError(f"`brokers.{name}.secret_file`: the file holds no secret")
    secrets = tuple(secret for secret in found if secret)
    for secret in secrets:
        if len(secret) < MIN_SECRET_CHARACTERS or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise StartError(
                f"`brokers.{name}`: a secret must be {MIN_SECRET_CHARACTERS} or more printable ASCII characters "
                "without spaces, for example from `openssl rand -hex 32`"
            )
    return secrets


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"`{what}`: cannot read `{path}`: {error}") from error
