"""Before the session: one CONNECT is read, judged and answered; what a client sends early waits for the answer.

Nothing here knows who the client is, so everything is small: a CONNECT, a little more, and a few seconds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from authsvc.core.credentials import ConnectRequest
from authsvc.core.facts import Refusal
from authsvc.core.reasons import Reason, connack_code5
from authsvc.core.topics import printable
from authsvc.sessions import Will
from broker import wire
from broker.terms import Terms
from broker.wire import Framer, MalformedPacket, UnsupportedProtocol

if TYPE_CHECKING:
    from broker.connection import ClientConnection

EARLY_BYTES = 64 * 1024  # of a client that does not wait for its CONNACK (3.1.4 allows it); more stays in the kernel


class Arrival:
    """Reads the CONNECT of one connection, starts its admission and refuses it."""

    __slots__ = ("_connection", "_framer", "early", "task")

    def __init__(self, connection: ClientConnection) -> None:
        self.early = bytearray()  # came after the CONNECT; not looked at unless it is admitted (MQTT-3.1.4-5)
        self.task: asyncio.Task[None] | None = None  # the admission
        self._connection = connection
        self._framer = Framer(connection.limits.max_packet_bytes, max_connect=connection.limits.max_connect_bytes)

    def received(self, data: bytes) -> bool:
        """Take bytes of the client; return whether no more should be read for now."""
        if self.task is None:
            self._connecting(data)
        else:
            self.early += data
        return len(self.early) > EARLY_BYTES

    def _connecting(self, data: bytes) -> None:
        connection = self._connection
        try:
            buffer = self._framer.feed(data)
            end = self._framer.cut(buffer, 0) if buffer else wire.NEED_MORE
            if end == wire.NEED_MORE:
                self._framer.keep(buffer, 0)
                connection.gate.connect_begun(connection)
                return
            connect = wire.parse_connect(buffer[:end], mqtt5=connection.capabilities.mqtt5)
        except MalformedPacket as problem:
            self.broke_protocol(problem)
            return
        except UnsupportedProtocol as problem:
            self._unsupported(problem)
            return
        connection.terms = Terms(connect, connection.limits, connection.peer_address)
        request = ConnectRequest(
            client_id=connect.client_id,
            clean_session=connect.clean_session,
            username=connect.username,
            password=connect.password,
            will=connect.will,
            keep_alive_s=connect.keep_alive_s,
            level=connect.level,
            session_expiry_s=connect.session_expiry_s if connection.terms.is5 else None,
        )
        if connect.authentication_method is not None:  # 5.0, 4.12: not offered
            detail = f"enhanced authentication `{printable(connect.authentication_method)}` is not offered"
            self._note(Refusal(reason=Reason.MALFORMED_CREDENTIAL, detail=detail), request)
            connection.leave(connection.terms.codec.encode_connack(wire.reason_codes.BAD_AUTHENTICATION_METHOD))
            return
        if connect.client_id_refused:
            self.refused(Refusal(reason=Reason.CLIENT_ID_INVALID, detail="the client id is empty"), request)
            return
        self.early += buffer[end:]
        connection.connect_received(request)
        self.task = connection.gate.admission.begin(connection, request)

    def _unsupported(self, problem: UnsupportedProtocol) -> None:
        """Leave a client whose protocol is not spoken here; of 5.0 that is known when the broker has been there."""
        connection = self._connection
        if problem.is_5_0 and not connection.gate.upstream.reachable:
            reason = Reason.BROKER_UNAVAILABLE
            self._note(Refusal(reason=reason, detail="whether the broker speaks MQTT 5.0 is not known"), None)
            connection.leave(wire.codec_of(wire.MQTT_5_0).encode_connack(connack_code5(reason)))
            return
        self._note(Refusal(reason=Reason.PROTOCOL_ERROR, detail=str(problem)), None)
        connection.leave(problem.answer)

    def refused(self, refusal: Refusal, request: ConnectRequest | None) -> None:
        """Answer the CONNECT with the code of the refusal, and leave."""
        self._note(refusal, request)
        self._connection.leave(self._connection.terms.refusal(refusal.reason))

    def broke_protocol(self, problem: MalformedPacket) -> None:
        """Leave a client that said something else than CONNECT."""
        self._note(Refusal(reason=Reason.PROTOCOL_ERROR, detail=str(problem)), None)
        self._connection.leave(b"")

    def too_slow(self) -> None:
        """Leave a client that took too long to say CONNECT."""
        self._given_up(Refusal(reason=Reason.PROTOCOL_ERROR, detail="no CONNECT in time"))

    def makes_room(self) -> None:
        """Leave a client that has been silent longer than all others, for one more that has come."""
        self._given_up(Refusal(reason=Reason.CONNECTION_LIMIT, detail="too many connections wait, this one longest"))

    def _given_up(self, refusal: Refusal) -> None:
        self._note(refusal, None)
        self._connection.end(refusal.reason, Will.NEVER)

    def _note(self, refusal: Refusal, request: ConnectRequest | None) -> None:
        self._connection.gate.service.refuse(refusal, request=request, peer=self._connection.peer)
