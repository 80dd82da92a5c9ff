"""The wire of MQTT 5.0 against a real peer: what Mosquitto's clients and broker say is read, what we say is taken."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager, closing

import pytest

from authsvc.core.credentials import WillMessage
from broker import wire
from tests.broker.mosquitto import Mosquitto
from tests.fuzz.invariants5 import V5, P, encode5, parse5

pytestmark = pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto-clients is not installed")
MAX = 1 << 20


@pytest.fixture
async def mosquitto(tmp_path):
    broker = Mosquitto(tmp_path)
    await broker.start()
    yield broker
    await broker.stop()


class Tap:
    """A relay before a broker that hears both sides: `said` has every packet, read strictly, in order."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self.said: list[tuple[str, wire.Packet]] = []
        self.problems: list[str] = []

    async def serve(self, reader, writer):
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        with closing(writer), closing(upstream_writer):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._relay("client", reader, upstream_writer, wire.Framer(MAX, level=5)))
                group.create_task(self._relay("server", upstream_reader, writer, wire.Framer(MAX, level=5)))

    async def _relay(self, sender, reader, writer, framer):
        try:
            while data := await reader.read(65_536):
                for packet in framer.packets(data):
                    parsed = parse5(packet, sender)
                    if parse5(encode5(parsed), sender) != parsed:
                        self.problems.append(f"{parsed} is not what is written of it")
                    self.said.append((sender, parsed))
                writer.write(data)
                await writer.drain()
        except wire.MalformedPacket as malformed:
            self.problems.append(f"{sender}: {malformed}")
        except ConnectionError:
            pass
        finally:
            writer.close()

    def all(self, sender, record):
        return [packet for who, packet in self.said if who == sender and isinstance(packet, record)]


@asynccontextmanager
async def tapped(broker):
    tap = Tap(broker.port)
    server = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
    port = str(server.sockets[0].getsockname()[1])

    async def run(program, *options):
        process = await asyncio.create_subprocess_exec(
            program, "-V", "mqttv5", "-h", "127.0.0.1", "-p", port, *options,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(20):
                out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, out
        return out

    async with server:
        yield tap, run
    assert tap.problems == []


MESSAGE_OPTIONS = (
    "payload-format-indicator 1",
    "message-expiry-interval 60",
    "content-type text/plain",
    "response-topic r/t",
    "correlation-data c0ffee",
    "user-property k v",
    "user-property k w",
)


def given(command, *options):
    return [word for option in options for word in ("-D", command, *option.split())]


async def test_packets_of_mosquittos_clients_and_broker_are_read(mosquitto):
    """CONNECT with will, PUBLISH of all QoS, SUBSCRIBE, UNSUBSCRIBE and DISCONNECT, all with their properties."""
    async with tapped(mosquitto) as (tap, run):
        connecting = given(
            "connect",
            "session-expiry-interval 60",
            "receive-maximum 20",
            "maximum-packet-size 100000",
            "topic-alias-maximum 5",
            "request-problem-information 0",
            "request-response-information 1",
            "user-property who pub",
        )
        will = ["--will-topic", "w/t", "--will-payload", "gone", "--will-qos", "1"]
        will += given("will", "will-delay-interval 5", *MESSAGE_OPTIONS)
        for qos in "012":
            await run(
                "mosquitto_pub", "-i", "pub", "-t", "a/b", "-m", "hello", "-q", qos, "-r", *connecting, *will,
                *given("publish", *MESSAGE_OPTIONS), *given("disconnect", "session-expiry-interval 5"),
            )  # fmt: skip
        out = await run(
            "mosquitto_sub", "-t", "a/#", "-t", "$share/g/b", "-U", "c/d", "-q", "2", "-C", "1", "-c", "-i", "sub",
            "-x", "30", "--retain-as-published",
            *given("subscribe", "subscription-identifier 300", "user-property who sub"),
            *given("unsubscribe", "user-property why gone"),
        )  # fmt: skip
    assert out == b"hello\n"
    connect = tap.all("client", wire.Connect)[0]
    assert (connect.session_expiry_s, connect.receive_maximum, connect.maximum_packet_size) == (60, 20, 100_000)
    assert connect.topic_alias_maximum == 5
    assert connect.request_response_information
    assert not connect.request_problem_information
    assert connect.will.delay_s == 5
    for pair in ((P.CONTENT_TYPE, "text/plain"), (P.RESPONSE_TOPIC, "r/t"), (P.USER_PROPERTY, ("k", "w"))):
        assert wire.sections.encode([pair]) in connect.will.properties
    publishes = tap.all("client", wire.Publish)
    assert [publish.qos for publish in publishes] == [0, 1, 2]
    assert all(wire.sections.encode([(P.CONTENT_TYPE, "text/plain")]) in publish.properties for publish in publishes)
    assert {ack.type for ack in tap.all("client", wire.Ack)} >= {wire.PUBREL}
    assert {ack.type for ack in tap.all("server", wire.Ack)} >= {wire.PUBACK, wire.PUBREC, wire.PUBCOMP}
    assert tap.all("server", wire.Ack)[0].reason == 0x10  # nobody subscribes yet
    assert tap.all("client", wire.Subscribe)[0].subscription_identifier == 300
    assert tap.all("client", wire.Unsubscribe)[0].filters == ("c/d",)
    assert tap.all("server", wire.Unsuback)
    assert tap.all("server", wire.Suback)
    delivered = tap.all("server", wire.Publish)[0]
    assert delivered.retain
    assert wire.sections.encode([(P.SUBSCRIPTION_IDENTIFIER, 300)]) in delivered.properties
    assert tap.all("client", wire.Disconnect)[0].session_expiry_s == 5
    assert len(tap.all("server", wire.Connack)) == 4


async def test_topic_alias_of_mosquittos_client_is_read(mosquitto):
    """The first PUBLISH sets the alias, the next ones have no topic."""
    async with tapped(mosquitto) as (tap, run):
        await run(
            "mosquitto_pub", "-t", "a/b", "-m", "x", "-q", "1", "--repeat", "3", *given("publish", "topic-alias 4")
        )
    publishes = tap.all("client", wire.Publish)
    assert {publish.topic_alias for publish in publishes} == {4}
    assert publishes[0].topic == "a/b"


class Client:
    """Our packets to a broker, and its answers read strictly."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._framer = wire.Framer(MAX, level=5)
        self._waiting: list[bytes] = []

    async def __aenter__(self):
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_):
        self._writer.close()

    async def ask(self, packet: bytes) -> wire.Packet:
        self._writer.write(packet)
        return await self.next()

    async def next(self) -> wire.Packet:
        async with asyncio.timeout(10):
            while not self._waiting:
                data = await self._reader.read(65_536)
                assert data, "the broker closed the connection"
                self._waiting.extend(self._framer.packets(data))
        return V5.from_server(self._waiting.pop(0))


USERS = wire.sections.encode([(P.USER_PROPERTY, ("k", "v")), (P.USER_PROPERTY, ("k", ""))])


async def test_mosquitto_takes_every_kind_of_packet_that_is_written(mosquitto):
    """CONNECT with everything, subscriptions with options, a message of each QoS with all properties, and the rest."""
    section = USERS + wire.sections.encode(
        [
            (P.PAYLOAD_FORMAT, 1),
            (P.MESSAGE_EXPIRY, 60),
            (P.CONTENT_TYPE, "ü"),
            (P.RESPONSE_TOPIC, "r/t"),
            (P.CORRELATION_DATA, bytes(200)),
        ]
    )
    async with Client(mosquitto.port) as client:
        connack = await client.ask(
            V5.encode_connect(
                client_id="",
                session_expiry_s=60,
                receive_maximum=20,
                maximum_packet_size=100_000,
                topic_alias_maximum=5,
                request_response_information=True,
                request_problem_information=True,
                will=WillMessage(topic="w", payload=b"x", qos=1, retain=False, delay_s=5, properties=section),
                properties=USERS,
            )
        )
        assert connack.code == 0
        assert connack.assigned_client_id
        identifier = wire.sections.encode([(P.SUBSCRIPTION_IDENTIFIER, 200)])
        suback = await client.ask(V5.encode_subscribe(1, [("a", 0x02), ("b/#", 0x2D)], identifier + USERS))
        assert suback.codes == b"\x02\x01"

        await client.ask(V5.encode_publish("a", b"0", properties=section))
        aliased = wire.sections.encode([(P.TOPIC_ALIAS, 1)]) + section
        answers = [await client.ask(V5.encode_publish("a", b"1", qos=1, packet_id=2, properties=aliased))]
        answers.append(await client.next())
        assert {type(answer) for answer in answers} == {wire.Ack, wire.Publish}
        delivered = next(answer for answer in answers if isinstance(answer, wire.Publish))
        assert identifier in delivered.properties
        assert USERS in delivered.properties
        await client.ask(V5.encode_ack(wire.PUBACK, delivered.packet_id, 0, USERS) + b"\xc0\x00")

        received = await client.ask(
            V5.encode_publish("", b"2", qos=2, packet_id=3, properties=wire.sections.encode([(P.TOPIC_ALIAS, 1)]))
        )
        assert (received.type, received.packet_id) == (wire.PUBREC, 3)
        answers = [await client.ask(V5.encode_ack(wire.PUBREL, 3, 0, USERS)), await client.next()]
        assert {answer.type for answer in answers if isinstance(answer, wire.Ack)} == {wire.PUBCOMP}
        second = next(answer for answer in answers if isinstance(answer, wire.Publish))
        assert second.topic == "a"
        assert second.qos == 2
        released = await client.ask(V5.encode_ack(wire.PUBREC, second.packet_id))
        assert released.type == wire.PUBREL
        unsuback = await client.ask(
            V5.encode_ack(wire.PUBCOMP, second.packet_id) + V5.encode_unsubscribe(4, ["a", "never"], USERS)
        )
        assert unsuback.codes == b"\x00\x11"
        refused = await client.ask(V5.encode_publish("a", b"", properties=b"\x23\x00\x00"))
        assert refused.reason >= 0x80  # alias 0; the code is the broker's choice
