"""Finds the rules whose filters match a topic. A few rules are walked one by one, many by a trie of their levels.

The trie is built for whoever keeps asking: most devices publish to a handful of topics, whose decisions a memo keeps,
and in each of thousands of sessions a trie that was asked five times would take more memory than all else.

Both give the same entries as `levels_match` on each (a property test holds them to it); the trie's time depends on the
depth of the topic and its wildcards instead of on the number of rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from authsvc.core.facts import KeySet
from authsvc.core.topics import Level, levels_match

TRIE_FROM: Final = 6  # rules; below, walking them is as fast
TRIE_AFTER: Final = 32  # questions that were answered by walking; 20 rules take some 20 µs each
TRIE_AT_ONCE_FROM: Final = 64  # rules; these are not walked even once


class Entry(NamedTuple):
    """One rule as the index needs it: `levels` normalised by `split_filter`, set levels as the sets themselves."""

    rank: int
    id: str
    levels: tuple[Level, ...]
    allow: bool
    qos_max: int
    retain: bool | None


class _Node:
    """A place in the trie, reached by the levels so far. Many sessions have some: what is empty takes no memory."""

    __slots__ = ("below", "here", "literals", "plus", "sets")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = _NO_LITERALS
        self.plus: _Node | None = None
        self.sets: tuple[tuple[KeySet, _Node], ...] = ()
        self.here: tuple[Entry, ...] = ()  # filters that end here
        self.below: tuple[Entry, ...] = ()  # filters that have `#` as the next level: they match here and below


_NO_LITERALS: Final[dict[str, _Node]] = {}  # stays empty


class RuleIndex:
    """The entries of one action of one grant, in order of rank, and a way to those that match a topic."""

    __slots__ = ("_max_split", "_root", "_walks_left", "entries")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        # No filter looks at more levels than the longest has, so a topic of 30,000 levels is not split into them.
        self._max_split = 1 + max((len(entry.levels) for entry in self.entries), default=0)
        self._root: _Node | None = None
        self._walks_left = 0 if len(self.entries) >= TRIE_AT_ONCE_FROM else TRIE_AFTER

    def matching(self, topic: str) -> list[Entry]:
        """Return the entries whose filters match the topic name, in no order."""
        levels = topic.split("/", self._max_split)
        root = self._root
        if root is None:
            if self._walks_left > 0 or len(self.entries) < TRIE_FROM:
                self._walks_left -= 1
                return [entry for entry in self.entries if levels_match(levels, entry.levels)]
            root = self._root = _build(self.entries)
        found: list[Entry] = []
        if levels[0].startswith("$"):  # MQTT-4.7.2-1: no wildcard at the first level
            for child in _literal_children(root, levels[0]):
                _collect(child, levels, 1, found)
        else:
            _collect(root, levels, 0, found)
        return found


def _build(entries: Sequence[Entry]) -> _Node:
    root = _Node()
    for entry in entries:
        node = root
        for level in entry.levels:
            if level == "#":
                node.below += (entry,)
                break
            node = _child(node, level)
        else:
            node.here += (entry,)
    return root


def _child(node: _Node, level: Level) -> _Node:
    if isinstance(level, KeySet):
        for keys, child in node.sets:
            if keys is level:
                return child
        node.sets += ((level, _Node()),)
        return node.sets[-1][1]
    if level == "+":
        if node.plus is None:
            node.plus = _Node()
        return node.plus
    if not node.literals:
        node.literals = {}
    found = node.literals.get(level)
    if found is None:
        found = node.literals[level] = _Node()
    return found


def _collect(node: _Node, levels: list[str], index: int, found: list[Entry]) -> None:
    """Append to `found` what matches from `node` on, of which `index` levels are behind."""
    while True:
        if node.below:
            found += node.below
        if index == len(levels):
            found += node.here
            return
        level = levels[index]
        index += 1
        if node.plus is not None:
            _collect(node.plus, levels, index, found)
        for keys, child in node.sets:
            if level in keys.keys:
                _collect(child, levels, index, found)
        following = node.literals.get(level)
        if following is None:
            return
        node = following


def _literal_children(node: _Node, level: str) -> list[_Node]:
    children = [child for keys, child in node.sets if level in keys.keys]
    if level in node.literals:
        children.append(node.literals[level])
    return children
