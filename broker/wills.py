"""The last words of a session upstream: its will, if it may, then DISCONNECT, then waiting until the broker let go.

The will goes out on the client's own upstream connection, behind all that the client sent; where that is gone, on the
gate's service connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from authsvc.core.credentials import NEVER_EXPIRES, WillMessage
from authsvc.core.errors import UpstreamUnavailable
from authsvc.core.policy import Action
from authsvc.sessions import Session
from broker import wire

if TYPE_CHECKING:
    from broker.connection import ClientConnection

log = structlog.get_logger(__name__)

ACKNOWLEDGED_WITHIN_S = 1.0  # a will of QoS 1 or 2; it is sent either way
CLOSED_WITHIN_S = 3.0  # an upstream that takes longer to let go loses what is buffered towards it
_LOST = 0  # in the place of an answer: the link has ended


class Farewell:
    """The task that says the last words of one session; `gate.gone` is called at its end, whatever happens."""

    __slots__ = ("_over", "task")

    def __init__(self, connection: ClientConnection, session: Session) -> None:
        self._over = asyncio.Event()
        self.task = asyncio.create_task(self._say(connection, session), name=f"farewell of {session.id}")

    async def wait(self) -> None:
        """Return when the broker has let go of the session and the will, if any, has been handed over."""
        await self._over.wait()

    async def _say(self, connection: ClientConnection, session: Session) -> None:
        try:
            await _farewell(connection)
        except Exception:
            log.exception("farewell_failed", session=session.id)
            connection.link.abort()  # or the broker would hold the session for ever
        finally:
            self._over.set()
            connection.gone(session)


async def _farewell(connection: ClientConnection) -> None:
    """Send the will of an ended connection, if it has one left and may, and release its upstream session."""
    link = connection.link
    will = connection.will
    connection.will = None
    if will is not None and not _may_send(connection, will):
        will = None
    if not link.used:
        link.close()  # nothing to take back, and for a will alone none is opened
    if not connection.link_closed:
        if will is not None and await _send_on_link(connection, will):
            will = None
        link.write(_disconnect(connection))
        link.close()
    try:
        async with asyncio.timeout(CLOSED_WITHIN_S):
            await link.wait_closed()
    except TimeoutError:
        log.warning("upstream_slow_to_close", peer=connection.peer)
        link.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSED_WITHIN_S):
                await link.wait_closed()
    if will is not None:
        await _send_on_service_connection(connection, will)


def _disconnect(connection: ClientConnection) -> bytes:
    """Return the DISCONNECT: without a will there is nothing to say upstream but a session expiry that was changed."""
    terms = connection.terms
    section = b""
    if terms.expiry_changed:
        expiry_s = NEVER_EXPIRES if terms.session_expiry_s is None else terms.session_expiry_s
        section = wire.sections.encode([(wire.properties.SESSION_EXPIRY, expiry_s)])
    return terms.upstream_codec.encode_disconnect(properties=section)


def _may_send(connection: ClientConnection, will: WillMessage) -> bool:
    """A will is a publish: judged again by the grant as it is now."""
    decision = connection.grant.decide(Action.PUBLISH, will.topic, qos=will.qos, retain=will.retain)
    if not decision.allowed:
        connection.denied(Action.PUBLISH, will.topic, decision)
    return decision.allowed and connection.capabilities.carries(will.topic)


async def _send_on_link(connection: ClientConnection, will: WillMessage) -> bool:
    """Send the will behind all that the client sent; return False where the broker ended the link before taking it."""
    link = connection.link
    codec = connection.terms.upstream_codec
    qos = min(will.qos, connection.terms.maximum_qos)
    retain = will.retain
    if retain and not connection.capabilities.retained:
        connection.gate.upstream.retain(will.topic, will.payload, qos=will.qos)
        retain = False
    if qos == 0:
        link.write(codec.encode_publish(will.topic, will.payload, retain=retain, properties=will.properties))
        return True
    packet_id = connection.requests.free_id(connection.state)
    answers: asyncio.Queue[int] = asyncio.Queue()

    def swallow(packet: bytes) -> None:
        kind = packet[0] & wire.TYPE_MASK
        if kind in {wire.PUBACK, wire.PUBREC, wire.PUBCOMP} and (ack := codec.ack(packet)).packet_id == packet_id:
            refused = ack.reason >= wire.reason_codes.UNSPECIFIED  # 5.0, 4.3.3: the exchange is over
            answers.put_nowait(wire.PUBCOMP if refused else kind)

    connection.outbound.swallow = swallow
    while connection.outbound.rest:
        connection.outbound.go_on()
    link.resume()
    publish = codec.encode_publish(
        will.topic, will.payload, qos=qos, retain=retain, packet_id=packet_id, properties=will.properties
    )
    link.write(publish)
    lost = asyncio.create_task(link.wait_closed(), name="link of a will")
    lost.add_done_callback(lambda _: answers.put_nowait(_LOST))
    try:
        async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
            first = await answers.get()
            if qos == 2 and first == wire.PUBREC:
                link.write(codec.encode_ack(wire.PUBREL, packet_id))
                await answers.get()  # whatever it is: the message is the broker's
            return first != _LOST
    except TimeoutError:
        return True
    finally:
        lost.cancel()


async def _send_on_service_connection(connection: ClientConnection, will: WillMessage) -> None:
    try:
        await connection.gate.upstream.publish(
            will.topic, will.payload, qos=will.qos, retain=will.retain, properties=will.properties
        )
    except UpstreamUnavailable as error:
        log.warning("will_lost", topic=will.topic, peer=connection.peer, problem=str(error))
