"""What must be observed. Pure: plan and ledger in, expectations out, each beside what was seen.

Every *nothing arrived* has its counterpart that does arrive the same way: a witness that hears nothing at all, or an
attack that was never carried out, must not look like a success.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from simulator import attackers
from simulator.gateways import WILL_SUFFIX, will_id
from simulator.ledger import Ledger
from simulator.places import Place
from simulator.scenarios import AttackKind, Scenario
from simulator.shape import Message, Plan, by_actor

APPLICATION, WITNESS, OTHER_WITNESS = "application", "witness", "other-witness"
FORBIDDEN_REPORT = "attack/device/foreign"  # what the device publishes in a gateway's place

_SHOWN = 5  # offenders named in a detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """One line of the verdict; `detail` names what differs."""

    subject: str
    claim: str
    expected: str
    observed: str
    ok: bool
    detail: str = ""


def judge(scenario: Scenario, plan: Plan, ledger: Ledger, place: Place) -> list[Expectation]:
    """Return every expectation of the scenario with its observation."""
    found = [*_fleet(plan, ledger), *_reports(plan, ledger, place), *_commands(plan, ledger), *_device(plan, ledger)]
    for attacker in scenario.attackers:
        match attacker.kind:
            case AttackKind.WRONG_TOKEN:
                found += _wrong_token(attacker.attempts, plan, ledger)
            case AttackKind.WILDCARD_GRAB:
                found += _wildcard_grab(len(attacker.filters), ledger)
            case AttackKind.FORBIDDEN_WILL:
                found += _forbidden_will(attacker.attempts, ledger)
    return [*found, *_endings(plan, ledger)]


def _fleet(plan: Plan, ledger: Ledger) -> list[Expectation]:
    keys = [gateway.key for gateway in plan.gateways]
    admitted = [key for key in keys if ledger.connack.get(key) == 0]
    refused = [f"{key}: CONNACK {ledger.connack.get(key, 'none')}" for key in keys if key not in admitted]
    live = [key for key in keys if key in ledger.sessions]
    missing = plan.things - ledger.things
    return [
        _count("gateways", "connect with one shared app token", len(keys), len(admitted), refused),
        _count("gateways", "have a live session at the service", len(keys), len(live), set(keys) - set(live)),
        _count("things", "registered, with the modules", len(plan.things), len(plan.things) - len(missing), missing),
    ]


def _reports(plan: Plan, ledger: Ledger, place: Place) -> list[Expectation]:
    planned = [message.id for message in (*plan.reports, *plan.device_reports)]
    unacknowledged = [identity for identity in planned if identity not in ledger.acknowledged]
    found = [
        _count("reports", "acknowledged at QoS 1", len(planned), len(planned) - len(unacknowledged), unacknowledged)
    ]
    found += [_received(reader, "receives every report", planned, ledger) for reader in (WITNESS, APPLICATION)]
    topics = {
        message.id: place.topic(message.place, message.suffix) for message in (*plan.reports, *plan.device_reports)
    }
    strange = [
        receipt.topic
        for receipt in ledger.received.get(WITNESS, ())
        if receipt.id in topics and receipt.topic != topics[receipt.id]
    ]
    return [*found, _count("witness", "receives a report on another topic than its own", 0, len(strange), strange)]


def _commands(plan: Plan, ledger: Ledger) -> list[Expectation]:
    commands = by_actor(plan.commands)
    actors = (*(gateway.key for gateway in plan.gateways), plan.device)
    mine = {actor: {command.id for command in commands[actor]} for actor in actors}
    wanted = sum(map(len, mine.values()))
    missing = [identity for key, ids in mine.items() for identity in ids - set(ledger.ids(key))]
    foreign = [
        f"{key} got {identity}" for key, ids in mine.items() for identity in ledger.ids(key) if identity not in ids
    ]
    return [
        _count("commands", "reach the gateway they are for", wanted, wanted - len(missing), missing),
        _count("commands", "or anything else reach a gateway they are not for", 0, len(foreign), foreign),
    ]


def _device(plan: Plan, ledger: Ledger) -> list[Expectation]:
    leaked = ledger.ids(WITNESS).count(FORBIDDEN_REPORT)
    attempted = int(FORBIDDEN_REPORT in ledger.sent)
    return [
        _same(
            "device",
            "connects with its device token",
            "CONNACK 0",
            f"CONNACK {ledger.connack.get(plan.device, 'none')}",
        ),
        _count("device", "publishes in a gateway's place", 1, attempted),
        _count("witness", "receives what the device published there", 0, leaked),
    ]


def _wrong_token(attempts: int, plan: Plan, ledger: Ledger) -> list[Expectation]:
    victim = plan.gateways[0]
    codes = ledger.attempts.get(AttackKind.WRONG_TOKEN, [])
    commands = [command.id for command in plan.commands if command.via == victim.key]
    ended = [ledger.ended[victim.key]] if victim.key in ledger.ended else []
    return [
        _same("wrong token", f"{attempts} times with a known client id", f"CONNACK 4 x {attempts}", _codes(codes)),
        _count("wrong token", "ends the connection of the real gateway", 0, len(ended), ended),
        _received(victim.key, "receives its commands after that", commands, ledger),
    ]


def _wildcard_grab(filters: int, ledger: Ledger) -> list[Expectation]:
    actor = AttackKind.WILDCARD_GRAB
    answers = ledger.granted.get(actor, [])
    granted = [filter_ for filter_, code in answers if code != 0x80]
    received = ledger.received.get(actor, [])
    return [
        _same(
            "wildcard grab",
            "connects, with a valid token of another ground",
            "CONNACK 0 x 1",
            _codes(ledger.attempts.get(actor, [])),
        ),
        _count("wildcard grab", "filters refused with 0x80", filters, len(answers) - len(granted), granted),
        _count("wildcard grab", "messages received", 0, len(received), [receipt.topic for receipt in received]),
        _count(
            "witness", "receives what it published into this ground", 0, ledger.ids(WITNESS).count(attackers.FOREIGN)
        ),
        _count(
            "other witness", "receives what it published in its own", 1, ledger.ids(OTHER_WITNESS).count(attackers.OWN)
        ),
    ]


def _forbidden_will(attempts: int, ledger: Ledger) -> list[Expectation]:
    codes = ledger.attempts.get(AttackKind.FORBIDDEN_WILL, [])
    return [
        _same("forbidden will", f"{attempts} times on a gateway's topic", f"CONNACK 5 x {attempts}", _codes(codes)),
        _count("witness", "receives the forbidden will", 0, ledger.ids(WITNESS).count(attackers.WILL)),
    ]


def _endings(plan: Plan, ledger: Ledger) -> list[Expectation]:
    allowed = set(plan.lost)
    wills = [receipt.topic for receipt in ledger.received.get(WITNESS, ()) if receipt.topic.endswith(f"/{WILL_SUFFIX}")]
    unexpected = [
        identity for identity in ledger.ids(WITNESS) if identity.startswith("will/") and identity[5:] not in allowed
    ]
    crossed = [receipt.topic for receipt in ledger.received.get(OTHER_WITNESS, ()) if receipt.id != attackers.OWN]
    ended = [f"{actor}: {cause}" for actor, cause in ledger.ended.items()]
    return [
        _received(WITNESS, "receives the wills of lost gateways", [will_id(key) for key in plan.lost], ledger),
        _count(
            "witness",
            "receives wills of others",
            0,
            len(unexpected) + max(0, len(wills) - len(plan.lost) - len(unexpected)),
            unexpected,
        ),
        _count("other witness", "receives anything of this ground", 0, len(crossed), crossed),
        _count("connections", "end though nobody ended them", 0, len(ended), ended),
    ]


def _count(subject: str, claim: str, expected: int, observed: int, offenders: Iterable[str] = ()) -> Expectation:
    return Expectation(
        subject=subject,
        claim=claim,
        expected=str(expected),
        observed=str(observed),
        ok=expected == observed,
        detail="" if expected == observed else _named(list(offenders)),
    )


def _same(subject: str, claim: str, expected: str, observed: str) -> Expectation:
    return Expectation(subject=subject, claim=claim, expected=expected, observed=observed, ok=expected == observed)


def _received(reader: str, claim: str, wanted: Collection[str], ledger: Ledger) -> Expectation:
    """Expect each id of `wanted` at least once (QoS 1 promises no more); repetitions are shown, not judged."""
    counts = Counter(ledger.ids(reader))
    missing = [identity for identity in wanted if not counts[identity]]
    twice = sum(counts[identity] - 1 for identity in wanted if counts[identity] > 1)
    observed = f"{len(wanted) - len(missing)}" + (f" (+{twice} repeated)" if twice else "")
    return Expectation(
        subject=reader.replace("-", " ") if reader in {WITNESS, APPLICATION, OTHER_WITNESS} else reader,
        claim=claim,
        expected=str(len(wanted)),
        observed=observed,
        ok=not missing,
        detail=_named(missing),
    )


def _codes(codes: Sequence[int]) -> str:
    counted = Counter(codes)
    shown = (
        f"{'CONNACK ' + str(code) if code >= 0 else 'no CONNACK'} x {count}" for code, count in sorted(counted.items())
    )
    return ", ".join(shown) or "never tried"


def _named(offenders: Sequence[str]) -> str:
    ordered = sorted(offenders)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more


def delays_ms(messages: Iterable[Message], at_s: dict[str, float]) -> list[float]:
    """Return the milliseconds from when each message was *due* to the time in `at_s`, for those that have one.

    Counting from the plan, not from the moment of sending, keeps a stall visible: no coordinated omission.
    """
    return [(at_s[message.id] - message.at_s) * 1000 for message in messages if message.id in at_s]
