"""What every comparison needs of a running authsvc: a fleet's app token, a reader, and things that are known."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.bench import load
from tests.bench.servers import Service

T = "/v1/tenants/default"
# 20 rules, as the decision benchmark has them: what a busy definition looks like
_KINDS = ("state", "event", "alarm", "log", "config", "firmware", "health", "position", "shadow", "trace")
RULES = [
    {"effect": "allow", "action": action, "topic": f"{{tenant}}/{{ground}}/{{thing}}/{kind}/#"}
    for kind in _KINDS
    for action in ("publish", "subscribe")
]


@dataclass(frozen=True, slots=True)
class Fleet:
    service: Service
    app_token: str = field(repr=False)
    ground_token: str = field(repr=False)

    def login(self, number: int) -> load.Login:
        key = f"bench-{number:06d}"
        return load.Login(client_id=key, username=key, password=self.app_token.encode())

    def reader(self) -> load.Login:
        return load.Login(client_id="bench-reader", username="reader", password=self.ground_token.encode())

    def register(self, count: int) -> list[load.Login]:
        """Let `count` things connect for the first time; return their logins."""
        logins = [self.login(number) for number in range(count)]
        load.connect_rate(self.service.mqtt, logins, at_once=16)
        return logins


def prepare(service: Service) -> Fleet:
    """Create the definition with 20 rules, an app token that registers by it, and a ground token that reads."""
    service.call("POST", f"{T}/thing-definitions", {"key": "bench", "rules": RULES})
    app = service.call("POST", f"{T}/app-tokens", {"name": "bench", "thing_definition": "bench"})
    ground = service.call("POST", f"{T}/grounds/default/tokens", {"name": "reader", "access": "read"})
    return Fleet(service, app["token"], ground["token"])
