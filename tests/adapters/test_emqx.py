"""EMQX over HTTP: requests of its shapes, answers that it reads, and its REST interface."""

from __future__ import annotations

import pytest

from authsvc.adapters.adapter import AttachedConfig
from authsvc.adapters.attached import SETTLED_US
from authsvc.adapters.emqx_management import EmqxManagement
from authsvc.adapters.management import ManagementUnavailable
from authsvc.core.facts import GroundAccess
from tests.adapters.conftest import API_KEY, API_SECRET, SECRET, EmqxRest, HookWorld
from tests.adapters.emqx_model import Asked, verdict
from tests.service.conftest import T

# Every placeholder of the authenticator and the authorizer that our configuration may send, as EMQX renders them.
AT_CONNECT = {
    "peerhost": "192.0.2.1",
    "peerport": "50123",
    "cert_subject": "",
    "cert_common_name": "",
    "cert_pem": "",
    "zone": "default",
    "listener": "tcp:default",
    "mountpoint": "",
    "proto_name": "MQTT",
}
SHAPES = ["json", "form"]


async def ask(world: HookWorld, shape: str, path: str, fields: dict[str, object]) -> dict:
    """Send the request as JSON or as a form, with the header of our configuration; return the answer of EMQX's kind."""
    headers = {"x-authsvc-secret": SECRET}
    body = {"json": fields} if shape == "json" else {"data": fields}
    answer = await world.client.post(f"/hooks/emqx/{path}", headers=headers, **body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["result"] in ("allow", "deny")
    return answer.json()


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_connect_is_answered_with_all_that_emqx_keeps(hooked: HookWorld, shape: str) -> None:
    """The list, the end in seconds, the attributes as strings, and never a superuser."""
    expires_at_us = hooked.clock.now_us() + 3_600_000_000
    _, token = await hooked.app_token(expires_at_us=expires_at_us)
    fields = {"clientid": "c1", "username": "gw1", "password": token, **AT_CONNECT}
    assert await ask(hooked, shape, "authn", fields) == {
        "result": "allow",
        "is_superuser": False,
        "acl": [
            {"permission": "allow", "action": "publish", "topic": f"{T}/default/gw1/state/#"},
            {"permission": "allow", "action": "publish", "topic": f"{T}/default/gw1/event/#"},
            {"permission": "allow", "action": "subscribe", "topic": f"{T}/default/gw1/command/#"},
        ],
        "client_attrs": {"tenant": T, "ground": "default", "thing": "gw1"},
        "expire_at": expires_at_us // 1_000_000,
    }
    assert hooked.attached().session("c1").peer == "192.0.2.1:50123"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "changes",
    [
        {"password": "wrong"},
        {"password": ""},
        {"username": ""},
        {"username": "a/b"},
        {"username": "gw1\0"},
        {"clientid": ""},
        {"password": None, "username": "TOKEN"},
    ],
    ids=["wrong password", "no password", "no thing", "no key", "NUL", "no client id", "token in the user name"],
)
async def test_a_connect_that_is_refused_is_denied_and_leaves_nothing(
    hooked: HookWorld, shape: str, changes: dict[str, str | None]
) -> None:
    """200 and deny, nothing else: an ignore would ask the next authenticator."""
    _, token = await hooked.app_token()
    fields = {"clientid": "c1", "username": "gw1", "password": token, **AT_CONNECT}
    fields.update({name: token if value == "TOKEN" else value for name, value in changes.items()})
    fields = {name: value for name, value in fields.items() if value is not None}
    assert await ask(hooked, shape, "authn", fields) == {"result": "deny"}
    assert len(hooked.service.sessions) == 0
    assert list(await hooked.store.attached_sessions.all("emqx")) == []


ASKED = [
    pytest.param("publish", "{t}/default/gw1/state/x", 1, "allow", id="own state"),
    pytest.param("publish", "{t}/default/gw2/state/x", 1, "deny", id="another's state"),
    pytest.param("publish", "{t}/default/gw1/state/+", 0, "deny", id="a wildcard in a topic"),
    pytest.param("publish", "$SYS/x", 0, "deny", id="the system's"),
    pytest.param("subscribe", "{t}/default/gw1/command/#", 2, "allow", id="own commands"),
    pytest.param("subscribe", "{t}/default/gw1/command/+/x", 0, "allow", id="narrower"),
    pytest.param("subscribe", "{t}/default/+/command/#", 0, "deny", id="everybody's commands"),
    pytest.param("subscribe", "#", 0, "deny", id="everything"),
    pytest.param("subscribe", "", 0, "deny", id="nothing"),
    pytest.param("unsubscribe", "{t}/default/gw1/command/#", 0, "deny", id="no such action"),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("action", "topic", "qos", "result"), ASKED)
async def test_an_action_is_decided_by_the_grant(
    hooked: HookWorld, shape: str, action: str, topic: str, qos: int, result: str
) -> None:
    """With all placeholders, qos and retain as text as EMQX sends them; the user name counts for nothing."""
    _, token = await hooked.app_token()
    await hooked.authn(token, "gw1")
    fields = {"clientid": "c1", "username": "root", "action": action, "topic": topic.format(t=T), **AT_CONNECT}
    fields |= {"qos": str(qos), "retain": "false", "access": "2" if action == "publish" else "1"}
    assert await ask(hooked, shape, "authz", fields) == {"result": result}


@pytest.mark.parametrize("unknown", [{}, {"qos": "${qos}", "retain": "${retain}"}], ids=["left out", "as configured"])
async def test_emqx_before_5_2_does_not_tell_qos_and_retain(hooked: HookWorld, unknown: dict[str, str]) -> None:
    """Then what is not allowed at every QoS and with either flag is denied."""
    rules = [
        {"effect": "allow", "action": "publish", "topic": "{tenant}/low/#", "qos_max": 1},
        {"effect": "allow", "action": "publish", "topic": "{tenant}/once/#", "retain": False},
        {"effect": "allow", "action": "publish", "topic": "{tenant}/any/#"},
        {"effect": "allow", "action": "subscribe", "topic": "{tenant}/low/#", "qos_max": 1},
    ]
    made = await hooked.call("POST", f"/v1/tenants/{T}/thing-definitions", json={"key": "d", "rules": rules})
    assert made.status_code == 201
    _, token = await hooked.app_token(definition="d")
    await hooked.authn(token, "gw1")
    results = {}
    for action, place in (("publish", "low"), ("publish", "once"), ("publish", "any"), ("subscribe", "low")):
        fields = {"clientid": "c1", "username": "gw1", "peerhost": "192.0.2.1", "action": action, **unknown}
        answer = await ask(hooked, "json", "authz", {**fields, "topic": f"{T}/{place}/x"})
        results[action, place] = answer["result"]
    allowed = [key for key, result in results.items() if result == "allow"]
    assert allowed == [("publish", "any")]


async def test_a_port_that_emqx_does_not_know_is_no_port(hooked: HookWorld) -> None:
    """Before 5.9 the placeholder comes as it stands in the configuration."""
    _, token = await hooked.app_token()
    fields = {"clientid": "c1", "username": "gw1", "password": token, "peerhost": "::1", "peerport": "${peerport}"}
    assert (await ask(hooked, "json", "authn", fields))["result"] == "allow"
    assert hooked.attached().session("c1").peer == "::1"


async def test_a_subscribe_above_its_qos_is_refused_and_says_why(hooked: HookWorld) -> None:
    """EMQX cannot grant less than what was asked; the gate would."""
    rules = [{"effect": "allow", "action": "subscribe", "topic": "{tenant}/low/#", "qos_max": 1}]
    await hooked.call("POST", f"/v1/tenants/{T}/thing-definitions", json={"key": "d", "rules": rules})
    _, token = await hooked.app_token(definition="d")
    acl = (await hooked.authn(token, "gw1"))["acl"]
    assert verdict(acl, Asked("subscribe", f"{T}/low/x", 1)) == "allow"
    assert verdict(acl, Asked("subscribe", f"{T}/low/x", 2)) == "nomatch"
    assert await hooked.authz("c1", "subscribe", f"{T}/low/x", qos="2") == "deny"
    (record,) = hooked.service.refusals.last(T, client_id="c1")
    assert record.reason.value == "qos_too_high"


async def test_a_set_is_asked_about_and_follows_it(hooked: HookWorld) -> None:
    """A ground token over `{member}`: not in the list, decided anew each time; wider than its set is refused here."""
    rule = {"effect": "allow", "action": "subscribe", "topic": "{tenant}/device/{member}/state"}
    made = await hooked.call("POST", f"/v1/tenants/{T}/roles", json={"key": "r", "rules": [rule]})
    assert made.status_code == 201
    _, token = await hooked.app_token(roles=("r",))
    acl = (await hooked.authn(token, "gw1"))["acl"]
    assert verdict(acl, Asked("subscribe", f"{T}/device/gw1/state")) == "nomatch"
    assert await hooked.authz("c1", "subscribe", f"{T}/device/gw1/state") == "allow"
    assert await hooked.authz("c1", "subscribe", f"{T}/device/gw2/state") == "deny"
    await hooked.admitted((await hooked.app_token())[1], "gw2", client_id="c2")
    await hooked.settle()
    assert await hooked.authz("c1", "subscribe", f"{T}/device/gw2/state") == "allow"
    assert await hooked.authz("c1", "subscribe", f"{T}/device/+/state") == "deny"


async def test_a_ground_token_reads_its_ground_without_a_question(hooked: HookWorld) -> None:
    """Many clients by one token, each its own session."""
    _, token = await hooked.ground_token("default", GroundAccess.READ_WRITE)
    for client_id in ("a1", "a2"):
        answer = await hooked.authn(token, "whoever", client_id=client_id)
        assert verdict(answer["acl"], Asked("subscribe", f"{T}/default/#")) == "allow"
        assert verdict(answer["acl"], Asked("publish", f"{T}/default/gw1/command/x")) == "allow"
        assert verdict(answer["acl"], Asked("subscribe", "#")) == "nomatch"
    assert len(hooked.service.sessions) == 2


@pytest.mark.parametrize(
    ("reason", "ends"), [("normal", True), ("keepalive_timeout", True), ("takenover", False), ("discarded", False)]
)
async def test_a_disconnected_event_ends_the_session_but_for_a_take_over(
    hooked: HookWorld, reason: str, ends: bool
) -> None:
    """A rule of EMQX may tell that a client left; that another connection took its client id is no leaving."""
    _, token = await hooked.app_token()
    await hooked.authn(token, "gw1")
    hooked.clock.move(SETTLED_US / 1_000_000 + 1)
    answer = await hooked.post("emqx/disconnected", {"clientid": "c1", "reason": reason})
    assert answer.json() == {"result": "ok"}
    assert (hooked.attached().session("c1") is None) is ends


# --- the REST interface ----------------------------------------------------------------------------------------------


@pytest.fixture
async def management(rest: tuple[EmqxRest, str]):
    config = AttachedConfig(
        name="emqx",
        kind="emqx",
        management_url=rest[1],
        management_user=API_KEY,
        management_password=API_SECRET,
    )
    made = EmqxManagement(config)
    yield made
    await made.close()


@pytest.mark.parametrize(
    "client_id", ["c1", "a b", "a/b", "ü", "%2e", "a?b#c", "..", ".", "a%2Fb", "../c1"], ids=lambda value: value
)
async def test_a_client_id_arrives_as_it_is(
    rest: tuple[EmqxRest, str], management: EmqxManagement, client_id: str
) -> None:
    """Percent-encoded once; dots, which every client on the way resolves, in another place."""
    emqx, _ = rest
    emqx.connected = {client_id, "bystander"}
    assert await management.has_session(client_id) is True
    await management.disconnect(client_id, wipe=True)
    assert emqx.kicked_ids() == [client_id]
    assert emqx.connected == {"bystander"}
    assert await management.has_session(client_id) is False
    await management.disconnect(client_id, wipe=True)


async def test_a_long_list_is_read_to_its_end(rest: tuple[EmqxRest, str], management: EmqxManagement) -> None:
    """Page by page; only who is connected."""
    emqx, _ = rest
    emqx.connected = {f"c{number}" for number in range(2_500)}
    emqx.kept = {"asleep"}
    assert await management.clients() == frozenset(emqx.connected)


async def test_what_is_not_emqx_is_not_believed(rest: tuple[EmqxRest, str], management: EmqxManagement) -> None:
    """A failing interface, a wrong key, and the 404 of some other server are no kicks."""
    emqx, url = rest
    emqx.down = True
    with pytest.raises(ManagementUnavailable):
        await management.disconnect("c1", wipe=True)
    with pytest.raises(ManagementUnavailable):
        await management.clients()
    for config in (
        AttachedConfig(name="e", kind="emqx", management_url=url, management_user="wrong", management_password="x"),
        AttachedConfig(name="e", kind="emqx", management_url=f"{url}/elsewhere"),
        AttachedConfig(name="e", kind="emqx", management_url="http://127.0.0.1:1"),
    ):
        other = EmqxManagement(config)
        with pytest.raises(ManagementUnavailable):
            await other.disconnect("c1", wipe=True)
        with pytest.raises(ManagementUnavailable):
            await other.has_session("c1")
        await other.close()
