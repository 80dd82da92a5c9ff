"""Random and mutated bytes against the wire of MQTT 5.0, round trips of random packets; as `test_fuzz_wire`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from authsvc.core.credentials import WillMessage
from broker import wire
from tests.broker.wire.cases5 import HOSTILE5, VALID5
from tests.fuzz.invariants5 import P, check_all5, check_scanner5, encode5, parse5
from tests.fuzz.test_fuzz_wire import fields, filters, fuzz, packet_ids, steps, text, topics

SEEDS = [case.packet for case in (*VALID5, *HOSTILE5)]
strings = text(max_size=20)
uint16, uint32 = st.integers(0, 65_535), st.integers(0, 0xFFFFFFFF)
VALUES = {
    P.PAYLOAD_FORMAT: st.integers(0, 1),
    P.MESSAGE_EXPIRY: uint32,
    P.CONTENT_TYPE: strings,
    P.RESPONSE_TOPIC: topics,
    P.CORRELATION_DATA: fields,
    P.SUBSCRIPTION_IDENTIFIER: st.integers(1, 268_435_455),
    P.REASON_STRING: strings,
    P.USER_PROPERTY: st.tuples(strings, strings),
}
MESSAGE = (P.PAYLOAD_FORMAT, P.MESSAGE_EXPIRY, P.CONTENT_TYPE, P.RESPONSE_TOPIC, P.CORRELATION_DATA)


@st.composite
def sections(draw, *once, many=(P.USER_PROPERTY,)):
    """Property sections: some of `once` in any order, any number of those in `many`."""
    ids = draw(st.lists(st.sampled_from(once), unique=True)) if once else []
    ids += draw(st.lists(st.sampled_from(many), max_size=3))
    return wire.sections.encode([(id_, draw(VALUES[id_])) for id_ in draw(st.permutations(ids))])


users = sections()
reasoned = sections(P.REASON_STRING)
wills = st.builds(
    WillMessage,
    topic=topics,
    payload=fields,
    qos=st.integers(0, 2),
    retain=st.booleans(),
    delay_s=uint32,
    properties=sections(*MESSAGE),
)


@st.composite
def connects(draw):
    method = draw(st.none() | strings)
    return wire.Connect(
        protocol_name="MQTT",
        level=5,
        client_id=draw(strings),
        clean_session=draw(st.booleans()),
        keep_alive_s=draw(uint16),
        username=draw(st.none() | strings),
        password=draw(st.none() | fields),
        will=draw(st.none() | wills),
        session_expiry_s=draw(uint32),
        receive_maximum=draw(st.integers(1, 65_535)),
        maximum_packet_size=draw(st.none() | st.integers(1, 0xFFFFFFFF)),
        topic_alias_maximum=draw(uint16),
        request_response_information=draw(st.booleans()),
        request_problem_information=draw(st.booleans()),
        authentication_method=method,
        authentication_data=None if method is None else draw(st.none() | fields),
        properties=draw(users),
    )


@st.composite
def publishes(draw, many=(P.USER_PROPERTY,)):
    qos = draw(st.integers(0, 2))
    alias = draw(st.none() | st.integers(1, 65_535))
    return wire.Publish(
        topic=draw(topics if alias is None else topics | st.just("")),
        payload=draw(fields),
        qos=qos,
        retain=draw(st.booleans()),
        dup=draw(st.booleans()) if qos else False,
        packet_id=draw(packet_ids) if qos else None,
        topic_alias=alias,
        properties=draw(sections(*MESSAGE, many=many)),
    )


@st.composite
def acks(draw):
    type_ = draw(st.sampled_from([wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP]))
    codes = wire.reason_codes.PUBACK_CODES if type_ in {wire.PUBACK, wire.PUBREC} else wire.reason_codes.PUBREL_CODES
    reason = draw(st.sampled_from(sorted(codes)))
    return wire.Ack(type=type_, packet_id=draw(packet_ids), reason=reason, properties=draw(reasoned))


@st.composite
def subscribes(draw):
    option = st.builds(
        lambda qos, bits, handling: qos | bits << 2 | handling << 4,
        st.integers(0, 2),
        st.integers(0, 3),
        st.integers(0, 2),
    )
    wanted = draw(st.lists(st.tuples(filters, option), min_size=1, max_size=5))
    wanted = [(name, options & ~4 if name.startswith("$share/") else options) for name, options in wanted]
    identifier = draw(st.none() | VALUES[P.SUBSCRIPTION_IDENTIFIER])
    pairs = [] if identifier is None else [(P.SUBSCRIPTION_IDENTIFIER, identifier)]
    return wire.Subscribe(
        packet_id=draw(packet_ids),
        filters=tuple((name, options & 3) for name, options in wanted),
        options=tuple(options for _, options in wanted),
        subscription_identifier=identifier,
        properties=wire.sections.encode(pairs) + draw(users),
    )


unsubscribes = st.builds(
    wire.Unsubscribe,
    packet_id=packet_ids,
    filters=st.lists(filters, min_size=1, max_size=5).map(tuple),
    properties=users,
)
none_or_text = st.none() | strings
connacks = st.builds(
    wire.Connack,
    session_present=st.just(False),
    code=st.sampled_from(sorted(wire.reason_codes.CONNACK_CODES)),
    session_expiry_s=st.none() | uint32,
    receive_maximum=st.integers(1, 65_535),
    maximum_qos=st.integers(0, 2),
    retain_available=st.booleans(),
    maximum_packet_size=st.none() | st.integers(1, 0xFFFFFFFF),
    assigned_client_id=none_or_text,
    topic_alias_maximum=uint16,
    reason_string=none_or_text,
    wildcard_subscriptions=st.booleans(),
    subscription_identifiers=st.booleans(),
    shared_subscriptions=st.booleans(),
    server_keep_alive_s=st.none() | uint16,
    response_information=none_or_text,
    server_reference=none_or_text,
    authentication_method=none_or_text,
    properties=users,
)


def answers(record, codes):
    return st.builds(
        record,
        packet_id=packet_ids,
        codes=st.lists(st.sampled_from(list(codes)), min_size=1, max_size=9).map(bytes),
        properties=reasoned,
    )


def disconnects(codes, **more):
    return st.builds(wire.Disconnect, reason=st.sampled_from(sorted(codes)), properties=reasoned, **more)


def auths(codes):
    return st.builds(
        wire.Auth,
        reason=st.sampled_from(sorted(codes)),
        authentication_method=strings,
        authentication_data=st.none() | fields,
        properties=reasoned,
    )


codes = wire.reason_codes
from_client = st.one_of(
    connects(),
    publishes(),
    acks(),
    subscribes(),
    unsubscribes,
    st.just(wire.Bare(type=wire.PINGREQ)),
    disconnects(codes.DISCONNECT_BY_CLIENT, session_expiry_s=st.none() | uint32),
    auths(codes.AUTH_BY_CLIENT),
)
from_server = st.one_of(
    connacks,
    publishes(many=(P.USER_PROPERTY, P.SUBSCRIPTION_IDENTIFIER)),
    acks(),
    answers(wire.Suback, codes.SUBACK_CODES),
    answers(wire.Unsuback, codes.UNSUBACK_CODES),
    disconnects(codes.DISCONNECT_BY_SERVER, server_reference=none_or_text),
    auths(codes.AUTH_BY_SERVER),
)


@st.composite
def mutated(draw):
    """A few packets in a row, of the table or random, with bytes changed, taken out, put in and repeated."""
    made = st.one_of(st.sampled_from(SEEDS), (from_client | from_server).map(encode5))
    data = bytearray(b"".join(draw(st.lists(made, min_size=1, max_size=3))))
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
    check_all5(data, step)


@fuzz
@given(mutated(), steps)
def test_mutated_packets_are_refused_or_read_but_never_crash(data, step):
    """The invariants of the wire hold for packets that are nearly right."""
    check_all5(data, step)


@fuzz
@given(from_client)
def test_packet_of_a_client_survives_encoding_and_parsing(packet):
    """What is written is read as the same record."""
    assert parse5(encode5(packet), "client") == packet


@fuzz
@given(from_server)
def test_packet_of_a_server_survives_encoding_and_parsing(packet):
    """What is written is read as the same record."""
    assert parse5(encode5(packet), "server") == packet


@fuzz
@given(
    st.lists(publishes() | acks() | publishes(many=(P.SUBSCRIPTION_IDENTIFIER,)), min_size=1, max_size=12),
    st.booleans(),
    st.booleans(),
    st.integers(-1, 6),
    st.binary(max_size=8),
)
def test_run_is_what_the_strict_parsers_would_have_passed(packets, retain, down, max_count, tail):
    """The scanner agrees with the parsers packet by packet, however the chunk goes on."""
    stream = b"".join(map(encode5, packets)) + tail
    check_scanner5(stream, retain=retain, from_server=down, max_count=max_count)


@fuzz
@given(sections(*MESSAGE, many=(P.USER_PROPERTY, P.SUBSCRIPTION_IDENTIFIER)), st.data())
def test_section_with_a_property_twice_or_of_elsewhere_is_never_accepted(section, data):
    """2.2.2.2: whatever else is in the section, one wrong property spoils the packet."""
    wrong = data.draw(st.sampled_from([id_ for id_, rule in P.PROPERTIES.items() if wire.PUBLISH not in rule.packets]))
    extra = bytes((wrong,)) + data.draw(st.binary(max_size=6))
    for spoilt in (section + extra, section + b"\x02\x00\x00\x00\x01" * 2):
        raw = wire.codec_of(5).encode_publish("a", b"x", properties=spoilt)
        assert refuses(raw)
        assert wire.scan_run5(raw, 0, [{b"a": True}] * 8, max_packet=65_536, from_server=True).packets == 0


def refuses(raw: bytes) -> bool:
    try:
        parse5(raw, "server")
    except wire.MalformedPacket:
        return True
    return False
