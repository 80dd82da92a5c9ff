"""The hands of the model test: connections that look at everything that arrives, at the moment it arrives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from broker import wire
from tests.broker.raw_client import Closed, RawClient

PATIENCE_S = 5.0


class Player:
    """One open session's socket; a task reads it. `judge` says of each delivery what is wrong with it, or nothing."""

    def __init__(self, client: RawClient, judge: Callable[[wire.Publish], str | None]) -> None:
        self.client = client
        self.judge = judge
        self.wrong: list[str] = []
        self.seen: set[bytes] = set()
        self._news = asyncio.Event()
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(Closed):
            while True:
                packet = await self.client.next_packet(3600)
                kind = packet[0] & wire.TYPE_MASK
                if kind == wire.PUBLISH:
                    publish = wire.parse_publish(packet)
                    if (problem := self.judge(publish)) is not None:
                        self.wrong.append(problem)
                    self.seen.add(publish.payload)
                    self._news.set()
                    if publish.packet_id is not None:
                        answer = wire.PUBACK if publish.qos == 1 else wire.PUBREC
                        await self.client.send(wire.encode_ack(answer, publish.packet_id))
                elif kind == wire.PUBREL:
                    await self.client.send(wire.encode_ack(wire.PUBCOMP, wire.parse_ack(packet).packet_id))
                else:
                    self._answers.put_nowait(packet)
        self.closed.set()
        self._answers.put_nowait(b"")

    async def _answer(self, kind: int) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            packet = await self._answers.get()
        assert packet, f"closed instead of {wire.NAMES[kind]}"
        assert packet[0] & wire.TYPE_MASK == kind, f"{wire.NAMES[packet[0] & wire.TYPE_MASK]}, not {wire.NAMES[kind]}"
        return packet

    async def arrived(self, payload: bytes) -> bool:
        """Return whether it is here within patience."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while payload not in self.seen:
                    self._news.clear()
                    await self._news.wait()
        return payload in self.seen

    async def subscribe(self, filters: list[tuple[str, int]]) -> list[int]:
        packet_id = self.client.new_id()
        await self.client.send(wire.encode_subscribe(packet_id, filters))
        suback = wire.parse_suback(await self._answer(wire.SUBACK))
        assert suback.packet_id == packet_id
        return list(suback.codes)

    async def unsubscribe(self, filter_: str) -> None:
        packet_id = self.client.new_id()
        await self.client.send(wire.encode_unsubscribe(packet_id, [filter_]))
        assert wire.parse_ack(await self._answer(wire.UNSUBACK)).packet_id == packet_id

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, dup: bool = False) -> None:
        """Publish and wait for what the QoS answers; with QoS 0 for a PINGRESP."""
        packet_id = self.client.new_id() if qos else None
        packet = wire.encode_publish(topic, payload, qos=qos, retain=retain, packet_id=packet_id)
        await self.client.send(bytes((packet[0] | (8 if dup and qos else 0),)) + packet[1:])
        if qos == 0:
            await self.client.send(wire.PINGREQ_PACKET)
            await self._answer(wire.PINGRESP)
        elif qos == 1:
            assert wire.parse_ack(await self._answer(wire.PUBACK)).packet_id == packet_id
        else:
            assert wire.parse_ack(await self._answer(wire.PUBREC)).packet_id == packet_id
            await self.client.send(wire.encode_ack(wire.PUBREL, packet_id))
            assert wire.parse_ack(await self._answer(wire.PUBCOMP)).packet_id == packet_id

    async def end(self) -> None:
        """Wait until the server has closed it, or close it; then there is nothing left of it."""
        self.client.cut()
        async with asyncio.timeout(PATIENCE_S):
            await self.closed.wait()
            await self._task
