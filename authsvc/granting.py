"""From facts to a grant: reads what a principal's rules rest on, compiles them, and remembers the result.

A grant whose rules do not use `{client}` is the same for every client id, so one is compiled per thing and token and
shared; it is plain data, and what is memoised about it belongs to each connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from authsvc.caches import Cache, Facts
from authsvc.consequences import earliest
from authsvc.core.facts import (
    PLATFORM_PREFIX,
    KeySet,
    Kind,
    Name,
    Refusal,
    Role,
    Secret,
    Thing,
    ThingDefinition,
    Token,
    TokenKind,
)
from authsvc.core.policy import Grant, compile_grant, ground_token_rules, uses_client_variable
from authsvc.core.reasons import Reason
from authsvc.sets import Sets


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """The facts behind a grant, read but not compiled yet: two are the same if their facts are the same objects."""

    token: Token
    secret: Secret | None  # None where no secret was shown (explain, a grant compiled anew)
    thing: Thing | None
    definition: ThingDefinition | None
    roles: tuple[Role, ...]
    modules: KeySet | None
    members: KeySet | None
    uses_client: bool

    def same_as(self, other: Basis) -> bool:
        return (
            self.token is other.token
            and self.secret is other.secret
            and self.thing is other.thing
            and self.definition is other.definition
            and self.modules is other.modules
            and self.members is other.members
            and _identical(self.roles, other.roles)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A compiled grant, what it rests on, and when it ends by itself."""

    basis: Basis
    principal: str
    grant: Grant
    footing: frozenset[Name]
    expires_at_us: int | None


class Granting:
    """Compiles grants; reads raise StoreUnavailable."""

    def __init__(self, facts: Facts, sets: Sets, *, max_grants: int = 20_000) -> None:
        self._facts = facts
        self._sets = sets
        self._shared: Cache[tuple[str, str], Granted] = Cache(max_grants)

    async def basis(self, token: Token, secret: Secret | None, thing: Thing | None) -> Basis | Refusal:
        """Return the facts of the grant that `token` has for `thing`, or why there is none (``definition_missing``)."""
        tenant = token.tenant
        definition: ThingDefinition | None = None
        if thing is not None:
            definition = await self._facts.definition(tenant, thing.definition)
            if definition is None:
                detail = f"thing definition `{thing.definition}` of thing `{thing.key}` does not exist"
                return Refusal(reason=Reason.DEFINITION_MISSING, detail=detail)
        roles: tuple[Role, ...] = ()
        for name in token.roles:
            role = await self._role(tenant, name)
            if role is None:  # it may hold a deny: a grant without it could reach further than was meant
                detail = f"role `{name}` of token `{token.id}` does not exist"
                return Refusal(reason=Reason.DEFINITION_MISSING, detail=detail)
            roles = (*roles, role)
        known = self._shared.get((token.id, thing.key if thing is not None else ""))
        if known is not None and known.basis.definition is definition and _identical(known.basis.roles, roles):
            uses_client, modules, members = known.basis.uses_client, known.basis.modules, known.basis.members
            if members is not None and (known.basis.thing is not thing or known.basis.token is not token):
                members = await self._sets.members_of(tenant, _ground_of(token, thing))
        else:
            uses_client = uses_client_variable(definition, roles)
            modules = members = None
            if thing is not None and _mention("{module}", definition, roles):
                modules = await self._sets.modules_of(tenant, thing.key)
            if _mention("{member}", definition, roles):
                members = await self._sets.members_of(tenant, _ground_of(token, thing))
        return Basis(
            token=token,
            secret=secret,
            thing=thing,
            definition=definition,
            roles=roles,
            modules=modules,
            members=members,
            uses_client=uses_client,
        )

    def grant(self, basis: Basis, client_id: str, *, share: bool = True) -> Granted:
        """Return the compiled grant of these facts; `share` False for facts that are not stored (a plan)."""
        token, thing = basis.token, basis.thing
        key = (token.id, thing.key if thing is not None else "")
        if share and not basis.uses_client:
            known = self._shared.get(key)
            if known is not None and known.basis.same_as(basis):
                return known
        granted = _compile(basis, client_id if basis.uses_client else "")
        if share and not basis.uses_client:
            self._shared.put(key, granted)
        return granted

    async def _role(self, tenant: str, name: str) -> Role | None:
        if name.startswith(PLATFORM_PREFIX):
            return await self._facts.role("", name.removeprefix(PLATFORM_PREFIX))
        return await self._facts.role(tenant, name)


def _compile(basis: Basis, client_id: str) -> Granted:
    token, thing, definition = basis.token, basis.thing, basis.definition
    ground = _ground_of(token, thing)
    who = f"thing/{token.tenant}/{thing.key}" if thing is not None else f"ground/{token.tenant}/{token.id}"
    expires_at_us = earliest(token.expires_at_us, basis.secret.expires_at_us if basis.secret is not None else None)
    is_ground_token = token.kind is TokenKind.GROUND
    grant = compile_grant(
        principal=who,
        tenant=token.tenant,
        ground=ground,
        thing=thing.key if thing is not None else None,
        definition=definition,
        roles=basis.roles,
        extra_rules=ground_token_rules(token.access) if is_ground_token else (),
        extra_source=f"token/{token.access.value}" if is_ground_token else "token",
        modules=basis.modules,
        members=basis.members,
        client_id=client_id,
        expires_at_us=expires_at_us,
    )
    return Granted(
        basis=basis, principal=who, grant=grant, footing=_footing(basis, ground), expires_at_us=expires_at_us
    )


def _footing(basis: Basis, ground: str) -> frozenset[Name]:
    tenant = basis.token.tenant
    names = {Name(Kind.TENANT, tenant, tenant), Name(Kind.TOKEN, tenant, basis.token.id)}
    names.add(Name(Kind.GROUND, tenant, ground))
    if basis.secret is not None:
        names.add(Name(Kind.SECRET, tenant, basis.secret.id))
    if basis.thing is not None:
        names.add(Name(Kind.THING, tenant, basis.thing.key))
    if basis.definition is not None:
        names.add(Name(Kind.DEFINITION, tenant, basis.definition.key))
    for role in basis.roles:
        names.add(Name(Kind.PLATFORM_ROLE if role.platform else Kind.ROLE, role.tenant, role.key))
    return frozenset(names)


def _ground_of(token: Token, thing: Thing | None) -> str:
    return token.ground if thing is None else thing.ground


def _identical(mine: Sequence[Role], theirs: Sequence[Role]) -> bool:
    return len(mine) == len(theirs) and all(a is b for a, b in zip(mine, theirs, strict=True))


def _mention(variable: str, definition: ThingDefinition | None, roles: Sequence[Role]) -> bool:
    if definition is not None and any(variable in rule.topic for rule in definition.rules):
        return True
    return any(variable in rule.topic for role in roles for rule in role.rules)
