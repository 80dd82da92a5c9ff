"""What a broker's configuration has to know of this installation, checked once."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from authsvc.core.errors import InvalidInput

KINDS: Final = ("emqx", "vernemq", "rabbitmq", "nanomq", "mosquitto-go-auth", "mosquitto", "aedes")
HOOKED: Final = tuple(kind for kind in KINDS if kind != "mosquitto")
SHOWS_SECRET: Final = ("emqx", "nanomq", "aedes")  # where the secret need not stand in the configuration itself

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_VERSION = re.compile(r"\d{1,4}(\.\d{1,4}){0,3}")
# Everything that begins a comment, a substitution or a quotation in one of the files is left out of paths.
_FILE = re.compile(r"(?! )[^\x00-\x1f\x7f\"'\\#$%@{}\u2028\u2029]{1,500}(?<! )")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_URL_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")

DEFAULT_BIND: Final = {"mosquitto": "127.0.0.1:1884"}
DEFAULT_NAME: Final = {"mosquitto-go-auth": "goauth"}


def version_of(text: str) -> tuple[int, ...]:
    """Return ``"5.8.1"`` as ``(5, 8, 1)``, nothing as ``()``; raises InvalidInput."""
    if not text:
        return ()
    if not _VERSION.fullmatch(text):
        raise InvalidInput("invalid", f"`{text[:40]}` is no version; write one as 5.8 or 3.10.8", field="version")
    return tuple(int(part) for part in text.split("."))


def _is_address(url: str) -> bool:
    try:
        ipaddress.ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host name or address; a name is believed if it is ``localhost``."""
    plain = host.strip("[]")
    if plain.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(plain).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Addresses, names and files that go into a broker's configuration. It holds no secret, only files that do.

    `name` is the broker's in our settings (``[brokers.NAME]``); `url` is where it reaches our hooks; `secret_file` is
    where the broker's secret lies, empty for the default; `bind` is its own MQTT listener, ``host:port`` or, for
    Mosquitto behind the gate, a socket path. Raises InvalidInput, naming the option, when made with what is not safe.
    """

    kind: str
    name: str = ""
    version: str = ""
    url: str = "http://127.0.0.1:8080"
    secret_file: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    bind: str = ""
    bind_cert: str = ""
    bind_key: str = ""
    allow_plaintext: bool = False
    management_url: str = ""
    release: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.kind == "rumqttd":
            raise InvalidInput("invalid", "authsvc writes rumqttd's file itself: authsvc up --broker rumqttd")
        if self.kind not in KINDS:
            raise InvalidInput("invalid", f"no broker `{self.kind[:40]}`; there are {', '.join(KINDS)}", field="broker")
        defaults = {
            "name": DEFAULT_NAME.get(self.kind, self.kind),
            "bind": DEFAULT_BIND.get(self.kind, "127.0.0.1:1883"),
        }
        for option, default in defaults.items():
            if not getattr(self, option):
                object.__setattr__(self, option, default)
        if not self.secret_file and self.kind in SHOWS_SECRET:
            object.__setattr__(self, "secret_file", f"/etc/authsvc/{self.name}.secret")
        object.__setattr__(self, "release", version_of(self.version))
        if not _NAME.fullmatch(self.name):
            raise InvalidInput(
                "invalid", f"`{self.name[:40]}` is no name of a broker: a-z, 0-9 and -, at most 32", field="name"
            )
        self._check_files()
        self._check_url()
        self._check_bind()

    def _check_files(self) -> None:
        for option in ("secret_file", "tls_ca", "tls_cert", "tls_key", "bind_cert", "bind_key"):
            value = getattr(self, option)
            if value and not _FILE.fullmatch(value):
                raise InvalidInput(
                    "invalid",
                    "a file's name holds no quotes, control characters or any of \\ # $ % @ { }",
                    field=option,
                )
        for cert, key in (("tls_cert", "tls_key"), ("bind_cert", "bind_key")):
            if bool(getattr(self, cert)) != bool(getattr(self, key)):
                raise InvalidInput("invalid", "a certificate and its key belong together: name both", field=cert)

    def _check_url(self) -> None:
        for option, url in (("url", self.url), ("management_url", self.management_url)):
            if not url and option == "management_url":
                continue
            host, secure = _parts(url, option)
            if not secure and not is_loopback(host) and not (self.allow_plaintext and option == "management_url"):
                raise InvalidInput(
                    "invalid", f"passwords would cross the network in the clear to `{host}`: use https://", field=option
                )
        secure = self.url.startswith("https://")
        if self.kind not in HOOKED:
            return
        if secure and self.kind in {"nanomq", "mosquitto-go-auth"}:
            raise InvalidInput(
                "invalid",
                f"{self.kind} asks over TLS without showing who it is, or not at all: run authsvc (a replica, or a"
                " forwarder that has a client certificate) on the broker's machine and give a loopback http:// URL",
                field="url",
            )
        if not secure and (self.tls_ca or self.tls_cert):
            raise InvalidInput("invalid", "certificates need an https:// --url", field="tls_ca")
        if secure and self.kind == "rabbitmq" and _is_address(self.url):  # seen on 3.10.8: the handshake fails
            raise InvalidInput(
                "invalid",
                "RabbitMQ knows a certificate by a name only: give authsvc's host name, no address",
                field="url",
            )
        if secure and not self.tls_ca and self.kind != "aedes":  # Node trusts what the system trusts
            raise InvalidInput(
                "invalid",
                "name what issued authsvc's certificate: without it the broker verifies nobody",
                field="tls_ca",
            )
        if secure and not self.secret_file and not self.tls_cert:
            raise InvalidInput(
                "invalid",
                "over the network a broker has to show who it is: --secret-file, or --tls-cert and --tls-key",
                field="secret_file",
            )

    def _check_bind(self) -> None:
        if self.kind == "mosquitto" and self.bind.startswith("/"):
            if not _FILE.fullmatch(self.bind):
                raise InvalidInput("invalid", "no usable path of a socket", field="bind")
            return
        host, _, port = self.bind.rpartition(":")
        if not _HOST.fullmatch(host) or not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) < 65_536:
            raise InvalidInput("invalid", f"`{self.bind[:80]}` is not of the form HOST:PORT", field="bind")
        if is_loopback(host):
            return
        if self.kind == "mosquitto":
            raise InvalidInput(
                "invalid", "whoever reaches the broker behind the gate passes by it: loopback or a socket", field="bind"
            )
        if not self.bind_cert and not self.allow_plaintext:
            raise InvalidInput(
                "invalid",
                "clients would send passwords in the clear: --bind-cert and --bind-key, or --allow-plaintext where"
                " something in front of the broker speaks TLS",
                field="bind",
            )

    @property
    def secure(self) -> bool:
        """Whether the hooks are asked over TLS."""
        return self.url.startswith("https://")

    @property
    def hooks(self) -> str:
        """The URL below which this broker's hooks lie, without a slash at its end."""
        return f"{self.url.rstrip('/')}/hooks/{self.name}"

    @property
    def hooks_with_secret(self) -> str:
        """The same, for brokers that show a secret only as the password in a URL: with the word SECRET in its place."""
        return self.hooks.replace("://", "://authsvc:SECRET@", 1) if self.secret_file else self.hooks

    @property
    def host(self) -> str:
        """The host part of `bind`."""
        return self.bind.rpartition(":")[0]

    @property
    def port(self) -> str:
        """The port part of `bind`."""
        return self.bind.rpartition(":")[2]

    def at_least(self, *release: int) -> bool:
        """Return whether the broker is of this release or a later one; an unnamed version is the newest."""
        return not self.release or self.release >= release


def _parts(url: str, option: str) -> tuple[str, bool]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidInput("invalid", "this is no URL", field=option) from None
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc
    plain = "@" not in parts.netloc and not parts.query and not parts.fragment and "?" not in url and "#" not in url
    if parts.scheme not in {"http", "https"} or not plain or not _HOST.fullmatch(host):
        raise InvalidInput("invalid", "give http(s)://HOST:PORT, without user name, query or fragment", field=option)
    if not _URL_PATH.fullmatch(parts.path.rstrip("/")):
        raise InvalidInput("invalid", "the URL's path holds more than letters, digits and . _ ~ -", field=option)
    return host, parts.scheme == "https"
