"""Conformance: tokens of the three kinds, what they may name, and under which owner they are found."""

from __future__ import annotations

import pytest

from authsvc.core.errors import Conflict, InvalidInput, NotFound
from authsvc.core.facts import (
    GroundAccess,
    Kind,
)
from tests.store.conftest import World, new_digest


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"definition": "nope"}, "thing_definition"),
        ({"ground": "nope"}, "ground"),
        ({"license": "nope"}, "license"),
        ({"roles": ("r", "nope")}, "roles.1"),
        ({"roles": ("platform/r",)}, "roles.0"),
    ],
    ids=["definition", "ground", "license", "role", "platform role"],
)
async def test_an_app_token_names_only_what_is_there(fields: dict, field: str, world: World) -> None:
    """`reference_unknown` with the field, at creation and at every change; nothing is left of the attempt."""
    await world.store.roles.create("acme", "r")
    before = await world.store.last_position()
    with pytest.raises(InvalidInput) as caught:
        await world.store.app_tokens.create("acme", name="t", digest=new_digest(), prefix="p", **fields)
    assert (caught.value.code, caught.value.field) == ("reference_unknown", field)
    with pytest.raises(InvalidInput):
        await world.store.app_tokens.update("acme", world.token.id, **fields)
    assert await world.store.last_position() == before


async def test_a_token_without_definition_registers_nothing(world: World) -> None:
    """By default; asked for all the same, it is refused."""
    written = await world.store.app_tokens.create("acme", name="t", digest=new_digest(), prefix="p")
    assert written.value.auto_register is False
    with pytest.raises(InvalidInput) as caught:
        await world.store.app_tokens.update("acme", written.value.id, auto_register=True)
    assert caught.value.code == "definition_required"


async def test_one_secret_opens_one_token(world: World) -> None:
    """The digest is unique over all tokens; the second creation leaves nothing."""
    for again in (
        world.store.app_tokens.create("acme", name="t", digest=world.digest, prefix="p"),
        world.store.app_tokens.regenerate("acme", world.token.id, digest=world.digest, prefix="p"),
    ):
        with pytest.raises(Conflict):
            await again
    assert len((await world.store.app_tokens.list("acme")).items) == 1
    found = await world.store.token_by_digest(world.digest)
    assert found is not None
    assert found[1].revoked_at_us is None


async def test_every_secret_is_told_when_it_is_created_and_found_page_by_page(world: World) -> None:
    """By the beginning of its digest in the feed; whole, ended or not, in a page."""
    digests = [world.digest, new_digest(), new_digest()]
    await world.store.app_tokens.create("acme", name="t", digest=digests[1], prefix="p")
    await world.store.app_tokens.regenerate("acme", world.token.id, digest=digests[2], prefix="p")
    changes = [change for change in await world.store.changes_after(0) if change.name.kind is Kind.SECRET]
    told = [change.detail["digest_begins"] for change in changes if change.op == "created"]
    assert told == [digest.hex()[:16] for digest in digests]
    found: list[bytes] = []
    while page := await world.store.secret_digests(after=found[-1] if found else b"", limit=2):
        found += page
    assert found == sorted(digests)


async def test_a_revoked_token_leaves_the_list_and_is_shown_on_demand(world: World) -> None:
    """It can be read, not changed and not revoked again."""
    await world.store.app_tokens.delete("acme", world.token.id)
    assert (await world.store.app_tokens.list("acme")).items == ()
    (revoked,) = (await world.store.app_tokens.list("acme", revoked=True)).items
    assert revoked.revoked_at_us is not None
    for attempt in (
        world.store.app_tokens.delete("acme", world.token.id),
        world.store.app_tokens.update("acme", world.token.id, name="x"),
        world.store.app_tokens.regenerate("acme", world.token.id, digest=new_digest(), prefix="p"),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_tokens_are_found_only_by_their_own_kind_and_owner(world: World) -> None:
    """A device token is no app token, and not another thing's; nor of another tenant."""
    store = world.store
    for key in ("a", "b"):
        await store.things.create("acme", key)
    await store.tenants.create("other")
    device = (await store.device_tokens.create("acme", "a", name="d", digest=new_digest(), prefix="p")).value
    ground = (
        await store.ground_tokens.create(
            "acme", "default", name="g", access=GroundAccess.READ_WRITE, digest=new_digest(), prefix="p"
        )
    ).value
    assert await store.device_tokens.get("acme", "a", device.id) == device
    assert await store.ground_tokens.get("acme", "default", ground.id) == ground
    assert (await store.device_tokens.list("acme", "b")).items == ()
    for attempt in (
        store.device_tokens.get("acme", "b", device.id),
        store.device_tokens.delete("acme", "b", device.id),
        store.app_tokens.delete("acme", device.id),
        store.ground_tokens.delete("acme", "default", device.id),
        store.app_tokens.get("other", world.token.id),
        store.device_tokens.list("acme", "nobody"),
        store.ground_tokens.list("acme", "nowhere"),
    ):
        with pytest.raises(NotFound):
            await attempt
    await store.device_tokens.delete("acme", "a", device.id)
    await store.ground_tokens.delete("acme", "default", ground.id)
