"""What must hold for any bytes at all under MQTT 5.0, as `invariants` says for 3.1 and 3.1.1."""

from __future__ import annotations

from broker import wire
from tests.fuzz.invariants import EVERYTHING, MAX_PACKET

V5 = wire.codec_of(5)
P = wire.properties
READERS = {"client": V5.from_client, "server": V5.from_server}


def parse5(packet: bytes, sender: str = "client") -> wire.Packet:
    """Return the record; a CONNECT takes the way that a gate takes."""
    if sender == "client" and packet[:1] and packet[0] & wire.TYPE_MASK == wire.CONNECT:
        return wire.parse_connect(packet, mqtt5=True)
    return READERS[sender](packet)


def _named(*pairs):
    return wire.sections.encode((id_, value) for id_, value in pairs if value is not None)


def encode5(packet: wire.Packet) -> bytes:
    """Return the packet that the record describes."""
    match packet:
        case wire.Connect():
            return V5.encode_connect(
                client_id=packet.client_id,
                clean_session=packet.clean_session,
                keep_alive_s=packet.keep_alive_s,
                username=packet.username,
                password=packet.password,
                will=packet.will,
                session_expiry_s=packet.session_expiry_s,
                receive_maximum=packet.receive_maximum,
                maximum_packet_size=packet.maximum_packet_size,
                topic_alias_maximum=packet.topic_alias_maximum,
                request_response_information=packet.request_response_information,
                request_problem_information=packet.request_problem_information,
                authentication_method=packet.authentication_method,
                authentication_data=packet.authentication_data,
                properties=packet.properties,
            )
        case wire.Connack():
            section = wire.connack_section(packet)
            return V5.encode_connack(packet.code, session_present=packet.session_present, properties=section)
        case wire.Publish():
            return V5.encode_publish(
                packet.topic,
                packet.payload,
                qos=packet.qos,
                retain=packet.retain,
                dup=packet.dup,
                packet_id=packet.packet_id,
                properties=_named((P.TOPIC_ALIAS, packet.topic_alias)) + packet.properties,
            )
        case wire.Subscribe():
            pairs = [(name, options) for (name, _), options in zip(packet.filters, packet.options, strict=True)]
            return V5.encode_subscribe(packet.packet_id, pairs, packet.properties)
        case wire.Suback():
            return V5.encode_suback(packet.packet_id, packet.codes, packet.properties)
        case wire.Unsubscribe():
            return V5.encode_unsubscribe(packet.packet_id, packet.filters, packet.properties)
        case wire.Unsuback():
            return V5.encode_unsuback(packet.packet_id, packet.codes, packet.properties)
        case wire.Ack():
            return V5.encode_ack(packet.type, packet.packet_id, packet.reason, packet.properties)
        case wire.Disconnect():
            named = _named((P.SESSION_EXPIRY, packet.session_expiry_s), (P.SERVER_REFERENCE, packet.server_reference))
            return V5.encode_disconnect(packet.reason, named + packet.properties)
        case wire.Auth():
            named = _named(
                (P.AUTHENTICATION_METHOD, packet.authentication_method),
                (P.AUTHENTICATION_DATA, packet.authentication_data),
            )
            return wire.encode_auth(packet.reason, named + packet.properties)
        case wire.Bare():
            return bytes((packet.type, 0))


def check_parsers5(data: bytes) -> None:
    """Parsers return or refuse, never crash; what they return is written as bytes that say the same, never longer."""
    for sender in ("client", "server"):
        try:
            packet = parse5(data, sender)
        except wire.UnsupportedProtocol as no:
            assert str(no)
            continue
        except wire.MalformedPacket as no:
            assert str(no)
            assert no.code in {0x81, 0x82, 0x84, 0x94, 0x95}
            continue
        repr(packet)
        if isinstance(packet, wire.Connect) and packet.level != 5:
            continue
        again = encode5(packet)
        assert parse5(again, sender) == packet
        assert len(again) <= len(data)


def is_for_the_run5(packet: bytes, *, retain: bool, from_server: bool) -> bool:
    """Ask the strict parsers what the scanner has to answer for one whole packet."""
    try:
        parsed = parse5(packet, "server" if from_server else "client")
    except (wire.MalformedPacket, wire.UnsupportedProtocol):
        return False
    match parsed:
        case wire.Publish():
            section, _ = wire.sections.read(
                wire.sections.with_length(parsed.properties), 0, len(parsed.properties) + 2, wire.PUBLISH
            )
            plain = (section.text(P.RESPONSE_TOPIC) or "").isascii()
            return parsed.qos < 2 and parsed.topic_alias is None and plain and (retain or not parsed.retain)
        case wire.Ack():
            return parsed.type == wire.PUBACK and not parsed.properties
    return False


def check_scanner5(data: bytes, *, retain: bool, from_server: bool, max_count: int = -1) -> None:
    """The run is exactly the packets that the strict parsers accept and that may be in one: never more, never fewer."""
    run = wire.scan_run5(
        data, 0, EVERYTHING, max_packet=MAX_PACKET, retain=retain, max_count=max_count, from_server=from_server
    )
    legal = wire.legal_first_bytes(5)
    pos, count = 0, 0
    stop = wire.END
    while count != max_count:
        if pos == len(data):
            break
        try:
            end = wire.frame(data, pos, MAX_PACKET, legal)
        except wire.MalformedPacket:
            # The scanner may wait for the rest, but the framer refuses at once.
            assert run.stop in (wire.SLOW, wire.CUT)
            stop = run.stop
            break
        if end == wire.NEED_MORE:
            stop = wire.CUT
            break
        if not is_for_the_run5(data[pos:end], retain=retain, from_server=from_server):
            stop = wire.SLOW
            break
        pos, count = end, count + 1
    else:
        stop = wire.FULL if pos < len(data) else wire.END
    assert run == (pos, count, stop)


def check_all5(data: bytes, step: int) -> None:
    """Everything above on the same bytes, as a stream and packet by packet."""
    check_parsers5(data)
    for retain in (False, True):
        for from_server in (False, True):
            check_scanner5(data, retain=retain, from_server=from_server)
    check_scanner5(data, retain=True, from_server=True, max_count=step)
    framer = wire.Framer(MAX_PACKET, level=5)
    try:
        for packet in framer.packets(data):
            check_parsers5(packet)
            check_scanner5(packet, retain=True, from_server=True)
    except wire.MalformedPacket:
        pass
