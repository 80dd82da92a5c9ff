"""What all linters share: the files to look at, and findings that several brokers have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from authsvc.brokerconfig.findings import Finding, Severity
from authsvc.brokerconfig.installation import is_loopback

TRUE = frozenset({"true", "on", "yes", "1"})
_READABLE_BY_OTHERS = 0o004


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file: the name to show, its text, its permission bits (None: unknown), and what its broker reads with it.

    `included` has the names of the files (``*.conf``) in each folder that the text includes, if it could be looked at.
    """

    file: str
    text: str
    mode: int | None = None
    included: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def finding(self, severity: Severity, line: int, option: str, meaning: str, instead: str) -> Finding:
        """Return a finding about this file."""
        return Finding(file=self.file, line=line, severity=severity, option=option, meaning=meaning, instead=instead)

    def unsafe(self, line: int, option: str, meaning: str, instead: str) -> Finding:
        """Return a finding of what is unsafe in this file."""
        return self.finding("unsafe", line, option, meaning, instead)

    def doubtful(self, line: int, option: str, meaning: str, instead: str) -> Finding:
        """Return a finding of what may be meant, but should be looked at."""
        return self.finding("doubtful", line, option, meaning, instead)

    def unknown(self, line: int, option: str, meaning: str) -> Finding:
        """Return a finding of what was not understood."""
        return self.finding("unknown", line, option, meaning, "look at it yourself: nothing is said about it here")

    def secret(self, line: int, option: str) -> Iterator[Finding]:
        """Yield a finding if this file, which holds a secret in that line, can be read by everybody."""
        if self.mode is not None and self.mode & _READABLE_BY_OTHERS:
            meaning = f"a secret in a file that every user of the machine reads (mode {self.mode:04o})"
            yield self.unsafe(line, option, meaning, "chmod 0640 and the broker's group, or keep the secret elsewhere")


def host_of(address: str) -> str | None:
    """Return the host part of ``HOST:PORT``, ``PORT`` (every address: "0.0.0.0") or a socket path (None)."""
    address = address.strip().strip('"')
    if address.startswith("/") or address.lower() in {"none", "false"}:
        return None
    host, separator, _ = address.rpartition(":")
    return host.strip("[]") if separator and host else "0.0.0.0"  # noqa: S104  # what a port alone means


def reachable(address: str) -> bool:
    """Return whether other machines reach this address of a listener."""
    host = host_of(address)
    return host is not None and not is_loopback(host)


def hook_url(source: Source, line: int, option: str, url: str, *, shows_secret: bool = False) -> Iterator[Finding]:
    """Yield what is unsafe in the address at which a broker asks; `shows_secret`: it has no other place for one."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        yield source.unknown(line, option, "this is no URL")
        return
    if "${" in url and "${" in parts.netloc:
        yield source.unsafe(line, option, "a client would choose whom the broker asks", "a fixed host")
    elif parts.scheme == "http" and not is_loopback(host):
        yield source.unsafe(
            line,
            option,
            "passwords cross the network in the clear, and whoever is in between answers for authsvc",
            "https:// with verification of the certificate, or authsvc on this machine",
        )
    elif parts.scheme not in {"http", "https"}:
        yield source.unknown(line, option, "neither http:// nor https://")
    if parts.query or ((parts.username or parts.password) and not shows_secret):
        meaning = "a secret in a URL reaches logs and lists of processes"
        yield source.unsafe(line, option, meaning, "a header or a client certificate")
    if parts.password or parts.query:
        yield from source.secret(line, option)
    if "/hooks/" not in parts.path and "${" not in parts.netloc:
        yield source.doubtful(line, option, "the address is not one of authsvc's hooks", "…/hooks/NAME/…")


def plaintext_listener(source: Source, line: int, option: str) -> Finding:
    """Return the finding of a listener without TLS that other machines reach."""
    return source.doubtful(
        line,
        option,
        "other machines reach it, and clients send their tokens in the clear",
        "TLS, or loopback behind something that speaks TLS",
    )
