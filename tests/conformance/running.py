"""Runs the cases of a column side by side: they wait more than they work, and each has a tenant of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from tests.conformance.driver import Broker, Column, Missing, Service, Stage
from tests.conformance.gates import SETTINGS
from tests.conformance.hooked import HOOKED, settings_of
from tests.conformance.player import Seen, play
from tests.conformance.steps import Case
from tests.conformance.world import api_of
from tests.live_service import free_ports, live_service


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one cell saw; `accident` is what broke instead of giving a verdict."""

    seen: tuple[Seen, ...] = ()
    accident: Exception | None = None

    @property
    def different(self) -> dict[str, str]:
        """Return what was observed instead of what was expected, by label."""
        return {one.label: one.observed for one in self.seen if not one.same}


@dataclass
class Playhouse:
    """Everything that runs while cases are played; a broker is started once, at the first column of it."""

    folder: Path
    stack: ExitStack
    hooks_url: str = field(default_factory=lambda: f"http://127.0.0.1:{free_ports(1)[0]}")
    _service: Service | None = None
    _started: dict[str, Missing | None] = field(default_factory=dict)

    def hooks(self) -> Service:
        if self._service is None:
            folder = self.folder / "hooks"
            folder.mkdir()
            config = folder / "authsvc.toml"
            config.write_text(settings_of(HOOKED, self))
            live = self.stack.enter_context(live_service(folder, "--config", config, settings=SETTINGS))
            self._service = Service(live.url, live.key)
        return self._service

    def missing(self, broker: Broker) -> str | None:
        """Start the broker; return what it lacks."""
        if broker.name not in self._started:
            try:
                broker.start(self)
            except Missing as missing:
                self._started[broker.name] = missing
            else:
                self._started[broker.name] = None
        found = self._started[broker.name]
        return str(found) if found is not None else None

    def run(self, column: Column, cases: Iterable[Case]) -> dict[str, Outcome]:
        """Play the cases that speak of the column's level; return what was seen, by the cases' names."""
        wanted = [case for case in cases if column.level in case.levels]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(column, wanted))


@contextmanager
def playhouse(folder: Path) -> Iterator[Playhouse]:
    with ExitStack() as stack:
        yield Playhouse(folder, stack)


async def _run(column: Column, cases: list[Case]) -> dict[str, Outcome]:
    seats = asyncio.Semaphore(column.broker.traits.at_once)
    async with column.broker.stage(column.level) as stage, api_of(stage.service) as api:

        async def one(case: Case) -> Outcome:
            async with seats:
                try:
                    async with asyncio.timeout(30):
                        return Outcome(tuple(await play(case, column, stage, api)))
                except Exception as error:
                    return Outcome(accident=error)

        longest_first = sorted(cases, key=lambda case: case.waits_s, reverse=True)  # or they wait when all else is done
        outcomes = await asyncio.gather(*(one(case) for case in longest_first))
    return dict(zip((case.name for case in longest_first), outcomes, strict=True))


__all__ = ["Outcome", "Playhouse", "Stage", "playhouse"]
