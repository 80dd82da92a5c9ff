"""EMQX 5 and 6: emqx.conf, cluster.hocon (HOCON) and acl.conf (Erlang terms).

Facts, all from emqx/emqx: apps/emqx/src/emqx_schema.erl (`authorization.no_match` is allow by default up to 5.10; the
cache of a connection is on), apps/emqx_auth/src/emqx_authz/emqx_authz_schema.erl (without `sources` the file acl.conf
counts), apps/emqx_auth/etc/acl.conf (it ends by allowing everything), changes/6.2.0.en.md (node caches on by default),
apps/emqx_auth_http (any answer but 200 is "ask the next one").
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import PurePath

from authsvc.brokerconfig.findings import Finding
from authsvc.brokerconfig.hocon import Document, Path, read_hocon
from authsvc.brokerconfig.linters.erlang import lint_acl, looks_like_terms
from authsvc.brokerconfig.linters.sources import TRUE, Source, hook_url, plaintext_listener, reachable

_OPEN_BY_DEFAULT = ("tcp", "ws")  # and without TLS
# apps/emqx_exhook, apps/emqx_auto_subscribe: authorized under EMQX_SECURITY_PROFILE=hardened only
_UNASKED: dict[Path, str] = {
    ("exhook", "servers"): "a hook server may let clients in and allow topics, and authsvc is then not asked",
    ("auto_subscribe", "topics"): "clients are subscribed to these without being asked whether they may",
}
_BRIDGED = "what comes from elsewhere, or is published again by a rule, is judged by nobody"
_UNJUDGED: dict[Path, str] = {
    ("rewrite",): "topics are rewritten: what is judged is not what is used",
    ("plugins", "states"): "a plugin may answer hooks, or carry messages past them",
    ("message_transformation", "transformations"): "a topic that is changed after the check was not judged",
    **dict.fromkeys((("bridges",), ("sources",), ("cluster", "links"), ("rule_engine", "rules")), _BRIDGED),
}
_SECRETS = ("password", "secret", "authorization", "x-authsvc-secret", "cookie")


class _Files:
    """Several files as one configuration: what a later one says is merged over what an earlier one said."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._starts = list(accumulate((source.text.count("\n") + 1 for source in sources[:-1]), initial=1))
        self.document = read_hocon(*(source.text for source in sources))

    def place(self, line: int) -> tuple[Source, int]:
        """Return file and line of a line of the document; 0 speaks of the last file as a whole."""
        if not line:
            return self._sources[-1], 0
        number = bisect_right(self._starts, line) - 1
        return self._sources[number], line - self._starts[number] + 1

    def value(self, *path: str) -> str | None:
        entry = self.document.get(*path)
        return entry.value if entry else None

    def unsafe(self, line: int, option: str, meaning: str, instead: str) -> Finding:
        source, line = self.place(line)
        return source.unsafe(line, option, meaning, instead)

    def doubtful(self, line: int, option: str, meaning: str, instead: str) -> Finding:
        source, line = self.place(line)
        return source.doubtful(line, option, meaning, instead)

    def unknown(self, line: int, option: str, meaning: str) -> Finding:
        source, line = self.place(line)
        return source.unknown(line, option, meaning)


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
    document = files.document
    chain = _elements(document, "authentication")
    instead = "one HTTP authenticator, `authsvc config emqx`"
    if not chain:
        line = document.line("authentication")
        yield files.unsafe(line, "authentication", "without an authenticator EMQX lets everybody in", instead)
    for number, path in enumerate(chain):
        line = document.line(*path)
        backend = document.get(*path, "backend")
        if backend is None or backend.value != "http":
            meaning = "it lets in whom authsvc does not know, also as superuser, who is never asked for rights"
            yield files.unsafe(document.line(*path, "backend") or line, "authentication", meaning, instead)
        elif number and (first := document.get(*chain[0], "backend")) and first.value == "http":
            meaning = "whom the first authenticator does not know, or cannot be asked about, the next one may let in"
            yield files.unsafe(line, "authentication", meaning, instead)
        mechanism = document.get(*path, "mechanism")
        if mechanism is None or mechanism.value != "password_based":
            yield files.unsafe(
                document.line(*path, "mechanism"), "mechanism", "not what authsvc answers", "mechanism = password_based"
            )
        yield from _http(files, path)


def _http(files: _Files, path: Path) -> Iterator[Finding]:
    document = files.document
    url = document.get(*path, "url")
    if url is None:
        return
    yield from hook_url(*files.place(url.line), "url", url.value)
    method = document.get(*path, "method")
    if method is None or method.value.lower() != "post":
        yield files.unsafe(
            document.line(*path, "method"), "method", "a GET puts passwords into URLs and logs", "method = post"
        )
    if url.value.startswith("https:"):
        verify = document.get(*path, "ssl", "verify")
        if verify is None or verify.value != "verify_peer":
            yield files.unsafe(
                document.line(*path, "ssl", "verify"),
                "ssl.verify",
                "whoever is in between answers for authsvc: the default is not to verify",
                "ssl { enable = true, verify = verify_peer, cacertfile = … }",
            )


def _authorization(files: _Files, release: tuple[int, ...]) -> Iterator[Finding]:
    document = files.document
    if not document.has("authorization", "no_match") and (not release or release < (6,)):
        line = document.line("authorization", "no_match")
        meaning = "what no rule speaks of is allowed: that is the default up to 5.10, and when authsvc cannot be asked"
        yield files.unsafe(line, "no_match", meaning, "authorization.no_match = deny")
    yield from _caches(files, release)
    if not document.has("authorization", "sources"):
        line = document.line("authorization", "sources")
        meaning = "without a list of sources the file acl.conf counts, which ends by allowing everything"
        yield files.unsafe(line, "sources", meaning, "authorization.sources with the HTTP source alone")
        return
    found = _elements(document, "authorization", "sources")
    if not found:
        meaning = "no source: only rights that EMQX matches exactly are granted, `+` at the end of a filter never"
        yield files.doubtful(document.line("authorization", "sources"), "sources", meaning, "the HTTP source")
    asked = 0
    for path in found:
        kind = document.get(*path, "type")
        if kind is None or kind.value != "http":
            meaning = "it decides beside authsvc, and what it allows authsvc is not asked about"
            if kind is not None and kind.value == "file":
                meaning = "acl.conf decides beside authsvc; as it is shipped it allows everything"
            line = document.line(*path, "type") or document.line(*path)
            yield files.unsafe(line, "sources", meaning, "the HTTP source alone")
            continue
        asked += 1
        if asked > 1:
            yield files.unsafe(document.line(*path), "sources", "a second service decides too", "one HTTP source")
        yield from _http(files, path)


def _caches(files: _Files, release: tuple[int, ...]) -> Iterator[Finding]:
    for path, since in (
        (("authorization", "cache", "enable"), ()),
        (("authorization", "node_cache", "enable"), (6, 2)),
        (("authentication_settings", "node_cache", "enable"), (6, 2)),
    ):
        value = files.value(*path)
        on_by_default = not since or not release or release >= since
        if (value is None and on_by_default) or (value is not None and value.lower() in TRUE):
            name = ".".join(path)
            meaning = "allowed answers are kept for a minute, so a right or a token outlives its end"
            if value is None:
                meaning += f" (on by default{' since 6.2' if since else ''})"
            yield files.unsafe(files.document.line(*path), name, meaning, f"{name} = false")


def _listeners(files: _Files) -> Iterator[Finding]:
    document = files.document
    for protocol in dict.fromkeys((*_OPEN_BY_DEFAULT, *document.below("listeners"))):
        names = document.below("listeners", protocol)
        if "default" not in names and protocol in _OPEN_BY_DEFAULT:
            yield files.doubtful(
                document.line("listeners", protocol),
                f"listeners.{protocol}.default",
                "it is open to all addresses, without TLS, unless it is named",
                f"listeners.{protocol}.default.enable = false, or an address",
            )
        for name in names:
            path = ("listeners", protocol, name)
            if not _off(document, path):
                yield from _listener(files, path)


def _listener(files: _Files, path: Path) -> Iterator[Finding]:
    document = files.document
    option = ".".join(path)
    bind = document.get(*path, "bind")
    if path[1] in _OPEN_BY_DEFAULT and (bind is None or reachable(bind.value)):
        yield plaintext_listener(*files.place(document.line(*path, "bind")), f"{option}.bind")
    asks = document.get(*path, "enable_authn")
    if asks is not None and asks.value.lower() not in {*TRUE, "quick_deny_anonymous"}:
        yield files.unsafe(asks.line, "enable_authn", "nobody is asked who he is on this listener", "remove it")
    if document.has(*path, "authentication"):
        line = document.line(*path, "authentication")
        meaning = "this listener asks its own authenticators, not the ones above"
        yield files.unsafe(line, f"{option}.authentication", meaning, "remove it")
    if document.has(*path, "mountpoint"):
        line = document.line(*path, "mountpoint")
        meaning = "topics are moved below it after the check: what is granted is not what is reached"
        yield files.doubtful(line, f"{option}.mountpoint", meaning, "remove it")


def _anywhere(files: _Files, given: Sequence[str]) -> Iterator[Finding]:
    document = files.document
    for line, why in document.unknown:
        yield files.unknown(line, "syntax", why)
    for line, where, target in document.included:
        if where or PurePath(target).name not in given:
            meaning = "this file is not read: name it with --broker-file as well"
            if where:
                meaning = "what it says here, inside a section, is not read"
            yield files.unknown(line, "include", meaning)
    for entry in document.entries.values():
        name, value = entry.path[-1], entry.value.lower()
        if name == "no_match" and value != "deny":
            meaning = "what no rule speaks of is allowed, also when authsvc cannot be asked"
            yield files.unsafe(entry.line, ".".join(entry.path), meaning, "no_match = deny")
        if name == "allow_anonymous" and value in TRUE:
            yield files.unsafe(entry.line, name, "clients without a user name are let in", "remove it")
        if name == "ignore_backend_failures" and value in TRUE:
            meaning = "when authsvc cannot be asked the next one is"
            yield files.doubtful(entry.line, name, meaning, "ignore_backend_failures = false")
        if entry.path[:2] == ("authorization", "topic_template_allow") and value in TRUE:
            meaning = "a client id or user name with these characters widens a rule"
            yield files.unsafe(entry.line, ".".join(entry.path[1:]), meaning, "remove it")
        if entry.path == ("dashboard", "default_password") and value == "public":
            meaning = "the password that every installation has: whoever administers EMQX decides everything"
            yield files.unsafe(entry.line, ".".join(entry.path), meaning, "another")
        if name in _SECRETS and value and not value.startswith(("file://", "${")):
            source, line = files.place(entry.line)
            yield from source.secret(line, ".".join(entry.path))
    for name in document.below("gateway"):
        if not _off(document, ("gateway", name)):
            meaning = "clients of this protocol are asked by an authenticator of its own, or by none"
            yield files.unsafe(document.line("gateway", name), f"gateway.{name}", meaning, "enable = false")
    yield from _beside(files)


def _beside(files: _Files) -> Iterator[Finding]:
    """Yield the parts of EMQX that decide, subscribe or publish without authsvc."""
    document = files.document
    for path, meaning in (*_UNASKED.items(), *_UNJUDGED.items()):
        if all(_off(document, (*path, key)) for key in document.below(*path)):
            continue
        line, option = document.line(*path), ".".join(path)
        if path in _UNASKED:
            yield files.unsafe(line, option, meaning, "remove it")
        else:
            yield files.doubtful(line, option, meaning, "remove it unless it is meant")
