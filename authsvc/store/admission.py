"""What a CONNECT writes, as works: registration, client-id binding, the persistent session. Races settle inside.

A refusal rolls the work back, so that nothing of it is left; it is a value, not an error.
"""

from __future__ import annotations

from dataclasses import replace

from authsvc.core.facts import Kind, Name, Refusal, Thing, ThingState
from authsvc.core.reasons import Reason
from authsvc.core.things import Plan
from authsvc.store.clearings import UpstreamSession
from authsvc.store.database import RollBack, Transaction
from authsvc.store.endings import thing_name, wipe_client
from authsvc.store.records import thing_of, thing_values, upstream_session_of


def register(tx: Transaction, plan: Plan, bind_client_id: str | None) -> Thing | Refusal:
    """Insert the planned thing, take its seat and its part of the quota, or roll back with the refusal.

    If the key is registered already, that thing is returned as if it had been there; the client id is bound to it only
    if the same token registered it. The caller judges such a thing anew: it may be out of the token's scope.
    """
    planned = replace(
        plan.thing,
        client_id=bind_client_id,
        license=plan.license,
        token_id=plan.token_id,
        first_seen_us=tx.now_us,
        last_seen_us=tx.now_us,
        created_at_us=tx.now_us,
    )
    footing = tx.one(
        "registration_footing",
        token_id=plan.token_id,
        tenant=planned.tenant,
        definition=planned.definition,
        ground=planned.ground,
        key=planned.key,
    )
    assert footing is not None
    token, tenant, definition, ground, retired = footing
    if not token:
        return Refusal(reason=Reason.TOKEN_REVOKED, detail="the token was revoked while it registered")
    if not tenant:
        return Refusal(reason=Reason.TENANT_SUSPENDED)
    if retired:
        return Refusal(reason=Reason.THING_RETIRED, detail=f"thing `{planned.key}` was deleted")
    if not definition or not ground:
        gone = "ground" if definition else "thing definition"
        return Refusal(reason=Reason.DEFINITION_MISSING, detail=f"the token's {gone} is gone")
    if not tx.run("insert_thing", **thing_values(planned)):
        return _already_there(tx, planned, bind_client_id)
    if not tx.run("take_quota", id=plan.token_id):
        raise RollBack(Refusal(reason=Reason.QUOTA_EXHAUSTED, detail=f"the token's `max_things` is {plan.max_things}"))
    if plan.license and not tx.run("take_seat", tenant=planned.tenant, key=plan.license):
        raise RollBack(Refusal(reason=Reason.LICENSE_EXHAUSTED, detail=f"licence `{plan.license}` has no free seat"))
    detail = {"definition": planned.definition, "ground": planned.ground, "gateway": planned.gateway}
    tx.change(thing_name(planned), "registered", detail)
    return planned


def _already_there(tx: Transaction, planned: Thing, client_id: str | None) -> Thing | Refusal:
    row = tx.one("thing", tenant=planned.tenant, key=planned.key)
    assert row is not None
    thing = thing_of(row)
    if client_id is None or thing.token_id != planned.token_id or thing.state is ThingState.BLOCKED:
        return thing
    return bind_client_id(tx, planned.tenant, planned.key, client_id)


def bind_client_id(tx: Transaction, tenant: str, key: str, client_id: str) -> Thing | Refusal:
    """Bind the client id by compare and set; bound to the same already is fine, to another is a refusal."""
    won = tx.run("bind_client_id", tenant=tenant, key=key, client_id=client_id)
    row = tx.one("thing", tenant=tenant, key=key)
    if row is None:
        return Refusal(reason=Reason.THING_UNKNOWN, detail=f"thing `{key}` was deleted meanwhile")
    thing = thing_of(row)
    if thing.client_id != client_id:
        return Refusal(reason=Reason.CLIENT_ID_MISMATCH, detail="another client id is bound to the thing")
    if won:
        tx.change(thing_name(thing), "bound", {"client_id": client_id})
    return thing


def open_upstream_session(tx: Transaction, session: UpstreamSession, *, clean: bool) -> UpstreamSession | None:
    """Keep the persistent session's row, or create it; with a clean session wipe it and return None.

    Where token, secret, tenant or thing has ended meanwhile nothing is stored and `session` is returned as it was
    given: the change that ended it restarts the admission before anybody is connected.
    """
    if clean:
        wipe_client(tx, session.tenant, session.principal, session.client_id)
        return None
    session = replace(session, since_us=tx.now_us)
    tx.run(
        "keep_upstream_session",
        principal=session.principal,
        client_id=session.client_id,
        upstream_id=session.upstream_id,
        tenant=session.tenant,
        thing=session.thing,
        ground=session.ground,
        token_id=session.token_id,
        secret_id=session.secret_id,
        since_us=session.since_us,
        expiry_s=session.expiry_s,
    )
    row = tx.one("upstream_session", principal=session.principal, client_id=session.client_id)
    if row is None or row[7] != session.secret_id:
        return session
    return upstream_session_of(row)


def forget_upstream(tx: Transaction) -> None:
    """Empty the persistent sessions and the clearings: the broker behind the gate kept nothing."""
    if tx.run("forget_upstream_sessions") + tx.run("forget_clearings"):
        tx.change(Name(Kind.CLEARING, "", ""), "forgotten")
