"""Mosquitto: behind the gate, and with the plugin mosquitto-go-auth (``key value`` lines).

Facts: mosquitto.conf(5) (since 2.0 no listener means loopback only, and allow_anonymous is false where there is one);
iegomez/mosquitto-go-auth README.md and backends/http.go (verify_peer is false by default, superuser checks are on, the
backends are asked in any order and one yes is enough).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from authsvc.brokerconfig.findings import Finding
from authsvc.brokerconfig.installation import is_loopback
from authsvc.brokerconfig.keyvalue import Line, Lines, read_mosquitto
from authsvc.brokerconfig.linters.sources import Source, plaintext_listener
from authsvc.brokerconfig.linters.together import Together

_OLD = (2,)
_PACKET_BYTES = 262_144  # limits.max_packet_bytes by default
_RULES = ("topic", "pattern", "user")


@dataclass(slots=True, kw_only=True)
class _Listener:
    source: Source
    line: int
    address: str | None  # None: a Unix socket
    options: dict[str, Line] = field(default_factory=dict)

    @property
    def reachable(self) -> bool:
        return self.address is not None and not is_loopback(self.address)


def _read(sources: Sequence[Source]) -> list[tuple[Source, Lines]]:
    return [(source, read_mosquitto(source.text)) for source in sources]


def _listeners(read: Sequence[tuple[Source, Lines]]) -> list[_Listener]:
    """Return the listeners with the options that stand below each; ``port`` opens the one without a name."""
    found: list[_Listener] = []
    for source, lines in read:
        for option in lines.options:
            if option.key in {"listener", "port"}:
                words = option.value.split()
                address = words[1] if len(words) > 1 else "0.0.0.0"  # noqa: S104  # what is meant without one
                socket = bool(words) and words[0] == "0" and address.startswith("/")
                found.append(_Listener(source=source, line=option.line, address=None if socket else address))
            elif option.key in {"bind_address", "socket_domain", "bind_interface"} and found:
                if option.key == "bind_address":
                    found[-1].address = option.value
            elif found:
                found[-1].options[option.key] = option
    return found


def _common(read: Sequence[tuple[Source, Lines]]) -> Iterator[Finding]:
    folders = {PurePath(source.file).parent for source, _ in read}
    for source, lines in read:
        rules = [option for option in lines.options if option.key in _RULES and option.key != "user"]
        if rules:
            yield source.unknown(rules[0].line, rules[0].key, "a file of access rules, not a configuration")
        for number, why in lines.unknown:
            yield source.unknown(number, "syntax", why)
        for option in lines.options:
            if option.key == "include_dir" and PurePath(option.value) not in folders - {PurePath(source.file).parent}:
                yield source.unknown(option.line, "include_dir", "its files are not read: name them as well")
            if option.key == "connection":
                meaning = "what comes over a bridge is judged by nobody"
                yield source.doubtful(option.line, "connection", meaning, "remove it unless you trust the other side")
            if option.key in {"remote_password", "keyform_pass"} or option.key.endswith(("_password", "_secret")):
                yield from source.secret(option.line, option.key)


def lint(sources: Sequence[Source], release: tuple[int, ...]) -> Iterator[Finding]:
    """Yield what lets clients pass by the gate, or keeps the gate from its work."""
    read = _read(sources)
    yield from _common(read)
    files = Together(read)
    listeners = _listeners(read)
    old = bool(release) and release < _OLD
    per_listener = files.value("per_listener_settings") == "true"
    if not listeners and old:
        meaning = "without a listener Mosquitto before 2.0 is open on all addresses, to everybody"
        yield files.unsafe("listener", meaning, "listener 1884 127.0.0.1")
    for listener in listeners:
        scope = listener.options if per_listener else {}
        yield from _behind(files, listener, scope if per_listener else None, old=old)
    for key, meaning in (
        ("acl_file", "it refuses what the gate has allowed"),
        ("plugin", "a plugin refuses or changes what the gate has decided"),
        ("auth_plugin", "a plugin refuses or changes what the gate has decided"),
        ("clientid_prefixes", "the gate's client ids are random: they are refused"),
    ):
        if files.value(key) is not None and not any(one.reachable for one in listeners):
            yield files.doubtful(key, meaning, "remove it: the gate decides")
    for key, least in (("message_size_limit", _PACKET_BYTES), ("max_packet_size", _PACKET_BYTES)):
        value = files.value(key)
        if value is not None and value.isdecimal() and 0 < int(value) < least:
            meaning = "narrower than the gate's own limit: an allowed message ends the connection"
            yield files.doubtful(key, meaning, f"at least {least}, or none")


def _behind(files: Together, listener: _Listener, scope: dict[str, Line] | None, *, old: bool) -> Iterator[Finding]:
    def option(key: str) -> Line | None:
        if scope is not None:
            return scope.get(key)
        value = files.value(key)
        return None if value is None else Line(key=key, value=value, line=files.line(key))

    anonymous = option("allow_anonymous")
    open_to_all = anonymous.value == "true" if anonymous else old
    missing = [key for key in ("password_file", "acl_file") if option(key) is None]
    if listener.reachable:
        meaning = "clients on other machines pass by the gate and all its promises"
        if missing:
            meaning += f"; without {' and '.join(missing)} nothing stops them"
        yield listener.source.unsafe(listener.line, "listener", meaning, "listener 1884 127.0.0.1, or a Unix socket")
        if open_to_all and anonymous:
            meaning = "on a listener that other machines reach: whoever comes may do everything"
            yield listener.source.unsafe(anonymous.line, "allow_anonymous", meaning, "loopback or a Unix socket only")
    elif not open_to_all and "password_file" in missing:
        line = anonymous.line if anonymous else listener.line
        meaning = "the gate is not let in without a password"
        yield listener.source.doubtful(
            line, "allow_anonymous", meaning, "allow_anonymous true, or a password_file and mqtt.upstream_username"
        )


def lint_goauth(sources: Sequence[Source], release: tuple[int, ...]) -> Iterator[Finding]:
    """Yield what is unsafe in a Mosquitto whose plugin mosquitto-go-auth asks authsvc."""
    read = _read(sources)
    yield from _common(read)
    files = Together(read)
    anonymous = files.value("allow_anonymous")
    if anonymous == "true" or (anonymous is None and (not release or release < _OLD)):
        meaning = "clients without a user name are let in" + files.by_default("allow_anonymous")
        yield files.unsafe("allow_anonymous", meaning, "allow_anonymous false")
    listeners = _listeners(read)
    for listener in listeners:
        if listener.reachable and not any(key in listener.options for key in ("certfile", "psk_file")):
            yield plaintext_listener(listener.source, listener.line, "listener")
    if files.value("per_listener_settings") == "true" and len(listeners) != 1:
        meaning = "the plugin counts only for the listener that it stands below"
        yield files.unsafe("per_listener_settings", meaning, "per_listener_settings false")
    if files.value("auth_plugin") is None and files.value("plugin") is None:
        yield files.unsafe("auth_plugin", "without the plugin authsvc is not asked", "auth_plugin …/go-auth.so")
    for key in ("password_file", "acl_file", "psk_file"):
        if files.value(key) is not None:
            yield files.unsafe(key, "Mosquitto's own files decide beside authsvc", "remove it")
    yield from _plugin(files)
    yield from _asked(files)


def _plugin(files: Together) -> Iterator[Finding]:
    backends = {name.strip() for name in (files.value("auth_opt_backends") or "").split(",")}
    if backends != {"http"}:
        meaning = "one yes is enough, from any backend, in any order"
        if "http" not in backends:
            meaning = "authsvc is not among the backends"
        yield files.unsafe("auth_opt_backends", meaning, "auth_opt_backends http")
    if files.value("auth_opt_disable_superuser") != "true":
        meaning = "whom a backend calls superuser is never asked for rights" + files.by_default(
            "auth_opt_disable_superuser"
        )
        yield files.unsafe("auth_opt_disable_superuser", meaning, "auth_opt_disable_superuser true")
    registered = files.value("auth_opt_http_register")
    if registered is not None and not {"user", "acl"} <= {name.strip() for name in registered.split(",")}:
        meaning = "only half of the question goes to authsvc"
        yield files.unsafe("auth_opt_http_register", meaning, "auth_opt_http_register user, acl")
    for key, meaning, instead in (
        ("auth_opt_cache", "answers are kept, the refusal of a token that has become valid since too", "false"),
        ("auth_opt_use_clientid_as_username", "authsvc is not told the user name", "false"),
        ("auth_opt_check_prefix", "a client chooses by its user name who is asked", "false"),
    ):
        if files.value(key) == "true":
            yield files.unsafe(key, meaning, f"{key} {instead}")
    if files.value("auth_opt_log_level") == "debug":
        yield files.unsafe("auth_opt_log_level", "passwords are logged", "auth_opt_log_level warn")


def _asked(files: Together) -> Iterator[Finding]:
    for key in ("auth_opt_http_getuser_uri", "auth_opt_http_aclcheck_uri"):
        uri = files.value(key)
        if uri is None:
            yield files.unsafe(key, "this question is not asked", f"{key} /hooks/NAME/…")
        elif not uri.startswith("/hooks/"):
            yield files.doubtful(key, "the address is not one of authsvc's hooks", "/hooks/NAME/…")
    method = files.value("auth_opt_http_method")
    if method is not None and method.upper() != "POST":
        yield files.unsafe("auth_opt_http_method", "proxies and logs keep more of it than of a POST", "POST")
    host = files.value("auth_opt_http_host")
    if host is not None and "@" in host:  # user and password before the host become Basic authentication
        yield from files.source("auth_opt_http_host").secret(files.line("auth_opt_http_host"), "auth_opt_http_host")
    if host is None:
        yield files.unsafe("auth_opt_http_host", "authsvc is not asked", "auth_opt_http_host 127.0.0.1")
    elif files.value("auth_opt_http_with_tls") == "true":
        if files.value("auth_opt_http_verify_peer") != "true":
            meaning = "whoever is in between answers for authsvc" + files.by_default("auth_opt_http_verify_peer")
            yield files.unsafe("auth_opt_http_verify_peer", meaning, "auth_opt_http_verify_peer true")
    elif not is_loopback(host.rpartition("@")[2]):
        meaning = "passwords cross the network in the clear, and whoever is in between answers for authsvc"
        yield files.unsafe("auth_opt_http_host", meaning, "authsvc on this machine, 127.0.0.1")
