"""A coroutine that is begun without a task: done at once, or the rest of it in a task as if it had begun there."""

from __future__ import annotations

import asyncio

import pytest

from broker import eager


async def test_what_waits_for_nothing_is_done_at_once():
    """No task, no turn of the loop; what it raises is raised here."""
    done = []

    async def inner() -> str:
        return "inner"

    async def work() -> None:
        done.append(await inner())

    async def fails() -> None:
        raise ValueError("broken for the test")

    assert eager.begin(work()) is None
    assert done == ["inner"]
    with pytest.raises(ValueError, match="broken"):
        eager.begin(fails())


@pytest.mark.parametrize("late", [False, True], ids=["answered-later", "answered-before-the-task-runs"])
async def test_the_rest_goes_on_in_a_task(late):
    """Values and errors of what it waits for come in, also several times; time limits work there."""
    first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
    seen = []

    async def work() -> None:
        seen.append(await first)
        async with asyncio.timeout(1):
            try:
                await second
            except LookupError as error:
                seen.append(error)
        await asyncio.sleep(0)
        seen.append("end")

    rest = eager.begin(work())
    assert rest is not None
    if late:
        first.set_result("first")
    task = asyncio.create_task(rest)
    await asyncio.sleep(0)
    if not late:
        first.set_result("first")
    second.set_exception(error := LookupError())
    await task
    assert seen == ["first", error, "end"]


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_a_cancelled_rest_undoes_what_it_began(turns):
    """Also when it is cancelled before its task has run: what it waits for is cancelled, its `finally` runs."""
    waits_for = asyncio.get_running_loop().create_future()
    undone = []

    async def work() -> None:
        try:
            await waits_for
        finally:
            await asyncio.sleep(0)
            undone.append(True)

    rest = eager.begin(work())
    assert rest is not None
    task = asyncio.create_task(rest)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == [True]
    assert waits_for.cancelled()


async def test_a_rest_that_gets_no_task_is_undone_by_its_close():
    """As any coroutine."""
    undone = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            undone.append(True)

    rest = eager.begin(work())
    rest.close()
    assert undone == [True]
