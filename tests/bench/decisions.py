"""Decisions in process: a repeated one and a new one with 20 rules, against the rule walk of amqtt's ACL plugin."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace

from amqtt.contexts import Action as AmqttAction
from amqtt.plugins.topic_checking import TopicAccessControlListPlugin
from amqtt.session import Session

from authsvc.core.facts import Effect, Rule, RuleAction
from authsvc.core.policy import Action, Grant, Memo, compile_grant
from tests.bench.table import Row

RULES = 20
LOOPS = 20_000


def _topics() -> list[str]:
    """20 filters as a tenant would write them; the last one is the one that allows."""
    kinds = ["state", "event", "alarm", "log", "config", "firmware", "health", "position", "shadow", "trace"]
    return [f"acme/site-1/press-7/{kind}/+/{leaf}" for kind in kinds for leaf in ("raw", "#")]


def _grant() -> Grant:
    rules = tuple(Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic=topic) for topic in _topics())
    return compile_grant(
        principal="thing/acme/press-7",
        tenant="acme",
        ground="site-1",
        thing="press-7",
        definition=None,
        extra_rules=rules,
        client_id="press-7",
        expires_at_us=None,
    )


def _plugin() -> tuple[TopicAccessControlListPlugin, Session]:
    session = Session()
    session.username = "press-7"
    config = {"publish-acl": {"press-7": _topics()}}
    context = SimpleNamespace(config={"topic-check": {"enabled": True, **config}, **config}, logger=None)
    return TopicAccessControlListPlugin(context), session  # type: ignore[arg-type]


def _per_call(work: Callable[[], object], calls: int) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) / calls


def _fresh() -> Iterator[str]:
    """Topics never seen before, allowed by the last rule."""
    return (f"acme/site-1/press-7/trace/{n}/point" for n in count())


def run(pairs: int) -> list[Row]:
    """Return the two rows; each figure is the median of `pairs` alternating runs, in seconds per decision."""
    grant = _grant()
    memo = Memo(grant, Action.PUBLISH)
    plugin, session = _plugin()
    same = "acme/site-1/press-7/trace/1/point"
    raw = same.encode()
    if not memo.decide(0, raw, same).allowed or not asyncio.run(_walk(plugin, session, [same])):
        raise RuntimeError("both sides must allow what is measured")

    def repeated() -> None:
        for _ in range(LOOPS):
            memo.tables[0].get(raw)

    topics: list[str] = []

    def new() -> None:
        for topic in topics:
            grant.decide(Action.PUBLISH, topic)

    def walk() -> None:
        asyncio.run(_walk(plugin, session, topics))

    figures: dict[str, list[float]] = {"repeated": [], "new": [], "walk": []}
    fresh = _fresh()
    for _ in range(pairs):
        topics[:] = [next(fresh) for _ in range(LOOPS // 4)]
        figures["walk"].append(_per_call(walk, len(topics)))
        figures["new"].append(_per_call(new, len(topics)))
        figures["repeated"].append(_per_call(repeated, LOOPS))
    theirs, fresh_s, again_s = (statistics.median(figures[name]) for name in ("walk", "new", "repeated"))
    return [
        Row("repeated decision, 20 rules", "amqtt's rule walk", again_s, theirs, theirs / again_s, 20, "s"),
        Row("new decision, 20 rules", "amqtt's rule walk", fresh_s, theirs, theirs / fresh_s, 3, "s"),
    ]


async def _walk(plugin: TopicAccessControlListPlugin, session: Session, topics: list[str]) -> bool:
    allowed = True
    for topic in topics:
        allowed &= bool(await plugin.topic_filtering(session=session, topic=topic, action=AmqttAction.PUBLISH))
    return allowed
