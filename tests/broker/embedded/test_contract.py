"""The contract with amqtt, line by line: what is relied on, and what is done about the rest.

Each test fails when amqtt changes on that line, and says so before a release does.
"""

from __future__ import annotations

import asyncio
import inspect
import logging

import pytest
from amqtt.broker import Broker
from amqtt.contexts import ListenerType
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.mqtt.protocol.handler import ProtocolHandler

from authsvc.core.errors import InvalidInput, UpstreamUnavailable
from broker import wire
from broker.embedded import AmqttUpstream
from broker.embedded import link as links
from broker.embedded import upstream as upstreams
from broker.embedded.broker import GateAuth, GateBroker
from tests.broker.link_owner import Owner, connected, subscribe, turns

A, B = "A" * 22, "B" * 22


# --- one authentication plugin, ours -------------------------------------------------------------------------


async def test_amqtt_asks_one_authentication_plugin_and_it_is_ours(upstream):
    """No plugin of amqtt's defaults is loaded, and a session is not anonymous, so that it has a queue."""
    await connected(upstream)
    plugins = upstream.broker.plugins_manager
    assert [type(plugin).__name__ for plugin in plugins.plugins] == ["GateAuth"]
    assert [type(plugin) for plugin in plugins._auth_plugins] == [GateAuth]
    assert plugins._topic_plugins == []
    assert upstream.broker.sessions[A][0].is_anonymous is False


async def test_amqtt_opens_no_socket(upstream):
    """Its only listener is external: nobody reaches it past the gate."""
    assert [listener.type for listener in upstream.broker.listeners_config.values()] == [ListenerType.EXTERNAL]
    assert all(server.instance is None for server in upstream.broker._servers.values())


@pytest.mark.parametrize(
    "path",
    [
        "amqtt.plugins.authentication.AnonymousAuthPlugin",
        "amqtt.plugins.authentication.FileAuthPlugin",
        "amqtt.plugins.topic_checking.TopicTabooPlugin",
        "amqtt.plugins.topic_checking.TopicAccessControlListPlugin",
    ],
)
def test_a_plugin_that_would_decide_beside_us_is_refused_by_name(path):
    """Authentication and topic plugins of a configuration are refused before anything starts."""
    with pytest.raises(InvalidInput, match=path):
        AmqttUpstream({"plugins": {path: {}}})


async def test_other_plugins_are_loaded():
    """A plugin that only listens keeps working behind the gate."""
    upstream = AmqttUpstream({"plugins": {"amqtt.plugins.logging_amqtt.EventLoggerPlugin": {}}})
    await upstream.start()
    try:
        names = [type(plugin).__name__ for plugin in upstream.broker.plugins_manager.plugins]
        assert names == ["GateAuth", "EventLoggerPlugin"]
    finally:
        await upstream.stop()


# --- one connection at a time --------------------------------------------------------------------------------


async def test_the_old_connection_has_gone_before_the_next_connect_is_fed(upstream, monkeypatch):
    """amqtt's own take-over, after which the new connection hears nothing, is never reached."""
    running: list[int] = []
    most: list[int] = []
    original = Broker.external_connected

    async def counted(self, reader, writer, name):
        running.append(1)
        most.append(len(running))
        try:
            await original(self, reader, writer, name)
        finally:
            running.pop()

    monkeypatch.setattr(Broker, "external_connected", counted)  # GateBroker inherits it
    owners = [Owner() for _ in range(5)]
    links = await asyncio.gather(*(upstream.connect(owner, A, clean=False) for owner in owners), return_exceptions=True)
    alive = [(link, owner) for link, owner in zip(links, owners, strict=True) if not isinstance(link, Exception)]
    link, owner = alive[-1]
    await turns()
    assert max(most) == 1
    live = [(link, owner) for link, owner in alive if not owner.closed]
    assert len(live) == 1
    link, owner = live[0]
    await subscribe(link, owner, ("x", 1))
    await upstream.publish("x", b"heard", qos=1, retain=False)
    assert (await owner.published())[0].payload == b"heard"


async def test_a_session_is_resumed_with_its_subscriptions_and_its_queue(upstream):
    """Session present is what amqtt says, and a QoS 1 message waits for a session that is not anonymous."""
    link, owner = await connected(upstream, clean=False)
    assert link.session_present is False
    await subscribe(link, owner, ("x/#", 1))
    link.abort()
    await link.wait_closed()
    await upstream.publish("x/1", b"waited", qos=1, retain=False)
    await turns()
    link, owner = await connected(upstream, clean=False)
    assert link.session_present is True
    assert [(message.topic, message.payload) for message in await owner.published()] == [("x/1", b"waited")]


async def test_a_cleared_session_is_gone_with_its_queue(upstream):
    """After `clear_session` there is no session, no subscription and no queued message."""
    link, owner = await connected(upstream, clean=False)
    await subscribe(link, owner, ("x/#", 1))
    link.abort()
    await link.wait_closed()
    await upstream.publish("x/1", b"waited", qos=1, retain=False)
    await upstream.clear_session(A)
    assert A not in upstream.broker.sessions
    assert upstream.broker.subscriptions == {}
    link, owner = await connected(upstream, clean=False)
    assert link.session_present is False
    await subscribe(link, owner, ("y", 1))
    assert owner.publishes == []


# --- the end of external_connected ends the client -----------------------------------------------------------


async def test_an_end_that_amqtt_decides_ends_the_owner_once_even_without_a_closed_writer(upstream):
    """On a wildcard in a topic amqtt leaves its loop without closing the writer; the link ends all the same."""
    link, owner = await connected(upstream)
    link.write(b"\x30\x05\x00\x01$x" + b"y")  # its first character is the topic `$`
    assert isinstance(await owner.ended(), UpstreamUnavailable)
    await link.wait_closed()
    await turns()
    assert len(owner.closed) == 1
    assert A not in upstream.broker.sessions


async def test_an_exception_inside_amqtt_ends_that_owner_once_and_nobody_else(upstream, monkeypatch):
    """A failure while one session is served is an end of that connection only."""

    async def fails(self, *_):
        raise RuntimeError("broken")

    monkeypatch.setattr(Broker, "_handle_unsubscription", fails)
    link, owner = await connected(upstream)
    other, other_owner = await connected(upstream, B)
    link.write(wire.encode_unsubscribe(1, ["x"]))
    assert isinstance(await owner.ended(), UpstreamUnavailable)
    await subscribe(other, other_owner, ("x", 0))
    assert len(owner.closed) == 1
    assert other_owner.closed == []
    again, _ = await connected(upstream)
    assert again.session_present is False


@pytest.mark.parametrize("how", ["close", "abort", "stop", "disconnect"])
async def test_every_end_is_told_exactly_once(upstream, how):
    """An end that the gate asked for is told without an error, once."""
    link, owner = await connected(upstream)
    if how == "stop":
        await upstream.stop()
    elif how == "disconnect":
        link.write(wire.DISCONNECT_PACKET)
    else:
        getattr(link, how)()
        getattr(link, how)()
    await link.wait_closed()
    link.abort()
    link.close()
    await turns()
    assert owner.closed == [None]


async def test_a_connect_that_amqtt_does_not_answer_is_an_error_and_leaves_nothing(upstream, monkeypatch):
    """No CONNACK in time: the caller is told, its owner is not called, and the id can be used again."""

    async def silent(self, authorize):
        await asyncio.sleep(3600)

    monkeypatch.setattr(upstreams, "CONNECT_WITHIN_S", 0.05)
    monkeypatch.setattr(BrokerProtocolHandler, "mqtt_connack_authorize", silent)
    monkeypatch.setattr(links, "STUCK_AFTER_S", 0.05)
    owner = Owner()
    with pytest.raises(UpstreamUnavailable):
        await upstream.connect(owner, A, clean=True)
    monkeypatch.undo()
    link, _ = await connected(upstream)
    assert link.session_present is False
    assert owner.closed == []


# --- the signatures and the noise -------------------------------------------------------------------------------


def test_what_is_called_in_amqtt_is_still_there():
    """Names and parameters that the upstream uses."""
    assert list(inspect.signature(Broker.external_connected).parameters) == [
        "self",
        "reader",
        "writer",
        "listener_name",
    ]
    assert list(inspect.signature(Broker.internal_message_broadcast).parameters)[:3] == ["self", "topic", "data"]
    assert {"topic", "data", "qos", "retain"} <= set(inspect.signature(BrokerProtocolHandler.mqtt_publish).parameters)
    assert all(
        isinstance(getattr(Broker, name), property) for name in ("sessions", "subscriptions", "retained_messages")
    )


@pytest.mark.parametrize(
    "name",
    [
        "_topic_filtering",
        "_publish_retained_messages_for_subscription",
        "_publish_session_retained_messages",
        "_initialize_client_session",
        "_broadcast_message",
        "_run_broadcast",
    ],
)
def test_what_is_answered_in_place_of_amqtt_is_what_it_asks(name):
    """An override that amqtt no longer calls would be no override."""
    own, theirs = getattr(GateBroker, name), getattr(Broker, name)
    assert own is not theirs
    assert list(inspect.signature(own).parameters) == list(inspect.signature(theirs).parameters)
    assert inspect.iscoroutinefunction(theirs)
    assert f"self.{name}(" in inspect.getsource(Broker)


def test_amqtt_takes_up_open_exchanges_before_it_hears_the_client():
    """The override waits for nothing where amqtt waits for all of them."""
    assert "await self._retry_deliveries()" in inspect.getsource(ProtocolHandler.start)
    assert list(inspect.signature(ProtocolHandler._retry_deliveries).parameters) == ["self"]


async def test_amqtt_prints_no_payload_and_a_client_cannot_make_it_log_at_will(upstream, caplog):
    """Below WARNING nothing is written; of lines that a client causes a few a second."""
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 0))
    link.write(wire.encode_publish("x", b"do not print"))
    link.write(b"".join(wire.encode_ack(wire.PUBACK, number) for number in range(1, 500)))
    link.write(wire.PINGREQ_PACKET)
    await owner.until(lambda: bool(owner.of(wire.PINGRESP)))
    assert "do not print" not in caplog.text
    assert len([record for record in caplog.records if record.name.startswith("amqtt")]) <= 30
    assert logging.getLogger("amqtt").level == logging.WARNING
