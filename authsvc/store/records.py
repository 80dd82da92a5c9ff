"""Rows to facts and back: the one place that knows the order of the columns and how lists and rules are spelled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from json import dumps, loads
from typing import Any

from authsvc.core.facts import (
    AdminKey,
    AdminRole,
    BindClientId,
    Change,
    Effect,
    Ground,
    GroundAccess,
    Kind,
    License,
    ModulePolicy,
    Name,
    Role,
    Rule,
    RuleAction,
    Secret,
    Tenant,
    TenantState,
    Thing,
    ThingDefinition,
    ThingKind,
    ThingState,
    Token,
    TokenKind,
)
from authsvc.store.clearings import Clearing, ClearingKind, UpstreamSession
from authsvc.store.database import Row

TOKEN_COLUMNS = 19

_KINDS = {kind.value: kind for kind in Kind}  # quicker than `Kind(…)`, of which the feed would make one for each row


def strings_text(values: Iterable[str]) -> str:
    """Return a list of strings as it is stored."""
    return dumps(list(values), ensure_ascii=False)


def rules_text(rules: Sequence[Rule]) -> str:
    """Return rules as they are stored."""
    spelled: list[dict[str, Any]] = []
    for rule in rules:
        entry: dict[str, Any] = {"effect": rule.effect.value, "action": rule.action.value, "topic": rule.topic}
        if rule.qos_max is not None:
            entry["qos_max"] = rule.qos_max
        if rule.retain is not None:
            entry["retain"] = rule.retain
        spelled.append(entry)
    return dumps(spelled, ensure_ascii=False)


def _rules(text: str) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            effect=Effect(entry["effect"]),
            action=RuleAction(entry["action"]),
            topic=entry["topic"],
            qos_max=entry.get("qos_max"),
            retain=entry.get("retain"),
        )
        for entry in loads(text)
    )


def _strings(text: str) -> tuple[str, ...]:
    return () if text == "[]" else tuple(loads(text))


def tenant_of(row: Row) -> Tenant:
    key, name, state, created = row
    return Tenant(key=key, name=name, state=TenantState(state), created_at_us=created)


def ground_of(row: Row) -> Ground:
    tenant, key, name, created = row
    return Ground(tenant=tenant, key=key, name=name, created_at_us=created)


def definition_of(row: Row) -> ThingDefinition:
    tenant, key, name, kind, rules, bind, module_definition, module_auto_register, created = row
    modules = None
    if module_definition:
        modules = ModulePolicy(definition=module_definition, auto_register=bool(module_auto_register))
    return ThingDefinition(
        tenant=tenant,
        key=key,
        name=name,
        kind=ThingKind(kind),
        rules=_rules(rules),
        bind_client_id=BindClientId(bind),
        modules=modules,
        created_at_us=created,
    )


def role_of(row: Row) -> Role:
    tenant, key, name, rules, permissions, created = row
    return Role(
        tenant=tenant,
        key=key,
        name=name,
        rules=_rules(rules),
        permissions=_strings(permissions),
        created_at_us=created,
    )


def license_of(row: Row) -> License:
    tenant, key, seats, used, created = row
    return License(tenant=tenant, key=key, seats=seats, used=used, created_at_us=created)


def token_of(row: Row) -> Token:
    (
        id_,
        tenant,
        kind,
        name,
        expires,
        revoked,
        created,
        prefix,
        definition,
        ground,
        roles,
        tags,
        security_tags,
        license_,
        auto_register,
        max_things,
        registered,
        thing,
        access,
    ) = row
    return Token(
        id=id_,
        tenant=tenant,
        kind=TokenKind(kind),
        name=name,
        expires_at_us=expires,
        revoked_at_us=revoked,
        created_at_us=created,
        prefix=prefix,
        definition=definition,
        ground=ground,
        roles=_strings(roles),
        tags=_strings(tags),
        security_tags=_strings(security_tags),
        license=license_,
        auto_register=bool(auto_register),
        max_things=max_things,
        registered=registered,
        thing=thing,
        access=GroundAccess(access),
    )


def secret_of(row: Row) -> Secret:
    id_, token_id, digest, expires, revoked = row
    return Secret(id=id_, token_id=token_id, digest=digest, expires_at_us=expires, revoked_at_us=revoked)


def thing_of(row: Row) -> Thing:
    (
        tenant,
        key,
        name,
        definition,
        ground,
        tags,
        security_tags,
        state,
        token_id,
        license_,
        gateway,
        client_id,
        first_seen,
        last_seen,
        created,
    ) = row
    return Thing(
        tenant=tenant,
        key=key,
        name=name,
        definition=definition,
        ground=ground,
        tags=_strings(tags),
        security_tags=_strings(security_tags),
        state=ThingState(state),
        token_id=token_id,
        license=license_,
        gateway=gateway,
        client_id=client_id,
        first_seen_us=first_seen,
        last_seen_us=last_seen,
        created_at_us=created,
    )


def thing_values(thing: Thing) -> dict[str, object]:
    """Return the thing as the values of `insert_thing` and `update_thing`."""
    return {
        "tenant": thing.tenant,
        "key": thing.key,
        "name": thing.name,
        "definition": thing.definition,
        "ground": thing.ground,
        "tags": strings_text(thing.tags),
        "security_tags": strings_text(thing.security_tags),
        "state": thing.state.value,
        "token_id": thing.token_id,
        "license": thing.license,
        "gateway": thing.gateway,
        "client_id": thing.client_id,
        "first_seen_us": thing.first_seen_us,
        "last_seen_us": thing.last_seen_us,
        "created_at_us": thing.created_at_us,
    }


def token_values(token: Token) -> dict[str, object]:
    """Return the token as the values of `insert_token` and `update_token`."""
    return {
        "id": token.id,
        "tenant": token.tenant,
        "kind": token.kind.value,
        "name": token.name,
        "expires_at_us": token.expires_at_us,
        "created_at_us": token.created_at_us,
        "prefix": token.prefix,
        "definition": token.definition,
        "ground": token.ground,
        "roles": strings_text(token.roles),
        "tags": strings_text(token.tags),
        "security_tags": strings_text(token.security_tags),
        "license": token.license,
        "auto_register": int(token.auto_register),
        "max_things": token.max_things,
        "thing": token.thing,
        "access": token.access.value,
    }


def admin_key_of(row: Row) -> AdminKey:
    id_, name, tenant, role, prefix, created = row
    return AdminKey(id=id_, name=name, tenant=tenant, role=AdminRole(role), prefix=prefix, created_at_us=created)


def changes_of(rows: Sequence[Row]) -> list[Change]:
    """Return the changes of one read; those whose details are spelled alike, as in a fleet, share them."""
    details: dict[str, dict[str, object]] = {}
    changes: list[Change] = []
    for position, at_us, kind, tenant, key, op, text in rows:
        detail = details.get(text)
        if detail is None:
            detail = details[text] = loads(text)
        name = Name(_KINDS[kind], tenant, key)
        changes.append(Change(position=position, at_us=at_us, name=name, op=op, detail=detail))
    return changes


def upstream_session_of(row: Row) -> UpstreamSession:
    principal, client_id, upstream_id, tenant, thing, ground, token_id, secret_id, since, expiry, expires = row
    return UpstreamSession(
        principal=principal,
        client_id=client_id,
        upstream_id=upstream_id,
        tenant=tenant,
        thing=thing,
        ground=ground,
        token_id=token_id,
        secret_id=secret_id,
        since_us=since,
        expiry_s=expiry,
        expires_at_us=expires,
    )


def clearing_of(row: Row) -> Clearing:
    id_, kind, target, since = row
    return Clearing(id=id_, kind=ClearingKind(kind), target=target, since_us=since)
