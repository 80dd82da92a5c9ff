"""From facts to a grant: reads what a principal's rules rest on, compiles them, and remembers the result.

A grant whose rules do not use `{client}` is the same for every client id, so one is compiled per thing and token and
shared; it is plain data, and what is memoised about it belongs to each connection. The things of a fleet share an
outline of it, which is thrown away with the definition and the roles that it was made of.
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
from authsvc.core.outline import Outline, outline_of
from authsvc.core.policy import Grant, compile_grant, ground_token_rules, uses_client_variable
from authsvc.core.reasons import Reason
from authsvc.core.topics import SetLevel
from authsvc.sets import Sets

MAX_LAWS = 1_000  # grounds times definitions times sets of roles; an outline is as large as a grant


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
    outline: Outline | None

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
class _Law:
    """The records that hold the rules of a fleet, which variables these use, and the outline that the fleet shares."""

    definition: ThingDefinition | None
    roles: tuple[Role, ...]
    uses_client: bool
    uses_modules: bool
    uses_members: bool
    outline: Outline | None

    def is_of(self, definition: ThingDefinition | None, roles: Sequence[Role]) -> bool:
        """Return whether it was made of these records themselves: one that was changed is another object."""
        return self.definition is definition and _identical(self.roles, roles)


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
        self._laws: Cache[tuple[str, str, str, tuple[str, ...]], _Law] = Cache(MAX_LAWS)

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
        ground = _ground_of(token, thing)
        law = self._law(token, ground, definition, roles)
        modules = members = None
        if thing is not None and law.uses_modules:
            modules = await self._sets.modules_of(tenant, thing.key)
        if law.uses_members:
            members = await self._sets.members_of(tenant, ground)
        return Basis(
            token=token,
            secret=secret,
            thing=thing,
            definition=definition,
            roles=roles,
            modules=modules,
            members=members,
            uses_client=law.uses_client,
            outline=law.outline if thing is not None else None,
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

    def _law(self, token: Token, ground: str, definition: ThingDefinition | None, roles: tuple[Role, ...]) -> _Law:
        key = (token.tenant, ground, definition.key if definition is not None else "", token.roles)
        law = self._laws.get(key)
        if law is None or not law.is_of(definition, roles):
            uses_modules, uses_members = (_mention(name, definition, roles) for name in ("{module}", "{member}"))
            law = _Law(
                definition=definition,
                roles=roles,
                uses_client=uses_client_variable(definition, roles),
                uses_modules=uses_modules,
                uses_members=uses_members,
                outline=outline_of(
                    tenant=token.tenant,
                    ground=ground,
                    definition=definition,
                    roles=roles,
                    modules=KeySet() if uses_modules else None,
                    members=KeySet() if uses_members else None,
                ),
            )
            self._laws.put(key, law)
        return law

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
    grant = _by_outline(basis, who, expires_at_us) or compile_grant(
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


def _by_outline(basis: Basis, principal: str, expires_at_us: int | None) -> Grant | None:
    if basis.outline is None or basis.thing is None:
        return None
    sets = {SetLevel.MODULE: basis.modules, SetLevel.MEMBER: basis.members}
    return basis.outline.grant_of(
        basis.thing.key,
        principal=principal,
        sets={level: keys for level, keys in sets.items() if keys is not None},
        expires_at_us=expires_at_us,
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
