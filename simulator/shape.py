"""The plan of a run: who there is and what is sent when, worked out before anything is sent.

Everything comes from the scenario and one seeded generator, so the same seed gives the same ids, payloads and times.
Times are seconds from the start of the load.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from simulator.scenarios import Scenario

_ATTACKS_BEGIN, _ATTACKS_END = 0.2, 0.6  # of the duration: while reports flow, and before the commands
_COMMANDS_BEGIN, _COMMANDS_END = 0.65, 0.95  # after the attacks: a command that arrives shows that its gateway lives


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPlan:
    key: str
    client_id: str
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One PUBLISH: `id` is in its payload, `via` is the actor that sends it, `place` the thing it is about or for."""

    id: str
    at_s: float
    via: str
    place: str
    suffix: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run before it begins."""

    seed: int
    gateways: tuple[GatewayPlan, ...]
    reports: tuple[Message, ...]  # of gateways and their modules, by time
    commands: tuple[Message, ...]  # `via` is the gateway or device that must receive it
    device: str
    device_reports: tuple[Message, ...]
    lost: tuple[str, ...]  # gateways whose connection breaks at the end
    attacks_at_s: tuple[float, ...]  # one per attacker of the scenario

    @property
    def things(self) -> frozenset[str]:
        """Every thing that must exist in the ground after the run."""
        modules = (module for gateway in self.gateways for module in gateway.modules)
        return frozenset((*(gateway.key for gateway in self.gateways), *modules, self.device))


def plan(scenario: Scenario, seed: int) -> Plan:
    """Return the plan of a scenario for a seed."""
    rng = random.Random(seed)
    fleet = scenario.fleet
    gateways = tuple(_gateway(scenario, number) for number in range(1, fleet.gateways + 1))
    device = f"{scenario.name}-device"
    reports = [
        _report(
            rng,
            via=gateway.key,
            place=place,
            number=number,
            at_s=(number + phase) * fleet.interval_s,
            size=fleet.payload_bytes,
        )
        for gateway in gateways
        for place in (gateway.key, *gateway.modules)
        for phase in (rng.random(),)
        for number in range(max(1, int(scenario.duration_s / fleet.interval_s)))
    ]
    span = scenario.duration_s / scenario.device.reports
    device_reports = tuple(
        _report(
            rng,
            via=device,
            place=device,
            number=number,
            at_s=(number + rng.random()) * span,
            size=fleet.payload_bytes,
        )
        for number in range(scenario.device.reports)
    )
    targets = [(gateway.key, place) for gateway in gateways for place in (gateway.key, *gateway.modules)]
    commands = [
        _command(rng, via, place, number, scenario.duration_s)
        for via, place in [*targets, (device, device)]
        for number in range(scenario.application.commands)
    ]
    steps = len(scenario.attackers) or 1
    width = (_ATTACKS_END - _ATTACKS_BEGIN) / steps
    return Plan(
        seed=seed,
        gateways=gateways,
        reports=tuple(sorted(reports, key=lambda message: (message.at_s, message.id))),
        commands=tuple(sorted(commands, key=lambda message: (message.at_s, message.id))),
        device=device,
        device_reports=device_reports,
        lost=tuple(gateway.key for gateway in gateways[len(gateways) - min(fleet.lost, len(gateways)) :]),
        attacks_at_s=tuple(
            scenario.duration_s * (_ATTACKS_BEGIN + width * step) for step in range(len(scenario.attackers))
        ),
    )


def by_actor(messages: Iterable[Message]) -> defaultdict[str, list[Message]]:
    """Return the messages grouped by `via`, each group in their order."""
    grouped: defaultdict[str, list[Message]] = defaultdict(list)
    for message in messages:
        grouped[message.via].append(message)
    return grouped


def _gateway(scenario: Scenario, number: int) -> GatewayPlan:
    key = f"{scenario.name}-gw-{number:03}"
    modules = tuple(f"{key}-m{module}" for module in range(1, scenario.fleet.modules + 1))
    # The client id does not depend on the seed: the service binds it, and another seed is still the same gateway.
    return GatewayPlan(key=key, client_id=f"sim.{key}", modules=modules)


def _report(rng: random.Random, *, via: str, place: str, number: int, at_s: float, size: int) -> Message:
    identity = f"report/{place}/{number}"
    body = {"id": identity, "value": round(rng.uniform(15.0, 30.0), 2), "pad": ""}
    body["pad"] = "." * max(0, size - len(json.dumps(body)))
    return Message(
        id=identity, at_s=at_s, via=via, place=place, suffix="state/temperature", payload=json.dumps(body).encode()
    )


def _command(rng: random.Random, via: str, place: str, number: int, duration_s: float) -> Message:
    identity = f"command/{place}/{number}"
    at_s = duration_s * rng.uniform(_COMMANDS_BEGIN, _COMMANDS_END)
    payload = json.dumps({"id": identity, "setpoint": round(rng.uniform(18.0, 24.0), 1)}).encode()
    return Message(id=identity, at_s=at_s, via=via, place=place, suffix="command/setpoint", payload=payload)
