"""What stands between the gate and rumqttd, packet by packet, with a link that only writes down what it is told."""

from __future__ import annotations

import asyncio

import pytest

from broker import wire
from broker.managed import rumqttd_link
from broker.managed.rumqttd_link import OWN_IDS, RumqttdLink
from broker.retained import RetainedStore
from broker.wire.properties import SESSION_EXPIRY
from broker.wire.sections import encode
from tests.broker.link_owner import Owner, turns

V3, V5 = wire.codec_of(wire.MQTT_3_1_1), wire.codec_of(wire.MQTT_5_0)


class Link:
    """The link to rumqttd: what was written, and what else was asked of it, in order."""

    session_present = False
    connack = wire.Connack(session_present=False, code=0)

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.asked: list[str] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")

    def close(self) -> None:
        self.asked.append("close")

    def abort(self) -> None:
        self.asked.append("abort")


class Rig:
    def __init__(self, level: int = wire.MQTT_3_1_1, *, expiry_s: int | None = None) -> None:
        self.owner, self.link, self.kept, self.stays = Owner(), Link(), RetainedStore(), []
        between = RumqttdLink(self.owner, level, self.kept.match, expiry_s=expiry_s, ended=self.stays.append)
        self.between = between.over(self.link)

    async def said(self) -> list[bytes]:
        """Return what the owner was told since the last time."""
        await turns()
        told = list(self.owner.packets)
        self.owner.packets.clear()
        return told


# --- towards rumqttd -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "stays"),
    [([], 60), ([V5.encode_disconnect()], 60), ([V5.encode_disconnect(0, encode([(SESSION_EXPIRY, 5)]))], 5)],
)
async def test_no_disconnect_goes_on_but_what_it_says_of_the_session_counts(said, stays):
    """rumqttd would tell the end twice; the time that the session stays is kept here (3.14.2.2.2)."""
    rig = Rig(wire.MQTT_5_0, expiry_s=60)
    for packet in said:
        rig.between.write(packet)
    rig.between.upstream_closed(None)
    assert (rig.link.written, rig.stays, rig.owner.closed) == ([], [stays], [None])


async def test_an_end_is_in_order_whoever_wants_it():
    """A reset may cost another his connection."""
    rig = Rig()
    rig.between.abort()
    rig.between.close()
    assert rig.link.asked == ["close", "close"]


async def test_each_message_of_qos_2_goes_on_once():
    """A repeated one is answered here, and so is a PUBREL that has no message; then the id is free again."""
    rig = Rig(wire.MQTT_5_0)
    message, release = V5.encode_publish("x", b"m", qos=2, packet_id=7), V5.encode_ack(wire.PUBREL, 7)
    rig.between.write(message)
    rig.between.write(message)
    assert rig.link.written == [message]
    assert await rig.said() == [V5.encode_ack(wire.PUBREC, 7)]
    rig.between.write(release)
    rig.between.write(release)
    assert rig.link.written == [message, release]
    assert await rig.said() == [V5.encode_ack(wire.PUBCOMP, 7)]
    rig.between.write(message)
    assert rig.link.written == [message, release, message]


async def test_what_nobody_awaits_does_not_go_on():
    """PUBACK, PUBREC and PUBCOMP of nothing end a connection there."""
    rig = Rig()
    for kind in (wire.PUBACK, wire.PUBREC, wire.PUBCOMP):
        rig.between.write(V3.encode_ack(kind, 3))
    assert rig.link.written == []


async def test_an_idle_session_is_kept_alive_and_its_client_hears_nothing_of_it(monkeypatch):
    """Again and again, until it ends."""
    monkeypatch.setattr(rumqttd_link, "PING_EVERY_S", 0.05)
    rig = Rig()
    async with asyncio.timeout(2):
        while len(rig.link.written) < 2:
            await asyncio.sleep(0.01)
    rig.between.write(wire.PINGREQ_PACKET)  # the client's own is answered
    count = len(rig.link.written)
    for _ in range(count - 1):
        rig.between.upstream_received(wire.PINGRESP_PACKET)
    assert await rig.said() == []
    rig.between.upstream_received(wire.PINGRESP_PACKET)
    assert await rig.said() == [wire.PINGRESP_PACKET]
    rig.between.upstream_closed(None)
    count = len(rig.link.written)
    await asyncio.sleep(0.12)
    assert len(rig.link.written) == count


# --- towards the client ----------------------------------------------------------------------------------------------


async def test_who_is_slow_is_told_on_both_sides():
    """A client that does not read, and a rumqttd that does not."""
    rig = Rig()
    rig.between.pause()
    rig.between.resume()
    rig.between.pause_client()
    rig.between.resume_client()
    assert (rig.link.asked, rig.owner.client_paused) == (["pause", "resume"], [True, False])


async def test_what_is_no_packet_ends_the_connection():
    """Nothing of it is passed on."""
    rig = Rig()
    rig.between.upstream_received(b"\x30\xff\xff\xff\xff\xff")
    assert rig.link.asked == ["abort"]
    assert await rig.said() == []


# --- retained messages -----------------------------------------------------------------------------------------------


async def test_retained_messages_have_the_lower_qos_and_ids_that_rumqttd_has_not():
    """QoS 2 in both its steps; rumqttd hears nothing of them."""
    rig = Rig(wire.MQTT_5_0)
    for qos in (0, 1, 2):
        rig.kept.set(f"r/{qos}", b"%d" % qos, qos)
    for asked in (0, 1, 2):
        rig.between.subscribed([("r/#", asked)])
        told = [V5.publish(packet, from_server=True) for packet in await rig.said()]
        assert sorted((p.payload, p.qos, p.retain) for p in told) == [
            (b"%d" % qos, min(qos, asked), True) for qos in (0, 1, 2)
        ]
        assert all(p.packet_id in OWN_IDS for p in told if p.qos)
        for message in told:
            if message.qos == 1:
                rig.between.write(V5.encode_ack(wire.PUBACK, message.packet_id))
            elif message.qos == 2:
                rig.between.write(V5.encode_ack(wire.PUBREC, message.packet_id))
                assert await rig.said() == [V5.encode_ack(wire.PUBREL, message.packet_id)]
                rig.between.write(V5.encode_ack(wire.PUBCOMP, message.packet_id))
    assert rig.link.written == []
    assert not rig.between._under_way


async def test_ids_begin_again_after_the_last():
    """They never reach those that MQTT has not."""
    rig = Rig()
    rig.between._next_own = OWN_IDS.stop - 1
    rig.kept.set("a", b"1", 1)
    rig.kept.set("b", b"2", 1)
    rig.between.subscribed([("#", 1)])
    ids = [V3.publish(packet, from_server=True).packet_id for packet in await rig.said()]
    assert ids == [OWN_IDS.stop - 1, OWN_IDS.start]


async def test_many_large_ones_come_in_portions_and_wait_for_a_slow_client():
    """A turn of the loop sends a bounded part; a pause holds the rest, a resume lets it go, an end drops it."""
    rig = Rig()
    for number in range(8):
        rig.kept.set(f"r/{number}", bytes(40_000), 0)
    rig.between.subscribed([("r/#", 0)])
    await asyncio.sleep(0)
    assert len(rig.owner.packets) == 2
    rig.between.pause()
    await turns()
    assert len(rig.owner.packets) == 2
    rig.between.resume()
    await turns()
    assert len(rig.owner.packets) == 8
    rig.between.subscribed([("r/#", 0)])
    rig.between.upstream_closed(None)
    await turns()
    assert len(rig.owner.packets) == 8


async def test_after_the_end_nothing_is_answered():
    """What was due in the same turn is dropped."""
    rig = Rig()
    rig.between.write(V3.encode_ack(wire.PUBREL, 9))
    rig.between.upstream_closed(None)
    assert await rig.said() == []


async def test_what_3_1_1_has_not_does_not_reach_its_client():
    """Codes of 5.0 as the one refusal, acknowledgements without a reason, no DISCONNECT of a server."""
    rig = Rig()
    rig.between.upstream_received(
        V5.encode_suback(1, [2, 0x97]) + V5.encode_ack(wire.PUBACK, 1, 0x10) + V5.encode_disconnect(0x8B)
    )
    assert await rig.said() == [V3.encode_suback(1, [2, 0x80]), V3.encode_ack(wire.PUBACK, 1)]
