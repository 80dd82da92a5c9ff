"""What ends what, in the transaction of the ending itself: sessions wiped, secrets ended, seats given back.

To wipe a persistent session is to move its row to the clearings: from the commit on nobody resumes it, and the gate
clears it upstream until that has succeeded. Every function runs inside a work and appends its own change rows.
"""

from __future__ import annotations

from dataclasses import replace

from authsvc.core.facts import Kind, Name, Thing, ThingState, Token
from authsvc.store.clearings import ClearingKind
from authsvc.store.database import Transaction
from authsvc.store.records import thing_of, thing_values, token_of


def thing_name(thing: Thing) -> Name:
    """Return how changes speak of the thing."""
    return Name(Kind.THING, thing.tenant, thing.key)


def wipe_client(tx: Transaction, tenant: str, principal: str, client_id: str) -> None:
    """Wipe the persistent session of this principal and client id, if there is one."""
    values = {"principal": principal, "client_id": client_id}
    _wiped(tx, tenant, tx.run("list_wiped_by_client", now_us=tx.now_us, **values))
    tx.run("wipe_by_client", **values)


def wipe_token(tx: Transaction, tenant: str, token_id: str) -> None:
    """Wipe the persistent sessions that rest on any secret of the token."""
    _wiped(tx, tenant, tx.run("list_wiped_by_token", now_us=tx.now_us, token_id=token_id))
    tx.run("wipe_by_token", token_id=token_id)


def wipe_thing(tx: Transaction, tenant: str, thing: str) -> None:
    """Wipe the persistent sessions of the thing."""
    _wiped(tx, tenant, tx.run("list_wiped_by_thing", now_us=tx.now_us, tenant=tenant, thing=thing))
    tx.run("wipe_by_thing", tenant=tenant, thing=thing)


def wipe_tenant(tx: Transaction, tenant: str) -> None:
    """Wipe every persistent session of the tenant."""
    _wiped(tx, tenant, tx.run("list_wiped_by_tenant", now_us=tx.now_us, tenant=tenant))
    tx.run("wipe_by_tenant", tenant=tenant)


def clear_retained(tx: Transaction, tenant: str, place: str) -> None:
    """Have what is retained at the place and below it cleared."""
    tx.run("add_clearing", kind=ClearingKind.RETAINED.value, target=place, now_us=tx.now_us)
    _wiped(tx, tenant, 1)


def _wiped(tx: Transaction, tenant: str, count: int) -> None:
    if count:
        tx.change(Name(Kind.CLEARING, tenant, ""), "added", {"count": count})


def revoke_token(tx: Transaction, token: Token) -> None:
    """Revoke the token and all its secrets, and wipe what rests on them."""
    tx.run("revoke_token", id=token.id, now_us=tx.now_us)
    tx.run("revoke_secrets", token_id=token.id, now_us=tx.now_us)
    wipe_token(tx, token.tenant, token.id)
    detail = {"kind": token.kind.value, "thing": token.thing, "ground": token.ground}
    tx.change(Name(Kind.TOKEN, token.tenant, token.id), "revoked", detail)


def end_secrets(tx: Transaction, token: Token, *, overlap_us: int) -> None:
    """End the living secrets of the token: after the overlap, with what rests on them kept, or now, with it wiped.

    Now is for a secret that leaked: sessions that rest on an older one, which has ended already, are wiped as well.
    """
    if overlap_us <= 0:
        wipe_token(tx, token.tenant, token.id)
    for (secret_id,) in tx.all("living_secrets", token_id=token.id, now_us=tx.now_us):
        ends_at_us = tx.now_us + overlap_us
        if overlap_us > 0:
            tx.run("end_secret", id=secret_id, ends_at_us=ends_at_us)
        else:
            tx.run("revoke_secret", id=secret_id, now_us=tx.now_us)
        detail = {"token_id": token.id, "ended_at_us": ends_at_us, "wiped": overlap_us <= 0}
        tx.change(Name(Kind.SECRET, token.tenant, secret_id), "ended", detail)


def clear_thing(tx: Transaction, thing: Thing) -> None:
    """Wipe the thing's sessions and have its retained messages cleared: it was blocked or deleted."""
    wipe_thing(tx, thing.tenant, thing.key)
    clear_retained(tx, thing.tenant, f"{thing.tenant}/{thing.ground}/{thing.key}")


def delete_thing(tx: Transaction, thing: Thing, *, modules_too: bool = False) -> None:
    """Delete the thing: retire its key, give back seat and quota, revoke its device tokens, let go of its modules."""
    for row in tx.all("things_behind", tenant=thing.tenant, gateway=thing.key):
        if modules_too:
            delete_thing(tx, thing_of(row))
        else:
            set_gateway(tx, thing_of(row), "")
    for row in tx.all("tokens_of_thing", tenant=thing.tenant, thing=thing.key):
        revoke_token(tx, token_of(row))
    if thing.license:
        tx.run("free_seat", tenant=thing.tenant, key=thing.license)
    if thing.token_id:
        tx.run("free_quota", id=thing.token_id, count=1)
    clear_thing(tx, thing)
    tx.run("delete_thing", tenant=thing.tenant, key=thing.key)
    tx.run("retire", tenant=thing.tenant, key=thing.key, now_us=tx.now_us)
    tx.change(thing_name(thing), "deleted", {"ground": thing.ground, "gateway": thing.gateway})


def set_gateway(tx: Transaction, thing: Thing, gateway: str) -> Thing:
    """Bind the module to the gateway, or to none."""
    after = replace(thing, gateway=gateway)
    if after != thing:
        tx.run("update_thing", **thing_values(after))
        detail = {
            "fields": ["gateway"],
            "gateway_from": thing.gateway,
            "gateway_to": gateway,
            "state": after.state.value,
        }
        tx.change(thing_name(thing), "updated", detail)
    return after


def change_thing(tx: Transaction, before: Thing, after: Thing) -> None:
    """Store the changed thing; a row each for a move, a block or unblock, and whatever else differs."""
    fields = [
        name
        for name in ("name", "definition", "tags", "security_tags", "license")
        if getattr(before, name) != getattr(after, name)
    ]
    tx.run("update_thing", **thing_values(after))
    if after.ground != before.ground:
        tx.change(thing_name(after), "moved", {"from": before.ground, "to": after.ground})
    if fields:
        tx.change(thing_name(after), "updated", {"fields": fields})
    if after.state is not before.state:
        blocked = after.state is ThingState.BLOCKED
        if blocked:
            clear_thing(tx, before)
            if after.ground != before.ground:
                clear_retained(tx, after.tenant, f"{after.tenant}/{after.ground}/{after.key}")
        detail = {"ground": after.ground, "gateway": after.gateway}
        tx.change(thing_name(after), "blocked" if blocked else "unblocked", detail)
