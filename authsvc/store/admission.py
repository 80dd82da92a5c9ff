"""What a CONNECT of a known thing writes, as works: client-id binding, the persistent session. Races settle inside."""

from __future__ import annotations

from dataclasses import replace

from authsvc.core.facts import Kind, Name, Refusal, Thing
from authsvc.core.reasons import Reason
from authsvc.store.clearings import UpstreamSession
from authsvc.store.database import Transaction
from authsvc.store.endings import thing_name, wipe_client
from authsvc.store.records import thing_of, upstream_session_of


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
