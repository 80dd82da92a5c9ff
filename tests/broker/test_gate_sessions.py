"""Sessions that outlive a connection: what is sent again and what is not, QoS 2 both ways, many readers, reconnects."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.facts import Effect, Rule, RuleAction
from authsvc.core.reasons import Reason
from authsvc.sessions import Will
from authsvc.store.clearings import Clearing, ClearingKind
from broker import wire
from tests.broker.gate_rig import Rig, of_3_1_1, refused, session_of, will
from tests.broker.raw_client import RawClient
from tests.broker.scripted import EVERYTHING, OWN
from tests.broker.test_gate import DENY_SECRET


class Tap:
    """A link that also keeps what it is given."""

    def __init__(self, link) -> None:
        self.written = b""
        self._link = link

    def write(self, data: bytes) -> None:
        self.written += data
        self._link.write(data)

    def __getattr__(self, name: str):
        return getattr(self._link, name)


def tap(rig: Rig, thing: str = "a") -> Tap:
    connection = session_of(rig, thing).connection
    connection.link = found = Tap(connection.link)
    return found


# --- QoS 2 from the client -----------------------------------------------------------------------------------


@of_3_1_1
async def test_a_repetition_of_a_denied_id_never_reaches_the_broker(rig: Rig) -> None:
    """Neither while the id is open nor under the cover of its PUBREL; afterwards the id is as good as any."""
    spy = await rig.spy()
    a = await rig.client("a")
    link = tap(rig)
    await a.send(rig.codec.encode_publish("t/g/b/x", b"no", qos=2, packet_id=7))
    await a.expect(wire.PUBREC)
    for _ in range(3):
        await a.send(rig.codec.encode_publish("t/g/a/x", b"smuggled", qos=2, packet_id=7, dup=True))
        await a.expect(wire.PUBREC)
    assert link.written == b""
    await a.send(rig.codec.encode_ack(wire.PUBREL, 7))
    await a.expect(wire.PUBCOMP)
    assert link.written == b""
    await a.send(rig.codec.encode_publish("t/g/a/x", b"new", qos=2, packet_id=7))
    await a.expect(wire.PUBREC)
    await a.send(rig.codec.encode_ack(wire.PUBREL, 7))
    await a.expect(wire.PUBCOMP)
    assert await rig.seen_by(spy) == [("t/g/a/x", b"new")]


async def test_a_permitted_qos_2_publish_is_finished_after_a_reconnect(rig: Rig) -> None:
    """PUBLISH, PUBREC, cut; the PUBREL of the next connection brings it out, once, where the broker keeps sessions."""
    spy = await rig.spy()
    a = await rig.client("a", clean=False)
    await a.send(rig.codec.encode_publish("t/g/a/x", b"once", qos=2, packet_id=9))
    await a.expect(wire.PUBREC)
    await rig.lost(a)
    a = await rig.client("a", clean=False)
    assert a.session_present
    await a.send(rig.codec.encode_ack(wire.PUBREL, 9))
    await a.expect(wire.PUBCOMP)
    await a.send(rig.codec.encode_ack(wire.PUBREL, 9))
    await a.expect(wire.PUBCOMP)
    seen = await rig.seen_by(spy)
    if rig.upstream.capabilities.durable:
        assert seen == [("t/g/a/x", b"once")]
    else:
        assert len(seen) <= 1  # its page says that an open handshake does not outlive the connection


async def test_a_right_that_went_between_publish_and_pubrel_changes_nothing(rig: Rig) -> None:
    """What was permitted when it was published is published; the next one under the same id is not."""
    spy = await rig.spy()
    a = await rig.client("a")
    await a.send(rig.codec.encode_publish("t/g/a/x", b"yes", qos=2, packet_id=3))
    await a.expect(wire.PUBREC)
    rig.service.regrant("a", OWN[1:])
    await a.send(rig.codec.encode_ack(wire.PUBREL, 3))
    await a.expect(wire.PUBCOMP)
    await a.send(rig.codec.encode_publish("t/g/a/x", b"no", qos=2, packet_id=3))
    await a.expect(wire.PUBREC)
    await a.send(rig.codec.encode_ack(wire.PUBREL, 3))
    await a.expect(wire.PUBCOMP)
    assert await rig.seen_by(spy) == [("t/g/a/x", b"yes")]


async def test_the_client_sees_nothing_of_a_withheld_qos_2_delivery(rig: Rig) -> None:
    """Neither the message nor the PUBREL behind it, whose id the client has never seen."""
    rig.service.rules["a"] = (*OWN, DENY_SECRET)
    a = await rig.client("a")
    assert await a.subscribe(("t/g/a/#", 2)) == [2]
    spy = await rig.client("spy")
    for n in range(5):
        await spy.publish("t/g/a/secret/x", b"%d" % n, qos=2)
    await spy.publish("t/g/a/end", qos=1)
    async with asyncio.timeout(5):
        while session_of(rig).connection.state.withheld:
            await asyncio.sleep(0.001)
    assert rig.codec.publish(await a.next_packet(), from_server=True).topic == "t/g/a/end"
    await a.send(wire.PINGREQ_PACKET)
    assert await a.next_packet() == wire.PINGRESP_PACKET


# --- deliveries over a reconnect -----------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [1, 2])
async def test_what_was_not_acknowledged_is_not_sent_again_without_the_right(rig: Rig, qos: int) -> None:
    """Delivered, not acknowledged, cut; the right goes; the repetition is withheld and what follows comes."""
    a = await rig.client("a", clean=False)
    assert await a.subscribe(("t/g/a/#", qos)) == [qos]
    spy = await rig.client("spy")
    await spy.publish("t/g/a/secret/x", b"1", qos=qos)
    assert rig.codec.publish(await a.next_packet(), from_server=True).payload == b"1"
    await rig.lost(a)
    rig.service.regrant("a", (*OWN, DENY_SECRET))
    rig.service.rules["a"] = (*OWN, DENY_SECRET)
    a = await rig.client("a", clean=False)
    await spy.publish("t/g/a/secret/x", b"2", qos=qos)
    await spy.publish("t/g/a/end", qos=qos)
    assert await a.deliveries_until("t/g/a/end", 10) == []


async def test_a_qos_2_delivery_is_finished_after_a_reconnect(rig: Rig) -> None:
    """PUBLISH, PUBREC, cut: nothing of it comes twice, others come; where sessions are kept the PUBREL does too."""
    a = await rig.client("a", clean=False)
    assert await a.subscribe(("t/g/a/#", 2)) == [2]
    spy = await rig.client("spy")
    await spy.publish("t/g/a/x", b"1", qos=2)
    first = rig.codec.publish(await a.next_packet(), from_server=True)
    await a.send(rig.codec.encode_ack(wire.PUBREC, first.packet_id))
    await a.expect(wire.PUBREL)
    await rig.lost(a)
    a = await rig.client("a", clean=False)
    if rig.upstream.capabilities.durable:
        assert rig.codec.ack(await a.next_packet()).packet_id == first.packet_id
        await a.send(rig.codec.encode_ack(wire.PUBCOMP, first.packet_id))
    await spy.publish("t/g/a/end", qos=2)
    assert await a.deliveries_until("t/g/a/end", 10) == []


async def test_session_present_is_what_the_broker_has(rig: Rig) -> None:
    """MQTT-3.2.2-1 to -3: 0 at first, 1 when resumed, 0 with and after clean session; each client id has its own."""
    seen = []
    for client_id, clean in [
        ("a", False), ("a", False), ("other", False), ("a", True), ("a", False), ("a", False), ("other", False)
    ]:  # fmt: skip
        a = await rig.client("a", client_id, clean=clean)
        seen.append(a.session_present)
        await a.disconnect()
    assert seen == [False, True, False, False, False, True, True]


async def test_a_session_that_is_cleared_while_it_reconnects_comes_back_empty(rig: Rig) -> None:
    """The row went with the commit of the revocation: whoever is in next has another upstream session."""
    for n in range(10):
        a = await rig.client("a", clean=False)
        await a.subscribe(("t/g/a/old", 1))
        session = session_of(rig)
        upstream_id = rig.service.rows.pop((session.principal, "a"))
        rig.service.store.add(Clearing(id=n, kind=ClearingKind.SESSION, target=upstream_id, since_us=0))
        rig.service.sessions.end(session, Reason.TOKEN_REVOKED, Will.NEVER)
        a = await rig.client("a", clean=False)
        assert not a.session_present
        await a.publish("t/g/a/old", qos=1)
        await a.ping()
        assert a.received == []
    async with asyncio.timeout(5):
        while rig.service.store.waiting:
            await asyncio.sleep(0.001)


# --- swaps ---------------------------------------------------------------------------------------------------


async def test_a_shared_filter_is_taken_back_with_its_right(rig: Rig) -> None:
    """Its inner filter counts; the other members of the group go on and lose nothing."""
    if not rig.upstream.capabilities.shared_subscriptions:
        assert await (await rig.client("a")).subscribe("$share/grp/t/g/a/#") == [refused(rig)]
        return
    a = await rig.client("a")
    spy = await rig.client("spy")
    assert await a.subscribe(("$share/grp/t/g/a/#", 1)) == [1]
    assert await spy.subscribe(("$share/grp/t/g/a/#", 1)) == [1]
    rig.service.regrant("a", OWN[:1])
    await a.ping()
    for n in range(10):
        await a.publish("t/g/a/x", b"%d" % n, qos=1)
    assert [(await spy.delivery()).payload for _ in range(10)] == [b"%d" % n for n in range(10)]


async def test_an_expired_or_revoked_reader_gets_nothing_of_what_was_under_way(rig: Rig) -> None:
    """A backlog that takes several turns of the loop stops in the step that ends the connection."""
    rig.service.rules["a"] = (*OWN, DENY_SECRET)
    a = await rig.client("a")
    connection = session_of(rig).connection
    denied = rig.codec.encode_publish("t/g/a/secret/x", b"")
    connection.upstream_received(denied * 600 + rig.codec.encode_publish("t/g/a/x", b"late"))
    rig.service.sessions.end(session_of(rig), Reason.TOKEN_REVOKED, Will.NEVER)
    assert await a.closed()
    assert a.received == []


# --- many readers --------------------------------------------------------------------------------------------


async def test_every_message_reaches_every_reader(rig: Rig) -> None:
    """300 readers whose deliveries are checked one by one, 100 messages: 30,000 arrive, within 20 s."""
    rig.service.rules["reader"] = (
        *EVERYTHING,
        Rule(effect=Effect.DENY, action=RuleAction.SUBSCRIBE, topic="{tenant}/g/secret"),
    )
    readers = await asyncio.gather(*(rig.client("reader", f"r{n}") for n in range(300)))
    await asyncio.gather(*(reader.subscribe("t/g/#") for reader in readers))
    a = await rig.client("spy")

    async def read(reader: RawClient) -> list[bytes]:
        return [(await reader.delivery(20)).payload for _ in range(100)]

    async with asyncio.timeout(20):
        reading = asyncio.gather(*(read(reader) for reader in readers))
        for n in range(100):
            await a.publish("t/g/news", b"%d" % n, qos=1)
            await a.publish("t/g/secret", b"no", qos=1)
        got = await reading
    assert all(payloads == [b"%d" % n for n in range(100)] for payloads in got)


async def test_wills_go_out_in_the_order_of_take_overs(rig: Rig) -> None:
    """Each new connection is answered behind the will of the one before it."""
    spy = await rig.spy()
    for n in range(5):
        a = await rig.client("a", clean=bool(n % 2), will=will(f"t/g/a/will{n}", qos=n % 3))
        await a.publish("t/g/a/here", b"%d" % n, qos=1)
    await a.disconnect()
    topics = [(await spy.delivery()).topic for _ in range(9)]
    assert topics == [t for n in range(5) for t in ("t/g/a/here", f"t/g/a/will{n}")][:9]
