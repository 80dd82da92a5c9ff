"""EMQX 5 and 6: emqx.conf, cluster.hocon (HOCON) and acl.conf (Erlang terms).

Facts, all from emqx/emqx: apps/emqx/src/emqx_schema.erl (`authorization.no_match` is allow by default up to 5.10; the
cache of a connection is on), apps/emqx_auth/src/emqx_authz/emqx_authz_schema.erl (without `sources` the file acl.conf
counts), apps/emqx_auth/etc/acl.conf (it ends by allowing everything), changes/6.2.0.en.md (node caches on by default),
apps/emqx_auth_http (any answer but 200 is "ask the next one").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from authsvc.brokerconfig.findings import Finding
from authsvc.brokerconfig.hocon import Document, Path, read_hocon
from authsvc.brokerconfig.linters.erlang import lint_acl, looks_like_terms
from authsvc.brokerconfig.linters.sources import TRUE, Source, hook_url, plaintext_listener, reachable

_LISTENERS = ("tcp", "ssl", "ws", "wss")
_SECRETS = ("password", "secret", "authorization", "x-authsvc-secret", "cookie")


class _Files:
    """Several files as one configuration: what a later one says replaces what an earlier one said."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.read = [(source, read_hocon(source.text)) for source in sources]

    def owner(self, *path: str) -> tuple[Source, Document]:
        """Return the last file that says anything at a path; the last one of all if none does."""
        return next((one for one in reversed(self.read) if one[1].has(*path)), self.read[-1])

    def has(self, *path: str) -> bool:
        return any(document.has(*path) for _, document in self.read)

    def value(self, *path: str) -> str | None:
        _, document = self.owner(*path)
        entry = document.get(*path)
        return entry.value if entry else None

    def place(self, *path: str) -> tuple[Source, int]:
        """Return file and line of a path, or of the nearest thing around it."""
        for length in range(len(path), 0, -1):
            if self.has(*path[:length]):
                source, document = self.owner(*path[:length])
                return source, document.line(*path)
        return self.read[-1][0], 0


def lint(sources: Sequence[Source], release: tuple[int, ...]) -> Iterator[Finding]:
    """Yield what is unsafe in the files of an EMQX of this release; () is taken to be any."""
    terms = [source for source in sources if looks_like_terms(source.text)]
    for source in terms:
        yield from lint_acl(source)
    hocon = [source for source in sources if source not in terms]
    if not hocon:
        return
    files = _Files(hocon)
    yield from _authentication(files)
    yield from _authorization(files, release)
    yield from _listeners(files)
    yield from _anywhere(files, [PurePath(source.file).name for source in sources])


def _off(document: Document, path: Path) -> bool:
    entry = document.get(*path, "enable") or document.get(*path, "enabled")
    return entry is not None and entry.value.lower() not in TRUE


def _elements(document: Document, *path: str) -> list[Path]:
    """Return the paths of the elements of an array that are on; one object alone is an array of one."""
    keys = document.below(*path)
    found = [(*path, key) for key in keys] if keys and keys[0].isdecimal() else [path] if keys else []
    return [one for one in found if document.get(*one) is None and not _off(document, one)]


def _authentication(files: _Files) -> Iterator[Finding]:
    source, document = files.owner("authentication")
    chain = _elements(document, "authentication")
    instead = "one HTTP authenticator, `authsvc config emqx`"
    if not chain:
        line = document.line("authentication")
        yield source.unsafe(line, "authentication", "without an authenticator EMQX lets everybody in", instead)
    for number, path in enumerate(chain):
        line = document.line(*path)
        backend = document.get(*path, "backend")
        if backend is None or backend.value != "http":
            meaning = "it lets in whom authsvc does not know, also as superuser, who is never asked for rights"
            yield source.unsafe(document.line(*path, "backend") or line, "authentication", meaning, instead)
        elif number and (first := document.get(*chain[0], "backend")) and first.value == "http":
            meaning = "whom the first authenticator does not know, or cannot be asked about, the next one may let in"
            yield source.unsafe(line, "authentication", meaning, instead)
        mechanism = document.get(*path, "mechanism")
        if mechanism is None or mechanism.value != "password_based":
            yield source.unsafe(
                document.line(*path, "mechanism"), "mechanism", "not what authsvc answers", "mechanism = password_based"
            )
        yield from _http(source, document, path)


def _http(source: Source, document: Document, path: Path) -> Iterator[Finding]:
    url = document.get(*path, "url")
    if url is None:
        return
    yield from hook_url(source, url.line, "url", url.value)
    method = document.get(*path, "method")
    if method is None or method.value.lower() != "post":
        yield source.unsafe(
            document.line(*path, "method"), "method", "a GET puts passwords into URLs and logs", "method = post"
        )
    if url.value.startswith("https:"):
        verify = document.get(*path, "ssl", "verify")
        if verify is None or verify.value != "verify_peer":
            yield source.unsafe(
                document.line(*path, "ssl", "verify"),
                "ssl.verify",
                "whoever is in between answers for authsvc: the default is not to verify",
                "ssl { enable = true, verify = verify_peer, cacertfile = … }",
            )


def _authorization(files: _Files, release: tuple[int, ...]) -> Iterator[Finding]:
    no_match = files.value("authorization", "no_match")
    if no_match is None and (not release or release < (6,)):
        source, line = files.place("authorization", "no_match")
        meaning = "what no rule speaks of is allowed: that is the default up to 5.10, and when authsvc cannot be asked"
        yield source.unsafe(line, "no_match", meaning, "authorization.no_match = deny")
    yield from _caches(files, release)
    if not files.has("authorization", "sources"):
        source, line = files.place("authorization", "sources")
        meaning = "without a list of sources the file acl.conf counts, which ends by allowing everything"
        yield source.unsafe(line, "sources", meaning, "authorization.sources with the HTTP source alone")
        return
    source, document = files.owner("authorization", "sources")
    found = _elements(document, "authorization", "sources")
    if not found:
        meaning = "no source: only rights that EMQX matches exactly are granted, `+` at the end of a filter never"
        yield source.doubtful(document.line("authorization", "sources"), "sources", meaning, "the HTTP source")
    asked = 0
    for path in found:
        kind = document.get(*path, "type")
        if kind is None or kind.value != "http":
            meaning = "it decides beside authsvc, and what it allows authsvc is not asked about"
            if kind is not None and kind.value == "file":
                meaning = "acl.conf decides beside authsvc; as it is shipped it allows everything"
            line = document.line(*path, "type") or document.line(*path)
            yield source.unsafe(line, "sources", meaning, "the HTTP source alone")
            continue
        asked += 1
        if asked > 1:
            yield source.unsafe(document.line(*path), "sources", "a second service decides too", "one HTTP source")
        yield from _http(source, document, path)


def _caches(files: _Files, release: tuple[int, ...]) -> Iterator[Finding]:
    for path, since in (
        (("authorization", "cache", "enable"), ()),
        (("authorization", "node_cache", "enable"), (6, 2)),
        (("authentication_settings", "node_cache", "enable"), (6, 2)),
    ):
        value = files.value(*path)
        on_by_default = not since or not release or release >= since
        if (value is None and on_by_default) or (value is not None and value.lower() in TRUE):
            source, line = files.place(*path)
            name = ".".join(path)
            meaning = "allowed answers are kept for a minute, so a right or a token outlives its end"
            if value is None:
                meaning += f" (on by default{' since 6.2' if since else ''})"
            yield source.unsafe(line, name, meaning, f"{name} = false")


def _listeners(files: _Files) -> Iterator[Finding]:
    for protocol in _LISTENERS:
        source, document = files.owner("listeners", protocol)
        names = document.below("listeners", protocol)
        if "default" not in names and protocol in {"tcp", "ws"}:
            source, line = files.place("listeners", protocol)
            yield source.doubtful(
                line,
                f"listeners.{protocol}.default",
                "it is open to all addresses, without TLS, unless it is named",
                f"listeners.{protocol}.default.enable = false, or an address",
            )
        for name in names:
            path = ("listeners", protocol, name)
            if _off(document, path):
                continue
            yield from _listener(source, document, path)


def _listener(source: Source, document: Document, path: Path) -> Iterator[Finding]:
    option = ".".join(path)
    bind = document.get(*path, "bind")
    if path[1] in {"tcp", "ws"} and (bind is None or reachable(bind.value)):
        yield plaintext_listener(source, document.line(*path, "bind"), f"{option}.bind")
    asks = document.get(*path, "enable_authn")
    if asks is not None and asks.value.lower() not in {*TRUE, "quick_deny_anonymous"}:
        yield source.unsafe(asks.line, "enable_authn", "nobody is asked who he is on this listener", "remove it")
    if document.has(*path, "authentication"):
        yield source.unsafe(
            document.line(*path, "authentication"),
            f"{option}.authentication",
            "this listener asks its own authenticators, not the ones above",
            "remove it",
        )
    if document.has(*path, "mountpoint"):
        yield source.doubtful(
            document.line(*path, "mountpoint"),
            f"{option}.mountpoint",
            "topics are moved below it after the check: what is granted is not what is reached",
            "remove it",
        )


def _anywhere(files: _Files, given: Sequence[str]) -> Iterator[Finding]:
    for source, document in files.read:
        for line, why in document.unknown:
            yield source.unknown(line, "syntax", why)
        for line, _, target in document.included:
            if PurePath(target).name not in given:
                yield source.unknown(line, "include", "this file is not read: name it with --broker-file as well")
        for entry in document.entries.values():
            name, value = entry.path[-1], entry.value.lower()
            if name == "no_match" and value != "deny":
                meaning = "what no rule speaks of is allowed, also when authsvc cannot be asked"
                yield source.unsafe(entry.line, ".".join(entry.path), meaning, "no_match = deny")
            if name == "allow_anonymous" and value in TRUE:
                yield source.unsafe(entry.line, name, "clients without a user name are let in", "remove it")
            if name == "ignore_backend_failures" and value in TRUE:
                meaning = "when authsvc cannot be asked the next one is"
                yield source.doubtful(entry.line, name, meaning, "ignore_backend_failures = false")
            if entry.path[:2] == ("authorization", "topic_template_allow") and value in TRUE:
                meaning = "a client id or user name with these characters widens a rule"
                yield source.unsafe(entry.line, ".".join(entry.path[1:]), meaning, "remove it")
            if name in _SECRETS and value and not value.startswith(("file://", "${")):
                yield from source.secret(entry.line, ".".join(entry.path))
        if document.below("rewrite"):
            meaning = "topics are rewritten: what is judged is not what is used"
            yield source.doubtful(document.line("rewrite"), "rewrite", meaning, "remove it")
        for name in document.below("gateway"):
            if not _off(document, ("gateway", name)):
                meaning = "clients of this protocol are asked by an authenticator of its own, or by none"
                yield source.unsafe(document.line("gateway", name), f"gateway.{name}", meaning, "enable = false")
