"""The operator's commands against a real service: a whole round, what scripts read, and where secrets never appear."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from contextlib import asynccontextmanager, contextmanager

import pytest
from typer.testing import CliRunner

from authsvc.cli.root import app
from simulator.client import Client, ConnectRefused, connect
from tests.live_service import LiveService, call, clean_environment, program

SECRET = re.compile(r"as(app|dev|gnd|adm)_[0-9A-Za-z]{49}")


class Operator:
    """Runs `authsvc` with the service's address and key."""

    def __init__(self, service: LiveService, tenant: str = "default") -> None:
        self.service = service
        self.tenant = tenant

    def __call__(self, *arguments: object, status: int = 0) -> str:
        """Return stdout, or stderr of a failure. In this process: a hundred starts of Python are slow."""
        environment = {"AUTHSVC_URL": self.service.url, "AUTHSVC_TENANT": self.tenant, "COLUMNS": "200"}
        words = [*map(str, arguments), "--data", str(self.service.data)]
        run = CliRunner(env=environment).invoke(app, words)
        assert run.exit_code == status, (words, run.stdout, run.stderr)
        return run.stdout if status == 0 else run.stderr

    def json(self, *arguments: object) -> object:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def operator(service: LiveService) -> Operator:
    return Operator(service)


@asynccontextmanager
async def _connected(service: LiveService, username: str, token: str, client_id: str = "c-1"):
    client = await connect("127.0.0.1", service.port, client_id=client_id, username=username, token=token)
    try:
        yield client
    finally:
        await client.disconnect()


async def test_a_whole_round(service: LiveService) -> None:
    """Everything that an operator does, from a new tenant to its deletion, with a live gateway in between."""
    operator = Operator(service, "acme")

    async def run(*arguments: object, status: int = 0) -> str:
        return await asyncio.to_thread(operator, *arguments, status=status)

    async def data(*arguments: object) -> object:
        return await asyncio.to_thread(operator.json, *arguments)

    assert (await run("tenant", "create", "acme", "--name", "Acme Pumps", "--quiet")) == "acme\n"
    assert (await data("tenant", "show", "acme"))["name"] == "Acme Pumps"
    await run("ground", "create", "plant-1")
    await run("ground", "update", "plant-1", "--name", "Plant 1")
    assert {one["key"] for one in await data("ground", "list")} == {"default", "plant-1"}
    assert (await run("ground", "list", "--search", "PLANT", "--quiet")) == "plant-1\n"
    await run("license", "create", "line-4", "--seats", 2)
    await run("license", "update", "line-4", "--seats", 3)
    rule = "allow publish {tenant}/{ground}/{thing}/log/# qos_max=1 retain=false"
    role = await data("role", "create", "logs", "--rule", rule)
    assert role["rules"] == [
        {
            "effect": "allow",
            "action": "publish",
            "topic": "{tenant}/{ground}/{thing}/log/#",
            "qos_max": 1,
            "retain": False,
        }
    ]
    await run("definition", "create", "edge", "--kind", "gateway", "--modules", "module", "--no-auto-register-modules")
    assert (await data("definition", "show", "edge"))["modules"] == {"definition": "module", "auto_register": False}
    token = (
        await run(
            "token", "create", "line 4", "--definition", "edge", "--ground", "plant-1", "--role", "logs",
            "--license", "line-4", "--tag", "new", "--max-things", 5, "--expires", "1h", "--quiet",
        )
    ).strip()  # fmt: skip
    assert SECRET.fullmatch(token)

    async with _connected(service, "gw-1", token) as gateway:
        (session,) = await data("session", "list")
        assert (session["client_id"], session["thing"], session["ground"]) == ("c-1", "gw-1", "plant-1")
        assert (await data("license", "show", "line-4"))["used"] == 1
        await run("thing", "bind-module", "gw-1", "pump-7")
        assert (await run("thing", "modules", "gw-1", "--quiet")) == "pump-7\n"
        yes = await data("explain", "publish", "acme/plant-1/pump-7/state/x", "--client-id", "c-1")
        assert (yes["allowed"], yes["reason"]) == (True, "rule_allows")
        no = await data("explain", "publish", "acme/plant-1/gw-1/log/x", "--thing", "gw-1", "--retain")
        assert (no["allowed"], no["reason"]) == (False, "retain_denied")
        assert "rule_allows" in await run("explain", "publish", "acme/plant-1/gw-1/log/x", "--thing", "gw-1")
        assert await gateway.subscribe([("acme/#", 0)]) == [0x80]
        (refusal,) = await data("refusals", "--thing", "gw-1")
        assert (refusal["action"], refusal["topic"]) == ("subscribe", "acme/#")
        await run("thing", "update", "gw-1", "--ground", "default", "--tag", "moved")
        assert (await data("thing", "show", "gw-1"))["tags"] == ["moved"]
        assert (await data("session", "list"))[0]["ground"] == "default"
        await run("session", "kick", session["id"])
        await asyncio.wait_for(gateway.ended.wait(), 5)

    await run("thing", "update", "gw-1", "--ground", "plant-1")
    await run("thing", "unbind-module", "gw-1", "pump-7")
    await run("thing", "block", "gw-1")
    with pytest.raises(ConnectRefused):
        await connect("127.0.0.1", service.port, client_id="c-1", username="gw-1", token=token)
    await run("thing", "activate", "gw-1")
    await run("thing", "reset-client-id", "gw-1")
    (listed,) = await data("token", "list")
    assert (await data("token", "update", listed["id"], "--max-things", 9))["max_things"] == 9
    renewed = (await data("token", "regenerate", listed["id"], "--overlap", 0))["token"]
    with pytest.raises(ConnectRefused):
        await connect("127.0.0.1", service.port, client_id="c-2", username="gw-1", token=token)
    async with _connected(service, "gw-1", renewed, "c-2") as gateway:
        await run("token", "revoke", listed["id"])
        await asyncio.wait_for(gateway.ended.wait(), 5)
    assert await data("token", "list") == []
    assert [one["id"] for one in await data("token", "list", "--revoked")] == [listed["id"]]
    assert "in_use" in await run("ground", "delete", "plant-1", status=1)
    await run("thing", "delete", "gw-1")
    assert "thing_retired" not in await run("thing", "create", "gw-1", "--ground", "plant-1")
    await run("thing", "delete", "gw-1", "--forget")
    await run("role", "delete", "logs", "--cascade")
    await run("tenant", "update", "acme", "--state", "suspended")
    await run("tenant", "delete", "acme", "--cascade")
    assert "not_found" in await run("tenant", "show", "acme", status=1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("asapp_", ["--definition", "gateway"], id="app"),
        pytest.param("asdev_", ["--thing", "pump"], id="device"),
        pytest.param("asgnd_", ["--ground", "default", "--access", "read_write"], id="ground"),
    ],
)
def test_a_created_secret_stands_alone_and_is_never_shown_again(
    operator: Operator, kind: str, options: list[str]
) -> None:
    """`--quiet` prints the secret and a newline, `--json` an object with it; lists and details never hold it."""
    if "--thing" in options:
        operator("thing", "create", "pump", status=0)
    where = [word for word in options if word not in {"--access", "read_write", "--definition", "gateway"}]
    secret = operator("token", "create", "t", *options, "--quiet")
    assert secret.endswith("\n")
    assert SECRET.fullmatch(secret.strip())
    assert secret.startswith(kind)
    made = operator.json("token", "create", "t", *options)
    table = operator("token", "create", "t", *options)
    assert SECRET.fullmatch(table.splitlines()[-1])
    for arguments in (["token", "list", *where], ["token", "show", made["id"], *where], ["session", "list"]):
        for form in ([], ["--json"], ["--quiet"]):
            assert not SECRET.search(operator(*arguments, *form))
    operator("token", "revoke", made["id"], *where)
    assert made["id"] in operator("token", "list", *where, "--revoked", "--quiet").splitlines()
    assert not SECRET.search(operator("token", "list", *where, "--revoked", "--json"))


def test_an_admin_key_of_a_tenant_works_until_it_is_deleted(service: LiveService, operator: Operator) -> None:
    """A key is shown once, does what its role may, and is refused once deleted."""
    made = operator.json("admin-key", "create", "shift", "--role", "viewer", "--of", "default")
    assert SECRET.fullmatch(made["token"])
    assert not SECRET.search(operator("admin-key", "list", "--json"))
    own = {"AUTHSVC_URL": service.url, "AUTHSVC_ADMIN_TOKEN": made["token"]}
    assert CliRunner(env=own).invoke(app, ["thing", "list"]).exit_code == 0
    assert CliRunner(env=own).invoke(app, ["ground", "create", "mine"]).exit_code == 1
    operator("admin-key", "delete", made["id"])
    assert CliRunner(env=own).invoke(app, ["thing", "list"]).exit_code == 1


def test_a_shell_variable_takes_the_secret(service: LiveService, operator: Operator) -> None:
    """`TOKEN=$(authsvc token create … --quiet)` is what the documents say."""
    command = " ".join(
        f"'{word}'" for word in program("authsvc", "token", "create", "shell", "--data", service.data, "--quiet")
    )
    run = subprocess.run(
        ["sh", "-ec", f'TOKEN=$({command}); test "${{#TOKEN}}" -eq 55; printf %s "$TOKEN"'],
        capture_output=True,
        text=True,
        check=True,
        env=clean_environment(AUTHSVC_URL=service.url),
    )
    assert SECRET.fullmatch(run.stdout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["ground", "show", "nowhere"], "error: not_found: no ground `nowhere`", id="not found"),
        pytest.param(["ground", "create", "default"], "error: already_exists: ", id="conflict"),
        pytest.param(["ground", "create", "a b"], "field `key`", id="field"),
        pytest.param(["thing", "create", "t", "--ground", "nowhere"], "field `ground`", id="reference"),
        pytest.param(["role", "create", "r", "--rule", "allow publish #"], "rule_outside_tenant", id="wall"),
        pytest.param(
            ["role", "create", "r", "--rule", "permit publish {tenant}/x"], "rules.0.effect", id="nested field"
        ),
    ],
)
def test_a_problem_is_one_line(operator: Operator, arguments: list[str], said: str) -> None:
    """Code, detail and field of a problem answer, on one line of stderr, with status 1."""
    told = operator(*arguments, status=1)
    assert said in told
    assert told.count("\n") == 1


def test_a_wrong_admin_key_is_not_shown(service: LiveService) -> None:
    """The service says no; the key stays off the terminal."""
    key = "asadm_" + "0" * 49
    run = call("authsvc", "tenant", "list", AUTHSVC_URL=service.url, AUTHSVC_ADMIN_TOKEN=key)
    assert run.returncode == 1
    assert key not in run.stdout + run.stderr
    assert run.stderr.startswith("error: ")


def test_lists_longer_than_a_page_are_whole(operator: Operator, service: LiveService, monkeypatch) -> None:
    """The client follows the cursor until there is no more, and stops at --limit."""
    from authsvc.cli import client

    monkeypatch.setattr(client, "_PAGE", 2)
    with client.Api(service.url, service.key) as api:
        for number in range(5):
            api.call("POST", "/v1/tenants/default/grounds", body={"key": f"page-{number}"})
        keys = [one["key"] for one in api.items("/v1/tenants/default/grounds", q="page-")]
        some = [one["key"] for one in api.items("/v1/tenants/default/grounds", q="page-", limit=3)]
    assert keys == [f"page-{number}" for number in range(5)]
    assert some == keys[:3]


@contextmanager
def _following(service: LiveService):
    arguments = program("authsvc", "refusals", "--follow", "--json", "--data", service.data)
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, text=True, env=clean_environment(AUTHSVC_URL=service.url)
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def _denied_publish(service: LiveService, token: str) -> Client:
    client = await connect("127.0.0.1", service.port, client_id="follower", username="followed", token=token)
    acknowledged = asyncio.Event()
    client.publish("default/elsewhere/x", b"", on_ack=acknowledged.set)
    await asyncio.wait_for(acknowledged.wait(), 5)
    return client


async def test_a_wrong_token_is_found_among_those_of_no_tenant(service: LiveService, operator: Operator) -> None:
    """A tenant's list points at the list of unknown tokens, which a key of that tenant is not given."""
    with pytest.raises(ConnectRefused):
        await connect("127.0.0.1", service.port, client_id="lost", username="x", token="asapp_" + "x" * 49)
    assert "lost" not in operator("refusals", "--json")
    (row,) = json.loads(operator("refusals", "--unknown", "--client-id", "lost", "--json"))
    assert row["reason"] == "malformed_credential"
    environment = {"AUTHSVC_URL": service.url, "COLUMNS": "200"}
    words = ["refusals", "--client-id", "lost", "--data", str(service.data)]
    assert CliRunner(env=environment).invoke(app, words).stderr.endswith("authsvc refusals --unknown\n")
    key = operator("admin-key", "create", "bound", "--role", "viewer", "--of", "default", "--quiet").strip()
    bound = CliRunner(env={**environment, "AUTHSVC_ADMIN_TOKEN": key})
    assert bound.invoke(app, ["refusals", "--client-id", "lost"]).stderr == "nothing was refused\n"
    assert bound.invoke(app, ["refusals", "--unknown"]).exit_code == 1


async def test_refusals_are_followed_until_interrupted(service: LiveService, operator: Operator) -> None:
    """`--follow` prints a refusal soon after it happened, one JSON object a line, and Ctrl-C is exit status 0."""
    await asyncio.to_thread(operator, "thing", "create", "followed")
    token = (await asyncio.to_thread(operator, "token", "create", "f", "--thing", "followed", "--quiet")).strip()
    with _following(service) as process:
        await (await _denied_publish(service, token)).disconnect()
        while True:
            line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 15)
            refusal = json.loads(line)
            if refusal["client_id"] == "follower":
                break
        assert (refusal["action"], refusal["reason"]) == ("publish", "no_rule_matches")
        process.send_signal(2)
        assert await asyncio.to_thread(process.wait, 10) == 0
