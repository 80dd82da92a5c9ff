"""Who may do what: the whole matrix, from the OpenAPI document, against a table that a person wrote."""

from authsvc.core import tokens
from authsvc.core.facts import TokenKind

TENANT = "/v1/tenants/{tenant}"

# role and reach of every operation; a route that is missing here fails the first test
TABLE = {
    "POST /v1/tenants": ("owner", "platform"),
    "GET /v1/tenants": ("viewer", "any"),
    f"GET {TENANT}": ("viewer", "tenant"),
    f"PATCH {TENANT}": ("owner", "tenant"),
    f"DELETE {TENANT}": ("owner", "tenant"),  # and bound to no tenant
    "POST /v1/roles": ("owner", "platform"),
    "GET /v1/roles": ("viewer", "platform"),
    "GET /v1/roles/{key}": ("viewer", "platform"),
    "PATCH /v1/roles/{key}": ("owner", "platform"),
    "DELETE /v1/roles/{key}": ("owner", "platform"),
    "GET /v1/refusals": ("viewer", "platform"),
    "POST /v1/admin-keys": ("owner", "any"),
    "GET /v1/admin-keys": ("owner", "any"),
    "DELETE /v1/admin-keys/{id}": ("owner", "any"),
    f"GET {TENANT}/sessions": ("viewer", "tenant"),
    f"DELETE {TENANT}/sessions/{{id}}": ("operator", "tenant"),
    f"POST {TENANT}/explain": ("viewer", "tenant"),
    f"GET {TENANT}/refusals": ("viewer", "tenant"),
    f"POST {TENANT}/app-tokens/{{id}}/regenerate": ("operator", "tenant"),
    f"DELETE {TENANT}/things/{{key}}/client-id": ("operator", "tenant"),
    f"DELETE {TENANT}/things/{{gateway}}/modules/{{key}}": ("operator", "tenant"),
    f"POST {TENANT}/things/{{gateway}}/modules": ("operator", "tenant"),
    f"GET {TENANT}/things/{{gateway}}/modules": ("viewer", "tenant"),
    **{
        f"{method} {TENANT}/{place}": (role, "tenant")
        for place in ("things/{key}/tokens", "grounds/{key}/tokens")
        for method, role in (("POST", "operator"), ("GET", "viewer"))
    },
    **{
        f"DELETE {TENANT}/{place}": ("operator", "tenant")
        for place in ("things/{key}/tokens/{id}", "grounds/{key}/tokens/{id}")
    },
    **{
        f"{method} {TENANT}/{place}": (role, "tenant")
        for place, ref in (
            ("grounds", "key"),
            ("thing-definitions", "key"),
            ("roles", "key"),
            ("licenses", "key"),
            ("app-tokens", "id"),
            ("things", "key"),
        )
        for method, place, role in (
            ("POST", place, "operator"),
            ("GET", place, "viewer"),
            ("GET", f"{place}/{{{ref}}}", "viewer"),
            ("PATCH", f"{place}/{{{ref}}}", "operator"),
            ("DELETE", f"{place}/{{{ref}}}", "operator"),
        )
    },
}

# a body that is right, so that nothing but the key can be the reason of a refusal
BODIES = {
    "POST /v1/tenants": {"key": "new"},
    f"PATCH {TENANT}": {"name": "x"},
    f"POST {TENANT}/grounds": {"key": "new"},
    f"PATCH {TENANT}/grounds/{{key}}": {"name": "x"},
    f"POST {TENANT}/thing-definitions": {"key": "new"},
    f"PATCH {TENANT}/thing-definitions/{{key}}": {"name": "x"},
    f"POST {TENANT}/roles": {"key": "new"},
    f"PATCH {TENANT}/roles/{{key}}": {"name": "x"},
    "POST /v1/roles": {"key": "new"},
    "PATCH /v1/roles/{key}": {"name": "x"},
    f"POST {TENANT}/licenses": {"key": "new", "seats": 1},
    f"PATCH {TENANT}/licenses/{{key}}": {"seats": 7},
    f"POST {TENANT}/app-tokens": {"name": "new"},
    f"PATCH {TENANT}/app-tokens/{{id}}": {"name": "x"},
    f"POST {TENANT}/app-tokens/{{id}}/regenerate": {},
    f"POST {TENANT}/things": {"key": "new"},
    f"PATCH {TENANT}/things/{{key}}": {"name": "x"},
    f"POST {TENANT}/things/{{key}}/tokens": {"name": "new"},
    f"POST {TENANT}/things/{{gateway}}/modules": {"key": "m-2"},
    f"POST {TENANT}/grounds/{{key}}/tokens": {"name": "new", "access": "read"},
    f"POST {TENANT}/explain": {"thing": "gw-1", "action": "publish", "topic": "acme/hall/gw-1/state/x"},
    "POST /v1/admin-keys": {"name": "new", "tenant": "acme", "role": "viewer"},
}
RANK = {"viewer": 0, "operator": 1, "owner": 2}


async def operations(world):
    """Return (operation, method, path template) of everything under /v1 in the document."""
    document = (await world.client.get("/openapi.json")).json()
    return [
        (f"{method.upper()} {path}", method.upper(), path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if path.startswith("/v1")
    ]


def path_of(template, world, tenant="acme"):
    """Return the path with the parameters of objects that exist."""
    made = getattr(world, tenant)
    path = template.replace("{tenant}", tenant).replace("{gateway}", "gw-1")
    for place, key in (
        ("grounds/{key}", "grounds/hall"),
        ("thing-definitions/{key}", "thing-definitions/edge"),
        ("modules/{key}", "modules/m-1"),
        ("things/{key}", "things/gw-1"),
        ("/v1/roles/{key}", "/v1/roles/bridge"),
        ("roles/{key}", "roles/monitor"),
        ("licenses/{key}", "licenses/fleet"),
        ("app-tokens/{id}", f"app-tokens/{made['app']}"),
        ("things/gw-1/tokens/{id}", f"things/gw-1/tokens/{made['device']}"),
        ("grounds/hall/tokens/{id}", f"grounds/hall/tokens/{made['ground']}"),
        ("sessions/{id}", "sessions/nobody"),
        ("admin-keys/{id}", "admin-keys/nobody"),
    ):
        path = path.replace(place, key)
    assert "{" not in path, path
    return path


def expected(operation, caller_tenant, caller_role):
    """Return the status that keeps the caller out, or None if it may pass."""
    role, reach = TABLE[operation]
    if reach == "tenant" and caller_tenant not in (None, "acme"):
        return 404
    if reach == "platform" and caller_tenant is not None:
        return 403
    if RANK[caller_role] < RANK[role]:
        return 403
    if operation == f"DELETE {TENANT}" and caller_tenant is not None:
        return 403
    return None


async def snapshot(world):
    """Return everything that the platform's owner can list."""
    found = {}
    for tenant in ("acme", "umbrella"):
        for place in (
            "",
            "/grounds",
            "/thing-definitions",
            "/roles",
            "/licenses",
            "/app-tokens",
            "/things",
            "/things/gw-1/tokens",
            "/things/gw-1/modules",
            "/grounds/hall/tokens",
        ):
            found[tenant + place] = await world.ok("GET", f"/v1/tenants/{tenant}{place}")
    for path in ("/v1/tenants", "/v1/roles", "/v1/admin-keys"):
        found[path] = await world.ok("GET", path)
    return found


async def test_every_operation_is_in_the_table_with_its_role(tenants):
    """A new route has to be entered here by a person; the document says what the table says."""
    found = {
        operation: (more["x-authsvc-role"], more["x-authsvc-reach"])
        for operation, _, _, more in await operations(tenants)
    }
    assert found == TABLE
    with_body = {operation for operation, _, _, more in await operations(tenants) if "requestBody" in more}
    assert with_body == set(BODIES)


async def test_without_a_valid_admin_key_nothing_under_v1_answers(tenants):
    """No key, garbage, a typo, a key of another kind, a deleted key, a key in the query: one 401, byte for byte."""
    deleted = await tenants.admin("gone", "owner", None)
    await tenants.ok("DELETE", f"/v1/admin-keys/{deleted}")
    owner = tenants.keys["owner"]
    headers = [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer x"},
        {"Authorization": f"Bearer {owner[:-1]}{'a' if owner[-1] != 'a' else 'b'}"},
        {"Authorization": f"Bearer {tokens.mint(TokenKind.ADMIN)}"},
        {"Authorization": f"Bearer {tenants.keys['gone']}"},
        {"Authorization": f"Basic {owner}"},
        {"Authorization": owner},
        {"Authorization": f"Bearer {owner} {owner}"},
        {"Authorization": f"Bearer {owner},{owner}"},
        {"X-Api-Key": owner},
        {"Cookie": f"token={owner}"},
        *({"Authorization": f"Bearer {tenants.keys[f'acme {kind} token']}"} for kind in ("app", "device", "ground")),
    ]
    bodies = set()
    for operation, method, template, _ in await operations(tenants):
        path = path_of(template, tenants)
        for given in headers:
            answer = await tenants.client.request(method, path, headers=given, json=BODIES.get(operation))
            assert answer.status_code == 401, (operation, given)
            assert answer.headers["www-authenticate"] == "Bearer"
            bodies.add(answer.content)
        for name in ("access_token", "token", "key"):
            answer = await tenants.client.request(method, path, params={name: owner})
            assert answer.status_code == 401
    twice = [("Authorization", f"Bearer {owner}"), ("Authorization", f"Bearer {owner}")]
    assert (await tenants.client.get("/v1/tenants", headers=twice)).status_code == 401
    for path in ("/v1/nothing", "/v1/", "/v1/tenants/acme/nothing"):
        answer = await tenants.client.get(path)
        bodies.add(answer.content)
    assert len(bodies) == 1


async def test_a_key_that_may_not_is_told_403_or_404_and_changes_nothing(tenants):
    """Every operation by every key that the table keeps out; afterwards everything is as it was."""
    before = await snapshot(tenants)
    for operation, method, template, _ in await operations(tenants):
        for tenant in ("acme", "umbrella", None):
            for role in RANK:
                if (tenant, role) == (None, "owner"):
                    continue
                status = expected(operation, tenant, role)
                if status is None:
                    continue
                for body in (BODIES.get(operation), {"nonsense": 1}):
                    answer = await tenants.call(
                        method, path_of(template, tenants), key=f"{tenant or 'platform'} {role}", json=body
                    )
                    assert answer.status_code == status, (operation, tenant, role, answer.text)
                    assert answer.headers["content-type"] == "application/problem+json"
    assert await snapshot(tenants) == before


async def test_a_key_that_may_is_let_through(tenants):
    """Every operation by every key that the table lets in: never 401 or 403, and no wall."""
    listed = await operations(tenants)
    listed.sort(key=lambda one: ("GET", "PATCH", "POST", "DELETE").index(one[1]))
    for operation, method, template, _ in listed:
        if operation == f"DELETE {TENANT}":
            continue
        for tenant in ("acme", None):
            for role in RANK:
                if expected(operation, tenant, role) is not None:
                    continue
                key = "owner" if (tenant, role) == (None, "owner") else f"{tenant or 'platform'} {role}"
                body = BODIES.get(operation)
                answer = await tenants.call(method, path_of(template, tenants), key=key, json=body)
                assert answer.status_code in (200, 201, 204, 404, 409), (operation, key, answer.text)
                assert answer.json()["detail"] != "no tenant `acme`" if answer.status_code == 404 else True
                if method in ("GET", "PATCH"):
                    assert answer.status_code == 200, (operation, key, answer.text)


async def test_a_foreign_tenant_and_one_that_does_not_exist_are_told_apart_by_nothing(tenants):
    """For a tenant's key every operation on another tenant is the 404 of one that is not there, body and headers."""
    volatile = ("x-request-id",)
    for operation, method, template, _ in await operations(tenants):
        if "{tenant}" not in template:
            continue
        path = path_of(template, tenants)
        answers = []
        for tenant in ("acme", "nobody"):
            answer = await tenants.call(
                method, path.replace("/acme", f"/{tenant}", 1), key="umbrella owner", json=BODIES.get(operation)
            )
            headers = {name: value for name, value in answer.headers.items() if name not in volatile}
            headers.pop("content-length")
            answers.append((answer.status_code, answer.text.replace(tenant, "T"), headers))
        assert answers[0] == answers[1], operation
        assert answers[0][0] == 404


async def test_a_foreign_tenant_is_refused_without_asking_the_store(tenants, monkeypatch):
    """No time can tell a foreign tenant from none: for both nothing but the key is looked up."""
    asked = []
    database = tenants.store.database

    def counted(original):
        async def counting(query, /, *item, **values):
            asked.append(query)
            return await original(query, *item, **values)

        return counting

    for way in ("read", "look_up", "look_up_together"):
        monkeypatch.setattr(database, way, counted(getattr(database, way)))
    counts = []
    for tenant in ("acme", "nobody"):
        asked.clear()
        assert (await tenants.call("GET", f"/v1/tenants/{tenant}/things", key="umbrella viewer")).status_code == 404
        counts.append(list(asked))
    assert counts[0] == counts[1]
    assert len(counts[0]) <= 1


async def test_equivalent_spellings_of_a_path_meet_the_same_wall(tenants):
    """Escapes, doubled slashes and dots in a path reach nothing that the plain path does not."""
    for path in (
        "/v1/tenants/%61cme/things",
        "/v1/tenants/umbrella%2f..%2facme/things",
        "/v1/tenants/umbrella/..%2f..%2ftenants%2facme/things",
        "/v1/tenants/acme%2fthings",
        "/v1/tenants//acme/things",
        "/v1//tenants/acme/things",
        "/v1/tenants/acme/things/",
        "/v1/tenants/umbrella%00/things",
        "/v1/tenants/umbrella%2e/things",
        "/v1/tenants/ACME/things",
        "/v1/tenants/UMBRELLA/things",
    ):
        answer = await tenants.call("GET", path, key="umbrella owner")
        assert answer.status_code == 404, (path, answer.text)


async def test_a_tenants_key_sees_only_its_own_tenant_and_keys(tenants):
    """Lists show what is its own, and no count or cursor of more."""
    assert [one["key"] for one in (await tenants.ok("GET", "/v1/tenants", key="acme viewer"))["items"]] == ["acme"]
    one = await tenants.ok("GET", "/v1/tenants?limit=1", key="acme viewer")
    assert (len(one["items"]), one["next"]) == (1, None)
    assert (await tenants.ok("GET", "/v1/tenants?q=umb", key="acme viewer"))["items"] == []
    keys = await tenants.ok("GET", "/v1/admin-keys", key="acme owner")
    assert {key["tenant"] for key in keys["items"]} == {"acme"}
    assert len(keys["items"]) == 3
    everything = await tenants.ok("GET", "/v1/admin-keys")
    foreign = [key["id"] for key in everything["items"] if key["tenant"] != "acme"]
    bodies = set()
    for id_ in (*foreign, "nobody"):
        answer = await tenants.call("DELETE", f"/v1/admin-keys/{id_}", key="acme owner")
        assert answer.status_code == 404
        bodies.add(answer.text.replace(id_, "ID"))
    assert len(bodies) == 1
    assert len((await tenants.ok("GET", "/v1/admin-keys"))["items"]) == len(everything["items"])
