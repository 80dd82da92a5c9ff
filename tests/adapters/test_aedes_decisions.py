"""The decisions that Aedes makes in its own process are the core's: node is shown hundreds of thousands of both."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from authsvc.adapters.aedes import grant_data
from authsvc.core.facts import Effect, KeySet, RuleAction
from authsvc.core.grants import Action, CompiledRule, Grant
from authsvc.core.topics import RenderedFilter, SetLevel
from tests.adapters.aedes_broker import PACKAGE, node

PUBLISH, SUBSCRIBE, DELIVER = Action
MEMBERS = {SetLevel.MODULE: {"a", "b"}, SetLevel.MEMBER: {"b", "c"}}
LEVELS = ("a", "$x", "", "+", SetLevel.MODULE)
ASKED = ("a", "b", "c", "$x", "", "+")
ODD = (
    *("", "#", "/#", "+", "a#", "#/a", "a/+b", "++", "a/#/b", "\0", "a/\x07", "a/\x85", "a/\ud800", "é/☃/\U0001f600"),
    *("$share", "$share/", "$share/g", "$share/g/", "$share/g/a", "$share/g/#", "$share/+/a", "$share//a", "$shared/a"),
    *("$share/g/$x/a", "$share/g/+/a", "$SYS/a", "a" * 65_535, "a" * 65_536, "é" * 32_768, "a/" * 40 + "a", " ", "A"),
)


def filters(levels: Sequence[Any], depth: int) -> list[tuple[Any, ...]]:
    """Return every filter of at most `depth` levels, with and without `#` at its end."""
    found = [each for n in range(1, depth + 1) for each in itertools.product(levels, repeat=n)]
    return [each for each in (*found, *((*each, "#") for each in [(), *found])) if each != ("",)]


REQUESTED = ["/".join(each) for each in filters(ASKED, 3)]
TOPICS = [each for each in REQUESTED if "+" not in each and "#" not in each]


def rendered(levels: tuple[Any, ...]) -> RenderedFilter:
    return RenderedFilter(levels, tuple(level for level in levels if isinstance(level, SetLevel)))


def grant_of(rules: Sequence[CompiledRule]) -> Grant:
    used = {level for rule in rules for level in rule.filter.sets}
    return Grant(
        principal="thing/t/gw",
        tenant="t",
        ground="g",
        thing="gw",
        definition="d",
        client_id="c",
        rules=tuple(rules),
        sets={level: KeySet(frozenset(MEMBERS[level])) for level in SetLevel if level in used},
    )


def line(grant: Grant, questions: Sequence[tuple[Action, str, int, bool, bool]]) -> str:
    """Return a grant with what the core answers to the questions, as node reads it."""
    answered = []
    for action, topic, qos, retain, checked in questions:
        it = grant.decide(action, topic, qos=qos, retain=retain, deliveries_checked=checked)
        answered.append((action.value, topic, qos, retain, checked, it.allowed, it.reason.value, it.rule, it.qos))
    sets = {level: {"id": level.value, "rev": 1, "keys": sorted(keys.keys)} for level, keys in grant.sets.items()}
    return json.dumps({"grant": grant_data(grant, sets), "questions": answered})


def every_filter_alone() -> Iterator[str]:
    """Yield one rule of each kind for every small filter, asked about every small filter and topic."""
    for levels in filters(LEVELS, 3):
        subscribe = CompiledRule(
            id="s#0", effect=Effect.ALLOW, action=RuleAction.SUBSCRIBE, filter=rendered(levels), qos_max=1
        )
        questions = [(SUBSCRIBE, each, 2, False, checked) for each in REQUESTED for checked in (True, False)]
        yield line(grant_of([subscribe]), [*questions, *((DELIVER, each, 0, False, True) for each in TOPICS)])


def many_rules_together(seed: int, count: int) -> Iterator[str]:
    """Yield grants of up to nine rules with denies, qos_max and retain, asked about what is drawn."""
    draw = random.Random(seed)
    pool = [*filters((*LEVELS, "b", SetLevel.MEMBER), 3), ("é", "☃", "#"), ("a",) * 40, ("$share", "g", "a")]
    for _ in range(count):
        rules = []
        for number in range(draw.randrange(10)):
            effect = draw.choice((Effect.ALLOW, Effect.ALLOW, Effect.DENY))
            action = draw.choice(tuple(RuleAction))
            rules.append(
                CompiledRule(
                    id=f"definition/d#{number}",
                    effect=effect,
                    action=action,
                    filter=rendered(draw.choice(pool)),
                    qos_max=draw.choice((None, 0, 1, 2)) if effect is Effect.ALLOW else None,
                    retain=draw.choice((None, True, False)) if action is RuleAction.PUBLISH else None,
                )
            )
        asked = [*draw.sample(REQUESTED, 40), *(f"$share/g/{each}" for each in draw.sample(REQUESTED, 10)), *ODD]
        questions = [
            (draw.choice(tuple(Action)), each, draw.randrange(3), draw.random() < 0.5, draw.random() < 0.7)
            for each in asked
        ]
        yield line(grant_of(rules), questions)


def compared(path: Path) -> dict[str, int]:
    done = subprocess.run(
        [node(), PACKAGE / "test" / "vectors.js", path], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_every_small_filter_is_decided_as_by_the_core(tmp_path: Path) -> None:
    """Containment, overlap and matching agree for all filters of up to three levels, sets and `$` among them."""
    vectors = tmp_path / "filters.ndjson"
    vectors.write_text("\n".join(every_filter_alone()))
    found = compared(vectors)
    assert found["differ"] == 0
    assert found["asked"] > 200_000


@pytest.mark.parametrize("seed", range(3))
def test_rules_together_are_decided_as_by_the_core(tmp_path: Path, seed: int) -> None:
    """The answer, its reason, the rule that it names and the granted QoS agree, odd topics and shared ones included."""
    vectors = tmp_path / "rules.ndjson"
    vectors.write_text("\n".join(many_rules_together(seed, 700)))
    found = compared(vectors)
    assert found["differ"] == 0
    assert found["asked"] > 50_000


def test_a_difference_is_found(tmp_path: Path) -> None:
    """The comparison is not empty: one answer changed is one difference told."""
    vectors = tmp_path / "wrong.ndjson"
    it = json.loads(next(many_rules_together(1, 1)))
    it["questions"][0][5] = not it["questions"][0][5]
    vectors.write_text(json.dumps(it))
    with pytest.raises(AssertionError, match='"differ":[12]'):
        compared(vectors)
