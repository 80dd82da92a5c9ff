"""The mosquitto-go-auth dialect: requests of exactly the shapes of its backends/http.go, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from authsvc.adapters.adapter import AttachedConfig
from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import RuleAction
from authsvc.core.reasons import Reason
from tests.adapters.conftest import SECRET, HookWorld
from tests.adapters.rabbitmq.rig import allow, deny, device
from tests.service.conftest import T

READ, WRITE, SUBSCRIBE = 1, 2, 4
MODES = ["json", "form", "text"]  # two ways to ask, and the other way to answer
AGENT = "mosquitto-go-auth-2.1.0"


class GoAuth:
    """Asks as the plugin's HTTP backend does; `mode` is its http_params_mode, or its http_response_mode `text`."""

    def __init__(self, world: HookWorld, mode: str) -> None:
        self.world = world
        self.mode = mode

    async def ask(self, path: str, fields: dict[str, Any], *, secret: str | None = SECRET) -> httpx.Response:
        headers = {"user-agent": AGENT} | ({"authorization": f"Bearer {secret}"} if secret else {})
        if self.mode == "form":
            headers |= {"content-type": "application/x-www-form-urlencoded"}
            content = urlencode(sorted(fields.items()))
        else:
            headers |= {"content-type": "application/json"}
            content = json.dumps(dict(sorted(fields.items())), separators=(",", ":"), ensure_ascii=False)
            content = content.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")  # as Go does
        before = "text/" if self.mode == "text" else ""
        return await self.world.client.post(f"/hooks/mosquitto/{before}{path}", content=content, headers=headers)

    async def allowed(self, path: str, fields: dict[str, Any]) -> bool:
        """Return what the plugin takes from the answer, in whichever response mode could have been set."""
        answer = await self.ask(path, fields)
        by_status = 200 <= answer.status_code < 300
        assert answer.status_code in (200, 403)
        if self.mode == "text":
            assert by_status is (answer.text == "ok")
        else:
            assert by_status is answer.json()["ok"]
        return by_status

    async def user(self, token: str, thing: str = "a1", client_id: str = "c1") -> bool:
        return await self.allowed("user", {"username": thing, "password": token, "clientid": client_id})

    async def acl(self, topic: str, access: int, client_id: str = "c1", username: str = "a1") -> bool:
        fields = {"username": username, "clientid": client_id, "topic": topic, "acc": access}
        return await self.allowed("acl", fields)


@pytest.fixture(params=MODES)
async def goauth(bare: HookWorld, request: pytest.FixtureRequest) -> AsyncIterator[GoAuth]:
    await bare.open("", AttachedConfig(name="mosquitto", kind="goauth", secrets=(SECRET,)))
    yield GoAuth(bare, request.param)
    await bare.shut()


def own(topic: str) -> str:
    return f"{T}/default/a1/{topic}"


async def test_a_token_admits_and_its_rules_decide(goauth: GoAuth) -> None:
    """CONNECT, then publish, subscribe and each delivery, by containment and membership."""
    assert await goauth.user(await device(goauth.world, "a1"))
    table = [
        (own("state/x"), WRITE, True),
        (own("command/x"), WRITE, False),
        (f"{T}/default/a2/state/x", WRITE, False),
        ("$SYS/x", WRITE, False),
        (own("state/#"), WRITE, False),
        ("", WRITE, False),
        (own("command/#"), SUBSCRIBE, True),
        (own("command/+/x"), SUBSCRIBE, True),
        (f"$share/g/{own('command/#')}", SUBSCRIBE, True),
        (f"$share/g/{own('#')}", SUBSCRIBE, False),
        (own("#"), SUBSCRIBE, False),
        ("#", SUBSCRIBE, False),
        (own("a<b&c>d/\u00e9"), SUBSCRIBE, False),
        (own("command/a<b&c>d/\u00e9"), SUBSCRIBE, True),
        (own("command/x"), READ, True),
        (own("state/x"), READ, False),
    ]
    assert [(topic, access, await goauth.acl(topic, access)) for topic, access, _ in table] == table


async def test_nobody_is_a_superuser(goauth: GoAuth) -> None:
    """Whoever was one would not be asked about again."""
    assert await goauth.user(await device(goauth.world, "a1"))
    assert not await goauth.allowed("superuser", {"username": "a1"})


@pytest.mark.parametrize("who", ["wrong token", "no token", "other thing", "no client id"])
async def test_a_refused_client_has_no_rights(goauth: GoAuth, who: str) -> None:
    """A refusal leaves nothing behind, and without a session nothing is allowed."""
    token = await device(goauth.world, "a1")
    asked = {
        "wrong token": ("asdev_" + "x" * 49, "a1", "c1"),
        "no token": ("", "a1", "c1"),
        "other thing": (token, "a2", "c1"),
        "no client id": (token, "a1", ""),
    }[who]
    assert not await goauth.user(*asked)
    assert goauth.world.hooks.attached["mosquitto"].session("c1") is None
    assert not await goauth.acl(own("state/x"), WRITE)


async def test_the_session_is_found_by_client_id_and_never_by_user_name(goauth: GoAuth) -> None:
    """A user name in an ACL request proves nothing."""
    assert await goauth.user(await device(goauth.world, "a1"))
    assert await goauth.acl(own("state/x"), WRITE, username="somebody")
    assert not await goauth.acl(own("state/x"), WRITE, client_id="c2", username="a1")


async def test_a_client_id_stays_with_its_thing(goauth: GoAuth) -> None:
    """Without management nobody can say that it is free: it is held for hold_s after the session's end."""
    first, second = await device(goauth.world, "a1"), await device(goauth.world, "a2")
    assert await goauth.user(first)
    assert not await goauth.user(second, "a2")
    assert await goauth.user(first), "the same thing takes over"
    assert await goauth.acl(own("state/x"), WRITE)


async def test_after_a_revoke_everything_is_denied(goauth: GoAuth) -> None:
    """The connection cannot be ended from here: it can neither send nor receive any more."""
    await goauth.world.store.things.create(T, "a1")
    await goauth.world.settle()
    token, secret = await goauth.world.device_token("a1")
    assert await goauth.user(secret)
    await goauth.world.store.device_tokens.delete(T, "a1", token.id)
    await goauth.world.settle()
    for topic, access in ((own("state/x"), WRITE), (own("command/x"), READ), (own("command/#"), SUBSCRIBE)):
        assert not await goauth.acl(topic, access)
    assert not await goauth.user(secret)


async def test_conditions_that_are_not_told_are_not_met(goauth: GoAuth) -> None:
    """Neither QoS nor retain flag is in the request: a rule that depends on them allows nothing."""
    rules = (
        allow(RuleAction.PUBLISH, "{tenant}/{ground}/{thing}/plain"),
        allow(RuleAction.PUBLISH, "{tenant}/{ground}/{thing}/low", qos_max=1),
        allow(RuleAction.PUBLISH, "{tenant}/{ground}/{thing}/kept", retain=True),
        allow(RuleAction.SUBSCRIBE, "{tenant}/{ground}/{thing}/low", qos_max=1),
        allow(RuleAction.SUBSCRIBE, "{tenant}/{ground}/{thing}/wide/#"),
        deny(RuleAction.SUBSCRIBE, "{tenant}/{ground}/{thing}/wide/secret"),
    )
    assert await goauth.user(await device(goauth.world, "a1", *rules))
    assert [await goauth.acl(own(topic), WRITE) for topic in ("plain", "low", "kept")] == [True, False, False]
    assert not await goauth.acl(own("low"), SUBSCRIBE)
    assert await goauth.acl(own("wide/#"), SUBSCRIBE)
    assert not await goauth.acl(own("wide/secret"), READ), "deliveries are decided: a deny narrows them"


async def test_the_secret_may_stand_before_the_host(goauth: GoAuth) -> None:
    """`http_host authsvc:SECRET@HOST`: Go makes Basic authentication of it, the only header that can be had."""
    token = await device(goauth.world, "a1")
    fields = {"username": "a1", "password": token, "clientid": "c1"}
    for secret, status in ((SECRET, 200), ("another-secret-of-some-length", 401)):
        answer = await goauth.world.client.post("/hooks/mosquitto/user", json=fields, auth=("authsvc", secret))
        assert answer.status_code == status


@pytest.mark.parametrize("path", ["user", "superuser", "acl"])
async def test_without_the_secret_nothing_is_answered(goauth: GoAuth, path: str) -> None:
    """401 is no success in any of its modes."""
    for secret in (None, "another-secret-of-some-length"):
        assert (await goauth.ask(path, {"username": "a1"}, secret=secret)).status_code == 401


@pytest.mark.parametrize(
    "fields",
    [
        {"username": "a1", "clientid": "c1", "topic": "x"},
        {"username": "a1", "clientid": "c1", "topic": "x", "acc": 3},
        {"username": "a1", "clientid": "c1", "topic": "x", "acc": "write"},
        {"username": "a1", "clientid": "c1", "topic": "x", "acc": 2, "more": "1"},
        {"username": "a1", "topic": "x", "acc": 2},
    ],
    ids=["no acc", "acc 3", "acc in words", "a field more", "no client id"],
)
async def test_a_malformed_request_is_denied(goauth: GoAuth, fields: dict[str, Any]) -> None:
    """In its own words, and not as an error that somebody may take for a hiccup."""
    assert await goauth.user(await device(goauth.world, "a1"))
    assert not await goauth.allowed("acl", fields)


async def test_a_store_that_cannot_be_read_is_an_error_of_the_backend(
    goauth: GoAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 500 on the plugin denies, and keeps nothing of it in its cache; who is connected goes on."""
    token = await device(goauth.world, "a1")
    assert await goauth.user(token)

    async def unreadable(*_: object) -> None:
        raise StoreUnavailable("the disk is gone")

    monkeypatch.setattr(goauth.world.service.facts, "token_by_digest", unreadable)
    answer = await goauth.ask("user", {"username": "a1", "password": token, "clientid": "not yet known"})
    assert answer.status_code == 503
    assert await goauth.acl(own("state/x"), WRITE)
    refusal = goauth.world.service.refusals.last(None)[0]
    assert refusal.reason is Reason.STORE_UNAVAILABLE
