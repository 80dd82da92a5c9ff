"""The door of the hooks: who may call, what may be said, and that an accident is a denial in the broker's words."""

from __future__ import annotations

import asyncio
import contextlib
import json
from urllib.parse import urlencode

import httpx
import pytest

from authsvc.adapters.adapter import AttachedConfig, HookRequest, MalformedHook
from authsvc.adapters.caller import Callers
from authsvc.adapters.strict import MAX_FIELDS, MAX_HOOK_BYTES, parse
from authsvc.core.errors import StoreUnavailable
from authsvc.web.joined import JoinedWrites
from tests.adapters.conftest import SECRET, WITHIN_S, HookWorld

OLD = "the-secret-before-the-rotation"
JSON = ["application/json"]
FORM = ["application/x-www-form-urlencoded"]

CALLERS = [
    pytest.param({"authorization": f"Bearer {SECRET}"}, True, id="bearer"),
    pytest.param({"authorization": f"bearer {SECRET}"}, True, id="scheme in lower case"),
    pytest.param({"x-authsvc-secret": SECRET}, True, id="header"),
    pytest.param({"x-authsvc-secret": OLD}, True, id="the one before"),
    pytest.param({}, False, id="none"),
    pytest.param({"authorization": "Bearer "}, False, id="empty"),
    pytest.param({"authorization": f"Bearer {SECRET}x"}, False, id="longer"),
    pytest.param({"authorization": f"Bearer {SECRET[:-1]}"}, False, id="shorter"),
    pytest.param({"authorization": f"Basic {SECRET}"}, False, id="another scheme"),
    pytest.param({"authorization": f"Bearer {SECRET}", "x-authsvc-secret": SECRET}, False, id="both"),
    pytest.param({"x-authsvc-secret": "sécret"}, False, id="not ASCII"),
]


@pytest.mark.parametrize(("headers", "right"), CALLERS)
def test_a_caller_shows_one_secret_and_a_right_one(headers: dict[str, str], right: bool) -> None:
    """During a rotation two are right; which one is wrong and how is not told."""
    callers = Callers([SECRET, OLD])
    assert callers.admit(headers) is right
    assert SECRET not in repr(callers)


WRONG_CALLERS = [
    pytest.param([], id="none"),
    pytest.param([("authorization", "Bearer wrong-secret-of-some-length")], id="wrong"),
    pytest.param([("authorization", f"Bearer {SECRET}"), ("authorization", f"Bearer {SECRET}")], id="twice"),
]


async def test_an_answer_goes_out_in_one_piece(hooked: HookWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker asks at every CONNECT: one system call and one packet less."""
    writes: list[bytes] = []
    write = JoinedWrites.write

    def noting(self: JoinedWrites, data: bytes) -> None:
        holds = self._holds
        write(self, data)
        if not holds:
            writes.append(data)

    monkeypatch.setattr(JoinedWrites, "write", noting)
    _, token = await hooked.app_token()
    assert (await hooked.authn(token, "gw1"))["result"] == "allow"
    assert len(writes) == 1


@pytest.mark.parametrize("headers", WRONG_CALLERS)
async def test_a_wrong_caller_is_401_and_recorded(hooked: HookWorld, headers: list[tuple[str, str]]) -> None:
    """Before its body is read; an operator sees where it came from."""
    _, token = await hooked.app_token()
    body = {"clientid": "c1", "username": "gw1", "password": token}
    answer = await hooked.client.post("/hooks/emqx/authn", json=body, headers=headers)
    assert answer.status_code == 401
    assert len(hooked.service.sessions) == 0
    (record, *_) = hooked.service.refusals.last(None)
    assert (record.action, record.topic) == ("hook", "/hooks/emqx/authn")
    assert "127.0.0.1" in record.peer


async def test_the_secret_of_one_broker_does_not_open_another(bare: HookWorld) -> None:
    """HOOK-05: each has its own."""
    names = ("one", "two")
    await bare.open("", *(AttachedConfig(name=name, kind="emqx", secrets=(f"{SECRET}-{name}",)) for name in names))
    assert (await bare.post("one/authn", {}, secret=f"{SECRET}-one")).status_code == 200
    assert (await bare.post("one/authn", {}, secret=f"{SECRET}-two")).status_code == 401
    await bare.shut()


PATHS = [
    pytest.param("POST", "/hooks/emqx/other", 404, id="no such hook"),
    pytest.param("POST", "/hooks/vernemq/authn", 404, id="no such broker"),
    pytest.param("POST", "/hooks/emqx/authn/", 404, id="slash"),
    pytest.param("POST", "/hooks", 404, id="nothing"),
    pytest.param("GET", "/hooks/emqx/authn", 405, id="method"),
]


@pytest.mark.parametrize(("method", "path", "status"), PATHS)
async def test_only_configured_hooks_answer(hooked: HookWorld, method: str, path: str, status: int) -> None:
    """Whoever calls them."""
    answer = await hooked.client.request(method, path, headers={"authorization": f"Bearer {SECRET}"})
    assert answer.status_code == status


MALFORMED = [
    pytest.param("POST", JSON, b"", b"", id="no body"),
    pytest.param("POST", JSON, b"", b"[1]", id="a list"),
    pytest.param("POST", JSON, b"", b'{"a": 1, "a": 2}', id="a key twice"),
    pytest.param("POST", JSON, b"", b'{"a": {"b": 1, "b": 1}}', id="a key twice, deeper"),
    pytest.param("POST", JSON, b"", b'{"a": NaN}', id="no JSON number"),
    pytest.param("POST", JSON, b"", b'{"a": "\\ud800"}', id="half a surrogate pair"),
    pytest.param("POST", JSON, b"", b'{"\\ud800": "a"}', id="half a surrogate pair as key"),
    pytest.param("POST", JSON, b"", b'{"a": "\xff"}', id="not UTF-8"),
    pytest.param("POST", JSON, b"", '{"a": 1}'.encode("utf-16"), id="UTF-16"),
    pytest.param("POST", JSON, b"", b"[" * 100_000, id="deep"),
    pytest.param("POST", JSON, b"", b'{"a": 1} {}', id="two documents"),
    pytest.param("POST", JSON, b"a=1", b'{"a": 1}', id="query and body"),
    pytest.param("POST", FORM, b"", b"a=1&a=2", id="a parameter twice"),
    pytest.param("POST", FORM, b"", b"a=1&%61=2", id="a parameter twice, escaped"),
    pytest.param("POST", FORM, b"", b"a=%f", id="half an escape"),
    pytest.param("POST", FORM, b"", b"a=%ff", id="escape that is not UTF-8"),
    pytest.param("POST", FORM, b"", b"a", id="no value"),
    pytest.param("POST", FORM, b"", b"&".join(b"a%d=1" % n for n in range(MAX_FIELDS + 1)), id="too many"),
    pytest.param("POST", ["text/plain"], b"", b"a=1", id="another type"),
    pytest.param("POST", [], b"", b"a=1", id="no type"),
    pytest.param("POST", JSON + JSON, b"", b"{}", id="two types"),
    pytest.param("POST", ["application/json; charset=latin-1"], b"", b"{}", id="another charset"),
    pytest.param("GET", [], b"a=1", b"a=1", id="GET with a body"),
]


@pytest.mark.parametrize(("method", "types", "query", "body"), MALFORMED)
def test_what_can_be_read_in_two_ways_is_not_read(method: str, types: list[str], query: bytes, body: bytes) -> None:
    """One body, one type, no repetition, strictly UTF-8."""
    with pytest.raises(MalformedHook):
        parse(method, types, query, body)


READ = [
    pytest.param("POST", JSON, b"", '{"a": "ü", "n": null, "\\u0061b": 1}'.encode(), {"a": "ü", "n": None, "ab": 1}),
    pytest.param("POST", ["application/json; charset=UTF-8"], b"", b"{}", {}),
    pytest.param("POST", FORM, b"", b"a=%C3%BC+x%2B&b=", {"a": "ü x+", "b": ""}),
    pytest.param("GET", [], b"a=1&b=2", b"", {"a": "1", "b": "2"}),
]


@pytest.mark.parametrize(("method", "types", "query", "body", "fields"), READ)
def test_what_has_one_meaning_is_read(
    method: str, types: list[str], query: bytes, body: bytes, fields: dict[str, object]
) -> None:
    """JSON, a form, or the query of a GET."""
    assert parse(method, types, query, body) == fields


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        ("text", 5),
        ("text", "a\0b"),
        ("integer", "x"),
        ("integer", True),
        ("integer", "-1"),
        ("flag", "yes"),
        ("flag", 2),
    ],
)
def test_a_field_of_the_wrong_kind_is_malformed_and_its_value_is_not_told(reader: str, value: object) -> None:
    """It may be a password."""
    request = HookRequest(path="authn", fields={"field": value}, headers={})
    with pytest.raises(MalformedHook, match="`field`") as caught:
        getattr(request, reader)("field")
    assert str(value) not in str(caught.value).replace("field", "")
    assert repr(value) not in repr(request)


BODIES = [
    pytest.param("application/json", b"{", id="broken"),
    pytest.param("application/json", b'{"clientid": "c1", "clientid": "c2"}', id="twice"),
    pytest.param("application/json", json.dumps({"clientid": "c1", "surprise": 1}).encode(), id="a field too many"),
    pytest.param("application/json", b"{}", id="nothing"),
    pytest.param("application/json", b" " * (MAX_HOOK_BYTES + 1), id="too large"),
    pytest.param("text/plain", b"clientid=c1", id="type"),
    pytest.param(
        "application/x-www-form-urlencoded", urlencode({"clientid": "c"}).encode() + b"&clientid=d", id="form"
    ),
]


@pytest.mark.parametrize(("content_type", "body"), BODIES)
@pytest.mark.parametrize("path", ["authn", "authz"])
async def test_a_malformed_request_is_denied_in_the_brokers_words(
    hooked: HookWorld, path: str, content_type: str, body: bytes
) -> None:
    """HOOK-01: 200 and deny, for any other status would be an ignore."""
    headers = {"authorization": f"Bearer {SECRET}", "content-type": content_type}
    answer = await hooked.client.post(f"/hooks/emqx/{path}", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"result": "deny"})


async def test_a_failure_of_our_own_is_a_denial(hooked: HookWorld, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it is, and its words are in no log."""
    _, token = await hooked.app_token()

    async def broken(*_: object, **__: object) -> object:
        raise RuntimeError(f"the secret is {token}")

    hooked.service.admit = broken
    assert await hooked.authn(token, "gw1") == {"result": "deny"}
    assert token not in caplog.text


async def test_while_the_store_is_away_nobody_new_is_let_in_and_the_living_go_on(hooked: HookWorld) -> None:
    """HOOK-07: 200 with deny at CONNECT; decisions need no store."""
    _, token = await hooked.app_token()
    await hooked.authn(token, "gw1")

    async def away(*_: object, **__: object) -> object:
        raise StoreUnavailable("the file is gone")

    hooked.store.token_by_digest = away
    hooked.service.facts.token_by_digest = away
    assert await hooked.authn(token, "gw2", client_id="c2") == {"result": "deny"}
    assert await hooked.authz("c1", "publish", "acme/default/gw1/state/x") == "allow"


def test_no_secret_is_in_what_is_shown_of_a_broker() -> None:
    """Neither the hooks' secret nor the management's password."""
    config = AttachedConfig(name="a", kind="emqx", secrets=(SECRET,), management_password="management-password")  # noqa: S106
    assert SECRET not in repr(config)
    assert "management-password" not in repr(config)


async def test_a_body_that_does_not_come_is_not_waited_for(hooked: HookWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head says a hundred bytes and one comes: answered with deny, and the connection serves the next hook."""
    monkeypatch.setattr("authsvc.adapters.bodies.BODY_S", 0.2)
    host, _, port = hooked.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /hooks/emqx/authn HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"x-authsvc-secret: " + SECRET.encode() + b"\r\ncontent-length: 100\r\n\r\n{"
    )
    async with asyncio.timeout(WITHIN_S):
        head = await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(17) == b'{"result":"deny"}'
    assert b" 200 " in head
    writer.close()


async def test_a_stranger_cannot_hold_a_connection_by_a_body_without_end(
    hooked: HookWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was answered 401 at once; the rest of what it sends is read by nobody, and so for a moment only."""
    monkeypatch.setattr("authsvc.web.server.TAIL_TIMEOUT_S", 0.2)
    parts = httpx.URL(hooked.url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    writer.write(b"POST /hooks/emqx/authn HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
    assert b" 401 " in await reader.readline()

    async def trickle() -> None:
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    trickling = asyncio.create_task(trickle())
    async with asyncio.timeout(3):
        with contextlib.suppress(ConnectionError):
            await reader.read()
    trickling.cancel()
    await asyncio.gather(trickling, return_exceptions=True)
    writer.close()


async def test_a_stranger_has_nothing_logged_by_other_methods(
    hooked: HookWorld, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each request would let whoever reaches the listener fill the disk."""
    for _ in range(50):
        assert (await hooked.client.get("/hooks/emqx/authn")).status_code == 401
    shown = capsys.readouterr().out + caplog.text
    assert "hook_method_refused" not in shown
    assert len(hooked.service.refusals.last(None)) <= 3


async def test_what_a_client_chose_is_logged_cut_and_without_its_secret(
    hooked: HookWorld, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A topic that holds the token, and a client id as long as a packet."""
    _, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    assert await hooked.authz("c1", "publish", f"elsewhere/{secret}/{'x' * 5_000}") == "deny"
    assert (await hooked.authn(secret + "x", "gw1", client_id="i" * 60_000))["result"] == "deny"
    shown = capsys.readouterr().out + caplog.text
    assert "elsewhere/asapp_" in shown
    assert secret not in shown
    assert max(map(len, shown.splitlines())) < 2_000
