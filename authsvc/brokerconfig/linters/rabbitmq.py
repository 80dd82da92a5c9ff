"""RabbitMQ with its MQTT plugin: rabbitmq.conf (``key = value``), enabled_plugins, advanced.config (Erlang terms).

Facts, all from rabbitmq/rabbitmq-server: deps/rabbitmq_mqtt/Makefile (allow_anonymous is true by default),
deps/rabbitmq_auth_backend_http/README.md (GET by default; the next backend is asked after a refusal),
deps/rabbitmq_auth_backend_cache (15 s by default), deps/rabbit/priv/schema (AMQP on all addresses by default).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from authsvc.brokerconfig.findings import Finding
from authsvc.brokerconfig.keyvalue import read_cuttlefish
from authsvc.brokerconfig.linters.sources import Source, hook_url, plaintext_listener, reachable
from authsvc.brokerconfig.linters.together import Together

_PATHS = ("user", "vhost", "resource", "topic")
_OTHER_PROTOCOLS = re.compile(
    r"(listeners\.(?:tcp|ssl)|(?:stomp|web_stomp|amqp1_0|stream)\.[a-z_.]*listeners?[a-z_.]*)(\..+)?"
)
_OTHER_PLUGINS = ("rabbitmq_stomp", "rabbitmq_web_stomp", "rabbitmq_stream", "rabbitmq_amqp1_0", "rabbitmq_tracing")
_PLUGINS = re.compile(r"\[\s*(rabbitmq_\w+\s*,?\s*)*\]\s*\.")
_LONGEST_CACHE_MS = 5_000


def lint(sources: Sequence[Source], release: tuple[int, ...]) -> Iterator[Finding]:
    """Yield what is unsafe in the files of a RabbitMQ of this release; () is taken to be any."""
    plugins = [source for source in sources if _PLUGINS.fullmatch(_bare(source.text))]
    terms = [source for source in sources if source not in plugins and _bare(source.text).startswith("[")]
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
    """Return Erlang terms without their comments."""
    return re.sub(r"%[^\n]*", "", terms).strip()


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
    ip = files.value("management.tcp.ip")
    if ip is not None and reachable(f"{ip}:0"):
        meaning = "who administers the broker shows his password in the clear"
        yield files.unsafe("management.tcp.ip", meaning, "127.0.0.1, or management.ssl")
    elif ip is None and files.value("management.tcp.port") is not None:
        yield files.doubtful(
            "management.tcp.port", "open on all addresses, without TLS", "management.tcp.ip = 127.0.0.1"
        )


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
    found = {match[0]: source.text.count("\n", 0, match.start()) + 1 for match in re.finditer(r"\w+", source.text)}
    for name in ("rabbitmq_auth_backend_http", "rabbitmq_mqtt"):
        if name not in found:
            yield source.unsafe(0, name, "without it authsvc is not asked", f"enable {name}")
    for name in _OTHER_PLUGINS:
        if name in found:
            meaning = "another protocol or a copy of all messages: another way to what MQTT clients exchange"
            yield source.unsafe(found[name], name, meaning, "disable it")


def _advanced(source: Source) -> Iterator[Finding]:
    for number, raw in enumerate(source.text.splitlines(), 1):
        line = raw.partition("%")[0]
        if re.search(r"\{\s*allow_anonymous\s*,\s*true", line):
            yield source.unsafe(number, "allow_anonymous", "clients without a user name are let in", "false")
        if re.search(r"\{\s*verify\s*,\s*verify_none", line):
            yield source.unsafe(number, "verify", "whoever is in between answers for authsvc", "verify_peer")
        if re.search(r"\{\s*http_method\s*,\s*get", line):
            yield source.unsafe(number, "http_method", "a GET puts passwords into URLs and logs", "post")
        if re.search(r"rabbit_auth_backend_(?!http\b)\w+", line):
            yield source.unsafe(number, "auth_backends", "whom authsvc refuses another may let in", "http alone")
        application = re.search(r"\{\s*(rabbit\w*)\s*,\s*\[", line)
        if application and application[1] != "rabbitmq_auth_backend_http":
            yield source.unknown(number, application[1], "settings in Erlang terms are not read")
