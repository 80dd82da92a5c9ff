"""The model of mosquitto-go-auth asks in the plugin's exact words, and applies what it hears as Mosquitto does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.driver import Closed, Hello
from tests.conformance.models.goauth import READ, SUBSCRIBE, WRITE, GoAuth, Plugin, Verdict, options_of
from tests.conformance.models.mini import ModelClient

CONF = (Path(__file__).parents[2] / "config" / "mosquitto-go-auth.conf").read_text()
OPTIONS = options_of(CONF)
MODES = ["status", "json", "text"]

Allows = Callable[[dict[str, Any]], bool]


class Backend:
    """What the plugin asks: answers with a status, and remembers the questions."""

    def __init__(self, allows: Allows = lambda _: True) -> None:
        self.allows = allows
        self.asked: list[httpx.Request] = []
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return httpx.Response(200 if self.allows(json.loads(request.content)) else 403)


def answering(status: int, text: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(status, text=text)))


QUESTIONS = [
    pytest.param(
        "json",
        [
            ("/hooks/goauth/user", b'{"clientid":"c 1","password":"\\u003cp\\u0026\\u003e","username":"\xc3\xa9"}'),
            ("/hooks/goauth/acl", b'{"acc":4,"clientid":"c 1","topic":"a/#","username":"\xc3\xa9"}'),
        ],
        id="json",
    ),
    pytest.param(
        "form",
        [
            ("/hooks/goauth/user", b"clientid=c+1&password=%3Cp%26%3E&username=%C3%A9"),
            ("/hooks/goauth/acl", b"acc=4&clientid=c+1&topic=a%2F%23&username=%C3%A9"),
        ],
        id="form",
    ),
]


@pytest.mark.parametrize(("mode", "questions"), QUESTIONS)
async def test_the_plugin_asks_in_its_words(mode: str, questions: list[tuple[str, bytes]]) -> None:
    """backends/http.go: encoding/json and url.Values both put the keys in order."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    plugin = Plugin(http, OPTIONS | {"auth_opt_http_params_mode": mode})
    assert await plugin.unpwd_check("\u00e9", "<p&>", "c 1") is Verdict.GRANTED
    assert await plugin.acl_check("\u00e9", "c 1", "a/#", SUBSCRIBE) is Verdict.GRANTED
    assert [(request.method, request.url.path, request.content) for request in asked] == [
        ("POST", path, body) for path, body in questions
    ]


async def test_a_superuser_is_asked_for_where_the_configuration_says_so_and_ours_does_not() -> None:
    """backends/backends.go, setCheckers and checkSuperuserThenACL: a yes there asks nothing more."""
    uri = {"auth_opt_http_superuser_uri": "/hooks/goauth/superuser"}
    everything = uri | {"auth_opt_http_register": "user, acl, superuser"}
    for options, paths in (
        (OPTIONS | everything, ["acl"]),
        (OPTIONS | everything | {"auth_opt_disable_superuser": "false"}, ["superuser"]),
    ):
        backend = Backend()
        assert await Plugin(backend.http, options).acl_check("a", "c", "t", WRITE) is Verdict.GRANTED
        assert [request.url.path.rpartition("/")[2] for request in backend.asked] == paths
    assert json.loads(backend.asked[0].content) == {"username": "a"}


@pytest.mark.parametrize(
    ("status", "text", "verdicts"),
    [
        (200, '{"ok":true,"error":""}', "granted granted rejected"),
        (200, "ok", "granted error granted"),
        (200, '{"ok":false,"error":"no"}', "granted rejected rejected"),
        (200, "", "granted error rejected"),
        (403, '{"ok":true}', "rejected rejected rejected"),
        (401, "ok", "rejected rejected rejected"),
        (503, "ok", "error error error"),
    ],
)
async def test_an_answer_is_read_as_the_mode_says(status: int, text: str, verdicts: str) -> None:
    """backends/http.go, httpRequest: outside of 2xx no mode reads on; from 500 on it is an error."""
    seen = []
    for mode in MODES:
        plugin = Plugin(answering(status, text), OPTIONS | {"auth_opt_http_response_mode": mode})
        seen.append((await plugin.unpwd_check("a", "p", "c")).name.lower())
    assert " ".join(seen) == verdicts


async def connected(model: GoAuth, client_id: str, level: int = 4, **fields: Any) -> ModelClient:
    client = ModelClient(model.broker, level)
    assert await client.connect(Hello(client_id=client_id, username="a", password="p", **fields)) == 0
    return client


async def test_an_error_at_connect_is_no_answer() -> None:
    """src/handle_connect.c: MOSQ_ERR_UNKNOWN has no CONNACK."""
    model = GoAuth(answering(503, ""), CONF)
    with pytest.raises(Closed):
        await ModelClient(model.broker, 4).connect(Hello(client_id="c", username="a", password="p"))


async def test_a_filter_that_looks_granted_is_not_subscribed() -> None:
    """src/handle_subscribe.c: only the SUBACK of MQTT 3.1 cannot say no."""
    model = GoAuth(Backend(lambda asked: asked.get("acc") != SUBSCRIBE).http, CONF)
    said = {}
    for level in (3, 4, 5):
        client = await connected(model, f"c{level}", level)
        said[level] = await client.subscribe([("t", 1)])
        await client.publish("t", "never", qos=1, retain=False)
        with pytest.raises(TimeoutError):
            await client.message(0.05)
    assert said == {3: [1], 4: [0x80], 5: [0x87]}


async def test_each_delivery_is_asked_about_live_retained_and_queued() -> None:
    """MOSQ_ACL_READ in src/subs.c, src/retain.c and src/handle_connect.c; who is away is asked about too."""
    open_to: set[str] = {"c", "s"}
    backend = Backend(lambda asked: asked.get("acc") != READ or asked["clientid"] in open_to)
    model = GoAuth(backend.http, CONF)
    sender = await connected(model, "s")
    client = await connected(model, "c", clean=False)
    await client.subscribe([("t", 1)])
    await sender.publish("t", "live", qos=1, retain=True)
    assert (await client.message(1)).payload == "live"
    await client.disconnect()
    await sender.publish("t", "queued", qos=1, retain=False)
    open_to.remove("c")
    await sender.publish("t", "denied while away", qos=1, retain=False)
    again = await connected(model, "c", clean=False)
    await again.subscribe([("t", 1)])
    with pytest.raises(TimeoutError):
        await again.message(0.05)
    open_to.add("c")
    await again.subscribe([("t", 1)])
    assert (await again.message(1)).payload == "live"


async def test_who_may_not_receive_takes_the_message_from_its_group() -> None:
    """src/subs.c, subs__shared_process: the turn is over, whatever subs__send did."""
    model = GoAuth(Backend(lambda asked: asked.get("acc") != READ or asked["clientid"] == "one").http, CONF)
    one, two = await connected(model, "one"), await connected(model, "two")
    for client in (one, two):
        await client.subscribe([("$share/g/t", 1)])
    for number in range(4):
        await one.publish("t", str(number), qos=1, retain=False)
    assert [(await one.message(1)).payload for _ in range(2)] == ["0", "2"]


@pytest.mark.parametrize(("client_id", "topic"), [("c+", "t"), ("c#", "t"), ("c", "$SYS/x"), ("c", "$share/g/t")])
async def test_mosquitto_itself_denies_without_asking(client_id: str, topic: str) -> None:
    """src/security.c, acl__check_single and acl__check_dollar."""
    backend = Backend()
    client = await connected(GoAuth(backend.http, CONF), client_id, level=5)
    assert await client.publish(topic, "no", qos=1, retain=False) == 0x87
    assert len(backend.asked) == 1, "CONNECT"
