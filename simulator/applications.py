"""Applications and witnesses, on aiomqtt: a second implementation of MQTT beside the one that the gateways use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt

from simulator.ledger import Ledger
from simulator.places import Door, Place
from simulator.shape import Message

_LOG = logging.getLogger("simulator.mqtt")
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False  # aiomqtt logs every broken connection; the ledger says it once


class Application:
    """Somebody with a ground token: reads a whole ground, and sends commands if the token allows it."""

    def __init__(self, name: str, client: aiomqtt.Client, place: Place, ledger: Ledger) -> None:
        self.name = name
        self._client = client
        self._place = place
        self._ledger = ledger

    async def read(self) -> None:
        """Write down whatever arrives, until the connection ends or this is cancelled."""
        try:
            async for message in self._client.messages:
                payload = message.payload if isinstance(message.payload, bytes) else b""
                self._ledger.receive(self.name, str(message.topic), payload)
        except aiomqtt.MqttError as error:
            self._ledger.ended[self.name] = f"ended by the server ({error})"

    async def play(self, commands: Sequence[Message]) -> None:
        """Send each command when it is due, whether or not the one before was acknowledged."""
        async with asyncio.TaskGroup() as group:
            for command in commands:
                await asyncio.sleep(max(0.0, command.at_s - self._ledger.now_s()))
                group.create_task(self._send(command), name=f"send {command.id}")

    async def _send(self, command: Message) -> None:
        self._ledger.sent[command.id] = self._ledger.now_s()
        try:
            await self._client.publish(self._place.topic(command.place, command.suffix), command.payload, qos=1)
        except aiomqtt.MqttError:
            return  # sent, perhaps, but not acknowledged: the ledger has no acknowledgement of it
        self._ledger.acknowledged[command.id] = self._ledger.now_s()


def broken_connections_are_in_the_ledger(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Exception handler of a loop: a future of aiomqtt that nobody asked after is no news, everything else is."""
    if not isinstance(context.get("exception"), aiomqtt.MqttError):
        loop.default_exception_handler(context)


def _code(granted: object) -> int:
    """Return the SUBACK's code, which paho gives as a number or as an object, by version."""
    return int(getattr(granted, "value", granted))  # type: ignore[call-overload,no-any-return]


@asynccontextmanager
async def application(name: str, door: Door, token: str, place: Place, ledger: Ledger) -> AsyncIterator[Application]:
    """Yield a connected application that reads `place`; leaving disconnects it in order.

    One that cannot connect is yielded too: its CONNACK is -1, what it would send fails, and it receives nothing.
    """
    client = aiomqtt.Client(
        door.host,
        door.port,
        username=name,
        password=token,
        identifier=f"sim.{name}",
        timeout=10.0,
        keepalive=30,
        logger=_LOG,
    )
    reader: asyncio.Task[None] | None = None
    connected = False
    try:
        await client.__aenter__()
        connected = True
        ledger.connack[name] = 0
        codes = await client.subscribe(place.everything, qos=1)
        ledger.granted[name] = [(place.everything, _code(codes[0]) if codes else 0x80)]
    except aiomqtt.MqttError as error:
        ledger.connack.setdefault(name, -1)
        ledger.notes.append(f"{name}: {error}")
    self = Application(name, client, place, ledger)
    try:
        if connected:
            reader = asyncio.create_task(self.read(), name=f"{name} reads")
        yield self
    finally:
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        if connected:
            try:
                await client.__aexit__(None, None, None)
            except aiomqtt.MqttError as error:
                ledger.ended.setdefault(name, f"ended by the server ({error})")
