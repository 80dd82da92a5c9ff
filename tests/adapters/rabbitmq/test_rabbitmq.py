"""A real RabbitMQ 3.10 that asks our hooks: who gets in, what they may do, and how they are ended."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.adapters.management import ManagementUnavailable
from authsvc.adapters.rabbitmq_management import LISTED_WITHIN_S
from authsvc.core.credentials import WillMessage
from authsvc.core.facts import RuleAction
from authsvc.core.reasons import Reason
from broker import wire
from tests.adapters.rabbitmq.rig import allow, deny, device, witness
from tests.service.conftest import T

PUBLISH, SUBSCRIBE = RuleAction.PUBLISH, RuleAction.SUBSCRIBE


@pytest.mark.parametrize("level", [wire.MQTT_3_1, wire.MQTT_3_1_1], ids=["3.1", "3.1.1"])
async def test_a_valid_token_connects_and_its_session_is_listed(rig, level):
    """The session carries the client id, the address that RabbitMQ tells, and the broker's name."""
    secret = await device(rig.world, "a1")
    await rig.connect("a1-client", secret, "a1", level=level)
    session = rig.session("a1-client")
    assert (session.thing, session.broker, session.peer) == ("a1", "rabbit", "127.0.0.1")


async def test_mqtt_5_is_not_spoken(rig):
    """RabbitMQ 3.10 closes the connection without asking."""
    secret = await device(rig.world, "a1")
    assert await rig.code("four", secret, "a1", level=wire.MQTT_3_1_1) == 0
    raw = await rig.open()
    await raw.send(b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x03abc")
    assert await raw.closed()


@pytest.mark.parametrize(
    ("password", "thing"),
    [
        pytest.param("asdev_" + "0" * 49, "a1", id="unknown token"),
        pytest.param("", "a1", id="empty password"),
        pytest.param("guest", "guest", id="the internal user guest"),
        pytest.param("the-password-of-the-manager", "authsvc-manager", id="the management's own account"),
        pytest.param("wrong", "authsvc-manager", id="the management's name"),
        pytest.param(None, None, id="anonymous"),
    ],
)
async def test_without_a_valid_token_nobody_connects(rig, password, thing):
    """RabbitMQ answers 4 for a bad login and 5 for anonymous; nothing is open afterwards."""
    await device(rig.world, "a1")
    assert await rig.code("a1-client", password, thing) in (4, 5)
    assert not len(rig.world.service.sessions)


async def test_a_token_of_another_thing_does_not_connect(rig):
    """The user name is the thing's key and must be that of the token."""
    secret = await device(rig.world, "a1")
    await device(rig.world, "a2")
    assert await rig.code("a2-client", secret, "a2") == 4


async def test_another_virtual_host_is_refused(rig):
    """`vhost:user` as user name asks for one that is not configured."""
    secret = await device(rig.world, "a1")
    assert await rig.code("a1-client", secret, "other:a1") in (4, 5)


async def test_publish_subscribe_and_delivery_within_the_grant(rig):
    """What the built-in rules give works end to end, at QoS 0 and 1 and retained."""
    spy = await rig.connect("spy", await witness(rig.world), "spy")
    assert await spy.subscribe((f"{T}/default/#", 1)) == [1]
    client = await rig.connect("a1-client", await device(rig.world, "a1"), "a1")
    assert await client.subscribe((f"{T}/default/a1/command/#", 1)) == [1]
    await client.publish(f"{T}/default/a1/state/x", b"0")
    await client.publish(f"{T}/default/a1/event/y", b"1", qos=1, retain=True)
    assert [(await spy.delivery()).payload for _ in range(2)] == [b"0", b"1"]
    await spy.publish(f"{T}/default/a1/command/go", b"2", qos=1)
    assert (await client.delivery()).topic == f"{T}/default/a1/command/go"


@pytest.mark.parametrize(
    "topic",
    [
        pytest.param(f"{T}/default/a2/state/x", id="another thing"),
        pytest.param(f"{T}.default.a2.state.x", id="dots for slashes"),
        pytest.param(f"{T}/default/a1/command/x", id="an action not granted"),
        pytest.param(f"{T}/default/a1/state/*", id="a star, which a binding takes for any level"),
        pytest.param("$SYS/x", id="a system topic"),
        pytest.param("state/x", id="outside the wall"),
    ],
)
async def test_a_denied_publish_reaches_nobody(rig, topic):
    """RabbitMQ closes the connection of who publishes what he may not."""
    spy = await rig.connect("spy", await witness(rig.world), "spy")
    await spy.subscribe(("#", 1))
    client = await rig.connect("a1-client", await device(rig.world, "a1"), "a1")
    await client.send(wire.encode_publish(topic, b"no", qos=1, packet_id=7))
    assert await client.closed()
    await spy.publish("fence", b"", qos=1)
    assert await spy.deliveries_until("fence") == []


@pytest.mark.parametrize(
    "filter_",
    [
        "#",
        f"{T}/#",
        f"{T}/default/+/command/#",
        f"{T}/default/a2/command/x",
        f"{T}/default/*/command/x",
        f"{T}/default/a1/*/x",
        f"{T}/default/a1/command*",
        f"{T}.default.a2.command.x",
        f"$share/g/{T}/default/a1/command/#",
        "$SYS/#",
    ],
)
async def test_a_subscription_beyond_the_grant_is_refused(rig, filter_):
    """True containment, of the filter as RabbitMQ would understand it; it closes the connection."""
    client = await rig.connect("a1-client", await device(rig.world, "a1"), "a1")
    await client.send(wire.encode_subscribe(1, [(filter_, 1)]))
    assert await client.closed()


@pytest.mark.parametrize(
    "filter_", [f"{T}/default/a1/command/#", f"{T}/default/a1/command/+/x", f"{T}.default.a1.command.y"]
)
async def test_a_subscription_within_the_grant_is_granted(rig, filter_):
    """A dot of the client's is a slash for us, as it is for RabbitMQ's routing."""
    client = await rig.connect("a1-client", await device(rig.world, "a1"), "a1")
    assert await client.subscribe((filter_, 1)) == [1]


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param((allow(PUBLISH, "{tenant}/x", retain=False),), id="not retained only"),
        pytest.param((allow(PUBLISH, "{tenant}/x", retain=True),), id="retained only"),
        pytest.param((allow(PUBLISH, "{tenant}/x", qos_max=0),), id="QoS 0 only"),
    ],
)
async def test_a_condition_that_rabbitmq_does_not_tell_counts_as_unmet(rig, rules):
    """Neither the QoS nor the retain flag reaches us: allowed is what is allowed for all of them."""
    client = await rig.connect("a1-client", await device(rig.world, "a1", *rules), "a1")
    await client.send(wire.encode_publish(f"{T}/x", b"no"))
    assert await client.closed()


@pytest.mark.parametrize("thing", ["a.1", "a.default"], ids=str)
async def test_a_thing_whose_key_cannot_be_told_apart_is_refused(rig, thing):
    """`a.1/x` and `a/1/x` are one routing key."""
    secret = await device(rig.world, thing)
    assert await rig.code("c", secret, thing) == 4
    assert rig.refusal().reason is Reason.THING_KEY_INVALID


async def test_a_deny_rule_that_cannot_be_spelled_refuses_the_connection(rig):
    """It would deny nothing, since its topics arrive in another form."""
    rules = (allow(SUBSCRIBE, "{tenant}/#"), deny(SUBSCRIBE, "{tenant}/secret.d/#"))
    assert await rig.code("c", await device(rig.world, "a1", *rules), "a1") == 4
    assert not len(rig.world.service.sessions)


async def test_a_client_id_may_hold_whatever_mqtt_allows(rig):
    """It is not part of a topic here, and queue names are compared as they are."""
    client_id = "dév /.*#+&=%3\"'"
    client = await rig.connect(client_id, await device(rig.world, "a1"), "a1")
    assert await client.subscribe((f"{T}/default/a1/command/#", 1)) == [1]


async def test_a_will_is_checked_when_it_is_sent(rig):
    """RabbitMQ does not ask at CONNECT; a will without the right is not published."""
    spy = await rig.connect("spy", await witness(rig.world), "spy")
    await spy.subscribe(("#", 1))
    secret = await device(rig.world, "a1")
    for topic in (f"{T}/default/a2/state/will", f"{T}/default/a1/state/will"):
        will = WillMessage(topic=topic, payload=b"gone", qos=1, retain=False)
        client = await rig.connect("a1-client", secret, "a1", will=will)
        client.cut()
    assert (await spy.delivery()).topic == f"{T}/default/a1/state/will"


async def test_a_revoked_token_ends_the_connection_and_deletes_its_queue(rig):
    """Young connections too, which the management API does not list yet; no will; a reconnect resurrects nothing."""
    spy = await rig.connect("spy", await witness(rig.world), "spy")
    await spy.subscribe(("#", 1))
    await rig.world.store.things.create(T, "a1")
    await rig.world.settle()
    token, secret = await rig.world.device_token("a1")
    will = WillMessage(topic=f"{T}/default/a1/state/will", payload=b"gone", qos=1, retain=False)
    client = await rig.connect("a1-client", secret, "a1", clean=False, will=will)
    await client.publish(f"{T}/default/a1/state/will", b"cached", qos=1)
    await spy.delivery()
    await client.subscribe((f"{T}/default/a1/command/#", 1))
    await rig.world.store.device_tokens.delete(T, "a1", token.id)
    await rig.world.settle()
    assert await client.closed()
    assert await rig.code("a1-client", secret, "a1") == 4
    await rig.management_idle()
    await spy.publish(f"{T}/default/a1/command/x", b"for nobody", qos=1)
    _, again = await rig.world.device_token("a1")
    client = await rig.connect("a1-client", again, "a1", clean=False)
    assert client.session_present is False
    await spy.publish("fence", qos=1)
    assert [publish.topic for publish in await spy.deliveries_until("fence")] == [f"{T}/default/a1/command/x"]


async def test_a_revoked_session_that_was_away_finds_its_queue_deleted(rig):
    """What waits in the queue of a client that is offline goes with the token as well."""
    spy = await rig.connect("spy", await witness(rig.world), "spy")
    await rig.world.store.things.create(T, "a1")
    await rig.world.settle()
    token, secret = await rig.world.device_token("a1")
    client = await rig.connect("a1-client", secret, "a1", clean=False)
    await client.subscribe((f"{T}/default/a1/command/#", 1))
    await client.disconnect()
    await spy.publish(f"{T}/default/a1/command/x", b"secret", qos=1)
    await rig.world.store.device_tokens.delete(T, "a1", token.id)
    await rig.world.settle()
    await rig.management_idle()
    _, again = await rig.world.device_token("a1")
    client = await rig.connect("a1-client", again, "a1", clean=False)
    assert client.session_present is False


async def test_an_end_that_wipes_nothing_keeps_the_queue(rig):
    """The connection ends, what it subscribed waits for it."""
    secret = await device(rig.world, "a1")
    client = await rig.connect("a1-client", secret, "a1", clean=False)
    await client.subscribe((f"{T}/default/a1/command/#", 1))
    await rig.management.disconnect("a1-client", wipe=False)
    assert await client.closed()
    assert (await rig.connect("a1-client", secret, "a1", clean=False)).session_present


async def test_the_take_over_alone_deletes_the_queue(rig, monkeypatch):
    """At once, and without the management API, which knows nothing of a young connection."""
    secret = await device(rig.world, "a1")
    client = await rig.connect("a1-client", secret, "a1", clean=False)
    await client.subscribe((f"{T}/default/a1/command/#", 1))

    async def not_asked(client_id: str) -> None:
        raise AssertionError(client_id)

    monkeypatch.setattr(rig.management, "_close", not_asked)
    await rig.management.disconnect("a1-client", wipe=True)
    assert await client.closed()
    assert (await rig.connect("a1-client", secret, "a1", clean=False)).session_present is False


async def test_ending_a_client_that_is_not_there_is_no_failure(rig):
    """Kicks are tried again until they succeed, and so must not need a connection."""
    await rig.management.disconnect("nobody", wipe=True)
    await rig.management.disconnect("nobody", wipe=False)
    assert await rig.management.has_session("nobody") is False


async def test_without_an_mqtt_listener_to_reach_the_management_api_ends_the_connection(rig, monkeypatch):
    """It takes until the API lists the connection: five seconds at most."""
    secret = await device(rig.world, "a1")
    client = await rig.connect("a1-client", secret, "a1", clean=False)
    await client.subscribe((f"{T}/default/a1/command/#", 1))

    async def nowhere() -> None:
        return None

    monkeypatch.setattr(rig.management, "_find_mqtt", nowhere)
    began = asyncio.get_running_loop().time()
    while True:
        try:
            await rig.management.disconnect("a1-client", wipe=True)
        except ManagementUnavailable:
            assert asyncio.get_running_loop().time() - began < LISTED_WITHIN_S
            await asyncio.sleep(0.2)
        else:
            break
    assert await client.closed()
    assert (await rig.connect("a1-client", secret, "a1", clean=False)).session_present is False


async def test_connected_clients_are_listed_at_once(rig):
    """Those that RabbitMQ does not list yet are remembered for as long as that takes."""
    await rig.connect("a1-client", await device(rig.world, "a1"), "a1")
    assert "a1-client" in await rig.management.clients()
    assert await rig.management.has_session("a1-client") is True


async def test_a_changed_rule_ends_the_connection_that_keeps_permissions(rig):
    """RabbitMQ remembers twelve permissions a connection and never asks again: only a new connection does."""
    spy = await rig.connect("spy", await witness(rig.world), "spy")
    await spy.subscribe(("#", 1))
    secret = await device(rig.world, "a1", allow(PUBLISH, "{tenant}/x"))
    client = await rig.connect("a1-client", secret, "a1")
    await client.publish(f"{T}/x", b"1", qos=1)
    await rig.world.store.definitions.update(T, "of-a1", rules=(allow(PUBLISH, "{tenant}/y"),))
    await rig.world.settle()
    assert await client.closed()
    client = await rig.connect("a1-client", secret, "a1")
    await client.send(wire.encode_publish(f"{T}/x", b"2", qos=1, packet_id=1))
    assert await client.closed()
    assert (await spy.delivery()).payload == b"1"
    assert spy.received == []


async def test_a_take_over_by_the_same_thing_ends_the_old_connection(rig):
    """RabbitMQ does that by itself; the new session is the one that is found."""
    secret = await device(rig.world, "a1")
    old = await rig.connect("a1-client", secret, "a1")
    new = await rig.connect("a1-client", secret, "a1")
    assert await old.closed()
    await new.ping()
    assert len(rig.world.service.sessions.find(T, thing="a1")) == 1
