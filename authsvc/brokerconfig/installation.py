"""What a broker's configuration has to know of this installation, checked once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Addresses, names and files that go into a broker's configuration. It holds no secret, only files that do."""

    kind: str
    name: str = ""
    version: str = ""
    url: str = "http://127.0.0.1:8080"
    secret_file: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    bind: str = ""
    bind_cert: str = ""
    bind_key: str = ""
    allow_plaintext: bool = False
    management_url: str = ""
