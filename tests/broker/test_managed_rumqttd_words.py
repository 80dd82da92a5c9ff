"""Clients of 3.1.1 at rumqttd, whose links speak 5.0 to it: the same packets, and nothing that others say hurts."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker import wire
from broker.managed.rumqttd_words import as_3, as_5
from broker.wire.properties import (
    CONTENT_TYPE,
    USER_PROPERTY,
)
from broker.wire.sections import (
    encode,
)
from tests.broker.gate_rig import rig_on
from tests.broker.upstreams import started

V3, V5 = wire.codec_of(wire.MQTT_3_1_1), wire.codec_of(wire.MQTT_5_0)
PROPERTIES = encode([*[(USER_PROPERTY, ("k", "v" * 100))] * 5, (CONTENT_TYPE, "text/plain")])  # in its order


def publishes():
    for size in (0, 1, 100, 118, 119, 120, 121, 16_370, 16_371, 16_372, 16_373, 16_374, 16_375, 100_000):
        for qos in (0, 1, 2):
            for dup in {False, qos > 0}:
                yield {"qos": qos, "dup": dup, "retain": qos == 1, "packet_id": 700 if qos else None}, b"p" * size


@pytest.mark.parametrize("properties", [b"", PROPERTIES], ids=["bare", "with properties"])
def test_a_message_is_the_same_in_both_levels(properties):
    """Of every length around those where the remaining length grows by a byte."""
    for fields, payload in publishes():
        mine = V3.encode_publish("t/x", payload, **fields)
        assert as_5(mine) == V5.encode_publish("t/x", payload, **fields)
        assert as_3(V5.encode_publish("t/x", payload, properties=properties, **fields)) == mine


def test_all_other_packets_are_the_same():
    """What 3.1.1 says goes as 5.0 has it; reasons and codes come back as 3.1.1 has them."""
    filters = [("t/x", 1), ("t/#", 2)]
    assert as_5(V3.encode_subscribe(7, filters)) == V5.encode_subscribe(7, filters)
    assert as_5(V3.encode_unsubscribe(7, ["t/x", "t/#"])) == V5.encode_unsubscribe(7, ["t/x", "t/#"])
    assert as_5(wire.PINGREQ_PACKET) == wire.PINGREQ_PACKET
    for kind in (wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP):
        bare = V3.encode_ack(kind, 7)
        assert as_5(bare) == bare
        assert (
            as_3(bare) == as_3(V5.encode_ack(kind, 7, 0x92)) == as_3(V5.encode_ack(kind, 7, 0x92, PROPERTIES)) == bare
        )
    assert as_3(V5.encode_suback(7, b"\0\2\x87\x97", PROPERTIES)) == V3.encode_suback(7, b"\0\2\x80\x80")
    assert as_3(V5.encode_disconnect(0x8B)) == b""
    assert as_3(wire.PINGRESP_PACKET) == wire.PINGRESP_PACKET


def test_a_broken_packet_is_seen():
    """A section that promises more than the packet holds."""
    with pytest.raises(wire.MalformedPacket):
        as_3(b"\x30\x04\0\1x\x80")


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_what_has_properties_reaches_clients_of_either_level(tmp_path: Path, qos: int) -> None:
    """And ends nobody's connection."""
    async with started("rumqttd", tmp_path) as upstream, rig_on(upstream) as rig:
        old = await rig.client("spy", "old")
        new = await rig.client("spy", "new", level=wire.MQTT_5_0)
        for spy in (old, new):
            await spy.subscribe(("t/#", qos))
        a = await rig.client("a", level=wire.MQTT_5_0)
        await a.publish("t/g/a/x", b"1", qos=qos, properties=PROPERTIES)
        assert (await old.delivery()).payload == b"1"
        assert (await new.delivery()).properties == PROPERTIES
        await old.publish("t/g/a/y", b"2", qos=qos)
        assert [(await spy.delivery()).payload for spy in (old, new)] == [b"2", b"2"]
        assert await old.unsubscribe("t/#") == []
        await old.ping()
