"""A small MQTT 3.1.1 client on the gate's own sans-I/O `wire`: no thread, no queue, made to be had by the thousand.

It never reconnects and never repeats by itself: what happened on the wire is what it reports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from authsvc.core.credentials import WillMessage
from broker import wire

_MAX_PACKET = 268_435_455 + 5  # a client takes whatever the protocol can carry
_TIMEOUT_S = 10.0

OnMessage = Callable[[str, bytes], None]


class NotConnected(Exception):  # noqa: N818  # a state, told to the caller
    """There is no connection to send on; `cause` says how it ended."""


class ConnectRefused(Exception):  # noqa: N818  # the answer of the server
    """The CONNECT was not accepted; `code` is that of the CONNACK, -1 if the connection closed without one."""

    def __init__(self, code: int) -> None:
        super().__init__(f"CONNACK {code}" if code >= 0 else "closed without a CONNACK")
        self.code = code


class Client(asyncio.Protocol):
    """One connection. Make it with `connect`; `ended` is set when it is over, `cause` then says why."""

    def __init__(self, on_message: OnMessage | None = None) -> None:
        self.cause = ""
        self.ended = asyncio.Event()
        self.wanted = False  # whether this side asked for the end
        self._on_message = on_message
        self._framer = wire.Framer(_MAX_PACKET)
        self._transport: asyncio.Transport | None = None
        self._connack: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._acks: dict[int, Callable[[], None]] = {}
        self._subacks: dict[int, asyncio.Future[list[int]]] = {}
        self._next_id = 0
        self._ping: asyncio.TimerHandle | None = None

    @property
    def connected(self) -> bool:
        return self._transport is not None and not self.ended.is_set()

    def publish(self, topic: str, payload: bytes, *, on_ack: Callable[[], None] | None, retain: bool = False) -> None:
        """Send at QoS 1 and call `on_ack` at its PUBACK; with None at QoS 0. Raises NotConnected."""
        if on_ack is None:
            self._write(wire.encode_publish(topic, payload, retain=retain))
            return
        packet_id = self._packet_id()
        self._write(wire.encode_publish(topic, payload, qos=1, retain=retain, packet_id=packet_id))
        self._acks[packet_id] = on_ack

    async def subscribe(self, filters: list[tuple[str, int]]) -> list[int]:
        """Return the SUBACK's codes, in order. Raises NotConnected, TimeoutError."""
        packet_id = self._packet_id()
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._write(wire.encode_subscribe(packet_id, filters))
        self._subacks[packet_id] = answer
        try:
            return await asyncio.wait_for(answer, _TIMEOUT_S)
        finally:
            self._subacks.pop(packet_id, None)

    async def disconnect(self) -> None:
        """Send DISCONNECT and wait until the connection has closed; nothing if it is over already."""
        if not self.connected or self._transport is None:
            return
        self.wanted = True
        self._transport.write(wire.DISCONNECT_PACKET)
        self._transport.close()
        try:
            await asyncio.wait_for(self.ended.wait(), _TIMEOUT_S)
        except TimeoutError:
            self._transport.abort()

    def cut(self) -> None:
        """Break the connection without a DISCONNECT, as a gateway without power would."""
        self.wanted = True
        if self._transport is not None:
            self._transport.abort()

    async def wait_connack(self, timeout_s: float) -> None:
        """Return once the CONNECT is accepted. Raises ConnectRefused, TimeoutError."""
        code = await asyncio.wait_for(asyncio.shield(self._connack), timeout_s)
        if code != 0:
            raise ConnectRefused(code)

    def open(self, connect: bytes, keep_alive_s: int) -> None:
        """Send the CONNECT, and from now on a PINGREQ whenever half the keep-alive has passed."""
        self._write(connect)
        if keep_alive_s:
            self._schedule_ping(keep_alive_s / 2)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for packet in self._framer.packets(data):
                self._packet(wire.parse_from_server(packet))
        except wire.MalformedPacket as error:
            self.cause = f"the server broke the protocol: {error}"
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.cause:
            self.cause = "ended here" if self.wanted else f"ended by the server ({error or 'end of stream'})"
        if self._ping is not None:
            self._ping.cancel()
        self._acks.clear()
        if not self._connack.done():
            self._connack.set_result(-1)
        for answer in self._subacks.values():
            if not answer.done():
                answer.set_exception(NotConnected(self.cause))
        self.ended.set()

    def _packet(self, packet: wire.Packet) -> None:
        match packet:
            case wire.Connack(code=code):
                if not self._connack.done():
                    self._connack.set_result(code)
            case wire.Publish(topic=topic, payload=payload, qos=qos, packet_id=packet_id):
                if qos and packet_id is not None:  # MQTT-4.3.2-2, MQTT-4.3.3-2
                    self._write(wire.encode_ack(wire.PUBACK if qos == 1 else wire.PUBREC, packet_id))
                if self._on_message is not None:
                    self._on_message(topic, payload)
            case wire.Ack(type=wire.PUBACK, packet_id=packet_id):
                if acknowledged := self._acks.pop(packet_id, None):
                    acknowledged()
            case wire.Ack(type=wire.PUBREL, packet_id=packet_id):
                self._write(wire.encode_ack(wire.PUBCOMP, packet_id))
            case wire.Suback(packet_id=packet_id, codes=codes):
                answer = self._subacks.get(packet_id)
                if answer is not None and not answer.done():
                    answer.set_result(list(codes))
            case _:
                pass  # PINGRESP, UNSUBACK: nothing waits for them

    def _write(self, data: bytes) -> None:
        if not self.connected or self._transport is None:
            raise NotConnected(self.cause or "not connected")
        self._transport.write(data)

    def _packet_id(self) -> int:
        for _ in range(65_535):
            self._next_id = self._next_id % 65_535 + 1
            if self._next_id not in self._acks and self._next_id not in self._subacks:
                return self._next_id
        raise NotConnected("all 65,535 packet ids wait for an answer")

    def _schedule_ping(self, every_s: float) -> None:
        def ping() -> None:
            if self.connected:
                self._write(wire.PINGREQ_PACKET)
                self._schedule_ping(every_s)

        self._ping = asyncio.get_running_loop().call_later(every_s, ping)


async def connect(
    host: str,
    port: int,
    *,
    client_id: str,
    username: str,
    token: str,
    will: WillMessage | None = None,
    clean_session: bool = True,
    keep_alive_s: int = 30,
    on_message: OnMessage | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> Client:
    """Return a connected client.

    Raises:
        ConnectRefused: the server said no, or closed.
        OSError, TimeoutError: it was not reached, or did not answer in time.

    """
    loop = asyncio.get_running_loop()
    _, client = await asyncio.wait_for(loop.create_connection(lambda: Client(on_message), host, port), timeout_s)
    request = wire.encode_connect(
        client_id=client_id,
        username=username,
        password=token.encode(),
        will=will,
        clean_session=clean_session,
        keep_alive_s=keep_alive_s,
    )
    try:
        client.open(request, keep_alive_s)
        await client.wait_connack(timeout_s)
    except NotConnected:
        raise ConnectRefused(-1) from None
    except BaseException:
        client.cut()
        raise
    return client
