"""Live sessions are listed and ended within their tenant; an answered revocation has ended them."""

import pytest

from authsvc.core.credentials import ConnectRequest
from authsvc.core.reasons import Reason
from authsvc.sessions import Admitted, Will

T = "/v1/tenants/acme"


class Wire:
    """The registry's side of a connection: remembers how it was ended."""

    def __init__(self):
        self.ended = None

    def end(self, reason, will):
        self.ended = self.ended or (reason, will)

    def swap(self, grant):
        self.grant = grant

    async def wait_ended(self):
        return


async def connect(world, tenant, client_id):
    """Admit a device token's connection and open its session; return the session and its wire."""
    request = ConnectRequest(
        client_id=client_id,
        clean_session=True,
        username="gw-1",
        password=world.keys[f"{tenant} device token"].encode(),
        will=None,
        keep_alive_s=60,
        level=4,
    )
    admitted = await world.service.admit(request, peer="192.0.2.1:40000", broker="test")
    assert isinstance(admitted, Admitted), admitted
    wire = Wire()
    session = world.service.sessions.open(admitted, wire, broker="test", peer="192.0.2.1:40000")
    assert session is not None
    return session, wire


async def test_sessions_are_listed_by_tenant_and_filtered(tenants):
    """A tenant sees its own sessions, page by page, and no more."""
    for number in range(5):
        await connect(tenants, "acme", f"c-{number}")
    await connect(tenants, "umbrella", "c-0")
    seen, cursor = [], None
    for _ in range(10):
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = await tenants.ok("GET", f"{T}/sessions", key="acme viewer", params=params)
        seen += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(one["client_id"] for one in seen) == [f"c-{number}" for number in range(5)]
    assert {one["principal"] for one in seen} == {"thing/acme/gw-1"}
    assert {(one["thing"], one["ground"], one["peer"]) for one in seen} == {("gw-1", "hall", "192.0.2.1:40000")}
    assert {one["token_id"] for one in seen} == {tenants.acme["device"]}
    assert all(one["since"].endswith("Z") for one in seen)
    one = await tenants.ok("GET", f"{T}/sessions", params={"client_id": "c-3", "thing": "gw-1"})
    assert [session["client_id"] for session in one["items"]] == ["c-3"]
    assert (await tenants.ok("GET", f"{T}/sessions?thing=other"))["items"] == []


async def test_a_kick_ends_one_session_of_the_own_tenant(tenants):
    """The will is sent; a foreign session is a 404 and goes on."""
    own, wire = await connect(tenants, "acme", "a")
    foreign, other = await connect(tenants, "umbrella", "a")
    for id_ in (foreign.id, "nobody"):
        assert (await tenants.call("DELETE", f"{T}/sessions/{id_}", key="acme operator")).status_code == 404
    assert other.ended is None
    await tenants.ok("DELETE", f"{T}/sessions/{own.id}", key="acme operator")
    assert wire.ended == (Reason.KICKED, Will.SEND)
    assert (await tenants.ok("GET", f"{T}/sessions"))["items"] == []
    assert (await tenants.call("DELETE", f"{T}/sessions/{own.id}")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("DELETE", f"{T}/things/gw-1/tokens/{{device}}", None, id="revoke"),
        pytest.param("DELETE", f"{T}/things/gw-1?cascade=true", None, id="delete"),
        pytest.param("PATCH", f"{T}/things/gw-1", {"state": "blocked"}, id="block"),
        pytest.param("PATCH", T, {"state": "suspended"}, id="suspend"),
        pytest.param("DELETE", f"{T}?cascade=true", None, id="delete the tenant"),
    ],
)
async def test_when_an_ending_call_has_answered_the_sessions_have_ended(tenants, method, path, body):
    """The answer is the promise: durable, and applied here. No will is sent; other tenants are not touched."""
    _, wire = await connect(tenants, "acme", "a")
    _, other = await connect(tenants, "umbrella", "a")
    await tenants.ok(method, path.format(device=tenants.acme["device"]), json=body)
    assert wire.ended is not None
    assert wire.ended[1] is Will.NEVER
    assert other.ended is None


async def test_a_moved_things_live_grant_has_followed_when_the_call_answers(tenants):
    """The session goes on with the grant of the new ground."""
    session, wire = await connect(tenants, "acme", "a")
    await tenants.ok("PATCH", f"{T}/things/gw-1", json={"ground": "default"})
    assert wire.ended is None
    assert wire.grant.ground == session.ground == "default"
