"""What somebody tries who holds one valid token, or can reach the hooks, or the wire between."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from authsvc.core.reasons import Reason
from broker import wire
from tests.adapters.rabbitmq.amqp import login
from tests.adapters.rabbitmq.rig import MANAGER_PASSWORD, SECRET, device, serving, witness
from tests.adapters.rabbitmq_broker import MANAGER
from tests.broker.raw_client import RawClient, close_all
from tests.service.conftest import T

TOPIC = {"resource": "topic", "name": "amq.topic", "vhost": "/", "variable_map.vhost": "/", "tags": ""}


class Caller:
    """Posts to the hooks as RabbitMQ does, or nearly."""

    def __init__(self, port: int, *, secret: str | None = SECRET) -> None:
        self._url = f"http://127.0.0.1:{port}/hooks/rabbit"
        self._auth = None if secret is None else ("authsvc", secret)

    async def post(self, path: str, fields: object = None, *, raw: str | None = None) -> httpx.Response:
        content = urlencode(fields) if raw is None else raw
        headers = {"content-type": "application/x-www-form-urlencoded"}
        async with httpx.AsyncClient(trust_env=False, auth=self._auth) as client:
            return await client.post(f"{self._url}/{path}", content=content, headers=headers)

    async def get(self, path: str, fields: dict[str, str]) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, auth=self._auth) as client:
            return await client.get(f"{self._url}/{path}", params=fields)

    async def says(self, path: str, fields: dict[str, str] | None = None, *, raw: str | None = None) -> str:
        response = await self.post(path, fields, raw=raw)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain")
        return response.text


@pytest.fixture
def caller(rig, hooks_port):
    return Caller(hooks_port)


def who(client_id: str, username: str = "a1") -> dict[str, str]:
    return {"username": username, "vhost": "/", "client_id": client_id}


def asks(client_id: str, routing_key: str, permission: str, username: str = "a1") -> dict[str, str]:
    told = {"variable_map.client_id": client_id, "variable_map.username": username}
    return {**TOPIC, **told, "username": username, "permission": permission, "routing_key": routing_key}


@pytest.fixture
async def a1(rig):
    """A session `c1` of thing a1, and thing a2 with a session `c2`, both through RabbitMQ."""
    secrets = {thing: await device(rig.world, thing) for thing in ("a1", "a2")}
    await rig.connect("c1", secrets["a1"], "a1")
    await rig.connect("c2", secrets["a2"], "a2")
    return secrets["a1"]


async def test_amqp_is_refused_with_a_valid_token(rig):
    """Only MQTT connections are admitted: AMQP would reach every queue of the virtual host."""
    secret = await device(rig.world, "a1")
    address = ("127.0.0.1", rig.rabbit.amqp_port)
    assert not await login(address, "a1", secret)


async def test_amqp_is_refused_to_the_account_of_the_management(rig):
    """It passes the login, which is the same as the management's, and gets no virtual host."""
    assert not await login(("127.0.0.1", rig.rabbit.amqp_port), MANAGER, MANAGER_PASSWORD)


async def test_the_management_is_refused_with_a_valid_token(rig):
    """A token is for MQTT; the management answers 401 to it."""
    secret = await device(rig.world, "a1")
    async with httpx.AsyncClient(trust_env=False, base_url=rig.rabbit.management_url) as client:
        assert (await client.get("/api/overview", auth=("a1", secret))).status_code == 401
        assert (await client.get("/api/overview", auth=(MANAGER, "wrong"))).status_code == 401
        assert (await client.get("/api/overview", auth=(MANAGER, MANAGER_PASSWORD))).status_code == 200


async def test_nobody_takes_over_the_client_id_of_another_thing(rig):
    """The holder keeps it, connected or not, and its queue with it."""
    secret = await device(rig.world, "a1")
    thief = await device(rig.world, "a2")
    client = await rig.connect("c1", secret, "a1", clean=False)
    await client.subscribe((f"{T}/default/a1/command/#", 1))
    assert await rig.code("c1", thief, "a2") == 4
    await client.ping()
    await client.disconnect()
    assert await rig.code("c1", thief, "a2", clean=False) == 4
    assert (await rig.connect("c1", secret, "a1", clean=False)).session_present


@pytest.mark.parametrize(
    ("kind", "name", "permission", "answer"),
    [
        ("queue", "mqtt-subscription-c1qos0", "configure", "allow"),
        ("queue", "mqtt-subscription-c1qos1", "read", "allow"),
        ("queue", "mqtt-will-c1", "write", "allow"),
        ("exchange", "amq.topic", "read", "allow"),
        ("exchange", "amq.topic", "write", "allow"),
        ("queue", "mqtt-subscription-c2qos1", "read", "deny"),
        ("queue", "mqtt-subscription-c1qos2", "read", "deny"),
        ("queue", "mqtt-subscription-c1qos1 ", "read", "deny"),
        ("queue", "mqtt-subscription-", "read", "deny"),
        ("queue", "orders", "read", "deny"),
        ("queue", "mqtt-subscription-c1qos1", "delete", "deny"),
        ("queue", "mqtt-subscription-c1qos1", "", "deny"),
        ("exchange", "amq.topic", "configure", "deny"),
        ("exchange", "", "write", "deny"),
        ("exchange", "amq.fanout", "write", "deny"),
        ("topic", "amq.topic", "write", "deny"),
        ("stream", "mqtt-subscription-c1qos1", "read", "deny"),
    ],
)
async def test_a_client_reaches_its_own_queues_and_the_topic_exchange(a1, caller, kind, name, permission, answer):
    """Whoever could read another's queue would consume its messages."""
    fields = {**who("c1"), "resource": kind, "name": name, "permission": permission, "tags": ""}
    assert await caller.says("resource", fields) == answer


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        pytest.param({}, "allow", id="as it is"),
        pytest.param({"username": "a2"}, "deny", id="the user name of another thing"),
        pytest.param({"variable_map.username": "a2"}, "deny", id="two user names"),
        pytest.param({"username": "a2", "variable_map.username": "a2"}, "deny", id="another thing in both places"),
        pytest.param({"username": "", "variable_map.username": ""}, "deny", id="no user name in both places"),
        pytest.param({"variable_map.client_id": "c2"}, "deny", id="the client id of another thing"),
        pytest.param({"variable_map.client_id": ""}, "deny", id="no client id"),
        pytest.param({"variable_map.vhost": "other"}, "deny", id="two virtual hosts"),
        pytest.param({"vhost": "other", "variable_map.vhost": "other"}, "deny", id="another virtual host"),
        pytest.param({"name": "amq.direct"}, "deny", id="another exchange"),
        pytest.param({"resource": "exchange"}, "deny", id="another kind"),
        pytest.param({"permission": "configure"}, "deny", id="another permission"),
        pytest.param({"permission": ""}, "deny", id="no permission"),
        pytest.param({"routing_key": f"{T}.default.a2.state.x"}, "deny", id="another thing's topic"),
        pytest.param({"routing_key": f"{T}.default.a1.state.*"}, "deny", id="a star in a publish"),
        pytest.param({"routing_key": f"{T}.default.a1.state.#"}, "deny", id="a hash in a publish"),
        pytest.param({"routing_key": ""}, "deny", id="an empty key"),
        pytest.param({"username": MANAGER, "variable_map.username": MANAGER}, "deny", id="the management's name"),
    ],
)
async def test_a_topic_is_decided_by_client_id_and_user_name_together(a1, caller, change, answer):
    """The session that was admitted is found by the client id; another user name than its own is refused."""
    assert await caller.says("topic", {**asks("c1", f"{T}.default.a1.state.x", "write"), **change}) == answer


@pytest.mark.parametrize(
    "routing_key",
    ["#", f"{T}.#", f"{T}.default.*.command.#", f"{T}.default.a1.#.x", f"{T}.default.a1.comm*", "*.*.*.*", ""],
)
async def test_a_binding_wider_than_the_grant_is_refused(a1, caller, routing_key):
    """`#` within a key matches any number of levels in RabbitMQ, and a star within a level is nothing of MQTT's."""
    assert await caller.says("topic", asks("c1", routing_key, "read")) == "deny"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("username=a1&username=a2&vhost=%2F&client_id=c1", id="a repeated user name"),
        pytest.param("username=a1&vhost=%2F&client_id=c1&client_id=c2", id="a repeated client id"),
        pytest.param("username=a1&vhost=%2F&client_id=%FF%FE", id="no UTF-8"),
        pytest.param("username=a1&vhost=%2F&client_id=c1%00", id="NUL"),
        pytest.param("username=a1&vhost=%2F&client_id=c1%", id="half an escape"),
        pytest.param("", id="nothing"),
        pytest.param('{"username": "a1", "client_id": "c1"', id="half of JSON"),
    ],
)
async def test_what_can_be_read_in_two_ways_is_denied(a1, caller, raw):
    """A request that RabbitMQ would not send is denied with status 200, the only words it understands."""
    for path in ("user", "vhost", "resource", "topic"):
        assert await caller.says(path, raw=raw) == "deny"


async def test_a_get_with_the_password_in_its_url_is_refused(rig, caller):
    """RabbitMQ's default is GET, whose URL it logs: only POST is answered."""
    secret = await device(rig.world, "a1")
    response = await caller.get("user", {**who("c1"), "password": secret})
    assert response.status_code == 405
    assert not len(rig.world.service.sessions)


@pytest.mark.parametrize("secret", [None, "", "wrong-secret-of-enough-characters"])
async def test_a_caller_without_the_secret_learns_and_changes_nothing(rig, hooks_port, secret):
    """401 for every path, before the request is read."""
    token = await device(rig.world, "a1")
    stranger = Caller(hooks_port, secret=secret)
    for path in ("user", "vhost", "resource", "topic"):
        assert (await stranger.post(path, {**who("c1"), "password": token})).status_code == 401
    assert not len(rig.world.service.sessions)
    assert rig.refusal().reason is Reason.UNKNOWN_TOKEN


async def test_the_management_account_opens_no_mqtt_session_but_to_end_one(rig, caller):
    """Its password is good for the client ids that are being ended just now, and for those it gives no topic."""
    login_ = {**who("c1", MANAGER), "password": MANAGER_PASSWORD}
    assert await caller.says("user", login_) == "deny"
    assert await caller.says("vhost", who("c1", MANAGER)) == "deny"
    without = {"username": MANAGER, "password": MANAGER_PASSWORD}
    assert await caller.says("user", without) == "allow administrator"
    assert await caller.says("vhost", {"username": MANAGER, "vhost": "/"}) == "deny"
    queue = {"resource": "queue", "name": "mqtt-subscription-c1qos1", "permission": "configure"}
    assert await caller.says("resource", {"username": MANAGER, "vhost": "/", **queue}) == "deny"
    assert await caller.says("topic", asks("c1", "#", "read", MANAGER)) == "deny"


class Answers:
    """A service gone wrong: answers every hook with the same words."""

    def __init__(self, response: Response) -> None:
        self._response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await self._response(scope, receive, send)


@pytest.mark.parametrize(
    ("response", "code"),
    [
        pytest.param(PlainTextResponse("allow"), 0, id="allow, to see that the others are refused for their words"),
        pytest.param(PlainTextResponse("deny"), 4, id="deny"),
        pytest.param(PlainTextResponse("xyzzy\x00"), 4, id="garbage"),
        pytest.param(PlainTextResponse(""), 4, id="200 and empty"),
        pytest.param(PlainTextResponse("allow", status_code=500), 4, id="500 with allow"),
        pytest.param(PlainTextResponse("allow", status_code=401), 4, id="401 with allow"),
        pytest.param(RedirectResponse("/elsewhere", status_code=302), 4, id="302"),
    ],
)
async def test_whatever_is_no_allow_is_refused_by_rabbitmq(rabbit, hooks_port, response, code):
    """RabbitMQ fails closed by itself; this shows it on the real one."""
    async with serving(Answers(response), hooks_port):
        client = await RawClient.open(("127.0.0.1", rabbit.port))
        assert await client.connect("c1", "token", username="a1") in (code, code and 5)
        await close_all()


async def test_a_stopped_service_lets_nobody_in_and_the_living_live_on(rig, rabbit, hooks_port):
    """Connections that were made go on with the permissions that RabbitMQ keeps; new topics are refused."""
    secret = await device(rig.world, "a1")
    client = await rig.connect("c1", secret, "a1")
    await client.publish(f"{T}/default/a1/state/x", b"1", qos=1)
    await rig.stop_serving()
    await client.publish(f"{T}/default/a1/state/x", b"2", qos=1)
    assert await rig.code("c2", secret, "a1") in (3, 4, 5)
    await client.send(wire.encode_publish(f"{T}/default/a1/state/y", b"3", qos=1, packet_id=9))
    assert await client.closed(20)


async def test_dots_stars_and_slashes_never_carry_a_message_across(rig):
    """Each of two things tries every spelling of the other's place, through the real broker."""
    spy = await rig.connect("spy", await witness(rig.world), "spy")
    await spy.subscribe(("#", 1))
    secret = await device(rig.world, "a1")
    await device(rig.world, "a2")
    spellings = [f"{T}/default/a2/state", f"{T}.default/a2.state", f"{T}/default/*/state", f"{T}/default//state"]

    async def attempt(number: int, topic: str) -> bool:
        client = await rig.connect(f"try-{number}", secret, "a1")
        await client.send(wire.encode_publish(topic + "/x", b"no", qos=1, packet_id=1))
        return await client.closed()

    assert all(await asyncio.gather(*[attempt(number, topic) for number, topic in enumerate(spellings)]))
    await spy.publish("fence", qos=1)
    assert await spy.deliveries_until("fence") == []
