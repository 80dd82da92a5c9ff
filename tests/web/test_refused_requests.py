"""Every kind of wrong request is refused with its status, code and field; nothing is changed by any."""

import pytest

from tests.web.test_problems import T, problem

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        pytest.param("GET", "/nothing", 404, "not_found", id="no path at the root"),
        pytest.param("GET", "/v1", 404, "not_found", id="no path at the mount"),
        pytest.param("GET", "/v1/nothing", 404, "not_found", id="no path"),
        pytest.param("PUT", "/v1/tenants", 405, "method_not_allowed", id="method"),
        pytest.param("POST", "/healthz", 405, "method_not_allowed", id="method at the root"),
        pytest.param("OPTIONS", "/v1/tenants", 405, "method_not_allowed", id="preflight"),
        pytest.param("GET", "/v1/tenants/nobody", 404, "not_found", id="no tenant"),
        pytest.param("GET", "/v1/tenants/nobody/things", 404, "not_found", id="no tenant, list"),
        pytest.param("GET", f"{T}/things/nothing", 404, "not_found", id="no thing"),
        pytest.param("GET", f"{T}/things/nothing/tokens", 404, "not_found", id="no thing, tokens"),
        pytest.param("GET", f"{T}/things/nothing/modules", 404, "not_found", id="no gateway"),
        pytest.param("GET", f"{T}/grounds/nothing/tokens", 404, "not_found", id="no ground"),
        pytest.param("DELETE", f"{T}/app-tokens/nothing", 404, "not_found", id="no token"),
        pytest.param("DELETE", f"{T}/sessions/nothing", 404, "not_found", id="no session"),
        pytest.param("DELETE", "/v1/admin-keys/nothing", 404, "not_found", id="no admin key"),
        pytest.param("DELETE", f"{T}/things/nothing?forget=true", 404, "not_found", id="nothing to forget"),
        pytest.param("GET", f"{T}/things?limit=0", 422, "validation_failed", id="limit 0"),
        pytest.param("GET", f"{T}/things?limit=-1", 422, "validation_failed", id="limit -1"),
        pytest.param("GET", f"{T}/things?limit=1001", 422, "validation_failed", id="limit 1001"),
        pytest.param("GET", f"{T}/things?limit=1000000000", 422, "validation_failed", id="limit 1e9"),
        pytest.param("GET", f"{T}/things?limit=x", 422, "validation_failed", id="limit x"),
        pytest.param("GET", f"{T}/things?limit=1&limit=2", 422, "repeated_parameter", id="limit twice"),
        pytest.param("GET", f"{T}/things?cursor=AAAA", 422, "cursor_invalid", id="made-up cursor"),
        pytest.param("GET", f"{T}/things?retired=true", 422, "unknown_parameter", id="parameter"),
        pytest.param("GET", f"{T}/things?access_token=x", 422, "unknown_parameter", id="token in the query"),
        pytest.param("GET", f"{T}/things?q=%00", 422, "validation_failed", id="NUL in q"),
        pytest.param("GET", f"{T}/things?state=gone", 422, "validation_failed", id="state"),
        pytest.param("GET", f"{T}/things/%00", 422, "validation_failed", id="NUL in a key"),
        pytest.param("GET", f"{T}/things/%23", 422, "validation_failed", id="# in a key"),
        pytest.param("DELETE", f"{T}/grounds/default", 409, "built_in", id="the ground default"),
        pytest.param("DELETE", f"{T}/thing-definitions/thing", 409, "built_in", id="a built-in definition"),
        pytest.param("DELETE", f"{T}/grounds/hall", 409, "in_use", id="a ground in use"),
    ],
)
async def test_each_refusal_is_a_problem_with_its_code(shared, method, path, status, code):
    """Whatever goes wrong, the answer has the one form."""
    problem(await shared.call(method, path), status, code)


@pytest.mark.parametrize(
    ("place", "body", "field", "code"),
    [
        ("things", {"key": "a", "nonsense": 1}, "nonsense", "unknown_field"),
        ("things", {}, "key", "missing"),
        ("things", {"key": 1}, "key", "string_type"),
        ("things", {"key": None}, "key", "string_type"),
        ("things", {"key": ""}, "key", "pattern"),
        ("things", {"key": "a/b"}, "key", "pattern"),
        ("things", {"key": "+"}, "key", "pattern"),
        ("things", {"key": "a\n"}, "key", "pattern"),
        ("things", {"key": ".."}, "key", "pattern"),
        ("things", {"key": "a" * 65}, "key", "string_too_long"),
        ("things", {"key": "a", "name": "a\u0000b"}, "name", "pattern"),
        ("things", {"key": "a", "name": "x" * 257}, "name", "string_too_long"),
        ("things", {"key": "a", "tags": "x"}, "tags", "list_type"),
        ("things", {"key": "a", "tags": [1]}, "tags.0", "string_type"),
        ("things", {"key": "a", "tags": ["x"] * 65}, "tags", "too_long"),
        ("things", {"key": "a", "ground": "nowhere"}, "ground", "reference_unknown"),
        ("things", {"key": "a", "thing_definition": "nothing"}, "thing_definition", "reference_unknown"),
        ("things", {"key": "a", "state": "blocked"}, "state", "unknown_field"),
        ("licenses", {"key": "a", "seats": "5"}, "seats", "int_type"),
        ("licenses", {"key": "a", "seats": True}, "seats", "int_type"),
        ("licenses", {"key": "a", "seats": 1.0}, "seats", "int_type"),
        ("licenses", {"key": "a", "seats": -1}, "seats", "greater_than_equal"),
        ("licenses", {"key": "a", "seats": 2**63}, "seats", "less_than_equal"),
        ("app-tokens", {"name": "a", "expires_at": "2030-01-01T00:00:00"}, "expires_at", "time_invalid"),
        ("app-tokens", {"name": "a", "expires_at": 1_900_000_000}, "expires_at", "time_invalid"),
        ("app-tokens", {"name": "a", "expires_at": "2001-01-01T00:00:00Z"}, "expires_at", "time_past"),
        ("app-tokens", {"name": "a", "roles": ["nothing"]}, "roles.0", "reference_unknown"),
        ("app-tokens", {"name": "a", "roles": ["a/b"]}, "roles.0", "pattern"),
        ("app-tokens", {"name": "a", "license": "nothing"}, "license", "reference_unknown"),
        ("app-tokens", {"name": "a", "max_things": -1}, "max_things", "greater_than_equal"),
        ("app-tokens", {"name": "a", "token": "asapp_x"}, "token", "unknown_field"),
        ("grounds/hall/tokens", {"name": "a", "access": "admin"}, "access", "literal_error"),
        ("grounds/hall/tokens", {"name": "a"}, "access", "missing"),
        ("roles", {"key": "a", "rules": [{"effect": "allow"}]}, "rules.0.action", "missing"),
        (
            "thing-definitions",
            {"key": "a", "modules": {"definition": "nothing"}},
            "modules.definition",
            "reference_unknown",
        ),
        ("thing-definitions", {"key": "a", "modules": {"definition": "edge", "x": 1}}, "modules.x", "unknown_field"),
        ("explain", {"thing": "gw-1", "action": "fly", "topic": "a"}, "action", "literal_error"),
        ("explain", {"thing": "gw-1", "action": "publish", "topic": "a", "qos": 3}, "qos", "less_than_equal"),
    ],
    ids=repr,
)
async def test_a_wrong_value_is_named_by_its_path_in_the_body(shared, place, body, field, code):
    """Clients can put the sentence beside the field."""
    answer = await shared.call("POST", f"{T}/{place}", json=body)
    assert answer.status_code == 422, answer.text
    assert [(one["field"], one["code"]) for one in answer.json()["errors"]][0] == (field, code)


async def test_a_wrong_key_is_told_what_a_key_may_hold(shared):
    """The way out stands in the answer."""
    answer = await shared.call("POST", f"{T}/things", json={"key": "a b"})
    assert "letters, digits, `.`, `_` and `-`" in answer.json()["detail"]
