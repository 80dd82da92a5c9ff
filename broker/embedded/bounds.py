"""What amqtt leaves without a bound, bounded: queues of absent sessions, bursts of retained messages, log lines."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from amqtt.errors import AMQTTError, MQTTError

from broker.retained import Retained

if TYPE_CHECKING:
    from broker.embedded.link import EmbeddedLink

QUEUED_MESSAGES = 1000  # of an absent session; Mosquitto's default too
QUEUED_BYTES = 512 * 1024  # sent all at once when it comes back, which must fit the 1 MiB towards a client
RETAINED_AT_ONCE = 32
RETAINED_BYTES_AT_ONCE = 64 * 1024
LOG_LINES_PER_S = 10

_LOGGERS = ("amqtt.broker", "amqtt.mqtt.protocol.handler")


class BoundedQueue(asyncio.Queue[Any]):
    """The queue of an absent session: what does not fit is dropped and counted, the oldest stay."""

    def __init__(self, max_messages: int = QUEUED_MESSAGES, max_bytes: int = QUEUED_BYTES) -> None:
        super().__init__()
        self.dropped = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._bytes = 0

    async def put(self, item: Any) -> None:
        """Keep the message if it fits; never waits."""
        if self.qsize() >= self._max_messages or self._bytes + _size(item) > self._max_bytes:
            self.dropped += 1
            return
        self._bytes += _size(item)
        self.put_nowait(item)

    def _get(self) -> Any:
        item = super()._get()
        self._bytes -= _size(item)
        return item


def _size(message: Any) -> int:
    return len(message.data) + len(message.topic)


class RetainedSender:
    """Sends retained messages of one link, after a SUBACK: never more at once than a client takes."""

    def __init__(self, link: EmbeddedLink, find: Callable[[str], list[Retained]]) -> None:
        self._link = link
        self._find = find
        self._filters: deque[tuple[str, int]] = deque()
        self._task: asyncio.Task[None] | None = None

    def send(self, filters: Iterable[tuple[str, int]]) -> None:
        """Send what is retained under the filters, after what is still on its way."""
        self._filters.extend(item for item in filters if self._find(item[0]))
        if self._filters and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name=f"retained for {self._link.upstream_id}")

    def cancel(self) -> None:
        """Send no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._filters:
            filter_, qos = self._filters.popleft()
            batch: list[tuple[Retained, int]] = []
            size = 0
            for message in self._find(filter_):
                batch.append((message, min(qos, message.qos)))  # MQTT-3.8.4-6
                size += message.size
                if len(batch) >= RETAINED_AT_ONCE or size >= RETAINED_BYTES_AT_ONCE:
                    await self._send(batch)
                    batch, size = [], 0
            await self._send(batch)

    async def _send(self, batch: list[tuple[Retained, int]]) -> None:
        """Send a batch and wait for its acknowledgements, so that the next one meets an empty buffer."""
        await self._link.flowing()
        handler = self._link.handler
        if handler is None:
            return
        flows = [
            handler.mqtt_publish(message.topic, message.payload, qos, retain=True)  # it allots the packet id
            for message, qos in batch
        ]
        for problem in await asyncio.gather(*flows, return_exceptions=True):
            if problem is not None and isinstance(problem, Exception) and not isinstance(problem, _EXPECTED):
                raise problem
        await asyncio.sleep(0)  # the owner is called with this batch before the next one


# A client that does not acknowledge in 5 s, or is gone: the message is not sent again
_EXPECTED = (TimeoutError, AMQTTError, MQTTError)


class LogFilter(logging.Filter):
    """Counts what amqtt logs for every delivery without an answer, and lets through a few other lines a second.

    A client can make it log at will (a PUBACK that nobody waits for); each line would cost more than the packet.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.unacknowledged = 0
        self.suppressed = 0
        self._clock = clock
        self._second = 0.0
        self._lines = 0
        self._level = logging.NOTSET

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is written."""
        if record.exc_info and isinstance(record.exc_info[1], TimeoutError):
            self.unacknowledged += 1
            return False
        if str(record.msg).startswith("Timeout waiting for PUB"):
            return False  # the same event once more
        now = self._clock()
        if now - self._second >= 1:
            self._second, self._lines = now, 0
        self._lines += 1
        if self._lines > LOG_LINES_PER_S:
            self.suppressed += 1
            return False
        return True

    def install(self) -> None:
        """Take over amqtt's loggers; below WARNING they would print payloads, and cost more than amqtt itself."""
        root = logging.getLogger("amqtt")
        self._level = root.level
        if root.level == logging.NOTSET:
            root.setLevel(logging.WARNING)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self)

    def remove(self) -> None:
        """Give the loggers back."""
        logging.getLogger("amqtt").setLevel(self._level)
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self)
