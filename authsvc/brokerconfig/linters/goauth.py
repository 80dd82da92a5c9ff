"""Mosquitto with the plugin mosquitto-go-auth (``key value`` lines).

Facts: iegomez/mosquitto-go-auth README.md and backends/http.go (verify_peer is false by default, superuser checks are
on, the backends are asked in any order and one yes is enough); eclipse/mosquitto src/conf.c (`plugin_opt_` is
`auth_opt_`, each line with a plugin loads one more), src/handle_connect.c (a listener that takes the user name from the
certificate asks no plugin who connects).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from authsvc.brokerconfig.findings import Finding
from authsvc.brokerconfig.installation import is_loopback
from authsvc.brokerconfig.keyvalue import Line, Lines
from authsvc.brokerconfig.linters.mosquitto import OLD, PLUGINS, common, listeners_of, read_all, yes
from authsvc.brokerconfig.linters.sources import Source, plaintext_listener
from authsvc.brokerconfig.linters.together import Together


def lint(sources: Sequence[Source], release: tuple[int, ...]) -> Iterator[Finding]:
    """Yield what is unsafe in a Mosquitto whose plugin mosquitto-go-auth asks authsvc."""
    read = read_all(sources)
    yield from common(read)
    files = Together([(source, _of_the_plugin(lines)) for source, lines in read])
    anonymous = files.value("allow_anonymous")
    if yes(anonymous) or (anonymous is None and (not release or release < OLD)):
        meaning = "clients without a user name are let in" + files.by_default("allow_anonymous")
        yield files.unsafe("allow_anonymous", meaning, "allow_anonymous false")
    listeners = listeners_of(read)
    for listener in listeners:
        if listener.reachable and not any(key in listener.options for key in ("certfile", "psk_file")):
            yield plaintext_listener(listener.source, listener.line, listener.option)
        for key in ("use_identity_as_username", "use_subject_as_username"):
            option = listener.options.get(key)
            if option is not None and yes(option.value):
                meaning = "whoever has a certificate is let in with any client id: authsvc is not asked who connects"
                yield listener.source.unsafe(option.line, key, meaning, f"{key} false")
    if yes(files.value("per_listener_settings")) and len(listeners) != 1:
        meaning = "the plugin counts only for the listener that it stands below"
        yield files.unsafe("per_listener_settings", meaning, "per_listener_settings false")
    yield from _plugins(read, files)
    for key in ("password_file", "acl_file", "psk_file"):
        if files.value(key) is not None:
            yield files.unsafe(key, "Mosquitto's own files decide beside authsvc", "remove it")
    yield from _plugin(files)
    yield from _asked(files)


def _of_the_plugin(lines: Lines) -> Lines:
    """Return the options with those of a plugin under the older of their two names."""
    renamed = [
        Line(key=f"auth_opt_{name}", value=option.value, line=option.line)
        if (name := option.key.removeprefix("plugin_opt_")) != option.key
        else option
        for option in lines.options
    ]
    return Lines(options=renamed, unknown=lines.unknown)


def _plugins(read: Sequence[tuple[Source, Lines]], files: Together) -> Iterator[Finding]:
    found = [(source, option) for source, lines in read for option in lines.options if option.key in PLUGINS]
    ours = [one for one in found if "go-auth" in one[1].value]
    if not ours:
        meaning = "without the plugin authsvc is not asked"
        yield files.unsafe("auth_plugin", meaning, "auth_plugin …/go-auth.so")
    for source, option in found:
        if (source, option) not in ours[:1]:
            meaning = "a second plugin decides beside authsvc, and its yes counts"
            yield source.unsafe(option.line, option.key, meaning, "remove it")


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
