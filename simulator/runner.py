"""Plays a plan: provision, connect, load, attack, lose some, settle, disconnect, judge.

`run` always ends what it began: connections by DISCONNECT and tokens by revocation, also when it is interrupted, when
the broker dies, or when the API stops answering.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field

from authsvc.cli.problems import CommandFailed
from simulator import modules, oracle, report
from simulator.applications import Application, application, broken_connections_are_in_the_ledger
from simulator.attackers import Target, attack
from simulator.gateways import Gateway, will_id
from simulator.ledger import Ledger
from simulator.places import Door, Place
from simulator.provision import Api, Provisioned, Say, clean_up, intruder_key, provision
from simulator.scenarios import Attacker, Scenario
from simulator.shape import Message, Plan, by_actor, plan

_CONNECTING_AT_ONCE = 200  # a fleet does not dial in one microsecond, and a backlog is not what is measured
_SETTLE_QUIET_S = 2.0  # nothing has arrived for so long: nothing will
_SETTLE_MAX_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The service that a run is played against."""

    url: str
    door: Door
    tenant: str
    key: str = field(repr=False)


@dataclass(slots=True, kw_only=True)
class _Run:
    """What one run is made of; `gateways` and `device` exist from the beginning, connected or not."""

    scenario: Scenario
    planned: Plan
    where: Where
    api: Api
    say: Say
    made: Provisioned = field(default_factory=Provisioned)
    ledger: Ledger = field(default_factory=Ledger)
    gateways: list[Gateway] = field(default_factory=list)
    stay: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def place(self) -> Place:
        return Place(tenant=self.where.tenant, ground=self.scenario.ground)

    @property
    def elsewhere(self) -> Place:
        return Place(tenant=self.where.tenant, ground=self.scenario.other_ground)

    @property
    def target(self) -> Target:
        return Target(
            door=self.where.door,
            victim=self.planned.gateways[0],
            place=self.place,
            intruder=intruder_key(self.scenario),
            intruder_place=self.elsewhere,
            intruder_token=self.made.intruder,
            seed=self.planned.seed,
        )


async def run(scenario: Scenario, where: Where, *, seed: int | None = None, say: Say = lambda _: None) -> report.Report:
    """Play the scenario and return its report.

    Raises:
        CommandFailed: what the run needs could not be provisioned, so nothing was tried.
    """
    planned = plan(scenario, scenario.seed if seed is None else seed)
    asyncio.get_running_loop().set_exception_handler(broken_connections_are_in_the_ledger)
    async with Api(where.url, where.key, where.tenant) as api:
        this = _Run(scenario=scenario, planned=planned, where=where, api=api, say=say)
        with _interruptible() as stop:
            try:
                ready = await _unless(stop, provision(api, scenario, planned, say, this.made))
                if ready:
                    await _play(this, stop)
                this.ledger.interrupted = stop.is_set()
            finally:
                this.ledger.notes += await clean_up(api, this.made)
    return report.make(scenario, planned, this.ledger, oracle.judge(scenario, planned, this.ledger, this.place))


async def _play(this: _Run, stop: asyncio.Event) -> None:
    """Connect everybody, play the scenes unless interrupted, disconnect everybody."""
    ledger, made = this.ledger, this.made
    this.gateways = [Gateway(one.key, one.client_id, one.modules, this.place, ledger) for one in this.planned.gateways]
    device = Gateway(this.planned.device, f"sim.{this.planned.device}", (), this.place, ledger)
    readers = (
        (oracle.WITNESS, made.witness, this.place),
        (oracle.OTHER_WITNESS, made.other_witness, this.elsewhere),
        (oracle.APPLICATION, made.application, this.place),
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_disconnect, this, device)
        applications = [
            await stack.enter_async_context(application(name, this.where.door, token, read, ledger))
            for name, token, read in readers
        ]
        if not await _unless(stop, _scenes(this, device, applications[-1])):
            this.say("interrupted: disconnecting")
        try:
            found = await this.api.items("/things", ground=this.scenario.ground)
            ledger.things = frozenset(str(thing["key"]) for thing in found)
        except CommandFailed as failure:
            ledger.notes.append(f"things could not be listed: {failure}")


async def _scenes(this: _Run, device: Gateway, commander: Application) -> None:
    """Play the run from the first connection to the last will."""
    planned, ledger = this.planned, this.ledger
    await _connect(this, device)
    this.say(f"{sum(gateway.connected for gateway in this.gateways)} of {len(this.gateways)} gateways connected")
    try:
        this.say(f"{await modules.bind(this.api, planned.gateways, ledger)} modules bound")
    except CommandFailed as failure:
        ledger.notes.append(f"modules could not be bound: {failure}")
    await asyncio.gather(*(gateway.subscribe() for gateway in (*this.gateways, device)))
    this.say(f"load and attacks for {this.scenario.duration_s:g} s")
    ledger.begin()
    await _load(this, device, commander)
    await _settle(ledger, lambda: {message.id for message in planned.reports if message.id in ledger.acknowledged})
    for gateway in this.gateways:
        if gateway.key in planned.lost:
            gateway.cut()
    wills = {will_id(key) for key in planned.lost}
    await _settle(ledger, lambda: wills)


async def _connect(this: _Run, device: Gateway) -> None:
    turn = asyncio.Semaphore(_CONNECTING_AT_ONCE)

    async def one(gateway: Gateway, token: str) -> None:
        async with turn:
            await gateway.connect(this.where.door, token)

    await asyncio.gather(*(one(gateway, this.made.app) for gateway in this.gateways), one(device, this.made.device))


async def _load(this: _Run, device: Gateway, commander: Application) -> None:
    """Play reports, commands and attacks by their clock; attackers stay for what they may hear until it is over."""
    planned = this.planned
    reports = by_actor(planned.reports)
    async with asyncio.TaskGroup() as attacks:
        async with asyncio.TaskGroup() as load:
            for gateway in this.gateways:
                load.create_task(gateway.play(reports[gateway.key]), name=f"{gateway.key} reports")
            load.create_task(device.play(planned.device_reports), name="device reports")
            load.create_task(_trespass(this, device), name="device trespasses")
            load.create_task(commander.play(planned.commands), name="application commands")
            load.create_task(_count_sessions(this), name="session count")
            for attacker, at_s in zip(this.scenario.attackers, planned.attacks_at_s, strict=True):
                attacks.create_task(_attack(this, attacker, at_s), name=attacker.kind)
            load.create_task(asyncio.sleep(this.scenario.duration_s), name="duration")
        this.stay.set()


async def _trespass(this: _Run, device: Gateway) -> None:
    """Let the device publish once in a gateway's place."""
    at_s = this.planned.device_reports[0].at_s
    await asyncio.sleep(max(0.0, at_s - this.ledger.now_s()))
    message = Message(
        id=oracle.FORBIDDEN_REPORT,
        at_s=at_s,
        via=device.key,
        place=device.key,
        suffix="state/temperature",
        payload=b'{"id": "%s"}' % oracle.FORBIDDEN_REPORT.encode(),
    )
    device.publish(message, place=this.target.victim.key)


async def _attack(this: _Run, attacker: Attacker, at_s: float) -> None:
    await asyncio.sleep(max(0.0, at_s - this.ledger.now_s()))
    await attack(attacker, this.target, this.ledger, this.stay)


async def _count_sessions(this: _Run) -> None:
    """Ask the service in mid-run who is connected, to be held against who says so here."""
    ledger = this.ledger
    await asyncio.sleep(max(0.0, this.scenario.duration_s / 2 - ledger.now_s()))
    try:
        ledger.sessions = frozenset(str(one["thing"]) for one in await this.api.items("/sessions") if one.get("thing"))
    except CommandFailed as failure:
        ledger.notes.append(f"sessions could not be listed: {failure}")


async def _unless(stop: asyncio.Event, what: Coroutine[object, object, None]) -> bool:
    """Run `what` to its end and return True, or cancel it when `stop` is set first. Raises what it raises."""
    work = asyncio.ensure_future(what)
    watch = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
            return True
        return False
    finally:
        work.cancel()
        watch.cancel()
        await asyncio.gather(work, watch, return_exceptions=True)


async def _settle(ledger: Ledger, wanted: Callable[[], set[str]]) -> None:
    """Wait until the witness has all that is wanted, or until nothing has arrived for a while."""
    began = quiet_since = ledger.now_s()
    seen = -1
    while ledger.now_s() - began < _SETTLE_MAX_S and ledger.now_s() - quiet_since < _SETTLE_QUIET_S:
        readers = [set(ledger.ids(reader)) for reader in (oracle.WITNESS, oracle.APPLICATION)]
        if all(wanted() <= read for read in readers) and seen >= 0:
            return
        total = sum(map(len, ledger.received.values())) + len(ledger.acknowledged)
        if total != seen:
            seen, quiet_since = total, ledger.now_s()
        await asyncio.sleep(0.05)


async def _disconnect(this: _Run, device: Gateway) -> None:
    this.stay.set()
    await asyncio.gather(*(gateway.close() for gateway in (*this.gateways, device)), return_exceptions=True)


@contextmanager
def _interruptible() -> Iterator[asyncio.Event]:
    """Yield an event that SIGINT and SIGTERM set, instead of ending the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    taken = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        try:
            loop.add_signal_handler(number, stop.set)
        except (NotImplementedError, RuntimeError, ValueError):
            continue  # not the main thread: whoever runs the loop there ends it otherwise
        taken[number] = before
    try:
        yield stop
    finally:
        for number, before in taken.items():
            loop.remove_signal_handler(number)
            signal.signal(number, before)
