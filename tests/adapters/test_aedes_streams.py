"""The service's side of an agent in Aedes, asked over real HTTP as the agent asks: the stream, comparisons, calls."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from authsvc.adapters.adapter import AttachedConfig
from authsvc.adapters.attached import Attached
from authsvc.adapters.management import ManagementUnavailable
from authsvc.core.facts import RuleAction
from authsvc.core.reasons import Reason
from authsvc.sessions import Will
from tests.adapters.conftest import SECRET, HookWorld
from tests.adapters.rabbitmq.rig import allow, device
from tests.service.conftest import T

BEARER = {"authorization": f"Bearer {SECRET}"}


class Agent:
    """Says what an agent says. `events` yields what it hears, without the beats."""

    def __init__(self, world: HookWorld, node: str, run: str) -> None:
        self.world = world
        self.me = {"node": node, "run": run}
        self.epoch = ""
        self._heard: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None

    async def attach(self) -> None:
        self._reading = asyncio.create_task(self._read())
        hello = await self.next()
        assert hello["type"] == "hello"
        self.epoch = hello["epoch"]

    async def _read(self) -> None:
        url = f"{self.world.url}/hooks/aedes/events"
        async with httpx.AsyncClient(trust_env=False, timeout=None) as client:  # noqa: S113  # it never ends
            with contextlib.suppress(httpx.TransportError):
                async with client.stream("GET", url, params=self.me, headers=BEARER) as stream:
                    assert stream.status_code == 200
                    async for line in stream.aiter_lines():
                        event = json.loads(line)
                        if event["type"] != "beat":
                            self._heard.put_nowait(event)
        self._heard.put_nowait(None)

    async def next(self, kind: str = "") -> dict[str, Any]:
        """Return the next event, of a kind if one is named."""
        async with asyncio.timeout(5):
            while True:
                event = await self._heard.get()
                assert event is not None, "the stream has ended"
                if not kind or event["type"] == kind:
                    return event

    async def ended(self) -> None:
        async with asyncio.timeout(5):
            while await self._heard.get() is not None:
                pass

    async def leave(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    async def post(self, path: str, **fields: Any) -> httpx.Response:
        return await self.world.post(f"aedes/{path}", {**self.me, **fields})

    async def connect(self, token: str, thing: str = "a1", client_id: str = "c1", **more: Any) -> dict[str, Any]:
        body = {
            "client_id": client_id,
            "clean": True,
            "username": thing,
            "password": base64.b64encode(token.encode()).decode(),
            "keep_alive": 60,
            "level": 4,
            "will": None,
            "peer": "192.0.2.1:7",
            **more,
        }
        answer = await self.post("connect", **body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def compare(self, *sessions: tuple[str, str, str]) -> int:
        answer = await self.post("resync", epoch=self.epoch, sessions=sessions, last=True)
        return answer.status_code


@pytest.fixture
async def agent(bare: HookWorld) -> AsyncIterator[Agent]:
    await bare.open("", AttachedConfig(name="aedes", kind="aedes", secrets=(SECRET,)))
    agent = Agent(bare, "one", "r1")
    await agent.attach()
    yield agent
    await agent.leave()
    await bare.shut()


def attached(agent: Agent) -> Attached:
    return agent.world.hooks.attached["aedes"]


async def test_a_session_is_answered_as_plain_data(agent: Agent) -> None:
    """Rules in order, sets with their members, expiry, and what tells this answer from later ones."""
    rules = (allow(RuleAction.SUBSCRIBE, "{tenant}/x/{member}/#", qos_max=1), allow(RuleAction.PUBLISH, "{tenant}/x"))
    answer = await agent.connect(await device(agent.world, "a1", *rules))
    session = attached(agent).session("c1")
    assert session is not None
    assert answer["result"] == "allow"
    assert (answer["session"], answer["client_id"], answer["epoch"]) == (session.id, "c1", agent.epoch)
    (rule,) = answer["grant"]["subscribe"]
    assert rule["levels"] == [T, "x", {"set": "member"}, "#"]
    assert (rule["allow"], rule["qos_max"]) == (True, 1)
    assert answer["grant"]["sets"]["member"]["keys"] == ["a1"]
    assert answer["expires_in_ms"] is None


@pytest.mark.parametrize(
    "fields",
    [
        {"password": "no base64!"},
        {"level": 5},
        {"level": 2},
        {"clean": "perhaps"},
        {"keep_alive": 70_000},
        {"will": "x"},
        {"will": {"topic": "x", "qos": 3, "retain": False}},
        {"will": {"topic": "x", "qos": 0, "retain": 1}},
        {"client_id": 7},
        {"node": None},
    ],
    ids=str,
)
async def test_a_malformed_connect_is_a_refusal(agent: Agent, fields: dict[str, Any]) -> None:
    """In words that the agent understands, and nothing is open after it."""
    token = await device(agent.world, "a1")
    assert (await agent.connect(token, **fields))["result"] == "deny"
    assert attached(agent).session("c1") is None


@pytest.mark.parametrize("path", ["connect", "resync", "notices", "events"])
async def test_without_the_secret_nothing_is_answered(agent: Agent, path: str) -> None:
    """Whoever reads the stream sees everybody's rules."""
    method = "GET" if path == "events" else "POST"
    answer = await agent.world.client.request(method, f"/hooks/aedes/{path}", headers={"authorization": "Bearer no"})
    assert answer.status_code == 401


async def test_an_end_says_what_becomes_of_the_will_and_comes_before_the_wipe(agent: Agent) -> None:
    """At once without waiting for anything; the kick after it is confirmed by the agent."""
    answer = await agent.connect(await device(agent.world, "a1"))
    session = attached(agent).session("c1")
    assert session is not None
    agent.world.service.sessions.end(session, Reason.TOKEN_REVOKED, Will.NEVER)
    first, second = await agent.next("end"), await agent.next("end")
    assert (first["client_id"], first["will"], first["wipe"]) == ("c1", "never", False)
    assert (second["client_id"], second["will"], second["wipe"]) == ("c1", "never", True)
    assert answer["rev"] < first["rev"] < second["rev"]
    kicks = attached(agent).kicks
    assert kicks is not None
    assert kicks.owes("c1")
    await agent.post("notices", done=[{"call": second["call"]}])
    await agent.world.until(lambda: not kicks.owes("c1"))


async def test_a_comparison_ends_adopts_and_renews(agent: Agent) -> None:
    """What nobody knows ends; what another run of the service opened is taken on; what is right is left alone."""
    answer = await agent.connect(await device(agent.world, "a1"))
    etag, session = answer["etag"], answer["session"]
    assert await agent.compare(("c1", session, etag), ("c2", "unknown", "x")) == 200
    end = await agent.next()
    assert (end["type"], end["client_id"], end["will"]) == ("end", "c2", "never")
    assert (await agent.next())["type"] == "synchronised"
    await agent.compare(("c1", session, "another"))
    renewed = await agent.next()
    assert (renewed["type"], renewed["session"], renewed["etag"]) == ("grant", session, etag)
    await agent.compare(("c1", "of an answer before", etag))
    stale = await agent.next("end")
    assert (stale["client_id"], stale["rev"]) == ("c1", answer["rev"]), "the newer connection is not meant"


async def test_sets_follow_what_happens(agent: Agent) -> None:
    """A thing that joins or leaves is told to whoever holds the set."""
    rules = (allow(RuleAction.SUBSCRIBE, "{tenant}/x/{member}/#"),)
    answer = await agent.connect(await device(agent.world, "a1", *rules))
    await agent.world.store.things.create(T, "a2")
    await agent.world.settle()
    event = await agent.next("set")
    told = answer["grant"]["sets"]["member"]
    assert (event["id"], event["keys"]) == (told["id"], ["a1", "a2"])
    assert event["rev"] > told["rev"]


async def test_who_left_is_believed_of_the_session_that_it_names(agent: Agent) -> None:
    """A notice about the connection before does not close the one that took over."""
    token = await device(agent.world, "a1")
    first = await agent.connect(token)
    second = await agent.connect(token)
    await agent.post("notices", gone=[{"client_id": "c1", "session": first["session"], "kept": False}])
    assert attached(agent).session("c1") is not None
    await agent.post("notices", gone=[{"client_id": "c1", "session": second["session"], "kept": False}])
    assert attached(agent).session("c1") is None
    assert (await agent.connect(await device(agent.world, "a2"), "a2"))["result"] == "allow", "nothing is kept: free"


async def test_a_kept_client_id_is_free_when_aedes_says_so(agent: Agent) -> None:
    """Asked when somebody else wants it; while the agent is away nobody gets it."""
    first, second = await device(agent.world, "a1"), await device(agent.world, "a2")
    answer = await agent.connect(first)
    await agent.post("notices", gone=[{"client_id": "c1", "session": answer["session"], "kept": True}])
    agent.world.clock.move(60)
    for found, result in ((True, "deny"), (False, "allow")):
        asking = asyncio.create_task(agent.connect(second, "a2"))
        while not asking.done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    call = await agent.next("has")
                    await agent.post("notices", done=[{"call": call["call"], "found": found}])
        assert (await asking)["result"] == result


async def test_who_is_connected_is_asked_of_all_nodes_or_not_known(agent: Agent) -> None:
    """A node that is away may have anybody."""
    management = attached(agent).management
    assert management is not None
    asking = asyncio.create_task(management.clients())
    await agent.next("compare")
    await agent.compare(("c1", "s", "e"))
    assert await asking == {"c1"}
    second = Agent(agent.world, "two", "r2")
    await second.attach()
    asking = asyncio.create_task(management.clients())
    await asyncio.gather(agent.next("compare"), second.next("compare"))
    await agent.compare(("c1", "s", "e"))
    await second.compare(("c2", "s", "e"))
    assert await asking == {"c1", "c2"}
    await second.leave()
    async with asyncio.timeout(10):
        with contextlib.suppress(ManagementUnavailable):  # until the service has noticed
            while await management.clients() is not None:
                pass
    assert await management.has_session("c1") is None
    assert await management.clients() is None


async def test_an_order_without_a_stream_is_not_done(agent: Agent) -> None:
    """It is repeated until there is one."""
    management = attached(agent).management
    assert management is not None
    asking = asyncio.create_task(management.disconnect("c1", wipe=True))
    await agent.next("end")
    await agent.leave()
    with pytest.raises(ManagementUnavailable, match="`one`"):
        async with asyncio.timeout(10):
            await asking
    with pytest.raises(ManagementUnavailable, match="no event stream"):
        await management.disconnect("c1", wipe=True)


async def test_a_stream_is_replaced_by_the_next_of_its_node(agent: Agent) -> None:
    """And an agent that has none may not compare."""
    second = Agent(agent.world, "one", "r2")
    await second.attach()
    assert (await agent.next())["type"] == "replaced"
    await agent.ended()
    assert await agent.compare() == 409
    assert await second.compare() == 200
    second.epoch = "of another service"
    assert await second.compare() == 409
    await second.leave()


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("notices", {"gone": {}}),
        ("notices", {"gone": [1]}),
        ("notices", {"gone": [{"client_id": 1, "session": "x"}]}),
        ("notices", {"done": [{"call": "1"}]}),
        ("resync", {"epoch": "x", "sessions": [["a", "b"]], "last": True}),
        ("resync", {"epoch": "x", "sessions": "all", "last": True}),
        ("resync", {"epoch": "x", "sessions": [["a", "b", "c"]] * 1001, "last": True}),
    ],
    ids=str,
)
async def test_malformed_notices_and_comparisons_are_refused(agent: Agent, path: str, fields: dict[str, Any]) -> None:
    """The agent starts again; nothing was done of it."""
    if path == "resync":
        fields = {**fields, "epoch": agent.epoch}
    assert (await agent.post(path, **fields)).status_code == 422
