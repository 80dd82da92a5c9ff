"""What a run needs, made through the public HTTP API under the scenario's own name; a second run finds it there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from authsvc.cli.client import body_of, part
from authsvc.cli.problems import CommandFailed, Refused
from simulator.scenarios import Scenario
from simulator.shape import Plan

Say = Callable[[str], None]
_AT_ONCE = 8  # API calls under way at a time: the point is the fleet, not a flood of the API


class Api:
    """The HTTP API of a running service, for one tenant. Raises CommandFailed, with `Refused` for a problem answer."""

    def __init__(self, url: str, key: str, tenant: str) -> None:
        self.url = url.rstrip("/")
        self.base = f"/v1/tenants/{part(tenant)}"
        self._http = httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=30.0, trust_env=False
        )
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None,
        fine: Collection[int] = (),
    ) -> Any:
        """Return the answer to a call below the tenant; None for 204 and for a problem whose status is in `fine`."""
        try:
            async with self._turn:
                answer = await self._http.request(method, self.base + path, json=body, params=query)
        except httpx.ConnectError:
            raise CommandFailed(f"no service answers at {self.url} : start one with authsvc up") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CommandFailed(f"the connection to {self.url} failed ({type(error).__name__})") from None
        return None if answer.status_code in fine else body_of(answer)

    async def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Return all items of a list."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.call("GET", path, query={**query, **cursor, "limit": "1000"})
            found += page["items"]
            if page.get("next") is None:
                return found
            cursor = {"cursor": page["next"]}


@dataclass(slots=True, kw_only=True)
class Provisioned:
    """The secrets of one run, and where to revoke them."""

    app: str = field(default="", repr=False)
    application: str = field(default="", repr=False)
    witness: str = field(default="", repr=False)
    other_witness: str = field(default="", repr=False)
    device: str = field(default="", repr=False)
    intruder: str = field(default="", repr=False)
    revocations: list[str] = field(default_factory=list)  # paths


def intruder_key(scenario: Scenario) -> str:
    return f"{scenario.name}-intruder"


async def provision(api: Api, scenario: Scenario, plan: Plan, say: Say, made: Provisioned) -> None:
    """Fill `made` with what the run needs; what was made is in it even when this fails midway.

    Raises CommandFailed.
    """
    for ground in (scenario.ground, scenario.other_ground):
        answer = await api.call("POST", "/grounds", body={"key": ground, "name": scenario.title or ground}, fine=(409,))
        say(f"ground {ground}: {'created' if answer else 'there already'}")
    await _definition(api, scenario, say)
    await asyncio.gather(*(_forget_retired(api, gateway.key) for gateway in plan.gateways))
    await _thing(api, plan.device, scenario.ground)
    await _thing(api, intruder_key(scenario), scenario.other_ground)

    async def token(path: str, body: Mapping[str, object], what: str) -> str:
        answer = await api.call("POST", path, body={"name": f"simulator {scenario.name}", **body})
        made.revocations.append(f"{path}/{answer['id']}")
        say(what)
        return str(answer["token"])

    fleet = {"thing_definition": scenario.definition, "ground": scenario.ground, "tags": ["simulated"]}
    ground, other = f"/grounds/{scenario.ground}/tokens", f"/grounds/{scenario.other_ground}/tokens"
    made.app = await token("/app-tokens", fleet, f"app token for {len(plan.gateways)} gateways")
    made.application = await token(ground, {"access": "read_write"}, "ground token of the application")
    made.witness = await token(ground, {"access": "read"}, f"ground token of the witness in {scenario.ground}")
    made.other_witness = await token(
        other, {"access": "read"}, f"ground token of the witness in {scenario.other_ground}"
    )
    made.device = await token(f"/things/{plan.device}/tokens", {}, f"device token of {plan.device}")
    made.intruder = await token(f"/things/{intruder_key(scenario)}/tokens", {}, "device token of the intruder")


async def clean_up(api: Api, made: Provisioned) -> list[str]:
    """Revoke the run's tokens and return what could not be revoked; things, grounds and definition stay."""
    outcomes = await asyncio.gather(
        *(api.call("DELETE", path, fine=(404,)) for path in made.revocations), return_exceptions=True
    )
    made.revocations.clear()
    return [f"a token stays valid: {outcome}" for outcome in outcomes if isinstance(outcome, CommandFailed)]


async def _definition(api: Api, scenario: Scenario, say: Say) -> None:
    """Create the gateways' definition, or give the one from an earlier run the rules that the scenario asks for."""
    if scenario.fleet.rules is None:
        rules = (await api.call("GET", "/thing-definitions/gateway"))["rules"]
    else:
        rules = [rule.model_dump(mode="json") for rule in scenario.fleet.rules]
    body = {"rules": rules, "modules": {"definition": "module", "auto_register": False}}
    try:
        await api.call("POST", "/thing-definitions", body={"key": scenario.definition, "kind": "gateway", **body})
        say(f"thing definition {scenario.definition}: created")
    except Refused as problem:
        if problem.status != httpx.codes.CONFLICT:
            raise
        await api.call("PATCH", f"/thing-definitions/{scenario.definition}", body=body)
        say(f"thing definition {scenario.definition}: there already, rules set")


async def _thing(api: Api, key: str, ground: str) -> None:
    if await api.call("POST", "/things", body={"key": key, "ground": ground}, fine=(409,)) is None:
        await api.call("PATCH", f"/things/{key}", body={"ground": ground, "state": "active"})


async def _forget_retired(api: Api, key: str) -> None:
    """Let a key register again that somebody deleted after an earlier run."""
    if await api.call("GET", f"/things/{key}", fine=(404,)) is None:
        await api.call("DELETE", f"/things/{key}", query={"forget": "true"}, fine=(404,))
