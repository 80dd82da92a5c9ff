"""A grant that is swapped under a live session: the next packet, and the filters that it no longer covers."""

from __future__ import annotations

from broker import wire
from tests.broker.gate_rig import Rig, refused, session_of
from tests.broker.scripted import OWN
from tests.broker.test_gate import DENY_SECRET


async def test_a_swapped_grant_holds_for_the_next_packet(rig: Rig) -> None:
    """Memos are emptied: what was allowed a packet ago is denied now, both ways, and the other way round."""
    spy = await rig.spy()
    a = await rig.client("a")
    await a.subscribe("t/g/a/#")
    await a.publish("t/g/a/x", b"1", qos=1)
    await a.publish("t/g/a/secret/x", b"1", qos=1)
    assert [(await a.delivery()).topic for _ in range(2)] == ["t/g/a/x", "t/g/a/secret/x"]
    rig.service.regrant("a", (OWN[1], DENY_SECRET))
    await a.publish("t/g/a/x", b"no", qos=1)
    await spy.publish("t/g/a/secret/x", b"no", qos=1)
    await spy.publish("t/g/a/end", qos=1)
    assert await a.deliveries_until("t/g/a/end") == []
    assert [p.payload for p in await spy.deliveries_until("t/g/a/end")] == [b"1", b"1", b"no"]
    rig.service.regrant("a", OWN)
    await a.publish("t/g/a/x", b"2", qos=1)
    assert (await a.delivery()).payload == b"2"


async def test_filters_no_longer_covered_are_taken_back(rig: Rig) -> None:
    """Gone upstream as well, so that nothing comes back when the right does; the answer is swallowed."""
    a = await rig.client("a")
    await a.subscribe("t/g/a/#", "t/g/a/end")
    rig.service.regrant("a", OWN[:1])
    assert await a.subscribe("t/g/a/#") == [refused(rig)]
    rig.service.regrant("a", OWN)
    await a.subscribe("t/g/a/end")
    await a.publish("t/g/a/x", b"no", qos=1)
    await a.publish("t/g/a/end", qos=1)
    assert await a.deliveries_until("t/g/a/end") == []


async def test_a_subscribe_that_waits_for_its_answer_is_taken_back_too(rig: Rig) -> None:
    """The SUBACK refuses where the swap came between, and the filter is gone upstream."""
    a = await rig.client("a")
    connection = session_of(rig).connection
    connection.data_received(rig.codec.encode_subscribe(9, [("t/g/a/#", 1), ("t/g/a/x", 0)]))
    rig.service.regrant("a", OWN[:1])
    assert rig.codec.suback(await a.expect(wire.SUBACK)).codes == bytes((refused(rig), refused(rig)))
    rig.service.regrant("a", OWN)
    await a.subscribe("t/g/a/end")
    await a.publish("t/g/a/x", b"no", qos=1)
    await a.publish("t/g/a/end", qos=1)
    assert await a.deliveries_until("t/g/a/end") == []


async def test_uncovered_filters_of_a_resumed_session_are_taken_back(rig: Rig) -> None:
    """CVE-2021-34434: a right revoked while the durable client is away does not live on in its subscription."""
    a = await rig.client("a", clean=False)
    await a.subscribe(("t/g/a/#", 1))
    a.cut()
    rig.service.regrant("a", OWN[:1])
    a = await rig.client("a", clean=False)
    rig.service.regrant("a", OWN)
    await a.subscribe("t/g/a/end")
    await a.publish("t/g/a/x", b"no", qos=1)
    await a.publish("t/g/a/end", qos=1)
    assert await a.deliveries_until("t/g/a/end") == []
