"""Conformance: whose a client id is at an attached broker, and that nobody who has ended leaves a row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from authsvc.core.facts import TenantState
from authsvc.store.attached import AttachedSession
from tests.store.conftest import OpenStore, World, new_digest

PRINCIPAL = "thing/acme/gw1"


async def row_of(world: World, **changes: object) -> AttachedSession:
    """Return the row of `gw1`, registered, as it connects by the world's token."""
    await world.register("gw1")
    row = AttachedSession(
        broker="emqx",
        client_id="c1",
        principal=PRINCIPAL,
        tenant="acme",
        thing="gw1",
        ground="default",
        token_id=world.token.id,
        secret_id=await world.secret_id(),
        username="gw1",
        peer="192.0.2.1:5000",
        held="digest",
        since_us=17,
    )
    return replace(row, **changes)


async def test_a_row_is_read_as_it_was_written(world: World, open_store: OpenStore) -> None:
    """Every field, by another process too, and only under its own broker."""
    row = await row_of(world)
    assert (await world.store.attached_sessions.keep(row)).value is True
    other = await open_store()
    assert list(await other.attached_sessions.all("emqx")) == [row]
    assert list(await other.attached_sessions.all("vernemq")) == []


async def test_the_same_client_id_at_two_brokers_is_two_rows(world: World) -> None:
    """The key is broker and client id."""
    row = await row_of(world)
    other = replace(row, broker="vernemq", principal="thing/acme/gw2")
    assert (await world.store.attached_sessions.keep(row)).value
    assert (await world.store.attached_sessions.keep(other)).value
    assert list(await world.store.attached_sessions.all("vernemq")) == [other]


async def test_the_holder_replaces_its_row_and_nobody_else_does(world: World) -> None:
    """The same principal rests it on what it connects by now; another needs to name whom it follows."""
    row = await row_of(world)
    rows = world.store.attached_sessions
    await rows.keep(row)
    again = replace(row, since_us=18, held="other")
    assert (await rows.keep(again)).value
    thief = replace(row, principal="thing/acme/gw2")
    assert not (await rows.keep(thief)).value
    assert not (await rows.keep(thief, former="thing/acme/gw3")).value
    assert list(await rows.all("emqx")) == [again]
    assert (await rows.keep(thief, former=PRINCIPAL)).value
    assert list(await rows.all("emqx")) == [thief]


ENDED = {
    "token revoked": lambda world: world.store.app_tokens.delete("acme", world.token.id),
    "secret ended": lambda world: world.store.app_tokens.regenerate(
        "acme", world.token.id, digest=new_digest(), prefix="p", overlap_us=0
    ),
    "tenant suspended": lambda world: world.store.tenants.update("acme", state=TenantState.SUSPENDED),
    "thing deleted": lambda world: world.store.things.delete("acme", "gw1"),
}


@pytest.mark.parametrize("ended", ENDED)
async def test_who_has_ended_leaves_no_row(ended: str, world: World) -> None:
    """The condition is in the statement: a revoke that commits first wins."""
    row = await row_of(world)
    await ENDED[ended](world)
    assert (await world.store.attached_sessions.keep(row)).value is False
    assert list(await world.store.attached_sessions.all("emqx")) == []


async def test_what_is_owed_is_written_together(world: World) -> None:
    """Rows to keep, to mark and to forget, in one transaction without a change row."""
    row = await row_of(world)
    rows = world.store.attached_sessions
    await rows.keep(row)
    await rows.keep(replace(row, client_id="c2"))
    before = await world.store.last_position()
    gone = replace(row, gone_us=99)
    await rows.write("emqx", {"c1": gone, "c2": None, "c3": replace(row, client_id="c3")})
    assert list(await rows.all("emqx")) == [gone, replace(row, client_id="c3")]
    assert await world.store.last_position() == before


async def test_a_revoked_row_can_still_be_marked_as_gone(world: World) -> None:
    """Its client has left; the row stands until the broker has wiped what it keeps."""
    row = await row_of(world)
    rows = world.store.attached_sessions
    await rows.keep(row)
    await world.store.app_tokens.delete("acme", world.token.id)
    await rows.write("emqx", {"c1": replace(row, gone_us=99)})
    assert [(kept.principal, kept.gone_us) for kept in await rows.all("emqx")] == [(PRINCIPAL, 99)]


async def test_rows_of_brokers_that_are_configured_no_more_are_forgotten(world: World) -> None:
    """Their client ids would be held for ever."""
    row = await row_of(world)
    rows = world.store.attached_sessions
    for broker in ("emqx", "old", "older"):
        await rows.keep(replace(row, broker=broker))
    assert (await rows.forget_others(["emqx", "vernemq"])).value == 2
    assert len(await rows.all("emqx")) == 1
    assert list(await rows.all("old")) == []


async def test_a_secret_is_found_by_its_id(world: World) -> None:
    """What a restored session rests on is read by id; an unknown one is None."""
    secret_id = await world.secret_id()
    found = await world.store.secret(secret_id)
    assert found is not None
    assert (found.id, found.token_id) == (secret_id, world.token.id)
    assert await world.store.secret("none") is None
