"""VerneMQ: vernemq.conf and files of conf.d (``key = value``).

Facts: vernemq/vernemq apps/vmq_server/priv/vmq_server.schema (vmq_passwd and vmq_acl are on by default,
``listener.*.allow_anonymous_override``, ``auth_plugins``), apps/vmq_webhooks/src (a hook that nobody registered answers
"next"); vernemq/vmq-docs plugindevelopment/webhookplugins.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from authsvc.brokerconfig.findings import Finding
from authsvc.brokerconfig.keyvalue import read_cuttlefish
from authsvc.brokerconfig.linters.sources import TRUE, Source, hook_url, plaintext_listener, reachable
from authsvc.brokerconfig.linters.together import Together
from authsvc.brokerconfig.rendering import VERNEMQ_HOOKS

_NETSPLIT = (
    *(f"allow_{what}_during_netsplit" for what in ("register", "publish", "subscribe")),
    "trade_consistency",  # the same in one word, in older versions
)
_OTHERS_DECIDE = ("vmq_passwd", "vmq_acl")  # on unless they are turned off


def lint(sources: Sequence[Source], release: tuple[int, ...]) -> Iterator[Finding]:  # noqa: ARG001  # as the others
    """Yield what is unsafe; several files are one configuration, a later one replaces what an earlier one said."""
    files = Together([(source, read_cuttlefish(source.text)) for source in sources])
    yield from files.unknown()
    yield from _plugins(files)
    yield from _hooks(files)
    yield from _listeners(files)
    for key in _NETSPLIT:
        if files.on(key):
            meaning = "a node that does not see the others takes a client that is connected there"
            yield files.source(key).unsafe(files.line(key), key, meaning, f"{key} = off")
    for source, option, _ in files.matching(r"(listener\..*\.)?allow_multiple_sessions"):
        if option.value.lower() in TRUE:
            meaning = "several connections have one client id: authsvc knows one of them, and judges all by its grant"
            yield source.unsafe(option.line, option.key, meaning, "off")


def _plugins(files: Together) -> Iterator[Finding]:
    if files.on("allow_anonymous"):
        meaning = "everybody is let in and may do everything: no hook is asked"
        yield files.source("allow_anonymous").unsafe(
            files.line("allow_anonymous"), "allow_anonymous", meaning, "allow_anonymous = off"
        )
    if not files.on("plugins.vmq_webhooks"):
        key = "plugins.vmq_webhooks"
        meaning = "the hooks below are never asked"
        yield files.source(key).unsafe(files.line(key), key, meaning, f"{key} = on")
    named = {match[1] for _, _, match in files.matching(r"plugins\.([^.]+)")}
    for name in sorted({*named, *_OTHERS_DECIDE} - {"vmq_webhooks"}):
        key = f"plugins.{name}"
        if not files.on(key, default=name in _OTHERS_DECIDE):
            continue
        source, line = files.source(key), files.line(key)
        if name in _OTHERS_DECIDE or name == "vmq_diversity":
            meaning = "it decides beside authsvc, and its yes counts" + ("" if line else " (on by default)")
            yield source.unsafe(line, key, meaning, f"{key} = off")
        else:
            yield source.doubtful(line, key, "a plugin may answer hooks, or carry messages past them", f"{key} = off")


def _hooks(files: Together) -> Iterator[Finding]:
    registered: dict[str, str] = {}
    for source, option, match in files.matching(r"vmq_webhooks\.([^.]+)\.hook"):
        endpoint = f"vmq_webhooks.{match[1]}.endpoint"
        if option.value in registered and option.value in VERNEMQ_HOOKS:
            meaning = "a second endpoint for this hook: whom the first passes on, it may let in"
            yield source.unsafe(option.line, option.key, meaning, "one endpoint for each hook")
        registered[option.value] = match[1]
        url = files.value(endpoint)
        if url is None:
            yield source.unsafe(option.line, option.key, "a hook without an endpoint", f"{endpoint} = …")
        else:
            yield from hook_url(files.source(endpoint), files.line(endpoint), endpoint, url, shows_secret=True)
    for hook in VERNEMQ_HOOKS:
        if hook not in registered:
            source = files.source("plugins.vmq_webhooks")
            meaning = "authsvc is not asked: another plugin decides, or nobody of that protocol gets in"
            yield source.unsafe(0, hook, meaning, f"vmq_webhooks.{hook}.hook = {hook}, and its endpoint")
    if files.value("vmq_webhooks.verify_peer") is not None and not files.on("vmq_webhooks.verify_peer"):
        key = "vmq_webhooks.verify_peer"
        meaning = "whoever is in between answers for authsvc"
        yield files.source(key).unsafe(files.line(key), key, meaning, f"{key} = on")


def _listeners(files: Together) -> Iterator[Finding]:
    for source, option, match in files.matching(r"listener\.(tcp|ws|http|https|vmq|ssl|wss)\.([^.]+)"):
        if ":" not in option.value or not reachable(option.value):
            continue
        if match[1] in {"tcp", "ws"}:
            yield plaintext_listener(source, option.line, option.key)
        if match[1] == "vmq":
            meaning = "whoever reaches it and has the cookie is a node of the cluster"
            yield source.doubtful(option.line, option.key, meaning, "an address that only the nodes reach, or vmqs")
        if match[1] == "http":
            meaning = "who administers the broker shows his key in the clear"
            yield source.unsafe(option.line, option.key, meaning, "127.0.0.1, or listener.https")
    for source, option, _ in files.matching(r"listener\..*\.allow_anonymous_override"):
        if option.value.lower() in TRUE:
            meaning = "on this listener everybody is let in and may do everything"
            yield source.unsafe(option.line, option.key, meaning, "off")
    for source, option, match in files.matching(r"listener\..*\.(auth|authz)_plugins"):
        if option.value.strip("[]") != "vmq_webhooks":
            meaning = "on this listener other plugins decide"
            yield source.unsafe(option.line, option.key, meaning, f"{match[1]}_plugins = [vmq_webhooks]")
    for source, option, _ in files.matching(
        r"listener\..*(use_identity_as_username|proxy_protocol_use_cn_as_username)"
    ):
        if option.value.lower() in TRUE and "https" not in option.key:
            meaning = "the name in a certificate takes the place of the user name that authsvc is asked about"
            yield source.doubtful(option.line, option.key, meaning, "off")
    for source, option, _ in files.matching(r"listener\.(.*\.)?mountpoint"):
        meaning = "topics are moved below it: clients of two listeners do not meet, whatever is granted"
        yield source.doubtful(option.line, option.key, meaning, "remove it")
    for source, option, _ in files.matching(r"(listener\..*|http_module\..*)\.auth\.mode"):
        if option.value == "noauth" and "mgmt" in option.key:
            yield source.unsafe(option.line, option.key, "anybody administers the broker", "apikey")
    for source, option, _ in files.matching(r"distributed_cookie"):
        if option.value in {"vmq", "vernemq"}:
            meaning = "the cookie that every installation has: whoever reaches the node runs code on it"
            yield source.unsafe(option.line, option.key, meaning, "a long random word")
        yield from source.secret(option.line, option.key)
