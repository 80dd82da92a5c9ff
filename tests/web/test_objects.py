"""Objects are made, read, changed, listed and deleted as the interface says; races settle."""

import asyncio

import pytest

from authsvc.core.facts import RETIRED

T = "/v1/tenants/acme"


async def test_a_name_left_out_equals_the_key(tenants):
    """Also after a PATCH with null, which removes it."""
    for place, more in (("grounds", {}), ("thing-definitions", {}), ("roles", {}), ("things", {})):
        made = await tenants.ok("POST", f"{T}/{place}", json={"key": "n-1", **more})
        assert made["name"] == "n-1"
        named = await tenants.ok("PATCH", f"{T}/{place}/n-1", json={"name": "Größe 1"})
        assert named["name"] == "Größe 1"
        assert (await tenants.ok("PATCH", f"{T}/{place}/n-1", json={"name": None}))["name"] == "n-1"
        assert await tenants.ok("PATCH", f"{T}/{place}/n-1", json={}) == await tenants.ok("GET", f"{T}/{place}/n-1")


async def test_a_tenant_starts_with_the_ground_default_and_three_definitions(tenants):
    """A new tenant can be used at once."""
    assert {one["key"] for one in (await tenants.ok("GET", f"{T}/grounds"))["items"]} == {"default", "hall"}
    definitions = (await tenants.ok("GET", f"{T}/thing-definitions"))["items"]
    assert {one["key"] for one in definitions} == {"thing", "gateway", "module", "edge"}
    assert all(one["rules"] for one in definitions if one["key"] != "module")


async def test_a_definition_without_rules_gets_those_of_its_kind(tenants):
    """Left out and null mean the built-in rules, an empty list means none."""
    gateway = (await tenants.ok("GET", f"{T}/thing-definitions/gateway"))["rules"]
    made = await tenants.ok("POST", f"{T}/thing-definitions", json={"key": "g", "kind": "gateway"})
    assert made["rules"] == gateway
    none = await tenants.ok("PATCH", f"{T}/thing-definitions/g", json={"rules": []})
    assert none["rules"] == []
    back = await tenants.ok(
        "PATCH", f"{T}/thing-definitions/g", json={"rules": None, "modules": {"definition": "edge"}}
    )
    assert (back["rules"], back["modules"]) == (gateway, {"definition": "edge", "auto_register": False})
    assert (await tenants.ok("PATCH", f"{T}/thing-definitions/g", json={"modules": None}))["modules"] is None


async def test_patch_null_resets_to_the_default(tenants):
    """RFC 7396: null removes; what was not written stays."""
    await tenants.ok("PATCH", f"{T}/things/gw-1", json={"security_tags": ["s"], "state": "blocked"})
    reset = {"ground": None, "tags": None, "state": None, "thing_definition": None}
    thing = await tenants.ok("PATCH", f"{T}/things/gw-1", json=reset)
    assert (thing["ground"], thing["tags"], thing["state"], thing["thing_definition"]) == (
        "default",
        [],
        "active",
        "thing",
    )
    assert thing["security_tags"] == ["s"]
    token = f"{T}/app-tokens/{tenants.acme['app']}"
    wide = {"expires_at": "2090-01-01T01:00:00+01:00", "max_things": 3, "license": "fleet"}
    changed = await tenants.ok("PATCH", token, json=wide)
    assert (changed["expires_at"], changed["max_things"], changed["license"]) == ("2090-01-01T00:00:00Z", 3, "fleet")
    changed = await tenants.ok("PATCH", token, json=dict.fromkeys(wide))
    assert (changed["expires_at"], changed["max_things"], changed["license"]) == (None, None, None)
    assert (await tenants.call("PATCH", token, json={"name": None})).status_code == 422


@pytest.mark.parametrize(
    "field",
    [
        "key",
        "id",
        "tenant",
        "token",
        "digest",
        "secret",
        "created_at",
        "registered",
        "revoked_at",
        "token_id",
        "client_id",
    ],
)
async def test_what_is_not_the_callers_to_set_cannot_be_set(tenants, field):
    """Mass assignment: a PATCH with a further field is refused whole."""
    for path in (f"{T}/things/gw-1", f"{T}/app-tokens/{tenants.acme['app']}", f"{T}/grounds/hall", T):
        before = await tenants.ok("GET", path)
        for value in ("x", None, 1):
            answer = await tenants.call("PATCH", path, json={"name": "changed", field: value})
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["code"] == "unknown_field"
        assert await tenants.ok("GET", path) == before


async def test_things_show_where_their_topics_begin_and_follow_a_move(tenants):
    """`topic_prefix` is tenant, ground and key."""
    assert (await tenants.ok("GET", f"{T}/things/gw-1"))["topic_prefix"] == "acme/hall/gw-1"
    moved = await tenants.ok("PATCH", f"{T}/things/gw-1", json={"ground": "default"})
    assert moved["topic_prefix"] == "acme/default/gw-1"


async def test_a_deleted_thing_is_retired_until_it_is_revived_or_forgotten(tenants):
    """POST revives it; forget frees the key, also in a second call."""
    await tenants.ok("DELETE", f"{T}/things/gw-1?cascade=true")
    assert (await tenants.call("GET", f"{T}/things/gw-1")).status_code == 404
    assert await tenants.store.thing_or_retired("acme", "gw-1") is RETIRED
    revived = await tenants.ok("POST", f"{T}/things", json={"key": "gw-1"})
    assert revived["ground"] == "default"
    assert await tenants.store.thing_or_retired("acme", "gw-1") is not RETIRED
    await tenants.ok("DELETE", f"{T}/things/gw-1?forget=true")
    assert await tenants.store.thing_or_retired("acme", "gw-1") is not RETIRED
    await tenants.ok("POST", f"{T}/things", json={"key": "gw-2"})
    await tenants.ok("DELETE", f"{T}/things/gw-2")
    await tenants.ok("DELETE", f"{T}/things/gw-2?forget=true")
    assert await tenants.store.thing_or_retired("acme", "gw-2") is not RETIRED


async def test_a_revoked_token_leaves_the_list_and_shows_under_revoked(tenants):
    """DELETE of a token revokes it; the record stays for whoever asks."""
    for place, id_ in (
        ("app-tokens", tenants.acme["app"]),
        ("things/gw-1/tokens", tenants.acme["device"]),
        ("grounds/hall/tokens", tenants.acme["ground"]),
    ):
        assert [one["id"] for one in (await tenants.ok("GET", f"{T}/{place}"))["items"]] == [id_]
        await tenants.ok("DELETE", f"{T}/{place}/{id_}")
        assert (await tenants.ok("GET", f"{T}/{place}"))["items"] == []
        revoked = (await tenants.ok("GET", f"{T}/{place}?revoked=true"))["items"]
        assert [one["id"] for one in revoked] == [id_]
        assert revoked[0]["revoked_at"].endswith("Z")


async def test_regenerate_gives_a_new_secret_and_ends_the_old_one(tenants):
    """With an overlap both work; without one only the new."""
    from authsvc.core import tokens

    path = f"{T}/app-tokens/{tenants.acme['app']}"
    first = tenants.keys["acme app token"]
    answer = await tenants.ok("POST", f"{path}/regenerate", json={"overlap_s": 60})
    assert set(answer) == {"id", "token"}
    for secret in (first, answer["token"]):
        found = await tenants.store.token_by_digest(tokens.digest(secret))
        assert found is not None and found[1].revoked_at_us is None
    assert (await tenants.call("POST", f"{path}/regenerate", json={"overlap_s": -1})).status_code == 422
    await tenants.ok("DELETE", path)
    assert (await tenants.call("POST", f"{path}/regenerate", json={})).status_code in (404, 409)


async def test_secrets_are_in_creation_answers_and_in_no_other(tenants):
    """Every GET that the document has, with every key that may, shows none of the secrets that were given out."""
    from tests.web.test_access import operations, path_of

    await tenants.ok("POST", f"{T}/app-tokens/{tenants.acme['app']}/regenerate", json={"overlap_s": 60})
    secrets = {*tenants.secrets, *tenants.keys.values()}
    assert len(secrets) > 12
    pages = 0
    for operation, method, template, _ in await operations(tenants):
        if method != "GET":
            continue
        for query in ("", "?revoked=true"):
            answer = await tenants.call("GET", path_of(template, tenants) + query)
            assert answer.status_code in (200, 422), operation
            assert '"token"' not in answer.text and "digest" not in answer.text
            for secret in secrets:
                assert secret not in answer.text and secret[6:] not in answer.text
            pages += 1
    patched = await tenants.call("PATCH", f"{T}/app-tokens/{tenants.acme['app']}", json={"name": "x"})
    assert "token" not in patched.json()
    assert pages > 30


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
async def test_pages_show_everything_once(tenants, limit):
    """Following `next` from the first page lists each object exactly once, in key order."""
    await asyncio.gather(*(tenants.ok("POST", f"{T}/things", json={"key": f"t-{n:02}"}) for n in range(10)))
    seen, cursor = [], None
    for _ in range(50):
        params = {"limit": limit, "q": "T-"} | ({"cursor": cursor} if cursor else {})
        page = await tenants.ok("GET", f"{T}/things", params=params)
        assert len(page["items"]) <= limit
        seen += [one["key"] for one in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == [f"t-{n:02}" for n in range(10)]


async def test_a_cursor_of_another_tenant_or_list_is_refused(tenants):
    """What one list handed out opens no other, with any key."""
    for tenant in ("acme", "umbrella"):
        for n in range(3):
            await tenants.ok("POST", f"/v1/tenants/{tenant}/things", json={"key": f"t-{n}"})
    cursor = (await tenants.ok("GET", "/v1/tenants/umbrella/things?limit=1"))["next"]
    assert cursor
    for path in (f"{T}/things", f"{T}/grounds", "/v1/tenants/umbrella/grounds", "/v1/tenants/umbrella/things?tag=a"):
        answer = await tenants.call("GET", path, params={"cursor": cursor, **({"tag": "a"} if "tag" in path else {})})
        assert (answer.status_code, answer.json()["code"]) == (422, "cursor_invalid")


async def test_filters_of_things_hold_together(tenants):
    """Each filter narrows; `%` and `_` are letters."""
    await tenants.ok("POST", f"{T}/things", json={"key": "x_1", "name": "100 % ok", "tags": ["a", "b"]})
    await tenants.ok("POST", f"{T}/things", json={"key": "x-2", "ground": "hall"})
    await tenants.ok("PATCH", f"{T}/things/x-2", json={"state": "blocked"})
    for query, keys in (
        ("q=x", ["x-2", "x_1"]),
        ("q=_", ["x_1"]),
        ("q=%25", ["x_1"]),
        ("q=100%20%25%20OK", ["x_1"]),
        ("tag=b", ["x_1"]),
        ("ground=hall&state=blocked", ["x-2"]),
        ("definition=edge&tag=a", ["gw-1"]),
        ("ground=hall&tag=b", []),
    ):
        assert [one["key"] for one in (await tenants.ok("GET", f"{T}/things?{query}"))["items"]] == keys, query


@pytest.mark.parametrize(
    ("place", "body"),
    [("grounds", {}), ("thing-definitions", {}), ("roles", {}), ("licenses", {"seats": 1}), ("things", {})],
)
async def test_of_two_creations_of_one_key_one_wins(tenants, place, body):
    """Racing creations: one 201, all others 409, one object."""
    answers = await asyncio.gather(
        *(tenants.call("POST", f"{T}/{place}", json={"key": "same", **body}) for _ in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"already_exists"}
    again = await tenants.call("POST", f"/v1/tenants/umbrella/{place}", json={"key": "same", **body})
    assert again.status_code == 201


async def test_keys_are_compared_byte_by_byte(tenants):
    """Upper and lower case are different keys."""
    for key in ("Dev1", "dev1", "DEV1"):
        await tenants.ok("POST", f"{T}/things", json={"key": key})
    assert [one["key"] for one in (await tenants.ok("GET", f"{T}/things?q=dev1"))["items"]] == ["DEV1", "Dev1", "dev1"]


async def test_deleting_what_is_in_use_says_by_how_many(tenants):
    """409 with the counts; with cascade it goes."""
    answer = await tenants.call("DELETE", f"{T}/grounds/hall")
    assert answer.status_code == 409
    assert answer.json()["code"] == "in_use"
    assert all(count > 0 for count in answer.json()["counts"].values())
    assert answer.json()["counts"]
    await tenants.ok("DELETE", f"{T}/grounds/hall?cascade=true")
    assert (await tenants.call("GET", f"{T}/grounds/hall")).status_code == 404
    assert (await tenants.call("DELETE", T)).status_code == 409
    await tenants.ok("DELETE", f"{T}?cascade=true")
    assert (await tenants.call("GET", T)).status_code == 404
    assert (await tenants.call("GET", T, key="acme owner")).status_code == 401
    assert (await tenants.ok("GET", "/v1/tenants/umbrella/things"))["items"]


async def test_modules_are_bound_and_unbound(tenants):
    """Binding creates what is new; unbinding leaves the thing."""
    found = (await tenants.ok("GET", f"{T}/things/gw-1/modules"))["items"]
    assert [(one["key"], one["gateway"]) for one in found] == [("m-1", "gw-1")]
    await tenants.ok("DELETE", f"{T}/things/gw-1/modules/m-1")
    assert (await tenants.ok("GET", f"{T}/things/gw-1/modules"))["items"] == []
    assert (await tenants.ok("GET", f"{T}/things/m-1"))["gateway"] is None
    assert (await tenants.call("DELETE", f"{T}/things/gw-1/modules/m-1")).status_code == 404


async def test_explain_answers_with_the_rule(tenants):
    """The decision, its reason, its rule and a trace; changing nothing."""
    question = {"thing": "gw-1", "action": "publish", "topic": "acme/hall/gw-1/state/x"}
    found = await tenants.ok("POST", f"{T}/explain", key="acme viewer", json=question)
    assert (found["allowed"], found["reason"], found["rule"]) == (True, "rule_allows", "definition/edge#0")
    assert found["trace"]
    foreign = await tenants.ok("POST", f"{T}/explain", json=question | {"topic": "umbrella/hall/gw-1/state/x"})
    assert (foreign["allowed"], foreign["reason"]) == (False, "no_rule_matches")
    for body in ({}, {"thing": "gw-1", "token_id": "x"}):
        answer = await tenants.call("POST", f"{T}/explain", json={"action": "publish", "topic": "a", **body})
        assert answer.status_code == 422
    assert (await tenants.call("POST", f"{T}/explain", json=question | {"thing": "nobody"})).status_code == 404


async def test_refusals_of_a_tenant_are_its_own_and_those_of_nobody_the_platforms(tenants):
    """A tenant's key reads its own refusals; what no tenant is known of is for platform keys."""
    from authsvc.core.reasons import Reason

    for tenant in ("acme", "umbrella", None):
        tenants.service.refusals.add(
            tenant=tenant, reason=Reason.THING_BLOCKED, peer="192.0.2.1:1", client_id=f"c-{tenant}", thing="gw-1"
        )
    found = (await tenants.ok("GET", f"{T}/refusals", key="acme viewer"))["items"]
    assert [(one["client_id"], one["reason"], one["count"]) for one in found] == [("c-acme", "thing_blocked", 1)]
    assert (await tenants.ok("GET", f"{T}/refusals?client_id=other"))["items"] == []
    unknown = (await tenants.ok("GET", "/v1/refusals", key="platform viewer"))["items"]
    assert [one["client_id"] for one in unknown] == ["c-None"]


async def test_the_tenant_key_me_is_reserved(tenants):
    """It would stand for something else at the beginning of a topic one day."""
    answer = await tenants.call("POST", "/v1/tenants", json={"key": "me"})
    assert (answer.status_code, answer.json()["code"]) == (422, "key_reserved")


async def test_readiness_names_what_is_missing(tenants, tmp_path):
    """200 only when store, feed and every named check are well; else 503 with reasons, for anybody to read."""
    import httpx

    from authsvc.web.app import create_app

    broken = {"upstream": "unreachable", "listeners": None}
    app = create_app(tenants.service, now_us=lambda: 0, readiness={name: lambda n=name: broken[n] for name in broken})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["reasons"] == {"upstream": "unreachable"}
        broken["upstream"] = None
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        for file in tmp_path.glob("authsvc.db*"):
            file.unlink()
        async with asyncio.timeout(5):
            while (answer := await client.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.02)
        assert answer.status_code == 503
        assert answer.json()["reasons"].keys() >= {"store"}
        assert str(tmp_path) not in answer.text
    answer = await tenants.call("GET", f"{T}/things")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert str(tmp_path) not in answer.text
