"""Topic aliases of one client (MQTT 5.0, 3.3.2.3.4): they end at the gate, what goes upstream has its whole topic.

As many as the CONNACK announced, and `MAX_CHARACTERS` of topics together, so that what they take is bounded. Whether a
PUBLISH is permitted is asked of the topic; an alias is learnt either way, for the client will use it for what is
permitted as well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from broker import wire
from broker.wire import MalformedPacket, Publish

MAX_CHARACTERS: Final = 65_536  # one topic of the largest size, or a few thousand for each alias


class Aliases:
    """What each alias of a connection stands for."""

    __slots__ = ("_maximum", "_size", "_topics")

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._topics: dict[int, str] = {}
        self._size = 0

    def resolve(self, publish: Publish) -> Publish:
        """Return the PUBLISH with its topic and without alias, which is learnt where the topic is there."""
        alias = publish.topic_alias
        if alias is None:
            return publish
        if not 0 < alias <= self._maximum:
            code = wire.reason_codes.TOPIC_ALIAS_INVALID
            raise MalformedPacket("MQTT-3.2.2-18", f"topic alias {alias} of at most {self._maximum}", code)
        if publish.topic:
            self._size += len(publish.topic) - len(self._topics.get(alias, ""))
            if self._size > MAX_CHARACTERS:
                detail = f"topic aliases that stand for more than {MAX_CHARACTERS} characters"
                raise MalformedPacket("3.3.2.3.4", detail, wire.reason_codes.QUOTA_EXCEEDED)
            self._topics[alias] = publish.topic
            return replace(publish, topic_alias=None)
        topic = self._topics.get(alias)
        if topic is None:
            code = wire.reason_codes.PROTOCOL_ERROR
            raise MalformedPacket("3.3.4", f"topic alias {alias} stands for nothing yet", code)
        return replace(publish, topic=topic, topic_alias=None)
