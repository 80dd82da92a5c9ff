"""Plays a case on a column: does the steps one after the other and writes down what was seen.

A step whose expectation is not met does not end the case: what follows is seen as well, so that a difference can be
told in full. What cannot be done because the broker has closed the connection is seen as `closed`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass

import httpx

from tests.conformance import steps as do
from tests.conformance.driver import PATIENCE_S, Client, Closed, Column, Hello, Stage
from tests.conformance.steps import Case, Step
from tests.conformance.world import World, new_tenant

MISSING_S = 1.5  # how long a delivery that was expected is waited for, once all is known to be done

VAGUE = {"accepted", "refused", "granted", "denied", "closed"}  # a code behind them does not matter

# MQTT 3.1.1 3.2.2.3 and MQTT 5.0 3.2.2.2: the codes of both, by what they say.
REFUSALS = {
    1: "protocol", 2: "client id", 3: "unavailable", 4: "bad credentials", 5: "not authorized",
    0x84: "protocol", 0x85: "client id", 0x88: "unavailable", 0x86: "bad credentials", 0x87: "not authorized",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """One observation."""

    label: str
    expected: str
    observed: str

    @property
    def same(self) -> bool:
        return alike(self.expected, self.observed)


def alike(expected: str, observed: str) -> bool:
    """Return whether an observation is what was expected: `denied 0x87` is `denied`, not the other way round."""
    return observed == expected or (expected in VAGUE and observed.startswith(f"{expected} "))


async def play(case: Case, column: Column, stage: Stage, api: httpx.AsyncClient) -> list[Seen]:
    """Return what was seen. Raises what is an accident of the suite or of the service, not a verdict."""
    world = World(api, new_tenant(), case)
    await world.make(mentioned(case))
    player = Player(world, column, stage)
    try:
        for step in case.steps:
            await player.play(step)
    finally:
        player.leave()
    return player.seen


def mentioned(case: Case) -> set[str]:
    """Return the names of the cast that a case uses; `S` is needed wherever something is received."""
    made = {step.name for step in case.steps if isinstance(step, do.Token)}
    made |= {step.body["key"] for step in case.steps if isinstance(step, do.Make)}
    names = {"A"}
    for step in case.steps:
        if isinstance(step, do.Connect):
            names.add(step.options.secret or step.client)
        elif isinstance(step, do.Receives):
            names.add("S")
        elif isinstance(step, do.Token) and step.kind == "device":
            names.add(step.of)
        elif isinstance(step, do.Move):
            names.add(step.thing)
    return names - made


class Player:
    """The clients of one case, and what was seen."""

    def __init__(self, world: World, column: Column, stage: Stage) -> None:
        self.world = world
        self.column = column
        self.stage = stage
        self._level = column.level
        self.seen: list[Seen] = []
        self._clients: dict[str, Client] = {}
        self._options: dict[str, do.Options] = {}
        self._all: list[Client] = []
        self._marks = 0
        self._labels: Counter[str] = Counter()

    async def play(self, step: Step) -> None:
        """Do one step; write down what was seen if the step expects something."""
        try:
            observed = await getattr(self, f"_{type(step).__name__.lower()}")(step)
        except Closed:
            observed = "closed"
        except TimeoutError:
            observed = "no answer"
        if step.expect is not None and not (isinstance(step, do.SessionPresent) and self._level == 3):
            self._labels[step.label] += 1
            times = self._labels[step.label]
            label = step.label if times == 1 else f"{step.label} ({times})"
            self.seen.append(Seen(label, step.expect, observed))

    def leave(self) -> None:
        for client in self._all:
            client.cut()

    # --- clients -------------------------------------------------------------------------------------------------

    async def _connect(self, step: do.Connect) -> str:
        self._options[step.client] = step.options
        return await self._open(step.client, step.options)

    async def _open(self, name: str, options: do.Options) -> str:
        token = self.world.tokens[options.secret or name]
        will = options.will
        client = await self.stage.open()
        self._all.append(client)
        self._clients[name] = client
        client_id = name.replace(" ", "") if options.client_id is None else options.client_id
        secret = token.secret[:-1] + ("0" if token.secret[-1] != "0" else "1") if options.wrong else token.secret
        code = await client.connect(
            Hello(
                client_id=f"{self.world.tenant}{client_id}" if client_id else "",
                username=options.thing or token.username,
                password=secret,
                clean=options.clean,
                expiry_s=options.expiry_s or (0 if options.clean else 3600),
                will=None
                if will is None
                else (self.world.topic(will.topic), will.payload, will.qos, will.retain, will.delay_s),
            )
        )
        return "accepted" if code == 0 else f"refused {REFUSALS.get(code, f'{code:#x}')}"

    async def _again(self, step: do.Again) -> None:
        client = self._clients[step.client]
        with contextlib.suppress(TimeoutError):
            await client.closed(self._swap_patience)
            await self._open(step.client, self._options[step.client])  # if it is refused, what follows shows it

    async def _subscribe(self, step: do.Subscribe) -> str:
        before = self._clients[step.client].gone
        try:
            return _granted((await self._codes(step.client, [(step.filter, step.qos)]))[0])
        except Closed:
            if before:
                raise
            return "denied closed"  # the answer of some brokers to a SUBSCRIBE that is not allowed

    async def _subscribeall(self, step: do.SubscribeAll) -> str:
        return ", ".join(
            _granted(code).split()[0] for code in await self._codes(step.client, [(f, 1) for f in step.filters])
        )

    async def _codes(self, name: str, filters: list[tuple[str, int]]) -> list[int]:
        return await self._clients[name].subscribe([(self.world.topic(f), qos) for f, qos in filters])

    async def _unsubscribe(self, step: do.Unsubscribe) -> None:
        await self._clients[step.client].unsubscribe(self.world.topic(step.filter))

    async def _publish(self, step: do.Publish) -> str:
        code = await self._clients[step.client].publish(
            self.world.topic(step.topic), step.payload, qos=step.qos, retain=step.retain, alias=step.alias
        )
        if step.qos == 0:
            return "sent"
        return "acked" if code < 0x80 else f"denied {code:#x}"

    async def _receives(self, step: do.Receives) -> str:
        """Collect until the marker; the last ones get a little time where no marker can come."""
        client = self._clients[step.client]
        self._marks += 1
        mark = f"mark{self._marks}"
        if "S" not in self._clients:
            assert await self._open("S", do.Options()) == "accepted"
        await self._clients["S"].publish(self.world.topic(step.mark), mark, qos=1, retain=False)
        wanted, got, marked = len(step.payloads.split()), list[str](), False
        with contextlib.suppress(Closed, TimeoutError):
            # What is expected may come behind the marker: MQTT orders the messages of one publisher only.
            while not marked or len(got) < wanted:
                message = await client.message(MISSING_S)
                if message.payload.startswith("mark"):
                    marked |= message.payload == mark
                else:
                    got.append(f"old({message.payload})" if step.retained and message.retain else message.payload)
        return " ".join(got) or "nothing"

    async def _is(self, step: do.Is) -> str:
        patience_s = self._swap_patience if step.after_swap else 0.05
        if step.expect.startswith("closed"):
            patience_s = PATIENCE_S if self.column.broker.traits.kicks else self._due_s
        try:
            code = await self._clients[step.client].closed(patience_s)
        except TimeoutError:
            return "open"
        return "closed" if code is None else f"closed {code:#x}"

    @property
    def _due_s(self) -> float:
        """Within which all that the case lets expire has expired, and half a second."""
        steps = self.world.case.steps
        due = [step.expires_s + 0.5 for step in steps if isinstance(step, do.Token) and step.expires_s]
        return max([0, *due, *(step.overlap_s for step in steps if isinstance(step, do.Regenerate))]) + 0.5

    @property
    def _swap_patience(self) -> float:
        return self.column.broker.traits.settle_s

    async def _settle(self, step: do.Settle) -> None:
        await asyncio.sleep(self._swap_patience)

    async def _sessionpresent(self, step: do.SessionPresent) -> str:
        return "yes" if self._clients[step.client].session_present else "no"

    async def _cut(self, step: do.Cut) -> None:
        self._clients[step.client].cut()
        await self._gone(step.client)

    async def _disconnect(self, step: do.Disconnect) -> None:
        await self._clients[step.client].disconnect()
        await self._gone(step.client)

    async def _gone(self, name: str) -> None:
        """Wait until the service does not list the client any more: a queue begins only then."""
        client_id = self._options[name].client_id or name.replace(" ", "")
        if not self.column.broker.traits.tells_gone:
            await asyncio.sleep(0.15)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while f"{self.world.tenant}{client_id}" in await self.world.clients():
                    await asyncio.sleep(0.02)
        await asyncio.sleep(0.05)

    # --- operators -----------------------------------------------------------------------------------------------

    async def _setrules(self, step: do.SetRules) -> None:
        rules = [*step.rules, do.END_RULE]
        await self.world.call("PATCH", self.world.at("/thing-definitions/dev"), {"rules": rules})

    async def _move(self, step: do.Move) -> None:
        await self.world.call("PATCH", self.world.at(f"/things/{step.thing}"), {"ground": step.ground})

    async def _revoke(self, step: do.Revoke) -> None:
        await self.world.call("DELETE", self.world.tokens[step.secret].path)

    async def _regenerate(self, step: do.Regenerate) -> None:
        await self.world.regenerate(step.secret, step.overlap_s)

    async def _token(self, step: do.Token) -> None:
        await self.world.token(step)

    async def _change(self, step: do.Change) -> None:
        path = self.world.at("" if step.what == "T" else f"/things/{step.what}")
        await self.world.call("PATCH", path, step.fields)

    async def _delete(self, step: do.Delete) -> None:
        path = step.path
        if "{A}" in path:
            (session,) = await self.world.sessions("A")
            path = path.replace("{A}", session)
        await self.world.call("DELETE", self.world.at(path))

    async def _make(self, step: do.Make) -> None:
        await self.world.call("POST", self.world.at(step.path), step.body)

    async def _exists(self, step: do.Exists) -> str:
        answer = await self.world.api.get(self.world.at(f"/things/{step.thing}"))
        return str(answer.json()["ground"]) if answer.status_code == 200 else "no"

    async def _wait(self, step: do.Wait) -> None:
        await asyncio.sleep(step.seconds)


def _granted(code: int) -> str:
    return f"granted {code}" if code < 0x80 else f"denied {code:#x}"
