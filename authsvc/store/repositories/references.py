"""Checks that run inside a work: whether what a record names is there, and who names what is to be deleted."""

from __future__ import annotations

from collections.abc import Mapping

from authsvc.core.errors import InUse, InvalidInput, NotFound
from authsvc.core.facts import PLATFORM_PREFIX, Role, ThingDefinition, Token
from authsvc.store.database import Transaction
from authsvc.store.records import definition_of, role_of, token_of


def require_tenant(tx: Transaction, tenant: str) -> None:
    """Raise NotFound if there is no such tenant."""
    if tx.one("tenant", key=tenant) is None:
        raise NotFound("tenant", tenant)


def unknown(field: str, kind: str, key: str) -> InvalidInput:
    """Return the error for a reference to what is not there."""
    return InvalidInput("reference_unknown", f"there is no {kind} `{key}`: create it first", field=field)


def require_ground(tx: Transaction, tenant: str, key: str, *, field: str = "ground") -> None:
    """Raise InvalidInput ``reference_unknown`` if there is no such ground."""
    if tx.one("ground", tenant=tenant, key=key) is None:
        raise unknown(field, "ground", key)


def require_definition(tx: Transaction, tenant: str, key: str, *, field: str = "thing_definition") -> ThingDefinition:
    """Return the definition. Raises InvalidInput ``reference_unknown`` if there is none."""
    row = tx.one("definition", tenant=tenant, key=key)
    if row is None:
        raise unknown(field, "thing definition", key)
    return definition_of(row)


def require_license(tx: Transaction, tenant: str, key: str, *, field: str = "license") -> None:
    """Raise InvalidInput ``reference_unknown`` if there is no such licence."""
    if tx.one("license", tenant=tenant, key=key) is None:
        raise unknown(field, "licence", key)


def require_role(tx: Transaction, tenant: str, name: str, *, field: str) -> Role:
    """Return the role that a token names: the tenant's, or a platform role as ``platform/{key}``."""
    platform = name.startswith(PLATFORM_PREFIX)
    key = name.removeprefix(PLATFORM_PREFIX) if platform else name
    row = tx.one("role", tenant="" if platform else tenant, key=key)
    if row is None:
        raise unknown(field, "role", name)
    return role_of(row)


def tokens_naming(
    tx: Transaction, tenant: str, *, ground: str = "", definition: str = "", license: str = "", role: str = ""
) -> list[Token]:
    """Return the living tokens that name one of these; `tenant` "" looks in every tenant (platform roles)."""
    rows = tx.all("tokens_naming", tenant=tenant, ground=ground, definition=definition, license=license, role=role)
    return [token_of(row) for row in rows]


def refuse_in_use(what: str, counts: Mapping[str, int]) -> None:
    """Raise InUse with the counts that are not zero, if there are any."""
    found = {kind: count for kind, count in counts.items() if count}
    if found:
        listed = ", ".join(f"{count} {kind}" for kind, count in found.items())
        raise InUse(f"{what} is in use by {listed}: delete them first, or ask for cascade", found)
