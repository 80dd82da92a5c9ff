"""NanoMQ: nanomq.conf, nanomq_acl.conf, nanomq_pwd.conf (HOCON).

Facts: nanomq/nanomq docs/en_US/config-description/acl.md (allow_anonymous and no_match allow by default; `@` and
wildcards in rules), http-server.md (all addresses by default); nanomq/NanoNNG src/supplemental/nanolib/conf_ver2.c,
src/sp/protocol/mqtt/auth_http.c (no TLS; without headers no parameters are sent; super_req comes before acl_req).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from authsvc.brokerconfig.findings import Finding
from authsvc.brokerconfig.hocon import Document, Path, read_hocon
from authsvc.brokerconfig.linters.sources import TRUE, Source, hook_url, plaintext_listener, reachable

_OPTIONS = frozenset({"auth", "allow_anonymous", "no_match", "http_server", "listeners", "mqtt"})
_HTTP: Path = ("auth", "http_auth")


def lint(sources: Sequence[Source], release: tuple[int, ...]) -> Iterator[Finding]:  # noqa: ARG001  # as the others
    """Yield what is unsafe; files of rules and of passwords are known by what is in them."""
    given = [PurePath(source.file).name for source in sources]
    for source in sources:
        document = read_hocon(source.text)
        for line, why in document.unknown:
            yield source.unknown(line, "syntax", why)
        for line, where, target in document.included:
            if "headers" not in where and PurePath(target).name not in given:
                yield source.unknown(line, "include", "this file is not read: name it with --broker-file as well")
        if document.below() == ["rules"]:
            yield from _rules(source, document, ("rules",))
        elif _only_passwords(document):
            first = min(entry.line for entry in document.entries.values())
            yield source.unsafe(first, "password", "these users are let in without authsvc", "remove the file")
            yield from source.secret(first, "password")
        else:
            yield from _main(source, document)


def _only_passwords(document: Document) -> bool:
    if not document.entries or document.opened or not _OPTIONS.isdisjoint(document.below()):
        return False
    return all(len(path) == 1 for path in document.entries)


def _main(source: Source, document: Document) -> Iterator[Finding]:
    for name, safe, meaning in (
        ("allow_anonymous", "false", "clients without a user name are let in"),
        ("no_match", "deny", "what no rule speaks of is allowed"),
    ):
        entry = document.get("auth", name) or document.get(name)
        if entry is None or entry.value.lower() != safe:
            line = entry.line if entry else document.line("auth", name)
            yield source.unsafe(line, name, meaning + ("" if entry else " (by default)"), f"auth.{name} = {safe}")
    if document.has("auth", "http"):
        line = document.line("auth", "http")
        yield source.unknown(line, "auth.http", "the format before 0.19 is not read: authsvc config nanomq")
    yield from _asked(source, document)
    for name in ("password", "acl"):
        if document.has("auth", name, "rules"):
            yield from _rules(source, document, ("auth", name, "rules"))
        elif name == "password" and (document.has("auth", name) or _includes(document, ("auth", name))):
            meaning = "users of a file are let in without authsvc"
            yield source.unsafe(document.line("auth", name), f"auth.{name}", meaning, "remove it")
    yield from _listeners(source, document)


def _asked(source: Source, document: Document) -> Iterator[Finding]:
    if not document.has(*_HTTP) or _is_off(document, (*_HTTP, "enable")):
        meaning = "authsvc is not asked, neither who connects nor what he may do"
        yield source.unsafe(document.line(*_HTTP, "enable"), "http_auth", meaning, "`authsvc config nanomq`")
        return
    for name, what in (("auth_req", "who connects"), ("acl_req", "what he may do")):
        path = (*_HTTP, name)
        url = document.get(*path, "url")
        if url is None:
            yield source.unsafe(document.line(*path), name, f"authsvc is not asked {what}", f"http_auth.{name}")
            continue
        yield from hook_url(source, url.line, f"{name}.url", url.value)
        if url.value.startswith("https:"):
            meaning = "NanoMQ verifies nobody here"
            yield source.unsafe(url.line, f"{name}.url", meaning, "http:// to authsvc on this machine")
        method = document.get(*path, "method")
        if method is not None and method.value.lower() != "post":
            yield source.unsafe(method.line, f"{name}.method", "a GET puts passwords into URLs and logs", "POST")
        yield from _headers(source, document, path)
        for parameter, sign in (("password", "%P"),) if name == "auth_req" else (("access", "%A"), ("topic", "%t")):
            if not any(entry.value == sign for entry in document.entries.values() if entry.path[:3] == path):
                meaning = f"without {sign} authsvc cannot judge and refuses"
                yield source.doubtful(
                    document.line(*path, "params"), f"{name}.params", meaning, f'{parameter} = "{sign}"'
                )
    if document.has(*_HTTP, "super_req"):
        meaning = "whom it knows is never asked for rights"
        yield source.unsafe(document.line(*_HTTP, "super_req"), "super_req", meaning, "remove it")
    ttl = document.get(*_HTTP, "cache_ttl")
    if ttl is not None and not re.fullmatch(r"0+\s*[a-z]*", ttl.value):
        meaning = "allowed answers are kept, so a right or a token outlives its end"
        yield source.unsafe(ttl.line, "cache_ttl", meaning, "cache_ttl = 0s")


def _headers(source: Source, document: Document, path: Path) -> Iterator[Finding]:
    headers = (*path, "headers")
    name = path[-1]
    if not document.below(*headers) and not _includes(document, headers):
        meaning = "without headers NanoMQ sends no parameters: everybody is refused"
        yield source.doubtful(document.line(*headers), f"{name}.headers", meaning, 'content-type = "application/json"')
    content = document.get(*headers, "content-type")
    if content is not None and content.value.lower() != "application/json":
        meaning = "a form was not escaped in every version, so authsvc refuses names with `&`"
        yield source.doubtful(content.line, f"{name}.headers", meaning, 'content-type = "application/json"')
    for header in ("authorization", "x-authsvc-secret"):
        entry = document.get(*headers, header)
        if entry is not None:
            yield from source.secret(entry.line, f"{name}.headers.{header}")


def _includes(document: Document, path: Path) -> bool:
    return any(where == path for _, where, _ in document.included)


def _is_off(document: Document, path: Path) -> bool:
    entry = document.get(*path)
    return entry is not None and entry.value.lower() not in TRUE


def _rules(source: Source, document: Document, path: Path) -> Iterator[Finding]:
    for number in document.below(*path):
        rule = (*path, number)
        permit = document.get(*rule, "permit")
        line = document.line(*rule)
        topics = [
            entry.value for entry in document.entries.values() if entry.path[: len(rule) + 1] == (*rule, "topics")
        ]
        if permit is None:
            yield source.unknown(line, "permit", "a rule that neither allows nor denies")
        elif permit.value == "allow":
            bound = any(document.has(*rule, key) for key in ("username", "clientid", "and", "or", "topics"))
            meaning = "it allows beside authsvc; a client chooses its user name and client id"
            if not bound:
                meaning = "everybody may do everything that no rule before it denies"
            yield source.unsafe(line, "permit", meaning, "remove the rule: authsvc decides")
        elif "#" in topics and not any(topic.startswith("$SYS") for topic in topics):
            meaning = "`#` does not match topics that begin with `$`, so $SYS stays open to a later rule"
            yield source.unsafe(line, "permit", meaning, 'add "$SYS/#", or rely on no_match = deny')


def _listeners(source: Source, document: Document) -> Iterator[Finding]:
    for entry in document.entries.values():
        plain = entry.path[0] == "listeners" and entry.path[-1] == "bind" and entry.path[1] in {"tcp", "ws"}
        if plain and reachable(entry.value.partition("/")[0]):
            yield plaintext_listener(source, entry.line, ".".join(entry.path))
    if document.has("http_server") and not _is_off(document, ("http_server", "enable")):
        address = document.get("http_server", "ip_addr")
        if address is None or reachable(f"{address.value}:0"):
            meaning = "the REST API, which publishes as it likes, is open to other machines"
            yield source.unsafe(document.line("http_server", "ip_addr"), "http_server", meaning, "ip_addr = 127.0.0.1")
        password = document.get("http_server", "password")
        if password is None or password.value in {"public", "admin"}:
            meaning = "the password that every installation has"
            yield source.unsafe(document.line("http_server", "password"), "http_server.password", meaning, "another")
        else:
            yield from source.secret(password.line, "http_server.password")
    for path in (("bridges",), ("rules", "repub")):
        if document.has(*path):
            meaning = "what comes over a bridge, or from a rule, is judged by nobody"
            instead = "remove it unless you trust the other side"
            yield source.doubtful(document.line(*path), ".".join(path), meaning, instead)
