"""Live sessions of a tenant: who is connected by what, and the way to end one."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from authsvc.core.errors import NotFound
from authsvc.sessions import Session
from authsvc.store import Page
from authsvc.web.auth import OPERATE, VIEW
from authsvc.web.listing import page_of
from authsvc.web.models import DEFAULT_PAGE, Answer, Cursor, IdInPath, Instant, Items, KeyFilter, KeyInPath, Limit
from authsvc.web.routes import Current, access, resource

router = resource("sessions")


class SessionAnswer(Answer):
    id: str
    client_id: str
    principal: str
    thing: str | None
    ground: str
    token_id: str
    broker: str
    peer: str
    since: Instant
    expires_at: Instant | None

    @classmethod
    def of(cls, session: Session) -> SessionAnswer:
        return cls(
            id=session.id,
            client_id=session.client_id,
            principal=session.principal,
            thing=session.thing,
            ground=session.ground,
            token_id=session.token_id,
            broker=session.broker,
            peer=session.peer,
            since=session.since_us,
            expires_at=session.expires_at_us,
        )


ClientIdFilter = Annotated[str | None, Query(max_length=256)]


@router.get("/tenants/{tenant}/sessions", **access(VIEW))
async def list_sessions(
    call: Current,
    *,
    tenant: KeyInPath,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = None,
    thing: KeyFilter = None,
    ground: KeyFilter = None,
    client_id: ClientIdFilter = None,
) -> Items[SessionAnswer]:
    """List the live sessions of this process in order of their ids."""

    async def fetch(*, limit: int, cursor: str | None, **filters: str | None) -> Page[Session]:
        ground = filters.pop("ground")
        found = [
            session
            for session in call.service.sessions.find(tenant, **filters)
            if session.id > (cursor or "") and (ground is None or session.ground == ground)
        ]
        found.sort(key=lambda session: session.id)
        rest = len(found) > limit
        return Page(items=tuple(found[:limit]), next=found[limit - 1].id if rest else None)

    return await page_of(
        call,
        fetch,
        make=SessionAnswer.of,
        limit=limit,
        cursor=cursor,
        thing=thing,
        ground=ground,
        client_id=client_id,
    )


@router.delete("/tenants/{tenant}/sessions/{id}", status_code=204, **access(OPERATE))
async def kick_session(call: Current, tenant: KeyInPath, id: IdInPath) -> None:
    """End a session; the client may connect again, its will is sent and its queue kept.

    At a broker that asks by hooks the queue goes with the connection, and the client id is free for other principals.
    """
    if not call.service.sessions.kick(id, tenant=tenant):
        raise NotFound("session", id)
