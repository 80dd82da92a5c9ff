"""What a client sent, on its way into amqtt: in small portions, in its order, and PUBLISH past what costs most.

amqtt 0.12.1 takes whatever it is given, makes a task of every packet, and handles what waits in another order than it
came: all SUBSCRIBE before all UNSUBSCRIBE, an end before what was published ahead of it. So packets are fed a few at a
time, one SUBSCRIBE or UNSUBSCRIBE at a time, and an end only when everything before it has been routed.

A PUBLISH of QoS 0 or 1 and a PUBACK to what the short way has sent need no task: they are taken here, in their turn.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING

from broker import wire
from broker.embedded.packets import packet_end, take_answers

if TYPE_CHECKING:
    from broker.embedded.broker import GateBroker
    from broker.embedded.link import EmbeddedLink

PACKETS_PER_TURN = 32  # those that go amqtt's way become a task each
WAITING_IN_SESSION = 128  # messages that amqtt took from this client and has not routed yet
INBOX_HIGH = 64 * 1024  # bytes waiting for amqtt at which the client is no longer read
INBOX_LOW = 16 * 1024
SETTLE_TURNS = 3  # turns of the loop after which the tasks made of the packets fed last have run

_SUBSCRIBE, _UNSUBSCRIBE, _DISCONNECT = 8, 10, 14
_SPECIAL = (_SUBSCRIBE, _UNSUBSCRIBE, _DISCONNECT)
_QOS_0, _QOS_1, _QOS_1_DUP, _PUBACK = 0x30, 0x32, 0x3A, 0x40  # first bytes; the gate has taken the retain flag off
_SHORT = (_QOS_0, _QOS_1, _QOS_1_DUP, _PUBACK)
_ANSWER = b"\x40\x02"


class Fed(Enum):
    """What became of a portion."""

    NOTHING_LEFT = auto()
    MORE = auto()  # again in the next turn
    LATER = auto()  # amqtt has enough for now
    BARRIER = auto()  # waits for an answer of amqtt's, which wakes the link


class Inbox:
    """Whole packets of one client, and what amqtt owes for those it got; `asked` is the one it must answer first."""

    __slots__ = ("_chunks", "_link", "_paused", "_position", "asked", "settling", "size")

    def __init__(self, link: EmbeddedLink) -> None:
        self.asked: wire.Subscribe | wire.Unsubscribe | None = None  # fed, not answered
        self.settling = 0
        self.size = 0  # bytes that wait
        self._chunks: deque[bytes] = deque()
        self._position = 0  # in the first chunk
        self._paused = False
        self._link = link

    def add(self, data: bytes) -> None:
        """Take whole packets; the client is paused while too much waits."""
        self._chunks.append(data)
        self.size += len(data)
        if self.size > INBOX_HIGH and not self._paused:
            self._paused = True
            self._link.owner.pause_client()

    def clear(self) -> None:
        """Forget what waits."""
        self._chunks.clear()
        self.size = self._position = 0

    def settled(self) -> bool:
        """Whether amqtt has routed everything it was given; asked once per turn."""
        if self.settling > 0:
            self.settling -= 1
            return False
        return self._link.reader.idle and self._link.waiting == 0

    def feed(self, broker: GateBroker, budget: int) -> tuple[Fed, int]:
        """Pass on the next portion, at most `budget` packets; return what became of it and how many they were."""
        if self.asked is not None:
            return self._held(), 0
        if self._link.waiting > WAITING_IN_SESSION:
            return Fed.LATER, 0
        left = budget = min(budget, PACKETS_PER_TURN)
        while self._chunks and left > 0:
            chunk, start = self._chunks[0], self._position
            if broker.short and chunk[start] in _SHORT:
                end, left = self._take_short(broker, chunk, start, left)
                if end > start:
                    self._taken(chunk, end)
                    continue
            end, left = _amqtts_run(chunk, start, left, short=broker.short)
            if end > start:
                self._give(chunk, end)
            elif not self._give_special(chunk):
                return self._held(), budget - left
        return Fed.MORE if self._chunks else Fed.NOTHING_LEFT, budget - left

    def _held(self) -> Fed:
        """Say what the next packet waits for; acknowledgements do not."""
        if self.asked is None:
            return Fed.MORE
        self._give_answers()
        return Fed.BARRIER

    def _take_short(self, broker: GateBroker, chunk: bytes, position: int, left: int) -> tuple[int, int]:
        """Route PUBLISH and take PUBACK as long as there are such; return where they end and what is left."""
        link = self._link
        size = len(chunk)
        answers = bytearray()
        while position < size and left > 0:
            first, length, body = chunk[position], chunk[position + 1], position + 2
            if length > 0x7F:
                end = packet_end(chunk, position)
                while chunk[body - 1] > 0x7F:
                    body += 1
            else:
                end = body + length
            if first == _PUBACK:
                if not link.acknowledged(chunk[body] << 8 | chunk[body + 1]):
                    break
            elif first in _SHORT:
                topic_end = body + 2 + (chunk[body] << 8 | chunk[body + 1])
                topic = chunk[body + 2 : topic_end].decode()
                if topic.startswith("$"):  # amqtt ends the connection: the gate does not pass such on
                    break
                if first == _QOS_0:
                    broker.route(link.session, topic, chunk[topic_end:end])
                else:
                    broker.route(link.session, topic, chunk[topic_end + 2 : end])
                    answers += _ANSWER + chunk[topic_end : topic_end + 2]
            else:
                break
            position = end
            left -= 1
        if answers:
            link.send(bytes(answers))
        return position, left

    def _give(self, chunk: bytes, end: int) -> None:
        start = self._position
        self._link.reader.feed(chunk if end - start == len(chunk) else chunk[start:end])
        self.settling = SETTLE_TURNS
        self._taken(chunk, end)

    def _taken(self, chunk: bytes, end: int) -> None:
        self.size -= end - self._position
        if end == len(chunk):
            self._chunks.popleft()
            self._position = 0
        else:
            self._position = end
        if self._paused and self.size < INBOX_LOW:
            self._paused = False
            self._link.owner.resume_client()

    def _give_answers(self) -> None:
        """Give amqtt the acknowledgements behind a SUBSCRIBE or UNSUBSCRIBE: however long its answer takes, these are
        for deliveries that have their 5 s.
        """
        answers, kept = take_answers(self._chunks, self._position)
        if answers:
            self._chunks, self._position = kept, 0
            self.size -= len(answers)
            self._link.answered(answers)

    def _give_special(self, chunk: bytes) -> bool:
        """Give amqtt a packet that it would handle out of order; return whether to go on in this turn."""
        start = self._position
        end = packet_end(chunk, start)
        kind = chunk[start] >> 4
        if kind == _DISCONNECT:
            if not self.settled():
                return False
            self._link.leaving = True
        elif kind == _SUBSCRIBE:
            self.asked = wire.parse_subscribe(chunk[start:end])
        else:
            self.asked = wire.parse_unsubscribe(chunk[start:end])
        self._give(chunk, end)
        return kind == _DISCONNECT


def _amqtts_run(chunk: bytes, position: int, left: int, *, short: bool) -> tuple[int, int]:
    """Return where the packets end that amqtt takes in any order, the first one included if it could be short."""
    taken = 0
    while position < len(chunk) and left > 0 and chunk[position] >> 4 not in _SPECIAL:
        if short and taken and chunk[position] in _SHORT:
            break
        position = packet_end(chunk, position)
        taken += 1
        left -= 1
    return position, left
