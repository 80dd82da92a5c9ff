"""Nobody hands out more than he holds: admin keys, platform roles, suspensions."""

import asyncio

import pytest


async def test_nobody_makes_a_key_that_reaches_further_than_his_own(tenants):
    """A tenant's owner makes keys of his tenant; a foreign tenant and none at all are refused alike."""
    made = await tenants.ok(
        "POST", "/v1/admin-keys", key="acme owner", json={"name": "n", "role": "owner", "tenant": "acme"}
    )
    assert made["tenant"] == "acme"
    texts = set()
    for tenant in ("umbrella", "nobody"):
        answer = await tenants.call(
            "POST", "/v1/admin-keys", key="acme owner", json={"name": "n", "role": "viewer", "tenant": tenant}
        )
        assert answer.status_code == 422
        texts.add(answer.text.replace(tenant, "T"))
    assert len(texts) == 1
    body = {"name": "n", "role": "viewer", "tenant": None}
    assert (await tenants.call("POST", "/v1/admin-keys", key="acme owner", json=body)).status_code == 403
    del body["tenant"]  # left out must not mean null (that is how a tenant's admin once reached everything elsewhere)
    assert (await tenants.call("POST", "/v1/admin-keys", key="acme owner", json=body)).status_code == 422


async def test_a_suspended_tenant_cannot_lift_its_suspension(tenants):
    """State takes a platform owner, whoever else may rename the tenant."""
    await tenants.ok("PATCH", "/v1/tenants/acme", json={"state": "suspended"})
    for body in ({"state": "active"}, {"state": None}, {"name": "x", "state": "active"}):
        answer = await tenants.call("PATCH", "/v1/tenants/acme", key="acme owner", json=body)
        assert answer.status_code == 403
    found = await tenants.ok("PATCH", "/v1/tenants/acme", key="acme owner", json={"name": "x"})
    assert (found["state"], found["name"]) == ("suspended", "x")
    assert (await tenants.ok("PATCH", "/v1/tenants/acme", json={"state": None}))["state"] == "active"


@pytest.mark.parametrize("key", ["acme operator", "acme owner", "platform operator"])
async def test_platform_roles_are_handed_out_by_platform_owners_only(tenants, key):
    """Not at creation, not by PATCH, not by getting at the secret of a token that carries one."""
    t = "/v1/tenants/acme/app-tokens"
    for role in ("platform/bridge", "platform/nothing"):
        answer = await tenants.call("POST", t, key=key, json={"name": "n", "roles": ["monitor", role]})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    made = await tenants.ok("POST", t, json={"name": "n", "roles": ["platform/bridge"]})
    plain = await tenants.ok("POST", t, json={"name": "n"})
    patched = await tenants.call("PATCH", f"{t}/{plain['id']}", key=key, json={"roles": ["platform/bridge"]})
    assert patched.status_code == 403
    assert (await tenants.call("POST", f"{t}/{made['id']}/regenerate", key=key, json={})).status_code == 403
    kept = await tenants.ok("PATCH", f"{t}/{made['id']}", key=key, json={"roles": ["monitor", "platform/bridge"]})
    assert kept["roles"] == ["monitor", "platform/bridge"]
    assert (await tenants.ok("PATCH", f"{t}/{made['id']}", key=key, json={"roles": None}))["roles"] == []
    again = await tenants.call("PATCH", f"{t}/{made['id']}", key=key, json={"roles": ["platform/bridge"]})
    assert again.status_code == 403
    assert (await tenants.call("PATCH", f"{t}/{made['id']}", json={"roles": ["platform/nothing"]})).status_code == 422


@pytest.mark.parametrize("key", ["acme owner", "platform operator"])
async def test_a_token_with_a_platform_role_lives_no_longer_than_the_platform_said(tenants, key):
    """Its end may come sooner by anybody's hand, later only by the platform's; without the role it is the tenant's."""
    t = "/v1/tenants/acme/app-tokens"
    body = {"name": "n", "roles": ["platform/bridge"], "expires_at": "2040-01-01T00:00:00Z"}
    made = await tenants.ok("POST", t, json=body)
    path = f"{t}/{made['id']}"
    for expires_at in (None, "2040-01-01T00:00:01Z"):
        for more in ({}, {"roles": ["platform/bridge", "monitor"]}):
            answer = await tenants.call("PATCH", path, key=key, json={"expires_at": expires_at, **more})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    found = await tenants.ok("PATCH", path, key=key, json={"expires_at": "2039-01-01T00:00:00Z"})
    assert found["expires_at"] == "2039-01-01T00:00:00Z"
    found = await tenants.ok("PATCH", path, json={"expires_at": "2040-01-01T00:00:00Z"})
    assert found["expires_at"] == "2040-01-01T00:00:00Z"
    found = await tenants.ok("PATCH", path, key=key, json={"expires_at": None, "roles": None})
    assert (found["expires_at"], found["roles"]) == (None, [])


async def test_the_last_platform_owner_key_stays(tenants):
    """Deleting owner keys goes on until one is left, however many try at once."""
    ids = [await tenants.admin(f"o{number}", "owner", None) for number in range(3)]
    found = await tenants.ok("GET", "/v1/admin-keys")
    ids = [one["id"] for one in found["items"] if (one["role"], one["tenant"]) == ("owner", None)]

    answers = await asyncio.gather(*(tenants.call("DELETE", f"/v1/admin-keys/{id_}") for id_ in ids))
    left = [answer for answer in answers if answer.status_code != 204]
    assert 1 <= len(left)
    assert {answer.status_code for answer in left} <= {409, 401}
    alive = [
        name
        for name in ("owner", "o0", "o1", "o2")
        if (await tenants.call("GET", "/v1/admin-keys", key=name)).status_code == 200
    ]
    assert len(alive) == 1
    last = (await tenants.ok("GET", "/v1/admin-keys", key=alive[0]))["items"]
    last = [one["id"] for one in last if (one["role"], one["tenant"]) == ("owner", None)]
    answer = await tenants.call("DELETE", f"/v1/admin-keys/{last[0]}", key=alive[0])
    assert (answer.status_code, answer.json()["code"]) == (409, "last_owner_key")


async def test_a_deleted_key_is_refused_at_once(tenants):
    """The answer to the deletion is the moment from which the key is 401."""
    id_ = await tenants.admin("short", "viewer", "acme")
    assert (await tenants.call("GET", "/v1/tenants/acme", key="short")).status_code == 200
    await tenants.ok("DELETE", f"/v1/admin-keys/{id_}")
    assert (await tenants.call("GET", "/v1/tenants/acme", key="short")).status_code == 401
