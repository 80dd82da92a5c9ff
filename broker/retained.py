"""Retained messages, for an upstream that cannot keep them: a tree of topic levels, bounded in number and in bytes.

One store per gate, used on the loop only; no method waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# A level costs a node and its place in a dict; counted so that topics made of slashes cannot outgrow `max_bytes`.
LEVEL_BYTES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    topic: str
    payload: bytes
    qos: int

    @property
    def size(self) -> int:
        """What it counts against `max_bytes`."""
        return len(self.topic.encode()) + len(self.payload) + LEVEL_BYTES * (self.topic.count("/") + 1)


class _Node:
    __slots__ = ("below", "message")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.message: Retained | None = None


class RetainedStore:
    """The last retained message of each topic."""

    __slots__ = ("_bytes", "_count", "_max_bytes", "_max_messages", "_root")

    def __init__(self, *, max_messages: int = 10_000, max_bytes: int = 64 * 1_048_576) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._root = _Node()
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    @property
    def bytes_held(self) -> int:
        return self._bytes

    def set(self, topic: str, payload: bytes, qos: int) -> bool:
        """Keep the message in place of the topic's last one; an empty payload clears it (MQTT-3.3.1-10).

        Returns False if it does not fit. The last one is gone even then: better no message than an outdated one.
        """
        self.clear(topic)
        if not payload:
            return True
        message = Retained(topic=topic, payload=payload, qos=qos)
        if self._count >= self._max_messages or self._bytes + message.size > self._max_bytes:
            return False
        node = self._root
        for level in topic.split("/"):
            node = node.below.setdefault(level, _Node())
        node.message = message
        self._count += 1
        self._bytes += message.size
        return True

    def clear(self, topic: str) -> bool:
        """Forget the topic's message; return whether there was one."""
        found = self._walk(topic)
        if found is None or found[-1].message is None:
            return False
        self._forget(found[-1].message)
        found[-1].message = None
        _prune(found, topic.split("/"))
        return True

    def clear_below(self, place: str) -> int:
        """Forget the messages at `place`, a topic without wildcards, and below it; return how many there were."""
        found = self._walk(place)
        if found is None:
            return 0
        gone = list(_messages(found[-1]))
        for message in gone:
            self._forget(message)
        found[-1].message = None
        found[-1].below.clear()
        _prune(found, place.split("/"))
        return len(gone)

    def match(self, filter_: str) -> list[Retained]:
        """Return the messages whose topics match a well-formed filter, in no particular order.

        Wildcards at the first level do not match topics that begin with `$` (MQTT-4.7.2-1).
        """
        nodes = [self._root]
        for depth, level in enumerate(filter_.split("/")):
            if level == "#":  # stands for the parent level too (4.7.1.2)
                return [message for node in nodes for message in _messages(node, hide_dollar=depth == 0)]
            if level == "+":
                nodes = [
                    below for node in nodes for name, below in node.below.items() if depth or not name.startswith("$")
                ]
            else:
                nodes = [node.below[level] for node in nodes if level in node.below]
        return [node.message for node in nodes if node.message is not None]

    def _walk(self, topic: str) -> list[_Node] | None:
        """Return the nodes from the root to the topic's own, or None."""
        nodes = [self._root]
        for level in topic.split("/"):
            below = nodes[-1].below.get(level)
            if below is None:
                return None
            nodes.append(below)
        return nodes

    def _forget(self, message: Retained) -> None:
        self._count -= 1
        self._bytes -= message.size


def _messages(start: _Node, *, hide_dollar: bool = False) -> Iterator[Retained]:
    """Yield the messages at and below a node; a stack of its own, for a topic may have 32,768 levels."""
    if start.message is not None:
        yield start.message
    stack = [node for name, node in start.below.items() if not (hide_dollar and name.startswith("$"))]
    while stack:
        node = stack.pop()
        if node.message is not None:
            yield node.message
        stack.extend(node.below.values())


def _prune(nodes: list[_Node], levels: list[str]) -> None:
    """Take empty nodes off the tree, from the last of the path upwards."""
    for depth in range(len(levels), 0, -1):
        node = nodes[depth]
        if node.below or node.message is not None:
            return
        del nodes[depth - 1].below[levels[depth - 1]]
