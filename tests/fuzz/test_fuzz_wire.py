"""Random and mutated bytes against the wire, round trips of random packets; AUTHSVC_TEST_SECONDS makes it longer."""

from __future__ import annotations

import os
from unicodedata import category

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authsvc.core.credentials import WillMessage
from broker import wire
from tests.broker.wire.cases import CLIENT, HOSTILE, VALID
from tests.fuzz.invariants import check_all, check_scanner, encode, events

# About 300 examples a second and test; the default is a few seconds for the file.
EXAMPLES = 300 * int(os.environ.get("AUTHSVC_TEST_SECONDS", "1"))
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

SEEDS = [case.packet for case in (*VALID, *HOSTILE) if len(case.packet) < 400]
steps = st.integers(1, 16)
packet_ids = st.integers(1, 65_535)
fields = st.binary(max_size=300)


def text(**options):
    """Strings that MQTT can carry: no NUL, no surrogates."""
    return st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), **options)


topics = st.text(
    st.characters(exclude_characters="+#", exclude_categories=["Cs", "Cc"]) | st.just("/"), min_size=1, max_size=60
)
filters = st.lists(st.sampled_from(["a", "+", "", "é", "$share", "$SYS"]), min_size=1, max_size=6).flatmap(
    lambda levels: st.sampled_from(["/".join(levels) or "/", "/".join([*levels, "#"])])
)
wills = st.builds(WillMessage, topic=topics, payload=fields, qos=st.integers(0, 2), retain=st.booleans())


@st.composite
def publishes(draw):
    qos = draw(st.integers(0, 2))
    return wire.Publish(
        topic=draw(topics),
        payload=draw(fields),
        qos=qos,
        retain=draw(st.booleans()),
        dup=draw(st.booleans()) if qos else False,
        packet_id=draw(packet_ids) if qos else None,
    )


@st.composite
def connects(draw):
    level = draw(st.sampled_from([3, 4]))
    username = draw(st.none() | text(max_size=40))
    return wire.Connect(
        protocol_name={3: "MQIsdp", 4: "MQTT"}[level],
        level=level,
        client_id=draw(text(max_size=40)),
        clean_session=draw(st.booleans()),
        keep_alive_s=draw(st.integers(0, 65_535)),
        username=username,
        password=None if username is None else draw(st.none() | fields),
        will=draw(st.none() | wills),
    )


acks = st.builds(
    wire.Ack, type=st.sampled_from([wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP]), packet_id=packet_ids
)


@st.composite
def subscribes(draw):
    wanted = draw(st.lists(st.tuples(filters, st.integers(0, 2)), min_size=1, max_size=5))
    return wire.Subscribe(packet_id=draw(packet_ids), filters=tuple(wanted), options=tuple(qos for _, qos in wanted))


unsubscribes = st.builds(
    wire.Unsubscribe, packet_id=packet_ids, filters=st.lists(filters, min_size=1, max_size=5).map(tuple)
)
bare = st.builds(wire.Bare, type=st.sampled_from([wire.PINGREQ, wire.DISCONNECT]))
from_client = st.one_of(connects(), publishes(), acks, subscribes(), unsubscribes, bare)
from_server = st.one_of(
    publishes(),
    acks,
    st.builds(wire.Ack, type=st.just(wire.UNSUBACK), packet_id=packet_ids),
    st.builds(wire.Connack, session_present=st.booleans(), code=st.just(0)),
    st.builds(wire.Connack, session_present=st.just(False), code=st.integers(0, 5)),
    st.builds(
        wire.Suback,
        packet_id=packet_ids,
        codes=st.lists(st.sampled_from([0, 1, 2, 0x80]), min_size=1, max_size=9).map(bytes),
    ),
)


@st.composite
def mutated(draw):
    """A few packets of the table in a row, with bytes changed, taken out, put in and repeated."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at : at + 1] = bytes((draw(st.integers(0, 255)),))
            case 1:
                del data[at : at + draw(st.integers(1, 4))]
            case 2:
                data[at:at] = draw(st.binary(max_size=4))
            case 3:
                data[at:at] = data[max(0, at - 8) : at]
    return bytes(data)


@fuzz
@given(st.binary(max_size=200), steps)
def test_random_bytes_are_refused_or_read_but_never_crash(data, step):
    """The invariants of the wire hold for bytes without any form."""
    check_all(data, step)


@fuzz
@given(mutated(), steps)
def test_mutated_packets_are_refused_or_read_but_never_crash(data, step):
    """The invariants of the wire hold for packets that are nearly right."""
    check_all(data, step)


@fuzz
@given(from_client)
def test_packet_of_a_client_survives_encoding_and_parsing(packet):
    """What is written is read as the same record."""
    assert wire.parse_from_client(encode(packet), level=getattr(packet, "level", 4)) == packet


@fuzz
@given(from_server)
def test_packet_of_a_server_survives_encoding_and_parsing(packet):
    """What is written is read as the same record."""
    assert wire.parse_from_server(encode(packet)) == packet


@fuzz
@given(st.lists(from_client | from_server, max_size=8), st.lists(st.integers(0, 2_000), max_size=6))
def test_stream_of_packets_is_the_same_in_any_split(packets, cuts):
    """Cuts at random places, any number of them, change nothing."""
    encoded = [encode(packet) for packet in packets]
    stream = b"".join(encoded)
    places = sorted({min(cut, len(stream)) for cut in cuts})
    chunks = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
    assert events(chunks) == [*encoded, 0]


@fuzz
@given(
    st.lists(
        publishes() | acks | st.sampled_from([case.parsed for case in VALID if case.sender == CLIENT]),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
    st.integers(-1, 6),
    st.binary(max_size=8),
)
def test_run_is_what_the_strict_parsers_would_have_passed(packets, retain, max_count, tail):
    """The scanner agrees with the parsers packet by packet, however the chunk goes on."""
    check_scanner(b"".join(map(encode, packets)) + tail, retain=retain, max_count=max_count)


any_text = st.text(
    st.sampled_from("ab/+#$") | st.characters(exclude_categories=["Cs"]) | st.characters(categories=["Cc", "Zs", "Cf"]),
    max_size=12,
)


def accepted(check, raw):
    try:
        return check(raw)
    except wire.MalformedPacket:
        return None


@fuzz
@given(any_text)
def test_topic_name_is_accepted_exactly_when_the_rules_say_so(topic):
    """Not empty, no wildcard, no control character; and what is accepted is not changed."""
    fine = bool(topic) and not any(c in "+#" or category(c) == "Cc" for c in topic)
    assert accepted(wire.check_topic_bytes, topic.encode()) == (topic if fine else None)


@fuzz
@given(any_text)
def test_topic_filter_is_accepted_exactly_when_the_rules_say_so(filter_):
    """Not empty, no control character, `#` alone and last, `+` alone in its level."""
    levels = filter_.split("/")
    fine = bool(filter_) and not any(category(c) == "Cc" for c in filter_)
    fine = fine and not any("#" in level and (level != "#" or i < len(levels) - 1) for i, level in enumerate(levels))
    fine = fine and not any("+" in level and level != "+" for level in levels)
    assert accepted(wire.check_filter_bytes, filter_.encode()) == (filter_ if fine else None)
