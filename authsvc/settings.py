"""Every setting of the service: a TOML file, then ``AUTHSVC__SECTION__KEY`` in the environment, then flags.

An unknown key is an error that names the key and those that exist: a misspelt limit must not be an absent limit.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from authsvc.core.errors import InvalidInput

ENV_PREFIX = "AUTHSVC__"
DEFAULT_MQTT_BIND = "127.0.0.1:1883"
DEFAULT_HTTP_BIND = "127.0.0.1:8080"
BROKERS = "brokers"  # the section of sections ``[brokers.NAME]``
_BROKER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


class Section(BaseModel):
    """A part of the settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: None if value == "" else value)]


class ServiceSection(Section):
    data: Path = Path("var")
    """Directory of the database, the first admin key and the lock; created with mode 0700."""
    name: str = Field(default="authsvc", min_length=1, max_length=64)
    """Name of this process, shown as `broker` of its sessions."""
    allow_plaintext: bool = False
    """Open listeners without TLS on addresses that other machines can reach."""


class MqttSection(Section):
    bind: str = DEFAULT_MQTT_BIND
    """Address of the listener `default`, `host:port`; set on purpose, it replaces that listener of a broker file."""
    broker_config: OptionalPath = None
    """An amqtt configuration file whose listeners are opened; empty for one listener on `bind`."""
    upstream: str = ""
    """`host:port` or a Unix socket path of a broker to stand in front of; empty for the one that `broker` names."""
    broker: Literal["auto", "amqtt", "mosquitto", "rumqttd"] = "amqtt"
    """The broker to run; `auto` takes Mosquitto if it is installed, else rumqttd if its extra is, else amqtt."""
    run_as: str = ""
    """User that a managed Mosquitto or rumqttd runs as; needed where the service is root, which no broker may be."""
    upstream_username: str = ""
    """User name that the gate gives the upstream; empty for none."""
    upstream_password_file: OptionalPath = None
    """File whose first line is the password that the gate gives the upstream."""
    upstream_tls: bool = False
    """Speak TLS to the upstream, and check its certificate and name."""
    upstream_tls_ca: OptionalPath = None
    """Certificates of those who may sign the upstream's; empty for those that the system trusts."""
    upstream_tls_cert: OptionalPath = None
    """Certificate that the gate shows the upstream, with its chain."""
    upstream_tls_key: OptionalPath = None
    """Key of that certificate; empty if it is in the same file."""
    upstream_mqtt5: Literal["auto", "yes", "no"] = "auto"
    """Whether the upstream speaks MQTT 5.0; `auto` asks it whenever the gate has connected."""
    upstream_proxy_protocol: bool = False
    """Begin each upstream connection with a PROXY protocol v2 header that carries the client's address."""
    on_denied_publish: Literal["drop", "disconnect"] = "drop"
    """What a denied PUBLISH does: acknowledged and dropped, or the connection ends."""


class HttpSection(Section):
    bind: str = DEFAULT_HTTP_BIND
    """Address of the HTTP API, `host:port`."""


class HooksSection(Section):
    bind: str = ""
    """Address of a listener of their own for the hooks, `host:port`; empty: the HTTP API's listener serves them."""
    tls_cert: OptionalPath = None
    """Certificate chain of that listener, PEM."""
    tls_key: OptionalPath = None
    """Private key of that certificate, PEM."""
    tls_client_ca: OptionalPath = None
    """Certificates that issue the brokers' client certificates, PEM: with it who shows none is not answered."""


class BrokerSection(Section):
    """One broker that asks by hooks under ``/hooks/NAME/``."""

    kind: str = ""
    """emqx, vernemq, rabbitmq, nanomq, goauth or aedes; empty: the same as NAME."""
    secret: SecretStr = SecretStr("")
    """What the broker shows as `Authorization: Bearer …` or `X-Authsvc-Secret`; at least 16 characters."""
    previous_secret: SecretStr = SecretStr("")
    """The secret before it, which is taken as well while a new one is rolled out."""
    secret_file: OptionalPath = None
    """A file with secrets in place of both, one per line."""
    management_url: str = ""
    """Where the broker is told to end connections, for example http://127.0.0.1:18083; empty: it cannot be told."""
    management_user: str = ""
    """User name or API key there."""
    management_password: SecretStr = SecretStr("")
    """Password or API secret there."""
    management_password_file: OptionalPath = None
    """A file with that password."""
    vhost: str = "/"
    """The only virtual host that is granted (rabbitmq)."""
    hold_s: float = Field(default=86_400.0, gt=0)
    """Seconds for which a client id stays with its principal after it was last known to be connected."""


class LimitsSection(Section):
    connect_s: float = Field(default=5.0, gt=0, le=300)
    """Seconds from the connection to the end of the CONNECT."""
    admission_s: float = Field(default=5.0, gt=0, le=300)
    """Seconds from the CONNECT to its answer; later it is refused as store_unavailable."""
    max_connect_bytes: int = Field(default=65_536, ge=1_024, le=1 << 20)
    """Largest CONNECT packet, in bytes."""
    max_packet_bytes: int = Field(default=262_144, ge=1_024, le=268_435_455)
    """Largest packet of an admitted client, in bytes."""
    max_connections: int = Field(default=10_000, ge=1)
    """Connections at once, over all listeners."""
    max_before_connect: int = Field(default=8_192, ge=1)
    """Of these, connections whose CONNECT has not come; about 4 KiB each, and at most 2,000 have begun theirs."""
    max_client_id_bytes: int = Field(default=256, ge=23, le=65_535)
    """Longest client id, in bytes of UTF-8."""
    max_subscriptions: int = Field(default=1_000, ge=1)
    """Subscriptions of one session; more answer 0x80."""
    max_topic_levels: int = Field(default=32, ge=1, le=1_000)
    """Levels of a topic filter; more answer 0x80."""
    max_persistent_sessions: int = Field(default=100, ge=1)
    """Persistent sessions of one principal, that is one thing or one ground token."""
    max_client_buffer_bytes: int = Field(default=1_048_576, ge=4_096)
    """Bytes waiting for a slow client before its connection ends."""
    max_open_qos2: int = Field(default=1_000, ge=1, le=65_535)
    """QoS 2 packet ids that one session may have open."""
    max_topic_aliases: int = Field(default=10, ge=1, le=65_535)
    """Topic aliases that one connection of MQTT 5.0 may use."""
    max_delayed_wills: int = Field(default=10_000, ge=1)
    """Wills of clients of MQTT 5.0 that are away, waiting for their delay."""
    max_retained_messages: int = Field(default=10_000, ge=1)
    """Retained messages, where they are kept in place of the broker."""
    max_retained_bytes: int = Field(default=67_108_864, ge=1_024)
    """Bytes of retained messages, where they are kept in place of the broker."""
    failed_connect_burst: int = Field(default=100, ge=1)
    """CONNECTs of one address that may fail by their credential before the failing ones are throttled."""
    failed_connects_per_s: float = Field(default=10.0, gt=0)
    """Failing CONNECTs that an address earns back per second; valid credentials are never throttled."""


class CacheSection(Section):
    things: int = Field(default=100_000, ge=0)
    """Things, and as many tokens, that are kept in memory; about 1 KiB each."""
    grants: int = Field(default=20_000, ge=0)
    """Compiled grants that are kept in memory; about 4 KiB each with the built-in rules."""


class LogSection(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged."""
    form: Literal["auto", "human", "json"] = "auto"
    """How: human readable, JSON lines, or `auto`: human on a terminal and JSON otherwise."""


class Settings(BaseSettings):
    """All settings, frozen. Make them with `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    service: ServiceSection = ServiceSection()
    mqtt: MqttSection = MqttSection()
    http: HttpSection = HttpSection()
    hooks: HooksSection = HooksSection()
    brokers: dict[str, BrokerSection] = {}
    limits: LimitsSection = LimitsSection()
    cache: CacheSection = CacheSection()
    log: LogSection = LogSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the signature is the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `load_settings` merged, nothing else: it reads the environment itself and refuses unknown keys."""
        return (init_settings,)


def load_settings(
    config: Path | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings of file, environment and flags, the later over the earlier.

    `flags` maps ``section.key`` to a value; None means not given. `environ` defaults to the process's.

    Raises:
        InvalidInput: code ``setting_unknown`` or ``setting_invalid``; the detail names the setting and its source.
    """
    merged: dict[str, dict[str, object]] = {}
    sources: dict[str, str] = {}
    for source, section, key, value in _given(config, flags or {}, os.environ if environ is None else environ):
        _check_known(section, key, source)
        place, _, name = section.partition(".")
        part = merged.setdefault(place, {})
        if name:
            part = part.setdefault(name, {})  # type: ignore[assignment]  # a section of sections
        part[key] = value
        sources[f"{section}.{key}"] = source
    try:
        return Settings(**merged)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"][: 3 if first["loc"][0] == BROKERS else 2])
        raise InvalidInput(
            "setting_invalid", f"{sources.get(place, 'settings')}: `{place}`: {first['msg'].lower()}", field=place
        ) from None


def described() -> list[tuple[str, str, str, str]]:
    """Return (``section.key``, environment variable, default, description) of every setting, in order."""
    rows = []
    for field in Settings.model_fields:
        section = f"{BROKERS}.NAME" if field == BROKERS else field
        for key, info in _section(section).model_fields.items():
            default = info.default
            name = f"{ENV_PREFIX}{section}__{key}".replace(".", "__").upper()
            rows.append((f"{section}.{key}", name, "" if default is None else str(default), info.description or ""))
    return rows


def _given(
    config: Path | None, flags: Mapping[str, object], environ: Mapping[str, str]
) -> list[tuple[str, str, str, object]]:
    found: list[tuple[str, str, str, object]] = []
    if config is not None:
        for section, values in _read(config).items():
            if not isinstance(values, dict):
                raise InvalidInput(
                    "setting_unknown", f"{config}: `{section}` stands outside a section; sections: {_sections()}"
                )
            if section == BROKERS:
                found.extend(_brokers_of(config, values))
                continue
            found.extend((str(config), section, key, value) for key, value in values.items())
    for name, text in environ.items():
        if name.startswith(ENV_PREFIX):
            section, _, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
            if section == BROKERS:
                broker, _, key = key.partition("__")
                section = f"{BROKERS}.{broker.replace('_', '-')}"  # no variable's name holds a hyphen
            found.append((name, section, key, text))
    for name, value in flags.items():
        if value is not None:
            section, _, key = name.partition(".")
            found.append((f"flag for `{name}`", section, key, value))
    return found


def _brokers_of(config: Path, brokers: Mapping[str, object]) -> list[tuple[str, str, str, object]]:
    found: list[tuple[str, str, str, object]] = []
    for name, values in brokers.items():
        if not isinstance(values, dict):
            detail = f"{config}: `{BROKERS}.{name}` stands outside a section; write `[{BROKERS}.NAME]` above it"
            raise InvalidInput("setting_unknown", detail, field=f"{BROKERS}.{name}")
        section = f"{BROKERS}.{name}"
        if not values:
            found.append((str(config), section, "kind", ""))
        found.extend((str(config), section, key, value) for key, value in values.items())
    return found


def _read(config: Path) -> dict[str, Any]:
    try:
        with config.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InvalidInput("setting_invalid", f"cannot read `{config}`: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("setting_invalid", f"`{config}` is not TOML: {error}") from error


def _check_known(section: str, key: str, source: str) -> None:
    place, _, name = section.partition(".")
    if place == BROKERS and not _BROKER_NAME.fullmatch(name):
        detail = f"{source}: `{name}` is no name of a broker; use 1 to 32 of `a-z 0-9 -`, not a hyphen first"
        raise InvalidInput("setting_unknown", detail, field=section)
    if place not in Settings.model_fields or (name and place != BROKERS):
        raise InvalidInput(
            "setting_unknown", f"{source}: unknown section `{section}`; sections: {_sections()}", field=section
        )
    known = _section(section).model_fields
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        raise InvalidInput(
            "setting_unknown",
            f"{source}: unknown setting `{section}.{key}`{hint} known in `{section}`: {', '.join(known)}",
            field=f"{section}.{key}",
        )


def _sections() -> str:
    return ", ".join(Settings.model_fields)


def _section(name: str) -> type[Section]:
    if name.startswith(f"{BROKERS}."):
        return BrokerSection
    model = Settings.model_fields[name].annotation
    assert isinstance(model, type)
    assert issubclass(model, Section)
    return model
