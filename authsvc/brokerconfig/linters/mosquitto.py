"""Mosquitto behind the gate (``key value`` lines), and what its linter shares with that of mosquitto-go-auth.

Facts: mosquitto.conf(5) (since 2.0 no listener means loopback only, and allow_anonymous is false where there is one);
eclipse/mosquitto src/conf.c (1 is true; an option of a listener that stands above every `listener` opens the default
one, on all addresses, and bind_address always speaks of that one): tried with 2.0.11.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from authsvc.brokerconfig.findings import Finding
from authsvc.brokerconfig.installation import is_loopback
from authsvc.brokerconfig.keyvalue import Line, Lines, read_mosquitto
from authsvc.brokerconfig.linters.sources import Source
from authsvc.brokerconfig.linters.together import Together

OLD = (2,)
_EVERY = "0.0.0.0"  # noqa: S104  # what is meant without an address
PLUGINS = ("plugin", "auth_plugin", "global_plugin", "plugin_load")
_PACKET_BYTES = 262_144  # limits.max_packet_bytes by default
_RULES = ("topic", "pattern", "user")
# conf.c, config__parse_args: one of these above every `listener` makes Mosquitto open its default listener.
_TLS = frozenset(
    {"cafile", "capath", "certfile", "keyfile", "tls_engine", "tls_keyform", "tls_engine_kpass_sha1", "ciphers"}
    | {"ciphers_tls1.3", "dhparamfile", "psk_hint", "crlfile", "require_certificate"}
)
_OPENS_DEFAULT = _TLS | frozenset(
    {"port", "bind_address", "bind_interface", "socket_domain", "max_connections", "max_qos", "mount_point", "protocol"}
    | {"use_identity_as_username", "use_subject_as_username", "use_username_as_clientid"}
)
_OPENS_DEFAULT_PER_LISTENER = frozenset({"password_file", "psk_file", "allow_zero_length_clientid", *PLUGINS})
_OPENS_NOTHING = frozenset({("protocol", "mqtt"), ("tls_keyform", "pem"), ("max_connections", "-1"), ("max_qos", "2")})


@dataclass(slots=True, kw_only=True)
class Listener:
    """One listener, the line that opens it, and the options below that line."""

    source: Source
    line: int
    address: str | None  # None: a Unix socket
    option: str = "listener"  # what opens it
    options: dict[str, Line] = field(default_factory=dict)

    @property
    def reachable(self) -> bool:
        return self.address is not None and not is_loopback(self.address)


def yes(value: str | None) -> bool:
    """Return whether Mosquitto reads `value` as true (conf.c, conf__parse_bool: the first word, `true` or `1`)."""
    return value is not None and value.split(" ")[0] in {"true", "1"}


def read_all(sources: Sequence[Source]) -> list[tuple[Source, Lines]]:
    """Return the options of each file."""
    return [(source, read_mosquitto(source.text)) for source in sources]


def listeners_of(read: Sequence[tuple[Source, Lines]]) -> list[Listener]:
    """Return the listeners with the options that stand below each, the default one first if anything opens it."""
    found: list[Listener] = []
    default: Listener | None = None
    above: dict[str, Line] = {}  # options above every `listener`: the default one's
    apart = yes(Together(read).value("per_listener_settings"))
    for source, lines in read:
        for option in lines.options:
            if option.key == "listener":
                found.append(Listener(source=source, line=option.line, address=_address(option.value)))
                continue
            if option.key in {"port", "bind_address"} or (not found and _opens_default(option, apart=apart)):
                default = default or Listener(
                    source=source,
                    line=option.line,
                    address=_EVERY,
                    option="listener" if option.key == "port" else option.key,
                    options=above,
                )
                if option.key == "bind_address":
                    default.address = option.value
            opened = found[-1] if found else default
            if opened and (option.key, option.value) == ("bind_interface", "lo"):
                opened.address = "127.0.0.1"
            (found[-1].options if found else above)[option.key] = option
    return [default, *found] if default else found


def _address(listener: str) -> str | None:
    words = listener.split()
    address = words[1] if len(words) > 1 else _EVERY
    return None if words and words[0] == "0" and address.startswith("/") else address


def _opens_default(option: Line, *, apart: bool) -> bool:
    opens = option.key in _OPENS_DEFAULT or (apart and option.key in _OPENS_DEFAULT_PER_LISTENER)
    switched = option.key.startswith(("use_", "require_"))
    return opens and (option.key, option.value) not in _OPENS_NOTHING and (not switched or yes(option.value))


def common(read: Sequence[tuple[Source, Lines]]) -> Iterator[Finding]:
    """Yield what is to be said of any Mosquitto's files: what was not read, bridges, and secrets that all may read."""
    for source, lines in read:
        rules = [option for option in lines.options if option.key in _RULES and option.key != "user"]
        if rules and not any(option.key == "connection" for option in lines.options):  # a bridge has topics, too
            yield source.unknown(rules[0].line, rules[0].key, "a file of access rules, not a configuration")
        for number, why in lines.unknown:
            yield source.unknown(number, "syntax", why)
        for option in lines.options:
            if option.key == "include_dir" and _unread(read, source, PurePath(option.value)):
                yield source.unknown(option.line, "include_dir", "not all its files are read: name each as well")
            if option.key == "connection":
                meaning = "what comes over a bridge is judged by nobody"
                yield source.doubtful(option.line, "connection", meaning, "remove it unless you trust the other side")
            if option.key in {"remote_password", "keyform_pass"} or option.key.endswith(("_password", "_secret")):
                yield from source.secret(option.line, option.key)


def _unread(read: Sequence[tuple[Source, Lines]], by: Source, folder: PurePath) -> bool:
    """Return whether `folder`, included by the file `by`, may hold files (``*.conf``) that were not given."""
    given = {PurePath(source.file).name for source, _ in read if PurePath(source.file).parent == folder}
    there = by.included.get(str(folder))
    return not given - {PurePath(by.file).name} if there is None else not there <= given


def lint(sources: Sequence[Source], release: tuple[int, ...]) -> Iterator[Finding]:
    """Yield what lets clients pass by the gate, or keeps the gate from its work."""
    read = read_all(sources)
    yield from common(read)
    files = Together(read)
    listeners = listeners_of(read)
    old = bool(release) and release < OLD
    per_listener = yes(files.value("per_listener_settings"))
    if not listeners and old:
        meaning = "without a listener Mosquitto before 2.0 is open on all addresses, to everybody"
        yield files.unsafe("listener", meaning, "listener 1884 127.0.0.1")
    for listener in listeners:
        scope = listener.options if per_listener else {}
        yield from _behind(files, listener, scope if per_listener else None, old=old)
    for key, meaning in (
        ("acl_file", "it refuses what the gate has allowed"),
        *((key, "a plugin refuses or changes what the gate has decided") for key in PLUGINS),
        ("clientid_prefixes", "the gate's client ids are random: they are refused"),
    ):
        if files.value(key) is not None and not any(one.reachable for one in listeners):
            yield files.doubtful(key, meaning, "remove it: the gate decides")
    for key, least in (("message_size_limit", _PACKET_BYTES), ("max_packet_size", _PACKET_BYTES)):
        value = files.value(key)
        if value is not None and value.isdecimal() and 0 < int(value) < least:
            meaning = "narrower than the gate's own limit: an allowed message ends the connection"
            yield files.doubtful(key, meaning, f"at least {least}, or none")


def _behind(files: Together, listener: Listener, scope: dict[str, Line] | None, *, old: bool) -> Iterator[Finding]:
    def option(key: str) -> Line | None:
        if scope is not None:
            return scope.get(key)
        value = files.value(key)
        return None if value is None else Line(key=key, value=value, line=files.line(key))

    anonymous = option("allow_anonymous")
    open_to_all = yes(anonymous.value) if anonymous else old
    missing = [key for key in ("password_file", "acl_file") if option(key) is None]
    if listener.reachable:
        meaning = "clients on other machines pass by the gate and all its promises"
        if missing:
            meaning += f"; without {' and '.join(missing)} nothing stops them"
        if listener.option != "listener":
            meaning = f"above every `listener` it opens one more, the default one on port 1883: {meaning}"
        yield listener.source.unsafe(
            listener.line, listener.option, meaning, "listener 1884 127.0.0.1, or a Unix socket"
        )
        if open_to_all and anonymous:
            meaning = "on a listener that other machines reach: whoever comes may do everything"
            source = files.source("allow_anonymous") if scope is None else listener.source
            yield source.unsafe(anonymous.line, "allow_anonymous", meaning, "loopback or a Unix socket only")
    elif not open_to_all and "password_file" in missing:
        line = anonymous.line if anonymous else listener.line
        meaning = "the gate is not let in without a password"
        yield listener.source.doubtful(
            line, "allow_anonymous", meaning, "allow_anonymous true, or a password_file and mqtt.upstream_username"
        )
