"""What can go wrong, as exceptions. A denial is never one: denials are values (`Decision`, `Refusal`).

AuthsvcError
├── InvalidInput        the caller's value is wrong; says which and the way out (HTTP 422)
├── NotFound            no such object inside the caller's tenant (404)
├── Conflict            the request contradicts what is stored (409)
│   └── InUse           cannot be deleted while others refer to it; carries the counts (409)
├── StoreUnavailable    the store cannot be read: fail closed (503; CONNACK 3)
│   └── StoreReadOnly   it can be read but not written just now (503)
└── UpstreamUnavailable the broker behind the gate does not answer (CONNACK 3)
"""

from __future__ import annotations

from collections.abc import Mapping


class AuthsvcError(Exception):
    """Root of all errors that this package raises on purpose."""


class InvalidInput(AuthsvcError):
    """A value that was given is wrong. `code` is stable, `field` names the place (``rules.0.topic``) or is empty."""

    def __init__(self, code: str, detail: str, *, field: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.field = field


class NotFound(AuthsvcError):
    """There is no such object, or it belongs to another tenant: the two are told apart nowhere."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"no {kind} `{key}`")
        self.code = "not_found"
        self.kind = kind
        self.key = key


class Conflict(AuthsvcError):
    """The request contradicts what is stored; `code` is stable, for example ``already_exists``."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class InUse(Conflict):
    """The object is referred to; `counts` maps the kind of referrer to how many there are."""

    def __init__(self, detail: str, counts: Mapping[str, int]) -> None:
        super().__init__("in_use", detail)
        self.counts = dict(counts)


class StoreUnavailable(AuthsvcError):
    """The store cannot be read; nobody new is admitted until it can."""


class StoreReadOnly(StoreUnavailable):
    """The store can be read but not written; what needs no write goes on."""


class UpstreamUnavailable(AuthsvcError):
    """The broker behind the gate could not be reached or refused the session."""
