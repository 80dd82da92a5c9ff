"""What a case finds when it begins, made over the API: its tenant, and of the cast whoever it mentions."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from datetime import UTC, datetime
from typing import Any

import httpx

from tests.conformance.driver import Service
from tests.conformance.steps import END_RULE, Case, Rules, Token, allow

GROUNDS = {"A": "g1", "B": "g1", "C": "g2", "S": "g1", "Z": "g1"}
GROUND_TOKENS = {"GR": "read", "GW": "write"}
EVERYTHING: Rules = (allow("publish", "{tenant}/#"), allow("subscribe", "{tenant}/#"))


@dataclasses.dataclass
class Made:
    """A token: its secret, where it can be deleted, and the user name that goes with it."""

    secret: str = dataclasses.field(repr=False)
    path: str
    username: str


class World:
    """One case's tenant. `tokens` are by the names of the case."""

    def __init__(self, api: httpx.AsyncClient, tenant: str, case: Case) -> None:
        self.api = api
        self.tenant = tenant
        self.case = case
        self.tokens: dict[str, Made] = {}

    def topic(self, topic: str) -> str:
        """Return the topic or filter with the tenants' keys in it."""
        keys = {"T": self.tenant, "U": f"{self.tenant}u"}
        return "/".join(keys.get(level, level) for level in topic.split("/"))

    def at(self, path: str, *, foreign: bool = False) -> str:
        return f"/v1/tenants/{self.tenant}{'u' if foreign else ''}{path}"

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = await self.api.request(method, path, json=body)
        assert answer.status_code in (200, 201, 204), f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def make(self, names: set[str]) -> None:
        """Create the tenant and whoever of the cast is named."""
        rules = [*self.case.rules, END_RULE]
        definition: dict[str, Any] = {"key": "dev", "rules": rules, "bind_client_id": self.case.bind}
        if self.case.modules:
            definition["kind"] = "gateway"
        spy = {"key": "spy", "rules": EVERYTHING, "bind_client_id": "never"}
        for foreign in (False, True) if "Z" in names else (False,):
            await self.call("POST", "/v1/tenants", {"key": f"{self.tenant}{'u' if foreign else ''}"})
            for key in ("g1",) if foreign else ("g1", "g2"):
                await self.call("POST", self.at("/grounds", foreign=foreign), {"key": key})
            if foreign or "S" in names:
                await self.call("POST", self.at("/thing-definitions", foreign=foreign), spy)
        await self.call("POST", self.at("/thing-definitions"), definition)
        for name in sorted(names):
            if name in GROUNDS:
                await self._thing(name)
            elif name in GROUND_TOKENS:
                await self.token(Token(name, "ground", "g1", fields={"access": GROUND_TOKENS[name]}))

    async def _thing(self, name: str) -> None:
        foreign = name == "Z"
        kind = "spy" if name in ("S", "Z") else "dev"
        body = {"key": name, "thing_definition": kind, "ground": GROUNDS[name]}
        await self.call("POST", self.at("/things", foreign=foreign), body)
        await self.token(Token(name, "device", name), foreign=foreign)

    async def token(self, token: Token, *, foreign: bool = False) -> None:
        """Create a token and remember it by its name."""
        place = {"app": "/app-tokens", "device": f"/things/{token.of}/tokens", "ground": f"/grounds/{token.of}/tokens"}
        path = self.at(place[token.kind], foreign=foreign)
        body = {"name": token.name.replace(" ", "-"), **token.fields}
        if token.kind == "app":
            body = {"thing_definition": "dev", "ground": "g1", **body}
        if token.expires_s is not None:
            # In the middle of a second: brokers that count whole ones end it before, and never just then.
            at_s = math.floor(time.time() + token.expires_s) + 0.5
            body["expires_at"] = datetime.fromtimestamp(at_s, UTC).isoformat()
        made = await self.call("POST", path, body)
        username = token.of if token.kind == "device" else token.name
        self.tokens[token.name] = Made(made["token"], f"{path}/{made['id']}", username)

    async def regenerate(self, name: str, overlap_s: int) -> None:
        """Give an app token a new secret; the old one stays known as `old NAME`."""
        old = self.tokens[name]
        made = await self.call("POST", f"{old.path}/regenerate", {"overlap_s": overlap_s})
        self.tokens[f"old {name}"] = old
        self.tokens[name] = dataclasses.replace(old, secret=made["token"])

    async def sessions(self, thing: str) -> list[str]:
        """Return the ids of the live sessions of a thing."""
        items = (await self.call("GET", self.at("/sessions?limit=1000")))["items"]
        return [item["id"] for item in items if item["thing"] == thing]

    async def clients(self) -> set[str]:
        """Return the client ids of the live sessions of both tenants."""
        items = (await self.call("GET", self.at("/sessions?limit=1000")))["items"]
        return {item["client_id"] for item in items}


_numbers = itertools.count(1)


def new_tenant() -> str:
    """Return a key that no case of this process has used; short, since it is part of client ids."""
    return f"c{next(_numbers)}"


def api_of(service: Service) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=32, max_keepalive_connections=32, keepalive_expiry=2)
    headers = {"Authorization": f"Bearer {service.key}"}
    return httpx.AsyncClient(base_url=service.url, headers=headers, trust_env=False, timeout=20, limits=limits)
