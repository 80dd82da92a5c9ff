"""The oracle: satisfied by a run in which all went as it should, and by no other."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from simulator import attackers, oracle, report
from simulator.gateways import will_id
from simulator.ledger import Ledger, Receipt
from simulator.places import Place
from simulator.scenarios import AttackKind, find, load
from simulator.shape import plan

SCENARIO = load(find("quickstart"))
PLAN = plan(SCENARIO, 1)
PLACE = Place(tenant="default", ground=SCENARIO.ground)
FIRST = PLAN.gateways[0]


def _hear(ledger: Ledger, actor: str, topic: str, identity: str, at_s: float = 1.0) -> None:
    ledger.received.setdefault(actor, []).append(Receipt(at_s=at_s, topic=topic, id=identity))


def _perfect() -> Ledger:
    """Return the ledger of a run in which everything was as it should be."""
    ledger = Ledger()
    for gateway in PLAN.gateways:
        ledger.connack[gateway.key] = 0
    ledger.connack[PLAN.device] = 0
    ledger.sessions = frozenset(gateway.key for gateway in PLAN.gateways)
    ledger.things = PLAN.things
    for message in (*PLAN.reports, *PLAN.device_reports):
        ledger.sent[message.id] = message.at_s
        ledger.acknowledged[message.id] = message.at_s + 0.001
        for reader in (oracle.WITNESS, oracle.APPLICATION):
            _hear(ledger, reader, PLACE.topic(message.place, message.suffix), message.id, message.at_s + 0.002)
    for command in PLAN.commands:
        _hear(ledger, command.via, PLACE.topic(command.place, command.suffix), command.id)
    ledger.sent[oracle.FORBIDDEN_REPORT] = 0.5
    ledger.attempts = {
        AttackKind.WRONG_TOKEN: [4] * 6,
        AttackKind.WILDCARD_GRAB: [0],
        AttackKind.FORBIDDEN_WILL: [5] * 3,
    }
    grab = next(attacker for attacker in SCENARIO.attackers if attacker.kind == AttackKind.WILDCARD_GRAB)
    ledger.granted[AttackKind.WILDCARD_GRAB] = [(filter_, 0x80) for filter_ in grab.filters]
    _hear(ledger, oracle.OTHER_WITNESS, "default/quickstart-other/quickstart-intruder/state/temperature", attackers.OWN)
    for key in PLAN.lost:
        _hear(ledger, oracle.WITNESS, PLACE.topic(key, "event/lost"), will_id(key))
    return ledger


def _differing(ledger: Ledger) -> list[str]:
    return [f"{one.subject} {one.claim}" for one in oracle.judge(SCENARIO, PLAN, ledger, PLACE) if not one.ok]


def test_a_run_as_it_should_be_meets_every_expectation() -> None:
    """The perfect ledger has no difference, and each attack and each promise is among what was judged."""
    assert _differing(_perfect()) == []
    assert len(oracle.judge(SCENARIO, PLAN, _perfect(), PLACE)) >= 20


def test_a_run_in_which_nothing_happened_meets_few() -> None:
    """Silence is no success: whatever must arrive, or must have been tried, is missed."""
    assert len(_differing(Ledger())) >= 14


BREAKAGES: dict[str, tuple[Callable[[Ledger], object], str]] = {
    "a gateway is refused": (lambda led: led.connack.update({FIRST.key: 5}), "gateways connect"),
    "the service does not know a session": (
        lambda led: setattr(led, "sessions", led.sessions - {FIRST.key}),
        "gateways have a live session",
    ),
    "a module is missing": (lambda led: setattr(led, "things", led.things - {FIRST.modules[0]}), "things registered"),
    "a report is not acknowledged": (lambda led: led.acknowledged.pop(PLAN.reports[3].id), "reports acknowledged"),
    "the witness misses a report": (lambda led: led.received[oracle.WITNESS].pop(3), "witness receives every report"),
    "the application misses one": (
        lambda led: led.received[oracle.APPLICATION].pop(3),
        "application receives every report",
    ),
    "a report comes on another topic": (
        lambda led: _hear(led, oracle.WITNESS, "default/x/y/state/temperature", PLAN.reports[0].id),
        "witness receives a report on another topic",
    ),
    "a command is lost": (lambda led: led.received[FIRST.key].pop(), "commands reach the gateway they are for"),
    "a command reaches another gateway": (
        lambda led: _hear(led, PLAN.gateways[1].key, "t", f"command/{FIRST.key}/0"),
        "commands or anything else reach",
    ),
    "the device is refused": (lambda led: led.connack.update({PLAN.device: 5}), "device connects"),
    "the device never trespassed": (lambda led: led.sent.pop(oracle.FORBIDDEN_REPORT), "device publishes"),
    "its trespass arrives": (
        lambda led: _hear(led, oracle.WITNESS, "t", oracle.FORBIDDEN_REPORT),
        "witness receives what the device published",
    ),
    "a wrong token is admitted": (
        lambda led: led.attempts.update({AttackKind.WRONG_TOKEN: [4] * 5 + [0]}),
        "wrong token 6 times",
    ),
    "the wrong token was not tried": (lambda led: led.attempts.pop(AttackKind.WRONG_TOKEN), "wrong token 6 times"),
    "the victim is disconnected": (
        lambda led: led.ended.update({FIRST.key: "ended by the server"}),
        "wrong token ends the connection",
    ),
    "a wide filter is granted": (
        lambda led: led.granted[AttackKind.WILDCARD_GRAB].__setitem__(0, ("#", 1)),
        "wildcard grab filters refused",
    ),
    "the grabber hears something": (
        lambda led: _hear(led, AttackKind.WILDCARD_GRAB, "default/quickstart/x", "report/x"),
        "wildcard grab messages received",
    ),
    "the grabber's publish arrives": (
        lambda led: _hear(led, oracle.WITNESS, "t", attackers.FOREIGN),
        "witness receives what it published",
    ),
    "the other witness is deaf": (
        lambda led: led.received.pop(oracle.OTHER_WITNESS),
        "other witness receives what it published in its own",
    ),
    "a forbidden will is taken": (
        lambda led: led.attempts.update({AttackKind.FORBIDDEN_WILL: [5, 5, 0]}),
        "forbidden will 3 times",
    ),
    "a forbidden will arrives": (
        lambda led: _hear(led, oracle.WITNESS, PLACE.topic(FIRST.key, "event/lost"), attackers.WILL),
        "witness receives the forbidden will",
    ),
    "the will of a lost gateway does not come": (
        lambda led: led.received[oracle.WITNESS].pop(),
        "witness receives the wills",
    ),
    "a will comes of a gateway that said goodbye": (
        lambda led: _hear(led, oracle.WITNESS, PLACE.topic(FIRST.key, "event/lost"), will_id(FIRST.key)),
        "witness receives wills of others",
    ),
    "something crosses to the other ground": (
        lambda led: _hear(led, oracle.OTHER_WITNESS, "default/quickstart/x", "report/x/1"),
        "other witness receives anything",
    ),
    "a connection ends by itself": (
        lambda led: led.ended.update({"witness": "ended by the server"}),
        "connections end though",
    ),
}


@pytest.mark.parametrize(("breakage", "claim"), BREAKAGES.values(), ids=BREAKAGES)
def test_each_breakage_is_noticed(breakage: Callable[[Ledger], object], claim: str) -> None:
    """One thing goes wrong in an otherwise perfect run: the expectation that speaks of it differs."""
    ledger = _perfect()
    breakage(ledger)
    assert any(one.startswith(claim) for one in _differing(ledger)), _differing(ledger)


def _report(ledger: Ledger) -> report.Report:
    return report.make(SCENARIO, PLAN, ledger, oracle.judge(SCENARIO, PLAN, ledger, PLACE))


def test_figures_count_what_happened() -> None:
    """Acknowledged but not delivered is lost; sent but not acknowledged is neither delivered nor lost."""
    ledger = _perfect()
    first, second, third = (message.id for message in PLAN.reports[:3])
    ledger.received[oracle.WITNESS] = [one for one in ledger.received[oracle.WITNESS] if one.id not in {first, second}]
    del ledger.acknowledged[second]
    del ledger.sent[third]
    made = _report(ledger)
    assert (made.planned, made.sent, made.unsent) == (485, 484, 1)
    assert (made.acknowledged, made.delivered, made.lost) == (484, 483, 1)


def test_a_stall_shows_in_the_delays() -> None:
    """Delays count from when a message was due: one that was sent late by a stall is late by it."""
    ledger = _perfect()
    late = PLAN.reports[10]
    ledger.sent[late.id] = late.at_s + 5.0
    ledger.acknowledged[late.id] = late.at_s + 5.001
    assert _report(ledger).acknowledgement_ms.max == pytest.approx(5001.0)


def test_a_report_without_expectations_or_interrupted_is_not_ok() -> None:
    """All of nothing is not success, and half a run is not a run."""
    made = _report(_perfect())
    assert made.ok
    assert not dataclasses.replace(made, expectations=()).ok
    assert not dataclasses.replace(made, interrupted=True).ok


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    """What is read back is what was written, and it can be shown where there is no terminal."""
    made = _report(_perfect())
    path = tmp_path / "run.json"
    path.write_text(made.to_json())
    assert report.read(path) == made
    text = io.StringIO()
    report.show(made, Console(file=text, width=160))
    assert "expectations met" in text.getvalue()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 9}', '{"format": 1, "ok": true}'])
def test_a_file_that_is_no_report_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    """A damaged report is an error with the file's name, not a traceback."""
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(report.ReportInvalid, match=r"run\.json"):
        report.read(path)
