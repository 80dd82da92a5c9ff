"""Property sections against a second reading of the specification: every byte of every section set to every value."""

from __future__ import annotations

import pytest

from broker import wire
from tests.broker.wire.cases5 import ALL_PLACES, EVERY_PROPERTY, PLACES, hexed, in_place, props, sender_of
from tests.fuzz.invariants5 import parse5

# Table 2-4 once more, by how a value is written; numbers with what they may be (3.1.2.11, 3.2.2.3, 3.3.2.3, 3.8.2.1).
BOOLEANS = {0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A}
TWO_BYTES = {0x13, 0x21, 0x22, 0x23}
FOUR_BYTES = {0x02, 0x11, 0x18, 0x27}
STRINGS = {0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F}
BINARIES = {0x09, 0x16}
NEVER_ZERO = {0x21, 0x23, 0x27}


class Wrong(Exception):
    pass


def take(raw: bytearray, count: int) -> bytes:
    if count > len(raw):
        raise Wrong
    taken = bytes(raw[:count])
    del raw[:count]
    return taken


def take_number(raw: bytearray) -> int:
    digits = [take(raw, 1)[0]]
    while digits[-1] & 0x80:
        digits.append(take(raw, 1)[0])
    if len(digits) > 4 or (len(digits) > 1 and digits[-1] == 0):
        raise Wrong
    return sum((digit & 0x7F) * 128**place for place, digit in enumerate(digits))


def take_string(raw: bytearray) -> str:
    text = take(raw, int.from_bytes(take(raw, 2), "big")).decode("utf-8", "replace_with_wrong")
    if "\0" in text:
        raise Wrong
    return text


def as_the_specification_reads(section: bytes, place: str, *, from_server: bool) -> bool:
    """Return whether the section may stand in that kind of packet, by consuming it as 2.2.2 describes it."""
    raw, seen = bytearray(section), []
    try:
        while raw:
            id_ = take_number(raw)
            seen.append(id_)
            if place not in PLACES.get(id_, ()):
                raise Wrong
            if id_ in BOOLEANS | TWO_BYTES | FOUR_BYTES:
                width = 1 if id_ in BOOLEANS else 2 if id_ in TWO_BYTES else 4
                number = int.from_bytes(take(raw, width), "big")
                if (id_ in NEVER_ZERO and not number) or (id_ in BOOLEANS and number > 1):
                    raise Wrong
            elif id_ in BINARIES:
                take(raw, int.from_bytes(take(raw, 2), "big"))
            elif id_ in STRINGS:
                text = take_string(raw)
                if id_ == 0x08 and (
                    not text or set(text) & {"+", "#"} or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)
                ):
                    raise Wrong
            elif id_ == 0x26:
                take_string(raw)
                take_string(raw)
            elif not take_number(raw):  # 0x0B
                raise Wrong
    except (Wrong, UnicodeDecodeError):
        return False
    once = [id_ for id_ in seen if id_ != 0x26 and not (id_ == 0x0B and place == "publish")]
    if len(once) != len(set(once)):
        return False
    if place == "publish" and 0x0B in seen and not from_server:
        return False
    if place == "disconnect" and (0x11 if from_server else 0x1C) in seen:
        return False
    return (0x15 in seen or 0x16 not in seen) and (0x15 in seen or place != "auth")


def accepted(place: str, section: bytes, sender: str) -> bool:
    try:
        parse5(in_place(place, wire.sections.with_length(section)), sender)
    except wire.MalformedPacket:
        return False
    return True


@pytest.fixture(autouse=True, scope="module")
def replace_with_wrong():
    """Ill-formed UTF-8 is `Wrong`, whatever the decoder would say."""
    import codecs

    def refuse(error):
        raise Wrong from error

    codecs.register_error("replace_with_wrong", refuse)


@pytest.mark.parametrize("place", ALL_PLACES)
def test_every_byte_of_a_section_set_to_every_value_is_judged_as_the_specification_does(place):
    """Sections with all that a packet may have, one byte changed: accepted exactly when the second reading accepts."""
    senders = {"publish": ("client", "server"), "disconnect": ("client", "server")}.get(place, (sender_of(place),))
    own = [text for id_, text in EVERY_PROPERTY.items() if place in PLACES[id_]]
    verdicts = set()
    # two halves and each one alone: packets of the table are below 128 bytes
    for texts in (own[: len(own) // 2 + 1], own[len(own) // 2 :], *([text] for text in own)):
        section = bytearray(b"".join(hexed(text) for text in texts))
        if len(section) > 90:
            continue
        for at in range(len(section)):
            kept = section[at]
            for value in range(256):
                section[at] = value
                for sender in senders:
                    expected = as_the_specification_reads(bytes(section), place, from_server=sender == "server")
                    assert accepted(place, bytes(section), sender) is expected, (section.hex(), sender)
                    verdicts.add(expected)
            section[at] = kept
    assert verdicts == {True, False}


def test_second_reading_accepts_what_the_table_has():
    """The oracle itself is not empty: each property alone, where it belongs."""
    for id_, text in EVERY_PROPERTY.items():
        for place in PLACES[id_]:
            section = props(text, "15 0001 'm'" if id_ == 0x16 or (place == "auth" and id_ != 0x15) else "")[1:]
            assert as_the_specification_reads(section, place, from_server=id_ in {0x0B, 0x1C})
