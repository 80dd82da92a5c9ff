"""Promise 10 on the running product: of two tenants side by side none reaches, names or counts the other."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from authsvc.core.credentials import WillMessage
from tests.broker.raw_client import RawClient
from tests.broker.upstreams import mosquitto_socket
from tests.e2e.process import Process, running

GREEDY = [
    {"effect": "allow", "action": action, "topic": "{tenant}/#"} for action in ("publish", "subscribe")
]  # as far as a tenant's own rules can reach


class Neighbours:
    """Two tenants that are furnished alike, key by key, and a greedy client in each."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.one, self.two = f"{process.tenant}-a", f"{process.tenant}-a2"  # one is a prefix of the other
        self.app: dict[str, dict[str, Any]] = {}
        self.ground: dict[str, dict[str, Any]] = {}
        self.admin: dict[str, dict[str, Any]] = {}

    async def moved_in(self) -> Neighbours:
        process = self.process
        for tenant in (self.one, self.two):
            at = f"/v1/tenants/{tenant}"
            await process.post("/v1/tenants", {"key": tenant})
            await process.open_definition(tenant, rules=GREEDY)
            await process.post(f"{at}/roles", {"key": "all", "rules": GREEDY})
            await process.post(f"{at}/licenses", {"key": "l", "seats": 7})
            self.app[tenant] = await process.app_token(tenant, roles=["all"], license="l")
            self.ground[tenant] = await process.post(
                f"{at}/grounds/default/tokens", {"name": "g", "access": "read_write"}
            )
            self.admin[tenant] = await process.post(
                "/v1/admin-keys", {"name": tenant, "tenant": tenant, "role": "owner"}
            )
        return self

    async def client(self, tenant: str, client_id: str = "same", **fields: Any) -> RawClient:
        return await self.process.client("same", self.app[tenant]["token"], client_id, **fields)


@pytest.fixture
async def neighbours(request: pytest.FixtureRequest, shared: Process, tmp_path: Path) -> AsyncIterator[Neighbours]:
    """On the shared process with amqtt, or where a test says `BOTH` on one before Mosquitto as well."""
    if getattr(request, "param", "amqtt") == "amqtt":
        yield await Neighbours(shared).moved_in()
        return
    async with mosquitto_socket(tmp_path) as path, running(tmp_path, upstream=path) as process:
        yield await Neighbours(process).moved_in()


BOTH = pytest.mark.parametrize("neighbours", ["amqtt", "mosquitto"], indirect=True)
FOREIGN = [
    "#", "+/#", "+/default/#", "TWO/#", "TWO/default/same/x", "/#", "+", "$SYS/#", "$share/g/TWO/#",
    "$share/g/#", "$share/g/+/default/#", "../TWO/#", "{tenant}/#", "ONE /#", "one/#",
]  # fmt: skip


@BOTH
async def test_no_filter_topic_will_or_retained_message_crosses_the_wall(neighbours: Neighbours) -> None:
    """The same thing key and client id in both, the widest rules a tenant can have: each sees itself alone."""
    one, two = await neighbours.client(neighbours.one), await neighbours.client(neighbours.two)
    await one.ping()  # equal thing, equal client id, other tenant: nobody took anybody over
    grounds = [
        await neighbours.process.client("x", neighbours.ground[tenant]["token"], "ground")
        for tenant in (neighbours.one, neighbours.two)
    ]
    for client in (one, grounds[0]):
        for template in FOREIGN:
            filter_ = template.replace("TWO", neighbours.two).replace("ONE", neighbours.one)
            assert await client.subscribe((filter_, 1)) == [0x80], filter_
    for client, tenant in ((one, neighbours.one), (two, neighbours.two)):
        assert await client.subscribe((f"{tenant}/#", 1)) == [1]
    assert await grounds[1].subscribe((f"{neighbours.two}/default/#", 1)) == [1]
    for topic in (
        f"{neighbours.two}/default/same/command/x",
        f"{neighbours.two}/default/same/x",
        f"{neighbours.two}",
        f"{neighbours.two}/",
        f"/{neighbours.two}/x",
        "$SYS/x",
    ):
        await one.publish(topic, b"foreign", qos=1, retain=True)
        await one.publish(topic, b"foreign", qos=0)
        await grounds[0].publish(topic, b"foreign", qos=1)
        will = WillMessage(topic=topic, payload=b"foreign", qos=1, retain=True)
        assert await neighbours.process.code("same", neighbours.app[neighbours.one]["token"], "willing", will=will) == 5
    await one.publish(f"{neighbours.one}/default/same/kept", b"mine", qos=1, retain=True)
    assert (await one.delivery()).payload == b"mine"
    await two.publish(f"{neighbours.two}/default/same/own", b"two", qos=1)
    assert (await two.delivery()).payload == b"two"
    late = await neighbours.client(neighbours.two, "late")
    assert await late.subscribe((f"{neighbours.two}/#", 1), (f"{neighbours.one}/#", 1), ("#", 1)) == [1, 0x80, 0x80]
    for client in (two, late, grounds[1]):
        await client.ping()
        assert [p.payload for p in client.received if p.topic != f"{neighbours.two}/default/same/own"] == []


async def test_a_token_means_nothing_in_the_other_tenant(neighbours: Neighbours) -> None:
    """The tenant comes from the token, never from what the client says; seats are counted apart."""
    process = neighbours.process
    await neighbours.client(neighbours.one)
    for key in (f"{neighbours.two}/same", f"{neighbours.two}", f"same@{neighbours.two}", f"{neighbours.two}:same"):
        await process.code(key, neighbours.app[neighbours.one]["token"])
    assert await process.every(f"/v1/tenants/{neighbours.two}/things") == []
    assert (await process.get(f"/v1/tenants/{neighbours.two}/licenses/l"))["used"] == 0
    assert await process.every(f"/v1/tenants/{neighbours.two}/sessions") == []


async def test_an_admin_key_cannot_tell_the_other_tenant_from_one_that_never_was(neighbours: Neighbours) -> None:
    """Every path and method on a foreign tenant answers 404 like a missing one, body and time alike."""
    process = neighbours.process
    await neighbours.client(neighbours.two)
    (session,) = await process.every(f"/v1/tenants/{neighbours.two}/sessions")
    app, ground = neighbours.app[neighbours.two]["id"], neighbours.ground[neighbours.two]["id"]
    paths = [
        "", "/things", "/things/same", "/things/same/tokens", "/things/same/modules", "/things/same/client-id",
        "/grounds", "/grounds/default", "/grounds/default/tokens", f"/grounds/default/tokens/{ground}",
        "/thing-definitions", "/thing-definitions/dev", "/roles", "/roles/all", "/licenses", "/licenses/l",
        "/app-tokens",
        f"/app-tokens/{app}", f"/app-tokens/{app}/regenerate", "/sessions", f"/sessions/{session['id']}", "/refusals",
        "/explain",
    ]  # fmt: skip
    async with process.api_as(neighbours.admin[neighbours.one]["token"]) as api:
        assert [t["key"] for t in (await api.get("/v1/tenants")).json()["items"]] == [neighbours.one]
        times: dict[str, list[float]] = {neighbours.two: [], "nobody": []}
        for path in paths:
            for method in ("GET", "POST", "PATCH", "DELETE"):
                answers = {}
                for tenant, spent in times.items():
                    began = time.perf_counter()
                    answer = await api.request(method, f"/v1/tenants/{tenant}{path}", json={"key": "k", "name": "n"})
                    spent.append(time.perf_counter() - began)
                    answers[tenant] = (answer.status_code, answer.text.replace(tenant, "TENANT"))
                assert answers[neighbours.two] == answers["nobody"], f"{method} {path}"
                assert answers[neighbours.two][0] in (404, 405), f"{method} {path}: {answers[neighbours.two]}"
        assert abs(statistics.median(times[neighbours.two]) - statistics.median(times["nobody"])) < 0.01
        for path in (f"/app-tokens/{app}", f"/grounds/default/tokens/{ground}", f"/sessions/{session['id']}"):
            for method in ("GET", "DELETE"):
                answer = await api.request(method, f"/v1/tenants/{neighbours.one}{path}")
                assert answer.status_code in (404, 405), "an id of the other tenant under one's own path"
        await _reaches_no_wider(api, neighbours)
        assert neighbours.two not in (await api.get("/readyz")).text
    async with asyncio.timeout(1):
        assert [s["id"] for s in await process.every(f"/v1/tenants/{neighbours.two}/sessions")] == [session["id"]]


async def _reaches_no_wider(api: httpx.AsyncClient, neighbours: Neighbours) -> None:
    """No rule, role, token or key made by a tenant's owner reaches beyond the tenant."""
    for topic in (
        "#",
        "+/x",
        f"{neighbours.two}/#",
        "{ground}/x",
        "$SYS/#",
        "{thing}/#",
        f"{neighbours.one}+/x",
        f"{neighbours.two}",
        f"/{neighbours.one}/x",
    ):
        rules = [{"effect": "allow", "action": "subscribe", "topic": topic}]
        for kind in ("roles", "thing-definitions"):
            answer = await api.post(f"/v1/tenants/{neighbours.one}/{kind}", json={"key": "wide", "rules": rules})
            assert answer.status_code == 422, f"{kind} {topic}: {answer.text}"
    body = {"name": "x", "thing_definition": "dev", "roles": ["platform/spy"]}
    assert (await api.post(f"/v1/tenants/{neighbours.one}/app-tokens", json=body)).status_code in (403, 404, 422)
    assert (await api.post("/v1/roles", json={"key": "spy", "rules": GREEDY})).status_code in (403, 404)
    assert (await api.get("/v1/roles")).status_code in (403, 404)
    for tenant in (neighbours.two, None):
        body = {"name": "x", "tenant": tenant, "role": "owner"}
        assert (await api.post("/v1/admin-keys", json=body)).status_code in (403, 404, 422)
    keys = (await api.get("/v1/admin-keys")).json().get("items", [])
    assert all(key["tenant"] == neighbours.one for key in keys)


async def test_refusals_of_one_tenant_are_not_told_to_the_other(neighbours: Neighbours) -> None:
    """A CONNECT that fails is listed where its token is known, and for nobody's tenant where it is not."""
    process = neighbours.process
    one = await neighbours.client(neighbours.one)
    await one.publish(f"{neighbours.two}/default/same/x", qos=1)
    await process.code("same", "asapp_" + "x" * 49, "unknown-client")
    await process.delete(f"/v1/tenants/{neighbours.two}/app-tokens/{neighbours.app[neighbours.two]['id']}")
    await process.code("same", neighbours.app[neighbours.two]["token"], "revoked-client")
    texts = {}
    for tenant in (neighbours.one, neighbours.two):
        async with process.api_as(neighbours.admin[tenant]["token"]) as api:
            texts[tenant] = (await api.get(f"/v1/tenants/{tenant}/refusals")).text
    assert f"{neighbours.two}/default/same/x" in texts[neighbours.one]  # its own attempt
    assert f"{neighbours.two}/default/same/x" not in texts[neighbours.two]
    assert "revoked-client" in texts[neighbours.two]
    assert "revoked-client" not in texts[neighbours.one]
    assert all("unknown-client" not in text for text in texts.values())


@BOTH
async def test_a_tenant_that_ends_takes_nothing_of_the_other_with_it(neighbours: Neighbours) -> None:
    """Suspending and deleting one leaves sessions, retained messages and seats of the other alone."""
    process = neighbours.process
    one, two = await neighbours.client(neighbours.one), await neighbours.client(neighbours.two)
    await two.publish(f"{neighbours.two}/default/same/kept", b"kept", qos=1, retain=True)
    await process.patch(f"/v1/tenants/{neighbours.one}", {"state": "suspended"})
    assert await one.closed(1)
    await two.ping()
    await process.delete(f"/v1/tenants/{neighbours.one}?cascade=true")
    await two.ping()
    assert await two.subscribe((f"{neighbours.two}/#", 1)) == [1]
    assert (await two.delivery()).payload == b"kept"
    assert (await process.get(f"/v1/tenants/{neighbours.two}/licenses/l"))["used"] == 1
    assert await process.code("same", neighbours.app[neighbours.one]["token"]) in (4, 5)
