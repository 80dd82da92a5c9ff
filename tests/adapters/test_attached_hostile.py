"""A management that lies, hangs or is somebody else, and ends that come at the worst moment."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from authsvc.adapters import attached, claims, kicks
from authsvc.adapters.adapter import AttachedConfig
from authsvc.adapters.management import ManagementUnavailable
from authsvc.adapters.rabbitmq_management import RabbitManagement
from authsvc.core.reasons import Reason
from tests.adapters.conftest import SECRET, HookWorld
from tests.service.conftest import T

LISTS = {
    "client ids that are lists": '{"data": [{"clientid": ["x"]}], "meta": {}}',
    "brackets without end": "[" * 200_000,
    "no list": '{"data": 5, "meta": {}}',
    "no JSON": "<html>",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS)
async def test_a_list_that_is_none_ends_neither_sweeps_nor_sessions(hooked: HookWorld, text: str) -> None:
    """The sweep would otherwise end, and the service with it."""
    _, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")

    async def ask(*_: object, **__: object) -> httpx.Response:
        return httpx.Response(200, text=text)

    hooked.attached().management._ask = ask
    for _ in range(3):
        hooked.clock.move(60)
        await hooked.attached().following.sweep()
    assert hooked.attached().session("c1") is not None


async def test_a_list_without_end_is_given_up(hooked: HookWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page comes in time, and there is always another."""
    monkeypatch.setattr("authsvc.adapters.following.LIST_AT_START_S", 0.05)

    async def clients() -> frozenset[str]:
        await asyncio.Event().wait()
        return frozenset()

    hooked.attached().management.clients = clients
    async with asyncio.timeout(2):
        await hooked.attached().following._clients(0.05)


async def test_a_kick_without_an_answer_lets_go_of_the_client_id(
    hooked: HookWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then keeps a request alive for ever; a CONNECT of that client id waits for its lock."""
    monkeypatch.setattr(kicks, "KICK_S", 0.05)
    asked = asyncio.Event()

    async def disconnect(client_id: str, *, wipe: bool) -> None:
        asked.set()
        await asyncio.Event().wait()

    hooked.attached().management.disconnect = disconnect
    hooked.attached().kicks.add("c1", wipe=True)
    await asked.wait()
    async with asyncio.timeout(2), hooked.attached().lock("c1"):
        assert hooked.attached().kicks.owes("c1")


@pytest.mark.parametrize("then", ["asked again", "kicked"])
async def test_a_connect_waits_once_for_all_that_the_management_does(
    hooked: HookWorld, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """Two slow answers, each in time, are not waited for one after the other: the broker has given up by then."""
    monkeypatch.setattr(attached, "MANAGEMENT_WITHIN_S", 0.6)
    _, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    hooked.clock.move(60)
    emqx = hooked.attached()

    async def has_session(client_id: str) -> bool:
        await asyncio.sleep(0.4)
        return False

    async def disconnect(client_id: str, *, wipe: bool) -> None:
        await asyncio.sleep(0.4)

    emqx.management.has_session = has_session
    emqx.management.disconnect = disconnect
    if then == "kicked":  # the session before is to be wiped, and nobody else does it
        emqx.closed(emqx.session("c1"), Reason.KICKED)
        emqx.kicks._owed["c1"] = kicks.Kick("c1", wipe=True)
    assert (await hooked.authn(secret, "gw2"))["result"] == "deny"
    monkeypatch.undo()
    assert (await hooked.authn(secret, "gw2"))["result"] == "allow"


async def test_a_connect_does_not_wait_for_a_kick_without_an_answer(
    hooked: HookWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused while the broker still listens, and not admitted to a connection that the broker gave up."""
    monkeypatch.setattr(attached, "MANAGEMENT_WITHIN_S", 0.1)
    _, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    asked, answered = asyncio.Event(), asyncio.Event()

    async def disconnect(client_id: str, *, wipe: bool) -> None:
        asked.set()
        await answered.wait()

    hooked.attached().management.disconnect = disconnect
    hooked.attached().wipe("c1")
    await asked.wait()
    async with asyncio.timeout(kicks.KICK_S / 2):
        assert (await hooked.authn(secret, "gw1"))["result"] == "deny"
    assert hooked.attached().session("c1") is None
    monkeypatch.setattr(attached, "MANAGEMENT_WITHIN_S", 5)
    waiting = asyncio.create_task(hooked.authn(secret, "gw1"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    answered.set()
    assert (await waiting)["result"] == "allow"


async def test_a_kick_that_failed_before_a_refusal_is_owed_on(hooked: HookWorld) -> None:
    """The CONNECT would have ended the expired connection; it was refused, so the connection is still there."""
    expiring, secret = await hooked.app_token(expires_at_us=hooked.clock.now_us() + 300_000)
    _, other = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    hooked.rest.down = True
    attached = hooked.attached()
    await hooked.until(lambda: attached.kicks.owes("c1"))
    keep = hooked.store.attached_sessions.keep

    async def refused(row: object, **more: object) -> object:
        written = await keep(row, **more)
        return type(written)(value=False, position=written.position)

    hooked.store.attached_sessions.keep = refused
    assert (await hooked.authn(other, "gw1"))["result"] == "deny"
    assert attached.kicks.owes("c1")
    hooked.store.attached_sessions.keep = keep
    hooked.rest.down = False
    await hooked.rest.until_kicked(1)


async def test_a_revoke_while_the_next_row_is_written_wipes_before_the_answer(hooked: HookWorld) -> None:
    """The former session's queue must be gone before the next one opens, and the next one must not be kicked."""
    first, secret = await hooked.app_token()
    _, other = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    keep = hooked.store.attached_sessions.keep
    kicked_at_open: list[int] = []

    async def revoked_meanwhile(row: object, **more: object) -> object:
        written = await keep(row, **more)
        hooked.store.attached_sessions.keep = keep
        await hooked.store.app_tokens.delete(T, first.id)
        await hooked.settle()
        return written

    hooked.store.attached_sessions.keep = revoked_meanwhile
    assert (await hooked.authn(other, "gw1"))["result"] == "allow"
    kicked_at_open.append(len(hooked.rest.kicks))
    assert kicked_at_open == [1]
    await asyncio.sleep(0.05)
    assert len(hooked.rest.kicks) == 1
    assert hooked.attached().session("c1") is not None
    assert hooked.attached().rows.get("c1") is not None


# --- more client ids than anybody needs ------------------------------------------------------------------------------


async def _leaves(world: HookWorld, client_id: str) -> None:
    world.rest.connected.discard(client_id)
    world.rest.kept.add(client_id)
    session = world.attached().session(client_id)
    await world.attached().gone(client_id, keeps_session=True, session_id=session.id)


async def test_the_oldest_client_id_of_who_has_too_many_is_given_up(
    hooked: HookWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh one with each connection would fill memory and store; nobody else's is touched."""
    monkeypatch.setattr(claims, "MOST_HELD", 5)
    _, many = await hooked.ground_token("default")
    _, other = await hooked.ground_token("default")
    await hooked.authn(other, client_id="other")
    await _leaves(hooked, "other")
    for number in range(20):
        assert (await hooked.authn(many, client_id=f"m{number}"))["result"] == "allow"
        await _leaves(hooked, f"m{number}")
        await hooked.until(lambda: not len(hooked.attached().kicks))
    assert len(hooked.attached().rows) == 6
    assert hooked.attached().rows.get("other") is not None
    assert "other" not in hooked.rest.kicked_ids()


async def test_who_has_too_many_clients_connected_gets_no_more(
    hooked: HookWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody who is connected makes room; the refusal has its reason."""
    monkeypatch.setattr(claims, "MOST_HELD", 5)
    _, many = await hooked.ground_token("default")
    answers = [(await hooked.authn(many, client_id=f"m{number}"))["result"] for number in range(7)]
    assert answers == ["allow"] * 5 + ["deny"] * 2
    assert hooked.service.refusals.last(T)[0].reason is Reason.SESSION_LIMIT
    assert (await hooked.authn(many, client_id="m0"))["result"] == "allow"


async def test_where_nobody_says_who_left_the_oldest_makes_room(
    bare: HookWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NanoMQ and mosquitto-go-auth tell nothing: otherwise a client with a new id each time would be shut out."""
    monkeypatch.setattr(claims, "MOST_HELD", 5)
    await bare.open("", AttachedConfig(name="goauth", kind="goauth", secrets=(SECRET,)))
    _, many = await bare.ground_token("default")
    for number in range(9):
        body = {"username": "", "password": many, "clientid": f"m{number}"}
        assert (await bare.post("goauth/user", body)).status_code == 200
    assert len(bare.attached("goauth").rows) == len(bare.service.sessions) == 5
    await bare.shut()


# --- RabbitMQ's management, and who may answer in its place ---------------------------------------------------------

CONFIG = AttachedConfig(
    name="rabbit", kind="rabbitmq", management_url="http://127.0.0.1:1", management_user="m", management_password="p"
)


def _managed(answers: dict[str, httpx.Response]) -> RabbitManagement:
    def answer(request: httpx.Request) -> httpx.Response:
        for part, response in answers.items():
            if part in str(request.url):
                return response
        raise AssertionError(request.url)

    management = RabbitManagement(CONFIG)
    management._http = httpx.AsyncClient(base_url="http://m", transport=httpx.MockTransport(answer))
    return management


NOT_FOUND = httpx.Response(404, json={"error": "Object Not Found", "reason": "Not Found"})
OTHERS = {
    "a proxy that dislikes %2F": {
        "queues": httpx.Response(404, text="<html>"),
        "connections": httpx.Response(200, json=[]),
    },
    "another server": {"": httpx.Response(404, json={"detail": "Not Found"})},
    "no such page": {"queues": NOT_FOUND, "connections": NOT_FOUND},
    "no list": {"queues": NOT_FOUND, "connections": httpx.Response(200, json={"items": []})},
}


@pytest.mark.parametrize("answers", OTHERS.values(), ids=OTHERS)
async def test_a_404_that_is_not_rabbitmqs_frees_no_client_id(answers: dict[str, httpx.Response]) -> None:
    """Whoever believed it would give the holder's queue to another principal."""
    management = _managed(answers)
    with pytest.raises(ManagementUnavailable):
        await management.has_session("c1")
    await management.close()


async def test_rabbitmqs_own_404_does() -> None:
    """Neither queue, and nobody in the list."""
    management = _managed({"queues": NOT_FOUND, "connections": httpx.Response(200, json=[])})
    assert await management.has_session("c1") is False
    await management.close()
