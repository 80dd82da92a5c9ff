"""Gateways and devices: they connect, subscribe to their commands, and report by the plan's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from authsvc.core.credentials import WillMessage
from simulator.client import Client, ConnectRefused, NotConnected, connect
from simulator.ledger import Ledger
from simulator.places import Door, Place
from simulator.shape import Message

WILL_SUFFIX = "event/lost"


class Gateway:
    """One thing with its own connection; `modules` are the things it speaks for. A device is one without modules."""

    def __init__(self, key: str, client_id: str, modules: Sequence[str], place: Place, ledger: Ledger) -> None:
        self.key = key
        self.client_id = client_id
        self.modules = tuple(modules)
        self._place = place
        self._ledger = ledger
        self._client: Client | None = None

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.connected

    async def connect(self, door: Door, token: str) -> None:
        """Connect with a will that says the gateway was lost, and write down the CONNACK."""
        will = WillMessage(
            topic=self._place.topic(self.key, WILL_SUFFIX), payload=will_payload(self.key), qos=1, retain=False
        )
        try:
            self._client = await connect(
                door.host,
                door.port,
                client_id=self.client_id,
                username=self.key,
                token=token,
                will=will,
                on_message=lambda topic, payload: self._ledger.receive(self.key, topic, payload),
            )
        except ConnectRefused as refusal:
            self._ledger.connack[self.key] = refusal.code
        except (OSError, TimeoutError) as error:
            self._ledger.connack[self.key] = -1
            self._ledger.notes.append(f"{self.key} could not connect: {type(error).__name__}")
        else:
            self._ledger.connack[self.key] = 0

    async def subscribe(self) -> None:
        """Subscribe to the commands for itself and for each module."""
        if self._client is None:
            return
        filters = [(self._place.topic(thing, "command/#"), 1) for thing in (self.key, *self.modules)]
        try:
            codes = await self._client.subscribe(filters)
        except (NotConnected, TimeoutError) as error:
            self._ledger.notes.append(f"{self.key} could not subscribe: {error or 'no SUBACK'}")
            return
        self._ledger.granted[self.key] = [(filter_, code) for (filter_, _), code in zip(filters, codes, strict=True)]

    async def play(self, messages: Sequence[Message]) -> None:
        """Publish each message when it is due, whether or not the one before was acknowledged."""
        for message in messages:
            await asyncio.sleep(max(0.0, message.at_s - self._ledger.now_s()))
            self.publish(message)

    def publish(self, message: Message, *, place: str = "") -> None:
        """Publish at QoS 1, on the topic of `place` if that is named (something the sender may not do)."""
        ledger = self._ledger

        def acknowledged() -> None:
            ledger.acknowledged[message.id] = ledger.now_s()

        if self._client is None:
            ledger.unsent.add(message.id)
            return
        try:
            topic = self._place.topic(place or message.place, message.suffix)
            self._client.publish(topic, message.payload, on_ack=acknowledged)
        except NotConnected:
            ledger.unsent.add(message.id)
        else:
            ledger.sent[message.id] = ledger.now_s()

    def cut(self) -> None:
        """Break the connection, so that the will must be sent."""
        if self._client is not None:
            self._note_end()
            self._client.cut()

    async def close(self) -> None:
        """Disconnect in order; write down if the connection had ended before."""
        if self._client is not None:
            self._note_end()
            await self._client.disconnect()

    def _note_end(self) -> None:
        client = self._client
        if client is not None and client.ended.is_set() and not client.wanted:
            self._ledger.ended[self.key] = client.cause


def will_payload(key: str) -> bytes:
    return b'{"id": "%s"}' % will_id(key).encode()


def will_id(key: str) -> str:
    return f"will/{key}"
