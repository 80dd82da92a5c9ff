"""A load generator that is not the bottleneck: prepared bytes out, counted bytes in, no object per message.

Messages of one run have one size, so received messages are counted by length, packet ids are read and acknowledged by
slices, and a closed window keeps every broker from dropping: what is measured is throughput, not loss. One process, one
thread; `ceiling()` measures the generator against an echo of itself so that a table can show it beside the results.
"""

from __future__ import annotations

import select
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from broker import wire

PAYLOAD = b"x" * 32
CHUNK = 250  # messages per write: some 15 KiB, as a busy gateway's kernel would hand over at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How one client of the generator connects."""

    client_id: str
    username: str | None = None
    password: bytes | None = None
    level: int = wire.MQTT_3_1_1

    def packet(self) -> bytes:
        return wire.codec_of(self.level).encode_connect(
            client_id=self.client_id, clean_session=True, username=self.username, password=self.password
        )


def open_client(address: tuple[str, int], login: Login) -> socket.socket:
    """Return a connected, blocking socket past CONNACK 0; raises ConnectionError with the code otherwise."""
    sock = socket.create_connection(address, timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(login.packet())
    answer = _packet(sock)
    if answer[0] != wire.CONNACK or answer[3] != 0:
        raise ConnectionError(f"CONNACK {answer.hex()} for `{login.client_id}`")
    return sock


def subscribe(sock: socket.socket, topic_filter: str, qos: int, *, level: int = wire.MQTT_3_1_1) -> None:
    sock.sendall(wire.codec_of(level).encode_subscribe(1, [(topic_filter, qos)]))
    answer = _packet(sock)
    if answer[0] != wire.SUBACK or answer[-1] >= wire.SUBACK_REFUSED:
        raise ConnectionError(f"SUBACK {answer.hex()} for `{topic_filter}`")


def _packet(sock: socket.socket) -> bytes:
    """Return one answer of the server's, which is shorter than 128 bytes."""
    head = exactly(sock, 2)
    return head + exactly(sock, head[1])


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionError(f"closed after {data.hex()}")
        data += more
    return data


def pump(
    publisher: socket.socket,
    subscriber: socket.socket,
    topic: str,
    *,
    qos: int,
    total: int,
    window: int,
    level: int = wire.MQTT_3_1_1,
) -> float:
    """Send `total` messages through the broker, at most `window` of them under way; return messages per second.

    The clock runs from the first byte sent to the last byte received. Raises TimeoutError after 60 s without progress.
    """
    publish = _Publisher(topic, qos, level)
    receive = _Subscriber(topic, qos, level)
    for sock in (publisher, subscriber):
        sock.setblocking(False)
    sent = 0
    outgoing = b""
    acks = b""
    started = time.perf_counter()
    while receive.count < total or (qos and publish.acked < total):
        if (
            not outgoing
            and sent < total
            and sent - min(receive.count, publish.acked if qos else total) <= window - CHUNK
        ):
            count = min(CHUNK, total - sent)
            outgoing = publish.chunk(sent, count)
            sent += count
        writers = [publisher] if outgoing else []
        if acks:
            writers.append(subscriber)
        readable, writable, _ = select.select([publisher, subscriber], writers, [], 60)
        if not readable and not writable:
            raise TimeoutError(f"no progress at {receive.count} of {total}")
        if publisher in writable:
            outgoing = outgoing[publisher.send(outgoing) :]
        if subscriber in writable:
            acks = acks[subscriber.send(acks) :]
        if publisher in readable:
            publish.feed(_some(publisher))
        if subscriber in readable:
            acks += receive.feed(_some(subscriber))
    return total / (time.perf_counter() - started)


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(262_144)
    if not data:
        raise ConnectionError("the broker closed the connection")
    return data


class _Publisher:
    """Prepared chunks of PUBLISH packets; packet ids count up and wrap at 60,000."""

    def __init__(self, topic: str, qos: int, level: int) -> None:
        self.qos = qos
        self.acked = 0
        self._tail = 0
        ids = range(60_000 if qos else CHUNK)
        encode = wire.codec_of(level).encode_publish
        packets = [encode(topic, PAYLOAD, qos=qos, packet_id=i + 1 if qos else None) for i in ids]
        self._size = len(packets[0])
        self._all = b"".join(packets)
        self._count = len(packets)

    def chunk(self, first: int, count: int) -> bytes:
        start = first % self._count if self.qos else 0
        end = start + count
        out = self._all[start * self._size : end * self._size]
        return out if end <= self._count else out + self._all[: (end - self._count) * self._size]

    def feed(self, data: bytes) -> None:
        self._tail += len(data)
        self.acked += self._tail // 4
        self._tail %= 4


class _Subscriber:
    """Counts deliveries by length and answers QoS 1 by slicing the packet ids out."""

    def __init__(self, topic: str, qos: int, level: int) -> None:
        self.count = 0
        self._qos = qos
        encode = wire.codec_of(level).encode_publish
        self._size = len(encode(topic, PAYLOAD, qos=qos, packet_id=1 if qos else None))
        self._id_at = 2 + 2 + len(topic.encode())
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        data = self._rest + data
        whole = len(data) // self._size
        cut = whole * self._size
        self._rest = data[cut:]
        self.count += whole
        if not self._qos or not whole:
            return b""
        acks = bytearray(b"\x40\x02\x00\x00" * whole)
        acks[2::4] = data[self._id_at : cut : self._size]
        acks[3::4] = data[self._id_at + 1 : cut : self._size]
        return bytes(acks)


def connect_rate(address: tuple[str, int], logins: Sequence[Login], *, at_once: int = 64) -> float:
    """Connect and disconnect each login, `at_once` of them in parallel; return admitted connections per second."""
    selector = selectors.DefaultSelector()
    waiting = [login.packet() for login in reversed(logins)]
    done = 0

    def begin() -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.connect_ex(address)
        selector.register(sock, selectors.EVENT_WRITE, waiting.pop())

    started = time.perf_counter()
    for _ in range(min(at_once, len(waiting))):
        begin()
    while done < len(logins):
        events = selector.select(30)
        if not events:
            raise TimeoutError(f"no progress at {done} of {len(logins)} connections")
        for key, mask in events:
            sock: socket.socket = key.fileobj  # type: ignore[assignment]
            if mask & selectors.EVENT_WRITE:
                sock.send(key.data)
                selector.modify(sock, selectors.EVENT_READ)
                continue
            answer = sock.recv(4)
            if len(answer) != 4 or answer[3] != 0:
                raise ConnectionError(f"refused: {answer.hex() or 'closed'}")
            sock.send(b"\xe0\x00")
            selector.unregister(sock)
            sock.close()
            done += 1
            if waiting:
                begin()
    return done / (time.perf_counter() - started)


def ceiling(total: int = 200_000) -> float:
    """Messages per second of the generator when the broker costs nothing: a thread-free echo over a socket pair."""
    near, far = socket.socketpair()
    near.setblocking(False)
    topic = "default/default/bench-000/state/x"
    publish, receive = _Publisher(topic, 0, wire.MQTT_3_1_1), _Subscriber(topic, 0, wire.MQTT_3_1_1)
    started = time.perf_counter()
    while receive.count < total:
        near.send(publish.chunk(0, CHUNK))
        receive.feed(far.recv(262_144))
    return total / (time.perf_counter() - started)
