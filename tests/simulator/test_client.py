"""The simulator's client on a scripted server: it reports what happened on the wire, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from broker import wire
from simulator.client import Client, ConnectRefused, NotConnected, connect

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ACCEPTED = wire.encode_connack(0)


@asynccontextmanager
async def _serving(script: Script) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _packet(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(2)
    return head + await reader.readexactly(head[1])


async def _client(port: int, **more) -> Client:
    return await connect("127.0.0.1", port, client_id="c", username="u", token="t", timeout_s=5, **more)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
async def test_a_refusal_carries_its_code(code: int) -> None:
    """The CONNACK's code is what the caller gets."""

    async def script(reader, writer) -> None:
        await _packet(reader)
        writer.write(wire.encode_connack(code))
        await reader.read()

    async with _serving(script) as port:
        with pytest.raises(ConnectRefused) as refused:
            await _client(port)
    assert refused.value.code == code


async def test_a_close_without_connack_is_told_apart() -> None:
    """No answer at all is code -1, not one of the protocol's."""

    async def script(reader, writer) -> None:
        await _packet(reader)

    async with _serving(script) as port:
        with pytest.raises(ConnectRefused) as refused:
            await _client(port)
    assert refused.value.code == -1


async def test_only_a_puback_acknowledges() -> None:
    """Two messages are sent, one is acknowledged, then the server goes: the other is never called acknowledged."""

    async def script(reader, writer) -> None:
        await _packet(reader)
        writer.write(ACCEPTED)
        await _packet(reader)
        second = wire.parse_publish(await _packet(reader))
        writer.write(wire.encode_ack(wire.PUBACK, second.packet_id))
        await writer.drain()

    acknowledged: list[str] = []
    async with _serving(script) as port:
        client = await _client(port)
        for name in ("one", "two"):
            client.publish("a/b", name.encode(), on_ack=lambda name=name: acknowledged.append(name))
        await asyncio.wait_for(client.ended.wait(), 5)
        assert not client.wanted
        assert "ended by the server" in client.cause
        with pytest.raises(NotConnected):
            client.publish("a/b", b"", on_ack=lambda: None)
    assert acknowledged == ["two"]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_of_each_qos_are_received_and_answered(qos: int) -> None:
    """PUBLISH is answered by nothing, PUBACK, or PUBREC and PUBCOMP."""
    answers: list[int] = []

    async def script(reader, writer) -> None:
        await _packet(reader)
        writer.write(ACCEPTED + wire.encode_publish("a", b"x", qos=qos, packet_id=7 if qos else None))
        if qos:
            answers.append((await _packet(reader))[0])
        if qos == 2:
            writer.write(wire.encode_ack(wire.PUBREL, 7))
            answers.append((await _packet(reader))[0])
        await reader.read()

    received: list[tuple[str, bytes]] = []
    async with _serving(script) as port:
        client = await _client(port, on_message=lambda topic, payload: received.append((topic, payload)))
        async with asyncio.timeout(5):
            while not received or len(answers) < qos:
                await asyncio.sleep(0.01)
        await client.disconnect()
    assert received == [("a", b"x")]
    assert answers == {0: [], 1: [wire.PUBACK], 2: [wire.PUBREC, wire.PUBCOMP]}[qos]


async def test_a_server_that_breaks_the_protocol_ends_the_connection() -> None:
    """What is malformed is said to be, and is not taken for an answer."""

    async def script(reader, writer) -> None:
        await _packet(reader)
        writer.write(ACCEPTED)
        await _packet(reader)
        writer.write(b"\x90\x03\x00\x01\x07")  # a SUBACK with a reserved code (MQTT-3.9.3-2)
        await reader.read()

    async with _serving(script) as port:
        client = await _client(port)
        with pytest.raises(NotConnected, match="broke the protocol"):
            await client.subscribe([("a", 0)])


async def test_disconnect_says_so_and_cut_does_not() -> None:
    """A DISCONNECT is the last packet of one, and missing from the other."""
    heard: list[bytes] = []

    async def script(reader, writer) -> None:
        await _packet(reader)
        writer.write(ACCEPTED)
        heard.append(await reader.read())

    async with _serving(script) as port:
        await (await _client(port)).disconnect()
        client = await _client(port)
        client.cut()
        await asyncio.wait_for(client.ended.wait(), 5)
        async with asyncio.timeout(5):
            while len(heard) < 2:
                await asyncio.sleep(0.01)
    assert heard == [wire.DISCONNECT_PACKET, b""]


async def test_pings_keep_an_idle_connection_alive() -> None:
    """A PINGREQ goes out before the keep-alive has passed."""

    async def script(reader, writer) -> None:
        await _packet(reader)
        writer.write(ACCEPTED)
        pinged.set_result(await _packet(reader))
        await reader.read()

    pinged: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with _serving(script) as port:
        client = await _client(port, keep_alive_s=1)
        assert await asyncio.wait_for(pinged, 5) == wire.PINGREQ_PACKET
        await client.disconnect()
