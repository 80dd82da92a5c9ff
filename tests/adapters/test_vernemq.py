"""VerneMQ's webhooks: requests of exactly its shapes over real HTTP, and its HTTP API played by a small server.

The shapes are those of vernemq/vmq-docs plugindevelopment/webhookplugins.md and of encode_payload in
vernemq/vernemq apps/vmq_webhooks/src/vmq_webhooks_plugin.erl.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from authsvc.adapters.adapter import AttachedConfig
from authsvc.adapters.management import ManagementUnavailable
from authsvc.adapters.routes import Hooks
from authsvc.adapters.vernemq_management import VerneManagement, nameable
from authsvc.core.facts import RuleAction
from authsvc.core.reasons import Reason
from tests.adapters.rabbitmq.rig import allow, deny, device, serving
from tests.live_service import free_ports
from tests.service.conftest import T, World, world

__all__ = ["world"]

SECRET = "a-secret-that-only-vernemq-knows"
API_KEY = "JxctXkZ1OTVnlwvguSCE9KtujacMkOLF"
PUBLISH, SUBSCRIBE = RuleAction.PUBLISH, RuleAction.SUBSCRIBE
NOT_ALLOWED = {"result": {"error": "not_allowed"}}
OK = {"result": "ok"}
V3, V5 = "", "_m5"


class Api:
    """Plays the HTTP API: which commands it got, in their raw form, and which clients it says to have."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.keys: set[str | None] = set()
        self.online: set[str] = set()
        self.failing = 0
        self.passing_over = 0
        self.app = Starlette(routes=[Route("/api/v1/session/{verb}", self.answer)])

    @property
    def commands(self) -> list[str]:
        return [asked for asked in self.asked if asked.startswith("disconnect")]

    async def answer(self, request: Request) -> Response:
        self.asked.append(f"{request.path_params['verb']}?{request.url.query}")
        self.keys.add(request.headers.get("x-api-key"))
        if self.failing:
            self.failing -= 1
            return PlainTextResponse("invalid_request_error", status_code=400)
        if request.path_params["verb"] == "disconnect":
            if self.passing_over:
                self.passing_over -= 1
            else:
                self.online.discard(request.query_params["client-id"])
            return JSONResponse({"text": "Done", "type": "text"})
        wanted = request.query_params.get("--client_id")
        rows = [{"client_id": name, "is_online": True} for name in sorted(self.online) if wanted in ("", name)]
        return JSONResponse({"type": "table", "table": rows})


class Verne:
    """Asks as VerneMQ does."""

    def __init__(self, world: World, hooks: Hooks, api: Api, port: int) -> None:
        self.world = world
        self.hooks = hooks
        self.attached = hooks.attached["verne"]
        self.api = api
        self._url = f"http://127.0.0.1:{port}/hooks/verne"

    async def post(self, hook: str, body: object, *, secret: str = SECRET, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, auth=("authsvc", secret)) as client:
            content = body if isinstance(body, str | bytes) else json.dumps(body)
            return await client.post(
                self._url,
                content=content,
                headers={"content-type": "application/json", "vernemq-hook": hook, **headers},
            )

    async def ask(self, hook: str, body: object) -> dict[str, Any]:
        """Return the answer, after what holds for every answer."""
        response = await self.post(hook, body)
        assert response.status_code == 200
        assert "max-age=" not in response.headers["cache-control"]
        answer: dict[str, Any] = response.json()
        return answer

    async def register(
        self, secret: str | None, thing: str | None, version: str = V5, **more: object
    ) -> dict[str, Any]:
        return await self.ask(f"auth_on_register{version}", register(secret, thing, version, **more))

    async def publish(self, topic: str, version: str = V5, **more: object) -> dict[str, Any]:
        body = {
            "username": "a1",
            "client_id": "c1",
            "mountpoint": "",
            "qos": 1,
            "topic": topic,
            "payload": base64.b64encode(b"hello").decode(),
            "retain": False,
            **({"properties": {}} if version else {}),
            **more,
        }
        return await self.ask(f"auth_on_publish{version}", body)

    async def subscribe(self, *topics: tuple[str, int], version: str = V5, **more: object) -> dict[str, Any]:
        options = {"no_local": True, "rap": True, "retain_handling": "dont_send"} if version else {}
        body = {
            "client_id": "c1",
            "mountpoint": "",
            "username": "a1",
            "topics": [{"topic": topic, "qos": qos, **options} for topic, qos in topics],
            **({"properties": {}} if version else {}),
            **more,
        }
        return await self.ask(f"auth_on_subscribe{version}", body)

    async def told(self) -> None:
        """Return when VerneMQ was told everything."""
        async with asyncio.timeout(5):
            while len(self.attached.kicks or ()):
                await asyncio.sleep(0.01)


def register(secret: str | None, thing: str | None, version: str = V5, **more: object) -> dict[str, object]:
    return {
        "peer_addr": "127.0.0.1",
        "peer_port": 8888,
        "username": thing,
        "password": secret,
        "mountpoint": "",
        "client_id": "c1",
        **({"clean_start": True, "properties": {}} if version else {"clean_session": True}),
        **more,
    }


@pytest.fixture
async def verne(world: World) -> AsyncIterator[Verne]:  # noqa: F811
    """A service that answers VerneMQ's hooks, and an HTTP API that it can tell."""
    api = Api()
    hooks_port, api_port = free_ports(2)
    config = AttachedConfig(
        name="verne",
        kind="vernemq",
        secrets=(SECRET,),
        management_url=f"http://127.0.0.1:{api_port}",
        management_password=API_KEY,
    )
    hooks = Hooks(world.service, [config])
    task = asyncio.create_task(hooks.run(), name="hooks")
    async with serving(api.app, api_port), serving(hooks, hooks_port):
        yield Verne(world, hooks, api, hooks_port)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await hooks.close()


@pytest.mark.parametrize("version", [V3, V5], ids=["3", "5"])
async def test_a_valid_token_registers(verne, version):
    """Plainly ok: no modifier, since nothing of the session is to be other than the client wants it."""
    assert await verne.register(await device(verne.world, "a1"), "a1", version) == OK
    session = verne.attached.session("c1")
    assert (session.thing, session.broker, session.peer) == ("a1", "verne", "127.0.0.1:8888")


@pytest.mark.parametrize("version", [V3, V5], ids=["3", "5"])
async def test_the_life_of_a_connection_ends_with_its_token(verne, version):
    """VerneMQ ends it by itself then, even when it could not be told."""
    await verne.world.store.things.create(T, "a1")
    await verne.world.settle()
    expires = verne.world.clock.now_us() + 90_500_000
    _, secret = await verne.world.device_token("a1", expires_at_us=expires)
    answer = await verne.register(secret, "a1", version)
    assert answer["result"] == "ok"
    assert set(answer["modifiers"]) == {"max_connection_lifetime"}
    assert 85 <= answer["modifiers"]["max_connection_lifetime"] <= 90


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"username": None, "password": None}, id="null user and password"),
        pytest.param({"password": ""}, id="empty password"),
        pytest.param({"password": "asdev_" + "0" * 49}, id="unknown token"),
        pytest.param({"username": "a2"}, id="another thing"),
        pytest.param({"mountpoint": "other"}, id="a mountpoint"),
        pytest.param({"client_id": ""}, id="empty client id"),
        pytest.param({"client_id": None}, id="no client id"),
        pytest.param({"client_id": 'x" OR client_id != "'}, id="a client id that would end everybody's session"),
        pytest.param({"properties": {"p_authentication_method": "SCRAM"}}, id="enhanced authentication"),
        pytest.param({"properties": {"p_session_expiry_interval": "never"}}, id="an expiry that is no number"),
        pytest.param({"clean_start": "maybe"}, id="clean start that is neither"),
        pytest.param({"password": 7}, id="a password that is no text"),
    ],
)
async def test_without_a_valid_token_nobody_registers(verne, more):
    """Status 200 and an error: nothing is open, and nothing was changed."""
    secret = await device(verne.world, "a1")
    await device(verne.world, "a2")
    assert await verne.ask("auth_on_register_m5", {**register(secret, "a1"), **more}) == NOT_ALLOWED
    assert not len(verne.world.service.sessions)


@pytest.mark.parametrize(
    ("peer", "shown"),
    [
        (("2001:db8::1", 1), "[2001:db8::1]:1"),
        (("undefined", "undefined"), ""),
        ((None, None), ""),
    ],
)
async def test_the_peer_is_for_the_records_only(verne, peer, shown):
    """VerneMQ writes `undefined` for an address that it does not know."""
    secret = await device(verne.world, "a1")
    assert await verne.register(secret, "a1", peer_addr=peer[0], peer_port=peer[1]) == OK
    assert verne.attached.session("c1").peer == shown


async def test_further_fields_of_newer_versions_are_passed_over(verne):
    """`forward_connection_opts` adds the listener and the certificate."""
    more = {"listener_addr": "127.0.0.1", "listener_port": 1883, "listener_type": "mqtt", "client_cert": "MIIB"}
    assert await verne.register(await device(verne.world, "a1"), "a1", **more) == OK


@pytest.mark.parametrize(
    ("topic", "more", "answer"),
    [
        (f"{T}/default/a1/state/x", {}, OK),
        (f"{T}/default/a1/state/x", {"qos": 2, "retain": True}, OK),
        (f"{T}/default/a1/command/x", {}, NOT_ALLOWED),
        (f"{T}/default/a2/state/x", {}, NOT_ALLOWED),
        (f"{T}/default/a1/state/#", {}, NOT_ALLOWED),
        ("", {}, NOT_ALLOWED),
        (f"{T}/default/a1/state/x", {"client_id": "c2"}, NOT_ALLOWED),
        (f"{T}/default/a1/state/x", {"username": "a2"}, NOT_ALLOWED),
        (f"{T}/default/a1/state/x", {"username": None}, NOT_ALLOWED),
        (f"{T}/default/a1/state/x", {"mountpoint": "m"}, NOT_ALLOWED),
        (f"{T}/default/a1/state/x", {"qos": 3}, NOT_ALLOWED),
        (f"{T}/default/a1/state/x", {"retain": "perhaps"}, NOT_ALLOWED),
    ],
)
async def test_a_publish_is_decided_on_the_session_of_its_client_id(verne, topic, more, answer):
    """By client id and user name together; the payload, base64 or left out, is not looked at."""
    await verne.register(await device(verne.world, "a1"), "a1")
    for version in (V3, V5):
        assert await verne.publish(topic, version, **more) == answer


async def test_a_publish_without_payload_is_decided(verne):
    """With `no_payload = on` VerneMQ leaves it out."""
    await verne.register(await device(verne.world, "a1"), "a1")
    body = {"username": "a1", "client_id": "c1", "mountpoint": "", "qos": 0, "retain": False}
    assert await verne.ask("auth_on_publish", {**body, "topic": f"{T}/default/a1/state/x"}) == OK


async def test_a_will_is_decided_as_a_publish_after_register(verne):
    """VerneMQ asks for it then, and never again: the session is known by that time."""
    rules = (allow(PUBLISH, "{tenant}/will", retain=False),)
    await verne.register(await device(verne.world, "a1", *rules), "a1")
    assert await verne.publish(f"{T}/will") == OK
    assert await verne.publish(f"{T}/will", retain=True) == NOT_ALLOWED


@pytest.mark.parametrize("version", [V3, V5], ids=["3", "5"])
async def test_what_is_granted_as_asked_is_answered_without_a_list(verne, version):
    """A list would take subscription identifiers away."""
    await verne.register(await device(verne.world, "a1"), "a1", version)
    command = f"{T}/default/a1/command"
    assert await verne.subscribe((f"{command}/#", 2), (f"$share/g/{command}/x", 1), version=version) == OK


@pytest.mark.parametrize(
    "filter_",
    [
        "#",
        f"{T}/#",
        f"{T}/default/+/command/#",
        f"{T}/default/a1/#",
        f"$share/g/{T}/#",
        "$share/g",
        f"{T}/default/a1/command/#/x",
    ],
)
async def test_a_subscription_beyond_the_grant_is_refused(verne, filter_):
    """True containment; alone in its SUBSCRIBE it is refused as a whole, which VerneMQ answers by a SUBACK."""
    await verne.register(await device(verne.world, "a1"), "a1")
    for version in (V3, V5):
        assert await verne.subscribe((filter_, 0), version=version) == NOT_ALLOWED


async def test_some_filters_of_a_subscribe_are_refused_in_place_3(verne):
    """128 for the refused ones, in their place; the list stands beside the result."""
    rules = (allow(SUBSCRIBE, "{tenant}/a/#", qos_max=1), allow(SUBSCRIBE, "{tenant}/b"))
    await verne.register(await device(verne.world, "a1", *rules), "a1", V3)
    answer = await verne.subscribe((f"{T}/a/x", 2), (f"{T}/c", 1), (f"{T}/b", 2), version=V3)
    told = [{"topic": f"{T}/a/x", "qos": 1}, {"topic": f"{T}/c", "qos": 128}, {"topic": f"{T}/b", "qos": 2}]
    assert answer == {"result": "ok", "topics": told}


async def test_some_filters_of_a_subscribe_are_refused_in_place_5(verne):
    """135 under `modifiers`; the options of the granted are repeated, or VerneMQ would reset them."""
    rules = (allow(SUBSCRIBE, "{tenant}/a/#", qos_max=1),)
    await verne.register(await device(verne.world, "a1", *rules), "a1")
    answer = await verne.subscribe((f"{T}/a/x", 2), (f"{T}/c", 1))
    options = {"no_local": True, "rap": True, "retain_handling": "dont_send"}
    told = [{"topic": f"{T}/a/x", "qos": 1, **options}, {"topic": f"{T}/c", "qos": 135}]
    assert answer == {"result": "ok", "modifiers": {"topics": told}}


async def test_an_overlapping_deny_refuses_since_deliveries_are_not_judged(verne):
    """A subscription cannot be narrowed later."""
    rules = (allow(SUBSCRIBE, "{tenant}/#"), deny(SUBSCRIBE, "{tenant}/secret/#"))
    await verne.register(await device(verne.world, "a1", *rules), "a1")
    assert await verne.subscribe((f"{T}/#", 0)) == NOT_ALLOWED
    assert await verne.subscribe((f"{T}/open/#", 0)) == OK


@pytest.mark.parametrize(
    "topics", [[], None, "x", [{}], [{"topic": 1, "qos": 0}], [{"topic": "x", "qos": True}], [{"topic": "x", "qos": 3}]]
)
async def test_a_malformed_list_of_filters_is_refused(verne, topics):
    """It is nothing that VerneMQ sends."""
    await verne.register(await device(verne.world, "a1"), "a1")
    assert await verne.subscribe((f"{T}/x", 0), topics=topics) == NOT_ALLOWED


@pytest.mark.parametrize("hook", ["", "auth_on_register_m6", "on_auth_m5", "on_deliver", "AUTH_ON_PUBLISH", "_m5"])
async def test_a_hook_that_is_not_served_is_refused(verne, hook):
    """Were enhanced authentication or delivery hooks pointed here, they would not get a yes."""
    assert await verne.ask(hook, register(await device(verne.world, "a1"), "a1")) == NOT_ALLOWED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"client_id": "c1", "client_id": "c2", "mountpoint": ""}',
        b'{"client_id": "\xff", "mountpoint": ""}',
        b'{"client_id": "a\\u0000b", "mountpoint": "", "username": "a1", "password": "x", "clean_start": true}',
    ],
    ids=["empty", "list", "half", "repeated key", "no UTF-8", "NUL"],
)
async def test_what_can_be_read_in_two_ways_is_refused(verne, body):
    """In VerneMQ's words and with status 200."""
    assert await verne.ask("auth_on_register_m5", body) == NOT_ALLOWED


async def test_no_answer_may_be_kept(verne):
    """VerneMQ looks for `max-age=` only: with 0 it would still answer for us until the second is over."""
    for secret in (await device(verne.world, "a1"), "wrong"):
        response = await verne.post("auth_on_register_m5", register(secret, "a1"))
        assert response.headers.get_list("cache-control") == ["no-store"]


@pytest.mark.parametrize("secret", ["", "wrong-secret-of-enough-characters"])
async def test_a_caller_without_the_secret_is_told_nothing(verne, secret):
    """401, which VerneMQ takes for an error and refuses."""
    body = register(await device(verne.world, "a1"), "a1")
    assert (await verne.post("auth_on_register_m5", body, secret=secret)).status_code == 401
    assert not len(verne.world.service.sessions)


async def test_a_replayed_publish_or_notification_changes_nothing(verne):
    """Hooks that decide are idempotent, and a client that is known to have left cannot leave again."""
    await verne.register(await device(verne.world, "a1"), "a1")
    for _ in range(3):
        assert await verne.publish(f"{T}/default/a1/state/x") == OK
    assert len(verne.world.service.sessions) == 1


@pytest.mark.parametrize("hook", ["on_client_gone", "on_client_offline"])
async def test_a_client_that_left_is_forgotten(verne, hook):
    """The answer is an empty object; a session that was opened a moment ago may be the one that took over."""
    await verne.register(await device(verne.world, "a1"), "a1")
    told = {"mountpoint": "", "client_id": "c1"}
    assert await verne.ask(hook, told) == {}
    assert len(verne.world.service.sessions) == 1
    verne.world.clock.move(60)
    assert await verne.ask(hook, told) == {}
    assert not len(verne.world.service.sessions)
    assert await verne.publish(f"{T}/default/a1/state/x") == NOT_ALLOWED


async def test_a_revoked_token_ends_the_session_with_its_queue(verne):
    """The command carries the API key as a header, and asks for a cleanup; no publish is allowed from that moment."""
    await verne.world.store.things.create(T, "a1")
    await verne.world.settle()
    token, secret = await verne.world.device_token("a1")
    await verne.register(secret, "a1", client_id="client /1+")
    verne.api.online = {"client /1+"}
    await verne.world.store.device_tokens.delete(T, "a1", token.id)
    await verne.world.settle()
    await verne.told()
    assert verne.api.commands == ["disconnect?client-id=client%20%2F1%2B&--cleanup"]
    assert verne.api.keys == {API_KEY}
    assert not verne.api.online
    assert await verne.publish(f"{T}/default/a1/state/x", client_id="client /1+") == NOT_ALLOWED


async def test_a_kick_that_fails_is_tried_again(verne):
    """Until VerneMQ says that it was done."""
    secret = await device(verne.world, "a1")
    await verne.register(secret, "a1")
    verne.api.failing = 2
    session = verne.attached.session("c1")
    assert verne.world.service.sessions.kick(session.id, tenant=T)
    await verne.told()
    assert len(verne.api.commands) == 3


async def test_a_session_that_was_passed_over_is_ended_again(verne):
    """VerneMQ says `Done` when a session did not answer in time: so it is asked whether it is gone."""
    await verne.register(await device(verne.world, "a1"), "a1")
    verne.api.online, verne.api.passing_over = {"c1"}, 1
    assert verne.world.service.sessions.kick(verne.attached.session("c1").id, tenant=T)
    await verne.told()
    assert len(verne.api.commands) == 2
    assert not verne.api.online


async def test_a_narrowed_grant_ends_the_session_since_its_subscriptions_go_on(verne):
    """A publish is asked anew; a subscription that was allowed is not, and nobody takes it back."""
    rules = (allow(PUBLISH, "{tenant}/x"), allow(SUBSCRIBE, "{tenant}/y"))
    await verne.register(await device(verne.world, "a1", *rules), "a1")
    await verne.world.store.definitions.update(T, "of-a1", rules=rules[:1])
    await verne.world.settle()
    await verne.told()
    assert verne.api.commands == ["disconnect?client-id=c1&--cleanup"]


async def test_a_grant_with_the_same_subscriptions_goes_on(verne):
    """Each action is asked anew, so nothing has to be told."""
    x, y, z = allow(PUBLISH, "{tenant}/x"), allow(SUBSCRIBE, "{tenant}/y"), allow(PUBLISH, "{tenant}/z")
    await verne.register(await device(verne.world, "a1", x, y), "a1")
    assert await verne.publish(f"{T}/z") == NOT_ALLOWED
    await verne.world.store.definitions.update(T, "of-a1", rules=(y, z))
    await verne.world.settle()
    assert await verne.publish(f"{T}/z") == OK
    assert await verne.publish(f"{T}/x") == NOT_ALLOWED
    assert verne.api.commands == []


async def test_nobody_takes_the_client_id_of_another_thing(verne):
    """VerneMQ would end the holder's connection and give its queue away: so the answer is no."""
    await verne.register(await device(verne.world, "a1"), "a1", clean_start=False)
    verne.api.online = {"c1"}
    assert await verne.register(await device(verne.world, "a2"), "a2") == NOT_ALLOWED
    assert verne.attached.session("c1").thing == "a1"


@pytest.mark.parametrize(
    "client_id", ['"', "\\", "a=b", "a,b", "~.*", "a\nb", "a\x7f", "dév", "true", "false", 'x" OR client_id != "']
)
def test_a_client_id_that_the_command_line_would_misread_is_not_nameable(client_id):
    """It goes into a query between quotes, as it is."""
    assert not nameable(client_id)


@pytest.mark.parametrize("client_id", ["c1", "a b", "a/b", "+", "#", "--cleanup", "&--cleanup", "'x'", "a.*", "%22"])
async def test_other_client_ids_are_sent_as_one_parameter(verne, client_id):
    """Nothing in one adds a flag or another parameter."""
    assert nameable(client_id)
    management = verne.attached.management
    assert isinstance(management, VerneManagement)
    await management.disconnect(client_id, wipe=False)
    assert re.fullmatch(r"disconnect\?client-id=[^&=]+", verne.api.commands[-1])
    verne.api.online = {client_id}
    assert await management.has_session(client_id) is True
    assert await management.clients() == {client_id}


async def test_an_answer_that_is_none_is_an_accident_not_a_no(verne):
    """`has_session` must not say no when it could not ask."""
    verne.api.failing = 1
    with pytest.raises(ManagementUnavailable, match="400"):
        await verne.attached.management.has_session("c1")


async def test_an_unnameable_client_id_is_refused_with_a_reason_for_the_operator(verne):
    """Its words say which characters they are."""
    secret = await device(verne.world, "a1")
    assert await verne.register(secret, "a1", client_id="a=b") == NOT_ALLOWED
    assert verne.world.service.refusals.last(None)[0].reason is Reason.CLIENT_ID_INVALID
