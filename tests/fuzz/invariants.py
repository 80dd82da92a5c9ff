"""What must hold for any bytes at all; driven by Hypothesis in the suite and by a coverage-guided fuzzer beside it."""

from __future__ import annotations

from functools import partial

from broker import wire

MAX_PACKET = 4096
MAX_CONNECT = 1024


class Permissive(dict[bytes, bool]):
    """Allows every topic that the strict check lets into a memo: the widest that a grant can be."""

    def get(self, key, default=None):
        try:
            wire.check_topic_bytes(key)
        except wire.MalformedPacket:
            return default
        return True


EVERYTHING = [Permissive() for _ in range(8)]


def encode(packet: wire.Packet) -> bytes:
    """Return the packet that the record describes."""
    match packet:
        case wire.Connect():
            return wire.encode_connect(
                client_id=packet.client_id,
                clean_session=packet.clean_session,
                keep_alive_s=packet.keep_alive_s,
                username=packet.username,
                password=packet.password,
                will=packet.will,
                level=packet.level,
            )
        case wire.Connack():
            return wire.encode_connack(packet.code, session_present=packet.session_present)
        case wire.Publish():
            return wire.encode_publish(
                packet.topic,
                packet.payload,
                qos=packet.qos,
                retain=packet.retain,
                dup=packet.dup,
                packet_id=packet.packet_id,
            )
        case wire.Subscribe():
            return wire.encode_subscribe(packet.packet_id, packet.filters)
        case wire.Suback():
            return wire.encode_suback(packet.packet_id, packet.codes)
        case wire.Unsubscribe():
            return wire.encode_unsubscribe(packet.packet_id, packet.filters)
        case wire.Ack():
            return wire.encode_ack(packet.type, packet.packet_id)
        case wire.Bare():
            return bytes((packet.type, 0))


def events(chunks, *, max_connect=None):
    """Return the packets that a framer makes of the chunks, then the clause of its refusal or how much it holds."""
    framer = wire.Framer(MAX_PACKET, max_connect=max_connect)
    seen: list[object] = []
    try:
        for chunk in chunks:
            seen.extend(framer.packets(chunk))  # list.extend keeps what came before an exception
    except wire.MalformedPacket as malformed:
        seen.append(malformed.clause)
    else:
        seen.append(framer.held)
    return seen


def check_framing(data: bytes, step: int) -> None:
    """However the bytes are split, the same packets come out and the same refusal."""
    for max_connect in (None, MAX_CONNECT):
        whole = events([data], max_connect=max_connect)
        split = events([data[i : i + step] for i in range(0, len(data), step)], max_connect=max_connect)
        assert whole == split


def check_parsers(data: bytes) -> None:
    """Parsers return or refuse, never crash; what 3.1.1 parsers return is the packet, byte for byte."""
    for parse in (
        wire.parse_from_client,
        wire.parse_from_server,
        partial(wire.parse_from_client, level=wire.MQTT_3_1),
    ):
        try:
            packet = parse(data)
        except (wire.MalformedPacket, wire.UnsupportedProtocol) as no:
            assert str(no)
            continue
        again = encode(packet)
        assert parse(again) == packet
        repr(packet)
        is_lax = isinstance(packet, wire.Connect) and packet.level == wire.MQTT_3_1
        if not is_lax and not (data[0] & 0x08 and data[0] & 0xF0 != wire.PUBLISH):
            assert again == data


def is_for_the_run(packet: bytes, *, retain: bool) -> bool:
    """Ask the strict parsers what the scanner has to answer for one whole packet."""
    try:
        parsed = wire.parse_from_client(packet)
    except (wire.MalformedPacket, wire.UnsupportedProtocol):
        return False
    match parsed:
        case wire.Publish():
            return parsed.qos < 2 and (retain or not parsed.retain)
        case wire.Ack():
            return parsed.type == wire.PUBACK
    return False


def check_scanner(data: bytes, *, retain: bool, max_count: int = -1) -> None:
    """The run is exactly the packets that the strict parsers accept and that may be in one: never more, never fewer."""
    run = wire.scan_run(data, 0, EVERYTHING, max_packet=MAX_PACKET, retain=retain, max_count=max_count)
    pos, count = 0, 0
    stop = wire.END
    while count != max_count:
        if pos == len(data):
            break
        try:
            end = wire.frame(data, pos, MAX_PACKET)
        except wire.MalformedPacket:
            # The scanner may wait for the rest, but the framer refuses at once.
            assert run.stop in (wire.SLOW, wire.CUT)
            stop = run.stop
            break
        if end == wire.NEED_MORE:
            stop = wire.CUT
            break
        if not is_for_the_run(data[pos:end], retain=retain):
            stop = wire.SLOW
            break
        pos, count = end, count + 1
    else:
        stop = wire.FULL if pos < len(data) else wire.END
    assert run == (pos, count, stop)


def check_all(data: bytes, step: int) -> None:
    """Everything above on the same bytes, as a stream and packet by packet."""
    check_framing(data, step)
    check_parsers(data)
    for retain in (False, True):
        check_scanner(data, retain=retain)
    check_scanner(data, retain=True, max_count=step)
    for packet in events([data]):
        if isinstance(packet, bytes):
            check_parsers(packet)
            check_scanner(packet, retain=True)
