"""A session that a row remembers, admitted anew: nobody shows a secret here, so what it rested on is looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authsvc.core import things, tokens
from authsvc.core.facts import Refusal, TenantState, Thing, ThingState
from authsvc.core.reasons import Reason
from authsvc.sessions import Admitted
from authsvc.store.attached import AttachedSession

if TYPE_CHECKING:
    from authsvc.service import Service


async def admitted_again(service: Service, row: AttachedSession) -> Admitted | Refusal:
    """Return the admission of the row's connection as it would be now, or why there would be none.

    `sessions.open` still has to see whether something changed meanwhile. Raises StoreUnavailable.
    """
    position = service.feed.position
    token = await service.facts.token(row.tenant, row.token_id)
    secret = await service.store.secret(row.secret_id)
    if token is None or secret is None:
        return Refusal(reason=Reason.TOKEN_REVOKED)
    ended = tokens.verify(token, secret, now_us=service.now_us())
    if ended is not None:
        return ended
    tenant = await service.facts.tenant(row.tenant)
    if tenant is None or tenant.state is not TenantState.ACTIVE:
        return Refusal(reason=Reason.TENANT_SUSPENDED)
    thing: Thing | None = None
    if row.thing:
        thing = await service.facts.thing(row.tenant, row.thing)
        if thing is None:
            return Refusal(reason=Reason.THING_RETIRED)
        if thing.state is ThingState.BLOCKED:
            return Refusal(reason=Reason.THING_BLOCKED)
        refusal = things.admits(token, thing)
        if refusal is not None:
            return refusal
    basis = await service.granting.basis(token, secret, thing)
    if isinstance(basis, Refusal):
        return basis
    granted = service.granting.grant(basis, row.client_id)
    return Admitted(
        tenant=row.tenant,
        principal=granted.principal,
        client_id=row.client_id,
        thing=row.thing or None,
        ground=granted.grant.ground,
        token_id=token.id,
        secret_id=secret.id,
        secret_expires_at_us=secret.expires_at_us,
        prefix=token.prefix,
        grant=granted.grant,
        footing=granted.footing,
        position=position,
        own_changes=frozenset(),
        expires_at_us=granted.expires_at_us,
        persistent=True,
        clean_start=False,
    )
