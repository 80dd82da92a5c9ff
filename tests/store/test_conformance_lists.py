"""Conformance: lists of records in pages, with cursors, a part of a name, and filters."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.errors import InvalidInput
from authsvc.core.facts import (
    ThingState,
)
from tests.store.conftest import World


async def test_pages_are_complete_and_stable_while_others_write(world: World) -> None:
    """Keys that are there throughout come exactly once, in key order, whatever is created or deleted meanwhile."""
    stay = [f"k{n:03}" for n in range(0, 200, 2)]
    await asyncio.gather(*(world.store.things.create("acme", key) for key in stay))
    seen: list[str] = []
    cursor = None
    for number in range(100):
        page = await world.store.things.list("acme", limit=7, cursor=cursor)
        seen += [thing.key for thing in page.items]
        await world.store.things.create("acme", f"k{(number * 37) % 200 | 1:03}x{number}")
        cursor = page.next
        if cursor is None:
            break
    assert seen == sorted(set(seen))
    assert [key for key in seen if key in stay] == stay


async def test_a_page_that_ends_the_list_has_no_next(world: World) -> None:
    """Also when it is exactly full, or empty."""
    await world.store.things.create("acme", "a")
    await world.store.things.create("acme", "b")
    assert (await world.store.things.list("acme", limit=2)).next is None
    first = await world.store.things.list("acme", limit=1)
    assert first.next is not None
    assert [t.key for t in (await world.store.things.list("acme", limit=1, cursor=first.next)).items] == ["b"]
    assert (await world.store.things.list("other")).items == ()


@pytest.mark.parametrize("cursor", ["", "!", "a", "YQ==", "ÿ", "x" * 300, "_w"])
async def test_a_cursor_that_no_list_gave_is_refused(cursor: str, world: World) -> None:
    """`cursor_invalid`, never an exception of the decoder."""
    with pytest.raises(InvalidInput) as caught:
        await world.store.things.list("acme", cursor=cursor)
    assert (caught.value.code, caught.value.field) == ("cursor_invalid", "cursor")


@pytest.mark.parametrize(
    ("q", "keys"),
    [
        ("PUMP", ["Pump-1", "a_b", "pump.2"]),
        ("_", ["a_b"]),
        ("%", ["c"]),
        ("ÜBER", ["c"]),
        ("1", ["Pump-1"]),
        ("' OR 1=1 --", []),
        ("", ["Pump-1", "a_b", "axb", "c", "pump.2"]),
    ],
)
async def test_q_is_a_case_insensitive_literal_part_of_key_or_name(q: str, keys: list[str], world: World) -> None:
    """No wildcard of LIKE leaks, and letters beyond ASCII fold too."""
    names = {"Pump-1": "", "pump.2": "", "a_b": "The pump", "axb": "", "c": "Plan % über"}
    for key, name in names.items():
        await world.store.things.create("acme", key, name=name)
    assert [thing.key for thing in (await world.store.things.list("acme", q=q)).items] == keys


async def test_things_are_filtered_by_ground_definition_tag_and_state_together(world: World) -> None:
    """Every filter narrows; a tag is compared whole, quotes and all."""
    store = world.store
    await store.grounds.create("acme", "north")
    await store.things.create("acme", "a", tags=("x", 'say "hi"'), ground="north")
    await store.things.create("acme", "b", tags=("xy",), ground="north", definition="gateway")
    await store.things.create("acme", "c", tags=("x",))
    await store.things.update("acme", "b", state=ThingState.BLOCKED)

    async def keys(**filters: object) -> list[str]:
        return [thing.key for thing in (await store.things.list("acme", **filters)).items]

    assert await keys(tag="x") == ["a", "c"]
    assert await keys(tag='say "hi"') == ["a"]
    assert await keys(tag="hi") == []
    assert await keys(ground="north") == ["a", "b"]
    assert await keys(ground="north", tag="x") == ["a"]
    assert await keys(definition="gateway") == ["b"]
    assert await keys(state=ThingState.BLOCKED) == ["b"]
    assert await keys(state=ThingState.ACTIVE, ground="north") == ["a"]
    assert await keys(ground="nowhere") == []
