"""Who calls: admin keys, their roles and their tenant.

Authentication stands before routing, so nothing under ``/v1`` answers anything but 401 without a valid admin key, not
even whether a path exists. What a route asks for is declared beside it (`Access`) and checked by `routes.GuardedRoute`
before the body is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from authsvc.core import tokens
from authsvc.core.errors import AuthsvcError, NotFound
from authsvc.core.facts import AdminKey, AdminRole, TokenKind
from authsvc.web.problems import forbidden, of_error, unauthenticated

if TYPE_CHECKING:
    from authsvc.store import Store

CALLER = "authsvc.caller"  # where the ASGI scope holds the Caller
_RANK = {AdminRole.VIEWER: 0, AdminRole.OPERATOR: 1, AdminRole.OWNER: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated admin key; `tenant` None sees every tenant."""

    key_id: str
    role: AdminRole
    tenant: str | None

    @property
    def platform_owner(self) -> bool:
        """Tell whether this is an owner key bound to no tenant: the only one that may reach over the walls."""
        return self.role is AdminRole.OWNER and self.tenant is None

    def at_least(self, role: AdminRole) -> bool:
        return _RANK[self.role] >= _RANK[role]


class Reach(StrEnum):
    """Which keys a route is for, by their tenant."""

    TENANT = "tenant"  # the route's path names a tenant: its own keys, and those bound to none
    ANY = "any"  # every key; the route shows a tenant's key only what is its own
    PLATFORM = "platform"  # keys bound to no tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a route asks of its caller. `as_extra` puts it into the OpenAPI document, where the test matrix reads it."""

    role: AdminRole
    reach: Reach = Reach.TENANT

    def as_extra(self) -> dict[str, object]:
        return {"x-authsvc-role": self.role.value, "x-authsvc-reach": self.reach.value}

    def check(self, caller: Caller, tenant: str | None) -> None:
        """Raise what keeps the caller out; `tenant` is the one that the path names.

        A foreign tenant is answered before anything is looked up, with the words for one that does not exist: neither
        answer nor time tells the two apart.
        """
        if caller.tenant is not None:
            if tenant is not None and tenant != caller.tenant:
                raise NotFound("tenant", tenant)
            if self.reach is Reach.PLATFORM:
                raise forbidden("this takes a key that is bound to no tenant")
        if not caller.at_least(self.role):
            raise forbidden(f"this takes a key with the role `{self.role.value}`")


VIEW = Access(role=AdminRole.VIEWER)
OPERATE = Access(role=AdminRole.OPERATOR)
OWN = Access(role=AdminRole.OWNER)


class Authenticated:
    """ASGI middleware: lets a request through with its `Caller` in the scope, or answers 401 (503 without a store)."""

    def __init__(self, app: ASGIApp, *, store: Store) -> None:
        self._app = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} under /v1")
        try:
            key = await self._admin_key(Headers(scope=scope))
        except AuthsvcError as error:
            problem = of_error(error)
            if problem is None:
                raise
            await problem.response()(scope, receive, send)
            return
        if key is None:
            await unauthenticated().response()(scope, receive, send)
            return
        scope[CALLER] = Caller(key_id=key.id, role=key.role, tenant=key.tenant)
        await self._app(scope, receive, send)

    async def _admin_key(self, headers: Headers) -> AdminKey | None:
        """Return the key that the request presents, found by its digest: no comparison of secrets takes place."""
        values = headers.getlist("authorization")
        if len(values) != 1:  # two of them: a proxy and this service could believe different ones
            return None
        scheme, _, secret = values[0].partition(" ")
        if scheme.lower() != "bearer":
            return None
        parsed = tokens.parse(secret.strip(" "))
        if parsed is None or parsed.kind is not TokenKind.ADMIN:
            return None
        return await self._store.admin_key_by_digest(parsed.digest)
