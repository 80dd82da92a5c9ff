"""Errors are problem documents with a stable code, say where, and give nothing away."""

import asyncio
import json
import sqlite3

import pytest

from authsvc.core.errors import StoreReadOnly, StoreUnavailable

T = "/v1/tenants/acme"
MEMBERS = {"type", "title", "status", "code", "detail", "errors", "counts", "reasons", "request_id"}


def problem(answer, status, code):
    """Check that the answer is the problem and return its document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code), body
    assert set(body) <= MEMBERS
    assert body["detail"]
    return body


OUTSIDE = ["umbrella/#", "#", "+/x", "/acme/x", "$SYS/#", "{ground}/x", "$share/g/umbrella/x"]


@pytest.mark.parametrize("topic", OUTSIDE)
@pytest.mark.parametrize("place", ["roles", "thing-definitions"])
async def test_a_rule_outside_the_tenant_is_refused_where_it_is_written(tenants, place, topic):
    """The wall is checked at creation and at PATCH, with the place of the rule in the body."""
    inside = {"effect": "allow", "action": "subscribe", "topic": "{tenant}/x/#"}
    rules = [inside, inside | {"topic": topic}]
    for method, path, body in (
        ("POST", f"{T}/{place}", {"key": "r", "rules": rules}),
        ("PATCH", f"{T}/{place}/{'monitor' if place == 'roles' else 'edge'}", {"rules": rules}),
    ):
        answer = await tenants.call(method, path, json=body)
        found = problem(answer, 422, "rule_outside_tenant")
        assert found["errors"][0]["field"] == "rules.1.topic"
    made = await tenants.ok("POST", "/v1/roles", json={"key": "above", "rules": [inside | {"topic": "umbrella/#"}]})
    assert made["rules"][0]["topic"] == "umbrella/#"


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"effect": "deny", "action": "subscribe", "topic": "{tenant}/x", "qos_max": 1}, "qos_max_on_deny"),
        ({"effect": "allow", "action": "subscribe", "topic": "{tenant}/x", "retain": True}, "retain_on_subscribe"),
    ],
    ids=["qos_max on a deny", "retain on a subscribe"],
)
async def test_a_rule_that_says_nothing_is_refused(tenants, rule, code):
    """Conditions that could never apply are errors, with their field."""
    found = problem(await tenants.call("POST", f"{T}/roles", json={"key": "r", "rules": [rule]}), 422, code)
    assert found["errors"][0]["field"].startswith("rules.0.")


async def test_what_was_sent_is_not_sent_back(tenants):
    """A secret in a wrong body, also as a field's name or in a broken text, is not in the answer."""
    secret = tenants.keys["acme device token"]
    bodies = [
        {"key": secret + "/"},
        {"key": "a", "name": [secret]},
        {"key": "a", "name": {"x": secret}},
        {"key": "a", "password": secret},
        {"key": "a", secret: 1},
        {"key": "a", secret + "x" * 50: 1},
        {"key": "a", "tags": [{"a": secret}]},
        secret,
        [secret],
    ]
    for body in bodies:
        answer = await tenants.call("POST", f"{T}/things", json=body)
        assert answer.status_code == 422
        assert secret[6:] not in answer.text or secret in body, (body, answer.text)
    broken = f'{{"key": "{secret}'.encode()
    answer = await tenants.call("POST", f"{T}/things", content=broken, headers={"Content-Type": "application/json"})
    problem(answer, 422, "malformed_json")
    assert secret not in answer.text


async def test_a_body_is_bounded_and_must_be_json(tenants):
    """Declared or chunked, too much is 413 before it is kept; another media type is 415."""

    async def chunks():
        for _ in range(10_000):
            yield b"[" * 4096

    too_much = b'{"key":"' + b"a" * (256 * 1024) + b'"}'
    json_type = {"Content-Type": "application/json"}
    for content in (too_much, chunks()):
        answer = await tenants.call("POST", f"{T}/things", content=content, headers=json_type)
        problem(answer, 413, "body_too_large")
    just_fits = b'{"key":"big"' + b" " * (256 * 1024 - 13) + b"}"
    assert len(just_fits) == 256 * 1024
    assert (await tenants.call("POST", f"{T}/things", content=just_fits, headers=json_type)).status_code == 201
    for media_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "json",
    ):
        answer = await tenants.call("POST", f"{T}/things", content=b'{"key":"a"}', headers={"Content-Type": media_type})
        problem(answer, 415, "unsupported_media_type")
    merge = {"Content-Type": "application/merge-patch+json; charset=utf-8"}
    answer = await tenants.call("PATCH", f"{T}/things/gw-1", content=b'{"name":"n"}', headers=merge)
    assert answer.json()["name"] == "n"


async def test_a_body_that_never_comes_is_given_up(tenants, monkeypatch):
    """A slow sender gets 408 and does not hold the request for ever."""
    monkeypatch.setattr("authsvc.web.routes.BODY_TIMEOUT_S", 0.05)

    async def never():
        yield b"{"
        await asyncio.Event().wait()

    headers = {"Content-Type": "application/json"}
    answer = await tenants.call("POST", f"{T}/things", content=never(), headers=headers)
    problem(answer, 408, "body_timeout")


async def test_an_accident_is_a_500_with_a_request_id_and_nothing_else(tenants, monkeypatch, capsys):
    """Neither answer nor log repeats the words of the exception, which may hold anything."""
    secret = "SELECT digest FROM secrets; /var/lib/authsvc/x.db asapp_verysecret"

    async def broken(*_args, **_more):
        raise sqlite3.OperationalError(secret)

    monkeypatch.setattr(tenants.store.things, "get", broken)
    answer = await tenants.call("GET", f"{T}/things/gw-1")
    found = problem(answer, 500, "internal_error")
    assert found["request_id"] == answer.headers["x-request-id"]
    for word in ("SELECT", "sqlite", "Operational", "/var", "asapp", "Traceback", ".py"):
        assert word not in answer.text
    logged = "".join(capsys.readouterr())
    assert found["request_id"] in logged
    assert "OperationalError" in logged
    assert "verysecret" not in logged


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreUnavailable("/var/lib/authsvc.db gone"), "store_unavailable"),
        (StoreReadOnly("disk full"), "store_read_only"),
    ],
    ids=["unreadable", "read-only"],
)
async def test_a_store_in_trouble_is_a_503_that_says_when_to_come_back(tenants, monkeypatch, error, code):
    """The operator's words stay inside; the answer has Retry-After."""

    async def broken(*_args, **_more):
        raise error

    monkeypatch.setattr(tenants.store.things, "create", broken)
    answer = await tenants.call("POST", f"{T}/things", json={"key": "a"})
    problem(answer, 503, code)
    assert answer.headers["retry-after"] == "1"
    assert "/var" not in answer.text and "disk" not in answer.text
    monkeypatch.setattr(tenants.store, "admin_key_by_digest", broken)
    answer = await tenants.call("GET", f"{T}/things")
    problem(answer, 503, code)


async def test_no_answer_invites_another_origin(tenants):
    """There are no CORS headers, whoever asks, so that a browser keeps other pages out."""
    for origin in ("https://evil.example", "null"):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        for method, path in (("OPTIONS", "/v1/tenants"), ("GET", "/v1/tenants"), ("GET", "/healthz")):
            answer = await tenants.call(method, path, headers=headers)
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_no_answer_under_v1_may_be_stored(tenants):
    """Secrets stand in creation answers: all of /v1 is no-store, errors included."""
    for method, path, body in (
        ("POST", f"{T}/app-tokens", {"name": "n"}),
        ("GET", f"{T}/app-tokens", None),
        ("GET", f"{T}/nothing", None),
    ):
        answer = await tenants.call(method, path, json=body)
        assert answer.headers["cache-control"] == "no-store"
    assert (await tenants.client.get("/v1/tenants")).headers["cache-control"] == "no-store"
    assert json.loads((await tenants.client.get("/openapi.json")).content)["openapi"].startswith("3.1")
