"""RabbitMQ with its MQTT plugin: rabbitmq.conf (``key = value``), enabled_plugins, advanced.config (Erlang terms).

Facts, all from rabbitmq/rabbitmq-server: deps/rabbitmq_mqtt/Makefile (allow_anonymous is true by default),
deps/rabbitmq_auth_backend_http/README.md (GET by default; the next backend is asked after a refusal),
deps/rabbitmq_auth_backend_cache (15 s by default), deps/rabbit/priv/schema (AMQP on all addresses by default).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from authsvc.brokerconfig.findings import Finding
from authsvc.brokerconfig.keyvalue import read_cuttlefish
from authsvc.brokerconfig.linters.sources import Source, hook_url, plaintext_listener, reachable
from authsvc.brokerconfig.linters.together import Together

_PATHS = ("user", "vhost", "resource", "topic")
_OTHER_PROTOCOLS = re.compile(
    r"(listeners\.(?:tcp|ssl)|(?:stomp|amqp1_0|stream)\.[a-z_.]*listeners?[a-z_.]*|web_stomp\.(?:tcp|ssl))(\..+)?"
)
_OTHER_PLUGINS = frozenset(
    {"rabbitmq_stomp", "rabbitmq_web_stomp", "rabbitmq_stream", "rabbitmq_stream_management", "rabbitmq_amqp1_0"}
    | {"rabbitmq_tracing"}
)
_HARMLESS_PLUGINS = ("rabbitmq_mqtt", "rabbitmq_auth_backend_http", "rabbitmq_management", "rabbitmq_prometheus")
_PLUGINS = re.compile(r"\[(\s*'?\w+'?\s*,)*\s*'?\w+'?\s*\]\s*\.")
_BACKEND = "rabbitmq_auth_backend_http"
_BACKEND_READ = frozenset(
    {"ssl_options", "ssl_hostname_verification", "http_method", "request_timeout", "connection_timeout"}
)
_LONGEST_CACHE_MS = 5_000


def lint(sources: Sequence[Source], release: tuple[int, ...]) -> Iterator[Finding]:
    """Yield what is unsafe in the files of a RabbitMQ of this release; () is taken to be any."""
    plugins = [
        source
        for source in sources
        if _PLUGINS.fullmatch(_bare(source.text).strip()) or PurePath(source.file).name == "enabled_plugins"
    ]
    terms = [source for source in sources if source not in plugins and _bare(source.text).lstrip().startswith("[")]
    for source in plugins:
        yield from _plugins(source)
    for source in terms:
        yield from _advanced(source)
    rest = [source for source in sources if source not in (*plugins, *terms)]
    if not rest:
        return
    files = Together([(source, read_cuttlefish(source.text)) for source in rest])
    yield from files.unknown()
    yield from _anonymous(files, release)
    yield from _backends(files)
    verified = any(re.search(r"\{\s*verify\s*,\s*verify_peer\b", source.text) for source in terms)
    yield from _http(files, verified=verified)
    yield from _listeners(files)
    yield from _users(files)


def _bare(terms: str) -> str:
    """Return Erlang terms without their comments, in the same lines."""
    return re.sub(r'("(?:\\.|[^"\\])*")|%[^\n]*', lambda match: match[1] or "", terms)


def _anonymous(files: Together, release: tuple[int, ...]) -> Iterator[Finding]:
    if files.on("mqtt.allow_anonymous", default=True):
        meaning = "clients without a user name are let in" + files.by_default("mqtt.allow_anonymous")
        yield files.unsafe("mqtt.allow_anonymous", meaning, "mqtt.allow_anonymous = false")
    user = files.value("anonymous_login_user")
    if user is not None and user != "none":
        yield files.unsafe("anonymous_login_user", "whoever asks is this user", "anonymous_login_user = none")
    if files.value("mqtt.default_user") is not None and not (release and release >= (4,)):
        yield files.doubtful("mqtt.default_user", "whom a client without a user name would be", "remove it")
    if files.on("mqtt.ssl_cert_login"):
        meaning = "the name in a certificate takes the place of user name and password, which authsvc asks for"
        yield files.doubtful("mqtt.ssl_cert_login", meaning, "mqtt.ssl_cert_login = false")
    if files.on("mqtt.sparkplug"):
        meaning = "topics are rewritten before they are checked"
        yield files.doubtful("mqtt.sparkplug", meaning, "mqtt.sparkplug = false")


def _backends(files: Together) -> Iterator[Finding]:
    found = list(files.matching(r"auth_backends\.(\d+)(\.authn|\.authz)?"))
    if not found:
        meaning = "the internal database decides: its users, `guest` among them, and nobody asks authsvc"
        yield files.unsafe("auth_backends.1", meaning, "auth_backends.1 = http")
    for source, option, match in found:
        backend = option.value.removeprefix("rabbit_auth_backend_")
        if backend == "cache":
            yield from _cache(files, source, option.line)
        elif backend != "http":
            meaning = "whom authsvc refuses this backend may let in"
            yield source.unsafe(option.line, option.key, meaning, "auth_backends.1 = http, and no other")
        elif match[2]:
            meaning = "only half of the question goes to authsvc"
            yield source.doubtful(option.line, option.key, meaning, "auth_backends.1 = http")
    return


def _cache(files: Together, source: Source, line: int) -> Iterator[Finding]:
    ttl = files.value("auth_cache.cache_ttl")
    if ttl is None:
        meaning = "allowed answers are kept for 15 s by default: a revoked token reconnects"
        yield source.unsafe(line, "auth_cache.cache_ttl", meaning, "auth_backends.1 = http, without the cache")
    elif not ttl.isdecimal():
        yield files.unknown_at("auth_cache.cache_ttl", "not a number of milliseconds")
    elif int(ttl) > _LONGEST_CACHE_MS:
        meaning = f"allowed answers are kept for {int(ttl) / 1000:g} s: a revoked token reconnects"
        yield files.unsafe("auth_cache.cache_ttl", meaning, "at most 5000, better no cache")
    else:
        yield source.doubtful(line, "auth_backends", "allowed answers are kept", "auth_backends.1 = http")
    if files.on("auth_cache.cache_refusals"):
        meaning = "the refusal of a token that has become valid since is kept"
        yield files.unsafe("auth_cache.cache_refusals", meaning, "auth_cache.cache_refusals = false")
    for key in ("auth_cache.cached_backend", "auth_cache.cached_backend.authn", "auth_cache.cached_backend.authz"):
        value = files.value(key)
        if value is not None and value.removeprefix("rabbit_auth_backend_") != "http":
            yield files.unsafe(key, "behind the cache another backend decides", f"{key} = http")


def _http(files: Together, *, verified: bool) -> Iterator[Finding]:
    method = files.value("auth_http.http_method")
    if method is None or method.lower() != "post":
        meaning = "a GET puts passwords into URLs and logs" + files.by_default("auth_http.http_method")
        yield files.unsafe("auth_http.http_method", meaning, "auth_http.http_method = post")
    secure = False
    for path in _PATHS:
        key = f"auth_http.{path}_path"
        url = files.value(key)
        if url is None:
            yield files.unsafe(key, "this question goes to whoever listens on port 8000 here", f"{key} = …/{path}")
            continue
        secure |= url.startswith("https:")
        yield from hook_url(files.source(key), files.line(key), key, url, shows_secret=True)
    verify = files.value("auth_http.ssl_options.verify")
    if verify is not None and verify != "verify_peer":
        meaning = "whoever is in between answers for authsvc"
        yield files.unsafe("auth_http.ssl_options.verify", meaning, "verify_peer")
    elif secure and verify is None and not verified:
        meaning = "nothing here says that the certificate of authsvc is verified"
        yield files.doubtful(
            "auth_http.ssl_options.verify", meaning, "verify_peer; before RabbitMQ 4 in advanced.config"
        )


def _listeners(files: Together) -> Iterator[Finding]:
    if files.value("listeners.tcp") is None and not any(files.matching(r"listeners\.tcp\..+")):
        meaning = "AMQP is open on all addresses by default: another way to the queues of MQTT clients"
        yield files.unsafe("listeners.tcp", meaning, "listeners.tcp = none")
    for source, option, match in files.matching(_OTHER_PROTOCOLS.pattern):
        if option.value.lower() != "none":
            name = match[1]
            meaning = "another protocol is another way to the queues of MQTT clients"
            yield source.unsafe(option.line, option.key, meaning, f"{name} = none")
    plain = list(files.matching(r"mqtt\.listeners\.tcp(\..+)?"))
    for source, option, _ in plain:
        if reachable(option.value):
            yield plaintext_listener(source, option.line, option.key)
    if not plain:
        yield files.doubtful(
            "mqtt.listeners.tcp", "open on all addresses, without TLS, by default", "an address, or none"
        )
    for key in ("web_mqtt.tcp.port", "web_mqtt.tcp.listener"):
        if files.value(key) is not None and reachable(f"{files.value('web_mqtt.tcp.ip') or '0.0.0.0'}:0"):  # noqa: S104
            yield plaintext_listener(files.source(key), files.line(key), key)
    for where in ("management.tcp", "management.listener"):  # the second is the older name
        ip = files.value(f"{where}.ip")
        if ip is not None and reachable(f"{ip}:0"):
            meaning = "who administers the broker shows his password in the clear"
            yield files.unsafe(f"{where}.ip", meaning, "127.0.0.1, or management.ssl")
        elif ip is None and files.value(f"{where}.port") is not None and not files.on(f"{where}.ssl"):
            meaning = "open on all addresses, without TLS"
            yield files.doubtful(f"{where}.port", meaning, f"{where}.ip = 127.0.0.1")


def _users(files: Together) -> Iterator[Finding]:
    for source, option, _ in files.matching(r"loopback_users(\..+)?"):
        if option.value.lower() in {"none", "false"}:
            meaning = "a user of the internal database, `guest` by default, comes in from other machines"
            yield source.unsafe(option.line, option.key, meaning, "loopback_users.guest = true")
    for source, option, match in files.matching(r"default_(user|pass)"):
        if option.value == "guest":
            meaning = "the user name and password that every installation has"
            yield source.unsafe(option.line, option.key, meaning, "remove it: no internal user is needed")
        if match[1] == "pass":
            yield from source.secret(option.line, option.key)


def _plugins(source: Source) -> Iterator[Finding]:
    bare = _bare(source.text)
    found = {match[0]: bare.count("\n", 0, match.start()) + 1 for match in re.finditer(r"\w+", bare)}
    for name in ("rabbitmq_auth_backend_http", "rabbitmq_mqtt"):
        if name not in found:
            yield source.unsafe(0, name, "without it authsvc is not asked", f"enable {name}")
    for name, line in found.items():
        if name in _OTHER_PLUGINS:
            meaning = "another protocol or a copy of all messages: another way to what MQTT clients exchange"
            yield source.unsafe(line, name, meaning, "disable it")
        elif name == "rabbitmq_web_mqtt":
            meaning = "MQTT over WebSockets is open on all addresses, without TLS, by default"
            yield source.doubtful(line, name, meaning, "web_mqtt.tcp.ip = 127.0.0.1, or disable it")
        elif not name.startswith(_HARMLESS_PLUGINS):
            meaning = "a plugin may carry messages past the check, or keep answers"
            yield source.doubtful(line, name, meaning, "disable it unless it is meant")


def _advanced(source: Source) -> Iterator[Finding]:
    """Yield what Erlang terms set: the HTTP backend's TLS is read, everything else is not, and said to be unread."""
    bare = _bare(source.text).replace("'", " ")  # '…' around an atom says nothing
    for pattern, option, meaning, instead in (
        (r"\{\s*allow_anonymous\s*,\s*true", "allow_anonymous", "clients without a user name are let in", "false"),
        (r"\{\s*verify\s*,\s*verify_none", "verify", "whoever is in between answers for authsvc", "verify_peer"),
        (r"\{\s*http_method\s*,\s*get", "http_method", "a GET puts passwords into URLs and logs", "post"),
        (
            r"rabbit_auth_backend_(?!http\b)\w+|\bauth_backends\s*,\s*\[[^\]]*\binternal\b",
            "auth_backends",
            "whom authsvc refuses another may let in",
            "http alone",
        ),
    ):
        for match in re.finditer(pattern, bare):
            yield source.unsafe(bare.count("\n", 0, match.end()) + 1, option, meaning, instead)
    for position, path in _tuples(bare):
        line = bare.count("\n", 0, position) + 1
        if len(path) == 1 and path[0] != _BACKEND:
            yield source.unknown(line, path[0], "settings in Erlang terms are not read")
        elif len(path) == 2 and path[0] == _BACKEND and path[1] not in _BACKEND_READ:
            yield source.unknown(line, path[1], "settings in Erlang terms are not read")


def _tuples(terms: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the position of each ``{name, …}`` of the two outermost layers, and the names down to its own."""
    names: list[str] = []
    for match in re.finditer(r'"(?:\\.|[^"\\])*"|\{\s*(\w*)|\}', terms):
        if match[0].startswith("{"):
            names.append(match[1])
            if len(names) <= 2:
                yield match.start(), list(names)
        elif match[0] == "}" and names:
            names.pop()
