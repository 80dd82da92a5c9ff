"""The strings of packets: UTF-8, topic names and topic filters, strictly checked; the clauses of either specification.

Characters U+0001 to U+001F and U+007F to U+009F, which both let a server refuse (1.5.3; 5.0: 1.5.4), are refused in
topics only.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from broker.wire.packets import MalformedPacket

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Clauses(NamedTuple):
    """The number of each rule about strings."""

    utf8: str
    nul: str
    control: str
    hash: str
    plus: str


OF_3_1_1: Final = Clauses("MQTT-1.5.3-1", "MQTT-1.5.3-2", "1.5.3", "MQTT-4.7.1-2", "MQTT-4.7.1-3")
OF_5_0: Final = Clauses("MQTT-1.5.4-1", "MQTT-1.5.4-2", "1.5.4", "MQTT-4.7.1-1", "MQTT-4.7.1-2")


def check_topic_bytes(raw: bytes, clauses: Clauses = OF_3_1_1) -> str:
    """Return the topic name, strictly checked: UTF-8, 4.7.1, 4.7.3, and no control characters."""
    topic = _topic_text(raw, clauses)
    if "+" in topic or "#" in topic:
        raise MalformedPacket("MQTT-3.3.2-2", "a wildcard in a topic name")
    return topic


def check_filter_bytes(raw: bytes, clauses: Clauses = OF_3_1_1) -> str:
    """Return the topic filter, strictly checked; `$share/…` is not looked into."""
    filter_ = _topic_text(raw, clauses)
    if "#" in filter_:
        hash_at = filter_.index("#")
        if hash_at != len(filter_) - 1 or (hash_at and filter_[hash_at - 1] != "/"):
            raise MalformedPacket(clauses.hash, "'#' must be a whole level and the last one")
    if "+" in filter_ and filter_ != "+" and any("+" in part and part != "+" for part in filter_.split("/")):
        raise MalformedPacket(clauses.plus, "'+' must be a whole level")
    return filter_


def utf8(raw: bytes, clause: str, nul: str) -> str:
    """Return the string. Python's decoder refuses surrogates and over-long forms and keeps U+FEFF.

    Ill-formed UTF-8 is refused with `clause`, U+0000 with `nul`.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        # `from None`: the decoder's exception holds the bytes, which may be a token.
        raise MalformedPacket(clause, "a string is not well-formed UTF-8") from None
    if "\0" in text:
        raise MalformedPacket(nul, "a string holds U+0000")
    return text


def _topic_text(raw: bytes, clauses: Clauses) -> str:
    if not raw:
        raise MalformedPacket("MQTT-4.7.3-1", "an empty topic")
    text = utf8(raw, clauses.utf8, "MQTT-4.7.3-2")
    if not text.isprintable() and _CONTROL.search(text):  # what is printable holds no control character: most end here
        raise MalformedPacket(clauses.control, "a control character in a topic")
    return text
