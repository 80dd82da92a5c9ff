"""MQTT over WebSocket (MQTT 3.1.1 section 6, RFC 6455): the same connection behind a handshake and frames.

The `websockets` library speaks the protocol without I/O; here its bytes meet the socket on one side and a
`ClientConnection` on the other, which sees a transport like any other.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol, cast

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from broker.limits import Limits
from broker.tls import Securable
from broker.wire import MalformedPacket

SUBPROTOCOL = Subprotocol("mqtt")  # MQTT-6.0.0-3
MAX_MESSAGE_BYTES = 1_048_576  # one message may hold many packets, and one packet many messages (MQTT-6.0.0-2)
BEFORE_CONNECT = 2  # what may come before the CONNECT is whole: its limit times this, for handshake and frame heads
FRAMES_PER_TURN = 250  # a frame costs some 20 µs however small it is: then others get a turn of the loop
PORTION = 4096  # bytes given to the library at once: at most 2,048 frames

# At level DEBUG the library logs whole frames, and a CONNECT holds a token: this logger can never do so.
_SILENT = logging.Logger("broker.websocket", level=logging.CRITICAL)  # noqa: LOG001


class Inner(Securable, Protocol):
    """What a WebSocket carries: a `ClientConnection`."""

    @property
    def awaits_connect(self) -> bool:
        """Whether no whole CONNECT has come yet."""

    @property
    def is_open(self) -> bool:
        """Whether packets pass: after the CONNACK, before the end."""

    def wait_for_admission(self) -> None:
        """Read no more until the CONNECT is answered."""

    def broke_protocol(self, problem: MalformedPacket) -> None:
        """End the connection of a client that sent what it must not."""


class WebSocketServer(asyncio.Protocol):
    """One socket that must become a WebSocket; what its binary frames hold goes to `inner`."""

    def __init__(self, inner: Inner, limits: Limits) -> None:
        self._inner = inner
        self._limits = limits
        self._protocol = ServerProtocol(
            subprotocols=[SUBPROTOCOL],
            max_size=max(MAX_MESSAGE_BYTES, limits.max_packet_bytes),
            logger=_SILENT,
        )
        self._transport: asyncio.Transport | None = None
        self._framed: FramedTransport | None = None
        self._waiting = b""  # bytes that the library has not seen
        self._before_connect = 0
        self._work_due = False
        self._paused = False  # by `inner`

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._framed = FramedTransport(self._transport, self)
        self._inner.connection_made(self._framed)

    def secured(self, transport: asyncio.Transport) -> None:
        """Use this transport from now on."""
        assert self._framed is not None
        self._transport = self._framed.socket = transport
        self._inner.secured(self._framed)

    def data_received(self, data: bytes) -> None:
        if self._inner.awaits_connect:
            # The library keeps a frame until it is whole, and a frame may be large.
            self._before_connect += len(data)
            if self._before_connect > BEFORE_CONNECT * self._limits.max_connect_bytes:
                self._broken("no CONNECT in what came until now")
                return
        elif not self._inner.is_open:
            self._before_connect += len(data)
            if self._before_connect > BEFORE_CONNECT * self._limits.max_connect_bytes:
                self._inner.wait_for_admission()
        self._waiting = self._waiting + data if self._waiting else data
        if not self._work_due:
            self._work()

    def _work(self) -> None:
        """Give the library what waits, up to what a turn of the loop should take."""
        self._work_due = False
        transport = self._transport
        frames = position = 0
        data, self._waiting = self._waiting, b""
        while position < len(data) and frames < FRAMES_PER_TURN and not self._paused:
            if transport is None or transport.is_closing():
                return
            frames += self._portion(data[position : position + PORTION])
            position += PORTION
        self._waiting = data[position:]
        if self._waiting and not self._paused:
            self._work_due = True
            asyncio.get_running_loop().call_soon(self._work)
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._paused or self._waiting:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _portion(self, data: bytes) -> int:
        """Handle the frames that `data` completes; return how many they are."""
        protocol = self._protocol
        protocol.receive_data(data)
        events = protocol.events_received()
        payload: list[bytes] = []
        for event in events:
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame):
                if event.opcode is Opcode.TEXT:  # MQTT-6.0.0-1
                    self._hand_over(payload)
                    self._broken("a text frame")
                    break
                if event.opcode in (Opcode.BINARY, Opcode.CONT):
                    payload.append(bytes(event.data))
        self._hand_over(payload)
        self._flush()
        if protocol.parser_exc is not None and not isinstance(protocol.parser_exc, EOFError):
            self._broken("a WebSocket frame breaks RFC 6455")
        elif protocol.state is not State.CONNECTING and protocol.close_expected() and self._transport is not None:
            self._transport.close()
        return len(events)

    def _hand_over(self, payload: list[bytes]) -> None:
        if payload:
            self._inner.data_received(payload[0] if len(payload) == 1 else b"".join(payload))
            payload.clear()

    def _broken(self, what: str) -> None:
        self._inner.broke_protocol(MalformedPacket("MQTT-6.0.0-1", what))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def pause_reading(self) -> None:
        """Give `inner` nothing until it wants more."""
        self._paused = True
        self._read_or_not()

    def resume_reading(self) -> None:
        """Go on with what waits."""
        self._paused = False
        if self._waiting and not self._work_due:
            self._work_due = True
            asyncio.get_running_loop().call_soon(self._work)
        self._read_or_not()

    def send(self, data: bytes) -> None:
        """Send bytes as one binary frame; nothing before the handshake and after the end."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_binary(data)
            self._flush()

    def say_goodbye(self) -> None:
        """Send a close frame, if the WebSocket was ever open."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._flush()

    def _flush(self) -> None:
        transport = self._transport
        for data in self._protocol.data_to_send():
            if transport is None or transport.is_closing():
                continue
            if data:
                transport.write(data)
            else:  # the library asks for the end of the connection
                transport.close()
        # The library answers each ping: who sends them and reads nothing must not fill the memory.
        if transport is not None and transport.get_write_buffer_size() > 2 * self._limits.max_client_buffer_bytes:
            transport.abort()


class FramedTransport(asyncio.Transport):
    """What a `ClientConnection` writes to: each write becomes a frame."""

    def __init__(self, socket: asyncio.Transport, server: WebSocketServer) -> None:
        super().__init__()
        self.socket = socket
        self._server = server

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._server.send(bytes(data))

    def close(self) -> None:
        self._server.say_goodbye()
        self.socket.close()

    def abort(self) -> None:
        self.socket.abort()

    def is_closing(self) -> bool:
        return self.socket.is_closing()

    def pause_reading(self) -> None:
        self._server.pause_reading()

    def resume_reading(self) -> None:
        self._server.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self.socket.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket.get_extra_info(name, default)
