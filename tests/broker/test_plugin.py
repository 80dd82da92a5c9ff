"""The plugin in a stock amqtt, over real sockets, beside the store of another process's service."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest
from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.errors import PluginInitError

from authsvc.core import tokens
from authsvc.core.credentials import WillMessage
from authsvc.core.facts import GroundAccess, TokenKind
from authsvc.core.reasons import Reason
from authsvc.store import Store
from broker import wire
from broker.plugin import NOT_PROMISED, AuthsvcPlugin

T = "acme"
PLUGIN = "broker.plugin.AuthsvcPlugin"


@dataclass
class Client:
    """A raw client: what it read last, packet by packet."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    code: int

    async def packet(self) -> bytes:
        head = await asyncio.wait_for(self.reader.readexactly(2), 5)
        return head + await self.reader.readexactly(head[1])  # all of them are short here

    async def subscribe(self, filter_: str, qos: int = 0) -> int:
        self.writer.write(wire.encode_subscribe(1, [(filter_, qos)]))
        return wire.parse_suback(await self.packet()).codes[0]

    def publish(self, topic: str, payload: bytes) -> None:
        self.writer.write(wire.encode_publish(topic, payload))

    async def ended(self) -> bool:
        return await asyncio.wait_for(self.reader.read(), 5) == b""


class Stock:
    """A store, a stock amqtt with the plugin, and clients of it."""

    def __init__(self, store: Store, broker: Broker) -> None:
        self.store = store
        self.broker = broker
        self.plugin: AuthsvcPlugin = broker.plugins_manager.get_plugin("AuthsvcPlugin")
        self.port = broker._servers["default"].instance.sockets[0].getsockname()[1]
        self._clients: list[Client] = []

    async def connect(self, token: str, thing: str = "", *, client_id: str = "c1", clean: bool = True, will=None):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        packet = wire.encode_connect(
            client_id=client_id, clean_session=clean, username=thing, password=token.encode(), will=will
        )
        writer.write(packet)
        answer = wire.parse_connack(await asyncio.wait_for(reader.readexactly(4), 5))
        client = Client(reader, writer, answer.code)
        self._clients.append(client)
        return client

    async def token(self, kind: TokenKind, repository, *args, **fields) -> tuple[str, str]:
        text = tokens.mint(kind)
        written = await repository.create(
            T, *args, name="t", digest=tokens.digest(text), prefix=tokens.prefix(text), **fields
        )
        await self.plugin.service.feed.settle(written.position)
        return text, written.value.id

    async def app_token(self) -> tuple[str, str]:
        return await self.token(TokenKind.APP, self.store.app_tokens, definition="thing")

    async def ground_token(self) -> tuple[str, str]:
        return await self.token(TokenKind.GROUND, self.store.ground_tokens, "default", access=GroundAccess.READ)

    async def close(self) -> None:
        for client in self._clients:
            client.writer.close()
            await asyncio.gather(client.writer.wait_closed(), return_exceptions=True)


def configuration(data, *, allow: bool = True) -> dict:
    return {
        "listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:0"}},
        "plugins": {PLUGIN: {"data": str(data), "allow_stock_broker": allow}},
    }


@pytest.fixture
async def stock(tmp_path):
    store = await Store.open(tmp_path / "authsvc.db", now_us=lambda: time.time_ns() // 1000)
    await store.tenants.create(T)
    broker = Broker(configuration(tmp_path))
    await broker.start()
    made = Stock(store, broker)
    yield made
    await made.close()
    await broker.shutdown()
    await store.close()


async def test_it_does_not_start_in_a_stock_broker_that_was_not_told_so(tmp_path):
    """One message says what cannot be promised and which command keeps the promises."""
    with pytest.raises(PluginInitError) as refused:
        Broker(configuration(tmp_path, allow=False))
    assert str(refused.value.__cause__) == NOT_PROMISED
    assert "authsvc up --broker-config" in NOT_PROMISED
    assert "allow_stock_broker: true" in NOT_PROMISED


async def test_a_first_connection_registers_the_thing_and_is_held_to_its_rules(stock):
    """The same core decides: own topics yes, others no."""
    token, _ = await stock.app_token()
    client = await stock.connect(token, "g1")
    assert client.code == 0
    assert (await stock.store.thing(T, "g1")).definition == "thing"
    assert await client.subscribe(f"{T}/default/g1/command/#", 1) == 1
    assert await client.subscribe(f"{T}/#") == 0x80
    assert await client.subscribe("#") == 0x80


async def test_what_a_thing_may_not_publish_reaches_nobody(stock):
    """A denied PUBLISH is dropped, an allowed one arrives."""
    token, _ = await stock.app_token()
    ground, _ = await stock.ground_token()
    reader = await stock.connect(ground, client_id="app")
    assert await reader.subscribe(f"{T}/default/#") == 0
    client = await stock.connect(token, "g1")
    client.publish(f"{T}/default/g2/state/x", b"forged")
    client.publish(f"{T}/default/g1/state/x", b"mine")
    message = wire.parse_publish(await reader.packet())
    assert (message.topic, message.payload) == (f"{T}/default/g1/state/x", b"mine")


@pytest.mark.parametrize("token", ["", "secret", tokens.mint(TokenKind.APP)], ids=["none", "no token", "unknown"])
async def test_a_wrong_token_is_refused(stock, token):
    """Nothing but a known token is a yes, and the refusal can be read."""
    client = await stock.connect(token, "g1")
    assert client.code != 0
    assert await stock.store.thing(T, "g1") is None


async def test_a_will_without_the_right_refuses_the_connect(stock):
    """As far as amqtt asks: at the CONNECT it does."""
    token, _ = await stock.app_token()
    will = WillMessage(topic=f"{T}/default/g2/state/x", payload=b"", qos=0, retain=False)
    assert (await stock.connect(token, "g1", will=will)).code != 0


async def test_another_principal_does_not_get_a_client_id_that_is_held(stock):
    """amqtt shares ids among all its clients; the holder's is his."""
    token, _ = await stock.app_token()
    ground, _ = await stock.ground_token()
    assert (await stock.connect(ground, client_id="same")).code == 0
    assert (await stock.connect(token, "g1", client_id="same")).code != 0


async def test_a_revoked_token_ends_the_connection(stock):
    """The plugin follows the changes of the process that wrote them."""
    token, token_id = await stock.app_token()
    client = await stock.connect(token, "g1")
    assert client.code == 0
    await stock.store.app_tokens.delete(T, token_id)
    assert await client.ended()
    assert (await stock.connect(token, "g1")).code != 0


async def test_without_a_store_everybody_is_refused(tmp_path):
    """A data directory that is not there closes the door; the broker itself runs."""
    broker = Broker(configuration(tmp_path / "absent"))
    await broker.start()
    made = Stock(None, broker)
    try:
        assert (await made.connect(tokens.mint(TokenKind.APP), "g1")).code != 0
    finally:
        await made.close()
        await broker.shutdown()


async def test_a_failure_inside_is_a_no_and_leaves_no_exception_to_amqtt(stock, monkeypatch):
    """An exception in amqtt's broadcast would cost all later subscribers the message."""
    token, _ = await stock.app_token()
    await stock.connect(token, "g1")
    session = stock.broker.sessions["c1"][0]
    topic = f"{T}/default/g1/state/x"
    assert await stock.plugin.topic_filtering(session=session, topic=topic, action=Action.PUBLISH) is True
    connection = session.attributes["authsvc.connection"]
    monkeypatch.setattr(connection, "grant", object())
    assert await stock.plugin.topic_filtering(session=session, topic=topic, action=Action.RECEIVE) is False
    monkeypatch.setattr(stock.plugin.service, "admit", None)
    assert await stock.plugin.authenticate(session=session) is False
    assert await stock.plugin.topic_filtering(session=session, topic=topic, action=Action.PUBLISH) is False


async def test_every_answer_is_true_or_false(stock):
    """A None would leave the question to another plugin."""
    for action in (*Action, None):
        assert await stock.plugin.topic_filtering(session=None, topic="x", action=action) is False


async def test_a_session_that_ended_leaves_the_list(stock):
    """`authsvc session list` shows who is connected."""
    token, _ = await stock.app_token()
    client = await stock.connect(token, "g1")
    assert [session.thing for session in stock.plugin.service.sessions] == ["g1"]
    client.writer.write(wire.DISCONNECT_PACKET)
    await client.ended()
    async with asyncio.timeout(5):
        while len(stock.plugin.service.sessions):
            await asyncio.sleep(0.01)
    assert stock.plugin.service.sessions.ended[Reason.CONNECTION_LOST] == 1
