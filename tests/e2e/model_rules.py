"""A second, slower opinion on access: rules, filters and decisions written from the documentation alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Level = str | frozenset[str]


def matches(topic: str, filter_: Sequence[Level]) -> bool:
    """Tell whether a topic name is one of those that the filter stands for; none begins with `$` here."""
    levels = topic.split("/")
    for place, wanted in enumerate(filter_):
        if wanted == "#":
            return True
        if place >= len(levels):
            return False
        if isinstance(wanted, frozenset):
            if levels[place] not in wanted:
                return False
        elif wanted not in ("+", levels[place]):
            return False
    return len(levels) == len(filter_)


def contains(allowed: Sequence[Level], asked: Sequence[str]) -> bool:
    """Tell whether every topic of `asked` is one of `allowed`, where a `+` may stand at the place of a set."""
    if not allowed:
        return not asked
    if allowed[0] == "#":
        return True
    if not asked or asked[0] == "#":
        return False
    first = allowed[0]
    if isinstance(first, frozenset):
        fits = asked[0] == "+" or asked[0] in first
    else:
        fits = first in ("+", asked[0])
    return fits and contains(allowed[1:], asked[1:])


@dataclass(frozen=True)
class Law:
    """One rule, its variables replaced."""

    allow: bool
    action: str
    filter: tuple[Level, ...]
    qos_max: int
    retain: bool | None


class Rights:
    """What one principal may do at one moment."""

    def __init__(self, rules: Sequence[Mapping[str, Any]], names: Mapping[str, Level]) -> None:
        self.laws = [
            Law(
                allow=rule["effect"] == "allow",
                action=rule["action"],
                filter=tuple(
                    names[level[1:-1]] if level.startswith("{") else level for level in rule["topic"].split("/")
                ),
                qos_max=rule.get("qos_max", 2),
                retain=rule.get("retain"),
            )
            for rule in rules
        ]

    def publishes(self, topic: str, *, qos: int, retain: bool) -> bool:
        found = [
            law
            for law in self.laws
            if law.action == "publish" and matches(topic, law.filter) and law.retain in (None, retain)
        ]
        return all(law.allow for law in found) and any(qos <= law.qos_max for law in found)

    def receives(self, topic: str) -> bool:
        found = [law.allow for law in self.laws if law.action == "subscribe" and matches(topic, law.filter)]
        return bool(found) and all(found)

    def subscribes(self, filter_: str, qos: int) -> int:
        """Return the code of the SUBACK."""
        asked = filter_.split("/")
        found = [law for law in self.laws if law.action == "subscribe" and contains(law.filter, asked)]
        if not found or not all(law.allow for law in found):
            return 0x80
        return min(qos, max(law.qos_max for law in found))
