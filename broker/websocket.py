"""MQTT over WebSocket (MQTT 3.1.1 section 6, RFC 6455): the same connection behind a handshake and frames.

The `websockets` library speaks the protocol without I/O; here its bytes meet the socket on one side and a
`ClientConnection` on the other, which sees a transport like any other.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from broker.limits import Limits
from broker.wire import MalformedPacket

SUBPROTOCOL = Subprotocol("mqtt")  # MQTT-6.0.0-3
MAX_MESSAGE_BYTES = 1_048_576  # one message may hold many packets, and one packet many messages (MQTT-6.0.0-2)

# At level DEBUG the library logs whole frames, and a CONNECT holds a token: this logger can never do so.
_SILENT = logging.Logger("broker.websocket", level=logging.CRITICAL)  # noqa: LOG001


class WebSocketServer(asyncio.Protocol):
    """One socket that must become a WebSocket; what its binary frames hold goes to `inner`."""

    def __init__(self, inner: asyncio.Protocol, limits: Limits) -> None:
        self._inner = inner
        self._protocol = ServerProtocol(
            subprotocols=[SUBPROTOCOL],
            max_size=max(MAX_MESSAGE_BYTES, limits.max_packet_bytes),
            logger=_SILENT,
        )
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._inner.connection_made(FramedTransport(self._transport, self))

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        if self._transport is None or self._transport.is_closing():
            return
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame):
                self._frame(event)
        self._flush()
        if protocol.parser_exc is not None and not isinstance(protocol.parser_exc, EOFError):
            self._broken("a WebSocket frame breaks RFC 6455")
        elif protocol.state is not State.CONNECTING and protocol.close_expected():
            self._transport.close()

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.BINARY, Opcode.CONT):
            self._inner.data_received(bytes(frame.data))
        elif frame.opcode is Opcode.TEXT:  # MQTT-6.0.0-1
            self._broken("a text frame")

    def _broken(self, what: str) -> None:
        if hasattr(self._inner, "broke_protocol"):
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


class FramedTransport(asyncio.Transport):
    """What a `ClientConnection` writes to: each write becomes a frame."""

    def __init__(self, socket: asyncio.Transport, server: WebSocketServer) -> None:
        super().__init__()
        self._socket = socket
        self._server = server

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._server.send(bytes(data))

    def close(self) -> None:
        self._server.say_goodbye()
        self._socket.close()

    def abort(self) -> None:
        self._socket.abort()

    def is_closing(self) -> bool:
        return self._socket.is_closing()

    def pause_reading(self) -> None:
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        self._socket.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._socket.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._socket.get_extra_info(name, default)
