"""Look-ups by key cross over to the reader's thread in groups; nobody pays for another's mistake or slowness."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import RETIRED, Thing
from authsvc.store import look_ups
from authsvc.store.look_ups import MAX_GROUP, Reader
from tests.store.conftest import World, refused

SLOW = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 3000000)
SELECT count(*) FROM numbers
"""


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many questions each hop took over."""
    sizes: list[int] = []
    commit = Reader.commit

    def counted(reader: Reader) -> None:
        sizes.append(len(reader.group))
        commit(reader)

    monkeypatch.setattr(Reader, "commit", counted)
    return sizes


async def test_what_is_asked_at_one_moment_is_answered_in_a_few_groups(world: World, groups: list[int]) -> None:
    """A thousand questions, each answered with its own row, in as many hops as the bound of a group allows."""
    for key in ("a", "b"):
        await world.register(key)
    keys = ["a", "b", "c", "d"] * 250
    things = await asyncio.gather(*(world.store.thing("acme", key) for key in keys))
    for key, thing in zip(keys, things, strict=True):
        assert (thing.key if thing is not None else None) == (key if key in "ab" else None)
    assert sum(groups) == len(keys)
    assert len(groups) <= len(keys) / MAX_GROUP + 2
    assert max(groups) <= MAX_GROUP


async def _ask_one_a_turn(world: World, count: int) -> list[asyncio.Task[object]]:
    asking = []
    for _ in range(count):
        asking.append(asyncio.create_task(world.store.tenant("acme")))
        await asyncio.sleep(0)
    return asking


async def test_what_every_turn_of_the_loop_brings_is_answered_together(
    world: World, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet's CONNECTs do not arrive in one turn: a hop for each few of them cost more than all else."""
    monkeypatch.setattr(look_ups, "GATHERING_S", 60.0)
    asking = await _ask_one_a_turn(world, 50)
    await asyncio.gather(*asking)
    assert sum(groups) == 50
    assert len(groups) <= 3


async def test_a_question_that_is_alone_waits_for_nobody(
    world: World, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for the time that a group may take to gather."""
    monkeypatch.setattr(look_ups, "GATHERING_S", 60.0)
    async with asyncio.timeout(5):
        for _ in range(3):
            await world.store.tenant("acme")
    assert groups == [1, 1, 1]


async def test_the_first_does_not_wait_for_ever_while_more_come(
    world: World, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many turns bring another: the time is bounded."""
    monkeypatch.setattr(look_ups, "MAX_GROUP", 100_000)
    asking = []
    while not groups and len(asking) < 20_000:
        asking += await _ask_one_a_turn(world, 1)
    assert groups
    await asyncio.gather(*asking)


async def test_a_mistake_in_one_question_fails_that_one_alone(world: World) -> None:
    """A value that no statement takes, and one that is missing, among questions that are in order."""
    database = world.store.database
    answers = await asyncio.gather(
        database.look_up("tenant", key="acme"),
        database.look_up("tenant", key=object()),
        database.look_up("tenant"),
        database.look_up("tenant", key="acme"),
        return_exceptions=True,
    )
    assert [isinstance(answer, Exception) for answer in answers] == [False, True, True, False]
    assert not any(isinstance(answer, StoreUnavailable) for answer in answers)
    assert database.state.readable


async def test_who_has_gone_does_not_keep_the_others_from_their_answers(world: World) -> None:
    asking = [asyncio.create_task(world.store.tenant("acme")) for _ in range(5)]
    await asyncio.sleep(0)
    asking[1].cancel()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [isinstance(answer, BaseException) for answer in answers] == [False, True, False, False, False]


async def test_a_close_answers_everybody_who_asks(world: World) -> None:
    asking = [asyncio.create_task(world.store.tenant("acme")) for _ in range(1_000)]
    await asyncio.sleep(0)
    await world.store.close()
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(
        answer is None or not isinstance(answer, BaseException) or isinstance(answer, StoreUnavailable)
        for answer in answers
    )
    await refused(world.store.tenant("acme"))


async def test_a_long_list_holds_no_look_up_up(world: World) -> None:
    """Pages and sets have readers of their own: a CONNECT does not wait for an operator's search."""
    database = world.store.database
    database._statements = {**database._statements, "slow": SLOW}
    slow = asyncio.create_task(database.read("slow"))
    await asyncio.sleep(0.01)
    for _ in range(3):
        assert await world.store.tenant("acme") is not None
    assert not slow.done()
    await slow


async def test_a_question_of_many_is_one_statement_and_gives_everybody_his_own_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Things, retired keys, keys that nobody has, and the same of another tenant, each several times."""
    for key in ("a", "b", "gone"):
        await world.register(key)
    await world.store.things.delete("acme", "gone")
    groups: list[int] = []
    statements: list[str] = []
    commit = Reader.commit

    def traced(reader: Reader) -> None:
        groups.append(len(reader.group))
        reader.set_trace_callback(statements.append)
        commit(reader)
        reader.set_trace_callback(None)

    monkeypatch.setattr(Reader, "commit", traced)
    asked = [("acme", "a"), ("acme", "gone"), ("acme", "nobody"), ("other", "a"), ("acme", "b")] * 50
    answers = await asyncio.gather(*(world.store.thing_or_retired(*item) for item in asked))
    expected = [("acme", "a"), RETIRED, None, None, ("acme", "b")] * 50
    assert [(answer.tenant, answer.key) if isinstance(answer, Thing) else answer for answer in answers] == expected
    assert answers[0] == await world.store.thing("acme", "a")
    assert sum(groups) == len(asked) + 1
    assert len(statements) == len(groups)


async def test_a_question_of_many_that_fails_is_told_to_all_who_asked(world: World) -> None:
    """What is wrong with the statement, or the file, is everybody's; the next question finds the reader in order."""
    database = world.store.database
    right = database._statements
    database._statements = {**right, "things_or_retired": "SELECT * FROM nowhere WHERE :items"}
    asking = (world.store.thing_or_retired("acme", key) for key in ("a", "b"))
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(answer, Exception) for answer in answers)
    database._statements = right
    assert await world.store.thing_or_retired("acme", "a") is None
