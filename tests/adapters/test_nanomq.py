"""NanoMQ's HTTP authorisation: requests of exactly the shapes of auth_http.c, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from authsvc.adapters.adapter import AttachedConfig
from authsvc.core.facts import RuleAction
from tests.adapters.conftest import SECRET, HookWorld
from tests.adapters.rabbitmq.rig import allow, device
from tests.service.conftest import T

SUBSCRIBE, PUBLISH = "1", "2"


class NanoMQ:
    """Asks as NanoMQ does: cJSON without spaces, or a form in which nothing is escaped; a NULL is left out."""

    def __init__(self, world: HookWorld, content_type: str) -> None:
        self.world = world
        self.form = content_type.endswith("urlencoded")
        self.content_type = content_type

    async def ask(self, path: str, fields: dict[str, str | None], *, secret: str | None = SECRET) -> httpx.Response:
        there = {name: value for name, value in fields.items() if value is not None}
        if self.form:
            content = "&".join(f"{name}={value}" for name, value in there.items())
        else:
            content = json.dumps(there, separators=(",", ":"), ensure_ascii=False)
        return await self.raw(path, content.encode(), secret=secret)

    async def raw(self, path: str, content: bytes, *, secret: str | None = SECRET) -> httpx.Response:
        headers = {"content-type": self.content_type} | ({"authorization": f"Bearer {secret}"} if secret else {})
        return await self.world.client.post(f"/hooks/nanomq/{path}", content=content, headers=headers)

    async def auth(self, token: str | None, thing: str | None = "a1", client_id: str = "c1") -> bool:
        fields = {"clientid": client_id, "username": thing, "password": token, "ipaddress": "192.0.2.7"}
        return _allowed(await self.ask("auth", fields))

    async def acl(self, topic: str, access: str = PUBLISH, client_id: str = "c1") -> bool:
        return _allowed(await self.ask("acl", {"clientid": client_id, "access": access, "topic": topic}))


def _allowed(answer: httpx.Response) -> bool:
    assert answer.status_code in (200, 403), answer.text
    return answer.status_code == 200


@pytest.fixture(params=["application/json", "application/x-www-form-urlencoded"], ids=["json", "form"])
async def nanomq(bare: HookWorld, request: pytest.FixtureRequest) -> AsyncIterator[NanoMQ]:
    await bare.open("", AttachedConfig(name="nanomq", kind="nanomq", secrets=(SECRET,)))
    yield NanoMQ(bare, request.param)
    await bare.shut()


def own(topic: str) -> str:
    return f"{T}/default/a1/{topic}"


async def test_a_token_admits_and_its_rules_decide(nanomq: NanoMQ) -> None:
    """CONNECT, PUBLISH, SUBSCRIBE; the session knows where it came from."""
    assert await nanomq.auth(await device(nanomq.world, "a1"))
    session = nanomq.world.hooks.attached["nanomq"].session("c1")
    assert session is not None
    assert session.peer == "192.0.2.7:0"
    table = [
        (own("state/x"), PUBLISH, True),
        (own("state/50%41"), PUBLISH, True),
        (own("state/a=b"), PUBLISH, True),
        (own("command/x"), PUBLISH, False),
        (own("stat%65/x"), PUBLISH, False),
        (f"{T}%2Fdefault/a1/state/x", PUBLISH, False),
        (own("state/#"), PUBLISH, False),
        (own("command/#"), SUBSCRIBE, True),
        (own("command/+/x"), SUBSCRIBE, True),
        (f"$share/g/{own('command/#')}", SUBSCRIBE, True),
        (own("#"), SUBSCRIBE, False),
        ("#", SUBSCRIBE, False),
    ]
    assert [(topic, access, await nanomq.acl(topic, access)) for topic, access, _ in table] == table


async def test_filters_of_one_subscribe_come_joined_by_commas(nanomq: NanoMQ) -> None:
    """A filter may hold a comma itself: only what is allowed however the list was joined is allowed."""
    rules = (allow(RuleAction.SUBSCRIBE, own("x/#")), allow(RuleAction.SUBSCRIBE, own("y")))
    rules = (*rules, allow(RuleAction.SUBSCRIBE, own("z")))
    assert await nanomq.auth(await device(nanomq.world, "a1", *rules))
    table = [
        ([own("x/#"), own("y")], True),
        ([own("x/1"), own("x/2")], True),
        ([own("y"), own("x/#")], False),  # one filter `…/y,…/x/#` would be a valid one, and nobody allowed it
        ([own("y"), own("z")], False),
        ([own("x/#"), own("other")], False),
        ([own("x/#"), "#"], False),
        ([own("x/#"), ""], False),
        ([own("x/a,b")], False),
        ([own("x/#")] * 33, False),
    ]
    joined = [(filters, await nanomq.acl(",".join(filters), SUBSCRIBE)) for filters, _ in table]
    assert joined == table


async def test_the_broker_may_tell_of_its_clients(nanomq: NanoMQ) -> None:
    """NanoMQ asks about its own message on a client as if that had sent it; about no other's."""
    assert await nanomq.auth(await device(nanomq.world, "a1"))
    assert await nanomq.acl("$SYS/brokers/client_status/c1")
    assert not await nanomq.acl("$SYS/brokers/client_status/c2")
    assert not await nanomq.acl("$SYS/brokers/client_status/c1/x")
    assert not await nanomq.acl("$SYS/brokers/client_status/c2", client_id="c2")
    assert not await nanomq.acl("$SYS/brokers/client_status/c1", SUBSCRIBE)


async def test_a_refused_client_has_no_rights(nanomq: NanoMQ) -> None:
    """A refusal leaves nothing behind."""
    token = await device(nanomq.world, "a1")
    for asked in (("asdev_" + "x" * 49,), (None,), (token, "a2"), (token, "a1", "")):
        assert not await nanomq.auth(*asked)
    assert not await nanomq.acl(own("state/x"))


async def test_a_client_id_stays_with_its_thing(nanomq: NanoMQ) -> None:
    """Without management nobody can say that it is free."""
    first, second = await device(nanomq.world, "a1"), await device(nanomq.world, "a2")
    assert await nanomq.auth(first)
    assert not await nanomq.auth(second, "a2")
    assert await nanomq.acl(own("state/x"))


async def test_after_a_revoke_every_request_is_denied(nanomq: NanoMQ) -> None:
    """NanoMQ cannot be told to end a connection: it can neither publish nor subscribe any more."""
    await nanomq.world.store.things.create(T, "a1")
    await nanomq.world.settle()
    token, secret = await nanomq.world.device_token("a1")
    assert await nanomq.auth(secret)
    await nanomq.world.store.device_tokens.delete(T, "a1", token.id)
    await nanomq.world.settle()
    assert not await nanomq.acl(own("state/x"))
    assert not await nanomq.acl(own("command/#"), SUBSCRIBE)
    assert not await nanomq.acl("$SYS/brokers/client_status/c1")
    assert not await nanomq.auth(secret)


@pytest.mark.parametrize("nanomq", ["application/x-www-form-urlencoded"], indirect=True)
@pytest.mark.parametrize(
    ("client_id", "thing"),
    [
        ("c1&username=a1", None),
        ("c1&username=a1", "a2"),
        ("c2&ipaddress=1", "a2"),
        ("c1", "a2&clientid=c9"),
        ("c1&more=1", "a2"),
        ("c1&", "a2"),
        ("c1&x", "a2"),
        ("&clientid=c1", "a2"),
    ],
)
async def test_nothing_is_smuggled_into_a_form_that_escapes_nothing(
    nanomq: NanoMQ, client_id: str, thing: str | None
) -> None:
    """Behind an `&` a client could add parameters of its own: the request is refused, as nobody can tell."""
    first, second = await device(nanomq.world, "a1"), await device(nanomq.world, "a2")
    assert await nanomq.auth(first, client_id="victim")
    assert not await nanomq.auth(second, thing, client_id)
    for topic in (f"{own('state/x')}&clientid=victim", "x&access=1", "x&topic=y", "x&", "x&more=1", "a\0b"):
        assert not await nanomq.acl(topic, client_id="victim")
    assert not await nanomq.acl(own("state/x"), client_id="victim&x=1")


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"{}", b"clientid=c1", b"clientid=c1&access=2&topic=\xff", b"clientid=c1&access=3&topic=x"],
)
async def test_a_malformed_request_is_denied(nanomq: NanoMQ, body: bytes) -> None:
    """Only 200 allows, and nothing that cannot be read in one way gets one."""
    assert await nanomq.auth(await device(nanomq.world, "a1"))
    assert not _allowed(await nanomq.raw("acl", body))


async def test_without_the_secret_nothing_is_answered(nanomq: NanoMQ) -> None:
    """Neither 200 nor a hint."""
    fields: dict[str, str | None] = {"clientid": "c1", "access": "2", "topic": "x"}
    for secret in (None, "another-secret-of-some-length"):
        assert (await nanomq.ask("acl", fields, secret=secret)).status_code == 401
