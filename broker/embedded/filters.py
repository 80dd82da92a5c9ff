"""amqtt's table of subscriptions, with a way from a topic to its filters that does not ask each of them.

amqtt compares every message with every filter. Here the filters without wildcards are found by name, the others by a
trie of their levels, and what was found for a topic is kept until a filter comes or goes.
"""

from __future__ import annotations

from collections import UserDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amqtt.session import Session

    Entries = list[tuple[Session, int]]
    _Table = UserDict[str, Entries]
else:
    Entries = list
    _Table = UserDict

MAX_KNOWN = 4096  # topics whose filters are remembered
MAX_KNOWN_CHARS = 256  # of a topic; longer ones are looked up each time


class _Node:
    """A place in the trie, reached by the levels so far; `+` is a level like the others."""

    __slots__ = ("below", "here", "levels")

    def __init__(self) -> None:
        self.levels: dict[str, _Node] = {}
        self.here: str | None = None  # the filter that ends here
        self.below: str | None = None  # the one that goes on with `#`

    @property
    def empty(self) -> bool:
        return not self.levels and self.here is None and self.below is None


class FilterTable(_Table):
    """Filter → (session, QoS) of those who hold it; amqtt fills it, empties it and changes its lists in place."""

    def __init__(self) -> None:
        super().__init__()
        self._root = _Node()
        self._known: dict[str, tuple[Entries, ...]] = {}

    def __setitem__(self, filter_: str, entries: Entries) -> None:
        if filter_ not in self.data and _has_wildcard(filter_):
            self._plant(filter_)
        self.data[filter_] = entries
        self._known.clear()

    def __delitem__(self, filter_: str) -> None:
        del self.data[filter_]
        self._known.clear()
        if _has_wildcard(filter_):
            self._uproot(filter_)

    def copy(self) -> Any:
        """Return a plain dict."""
        return dict(self.data)

    def matching(self, topic: str) -> tuple[Entries, ...]:
        """Return the lists of all filters that match the topic name (MQTT 4.7), in no order; do not change them."""
        known = self._known.get(topic)
        if known is None:
            known = tuple(self.data[filter_] for filter_ in self._find(topic))
            if len(topic) <= MAX_KNOWN_CHARS:
                if len(self._known) >= MAX_KNOWN:
                    self._known.clear()
                self._known[topic] = known
        return known

    def _find(self, topic: str) -> list[str]:
        found = [topic] if topic in self.data else []
        nodes = [self._root]
        wild = not topic.startswith("$")  # MQTT-4.7.2-1: no wildcard at the first level of such a topic
        for level in topic.split("/"):
            reached: list[_Node] = []
            for node in nodes:
                if wild and node.below is not None:
                    found.append(node.below)
                if (same := node.levels.get(level)) is not None:
                    reached.append(same)
                if wild and (any_ := node.levels.get("+")) is not None:
                    reached.append(any_)
            nodes, wild = reached, True
            if not nodes:
                break
        for node in nodes:
            found += [
                filter_ for filter_ in (node.here, node.below) if filter_ is not None
            ]  # 4.7.1.2: `#` is the parent
        return found

    def _plant(self, filter_: str) -> None:
        node = self._root
        for level in filter_.split("/"):
            if level == "#":
                node.below = filter_
                return
            node = node.levels.setdefault(level, _Node())
        node.here = filter_

    def _uproot(self, filter_: str) -> None:
        path: list[tuple[_Node, str]] = []
        node = self._root
        for level in filter_.split("/"):
            if level == "#":
                node.below = None
                break
            path.append((node, level))
            node = node.levels[level]
        else:
            node.here = None
        for parent, level in reversed(path):
            if not parent.levels[level].empty:
                return
            del parent.levels[level]


def _has_wildcard(filter_: str) -> bool:
    return "+" in filter_ or "#" in filter_
