"""One timer for many: each item is late at its own time, whoever came or went in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from broker.deadlines import Deadlines


class Loop:
    """A loop whose clock is moved by hand; it counts the timers that were ever set."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers = 0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> object:
        self.timers += 1
        self.due.append((when, callback))
        return callback

    def pass_(self, seconds: float) -> None:
        until = self.now + seconds
        while self.due and self.due[0][0] <= until:
            when, callback = self.due.pop(0)
            self.now = max(self.now, when)
            callback()
        self.now = until


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_each_is_late_at_its_own_time_and_who_left_is_not(loop: Loop):
    """Also when the one for which the timer was set has left, and when all have left in between."""
    late: list[tuple[float, str]] = []
    deadlines: Deadlines[str] = Deadlines(loop, 5.0, lambda item: late.append((loop.now, item)))
    for item in "abcd":
        deadlines.add(item)
        loop.pass_(1)
    deadlines.discard("a")
    deadlines.discard("c")
    deadlines.discard("never was")
    assert deadlines.oldest == "b"
    loop.pass_(20)
    assert late == [(106.0, "b"), (108.0, "d")]
    deadlines.add("e")
    deadlines.discard("e")
    loop.pass_(20)
    deadlines.add("f")
    loop.pass_(20)
    assert late[2:] == [(149.0, "f")]
    assert len(deadlines) == 0


def test_a_thousand_that_leave_in_time_share_a_timer(loop: Loop):
    """The one that was set for the first of them serves all that come before its time."""
    deadlines: Deadlines[int] = Deadlines(loop, 5.0, lambda _: None)
    for number in range(1_000):
        deadlines.add(number)
        loop.pass_(0.001)
        deadlines.discard(number)
    assert loop.timers == 1


def test_an_accident_with_one_keeps_no_other_from_its_end(loop: Loop):
    """What is called may raise, and may add and discard others."""
    late: list[str] = []

    def end(item: str) -> None:
        late.append(item)
        if item == "breaks":
            raise LookupError
        if item == "takes another along":
            deadlines.discard("another")
            deadlines.add("again")

    deadlines: Deadlines[str] = Deadlines(loop, 5.0, end)
    for item in ("breaks", "takes another along", "another", "last"):
        deadlines.add(item)
    with pytest.raises(LookupError):
        loop.pass_(5)
    loop.pass_(0)
    assert late == ["breaks", "takes another along", "last"]
    loop.pass_(5)
    assert late[3:] == ["again"]


async def test_on_a_real_loop_nobody_is_early():
    """The loop's own clock decides, whose timers may be called a little before their time."""
    loop = asyncio.get_running_loop()
    late: dict[int, float] = {}
    began: dict[int, float] = {}
    deadlines: Deadlines[int] = Deadlines(loop, 0.05, lambda item: late.update({item: loop.time()}))
    for item in range(5):
        began[item] = loop.time()
        deadlines.add(item)
        await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        while len(late) < 5:
            await asyncio.sleep(0.01)
    assert all(late[item] - began[item] >= 0.049 for item in began)
