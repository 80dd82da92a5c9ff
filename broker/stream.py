"""One direction of a connection: chunks in, the longest permitted run of each out in one write, the rest one by one.

chunk ─► cut tail of the last one in front ─► scan_run ─► forward what is permitted, unmodified, in one write
                                                └► one packet of another kind ─► `handle` ─► back to scan_run
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from authsvc.core.policy import Memo
from broker.wire import CUT, END, NEED_MORE, Codec, Framer, legal_first_bytes
from broker.wire.scanner import MIN_MAX_PACKET, SLOW, Run, Scan

# A packet that leaves the run costs some 10 µs: at most this many before others get a turn of the loop.
SLOW_PACKETS_PER_TURN = 500


def _no_run(
    data: bytes,  # noqa: ARG001
    pos: int,
    tables: Sequence[Mapping[bytes, bool]],  # noqa: ARG001
    *,
    max_packet: int,  # noqa: ARG001
    retain: bool = False,  # noqa: ARG001
    max_count: int = -1,  # noqa: ARG001
    from_server: bool = False,  # noqa: ARG001
) -> Run:
    """Return an empty run: every packet is handled by itself."""
    return Run(pos, 0, SLOW)


class Stream(ABC):
    """Cuts chunks into packets. `feed` handles as much as one turn of the loop should, and leaves a `rest` for `go_on`.

    Args:
        memo: the decisions of this direction.
        codec: of the side that sends.
        max_packet: limit in bytes of a packet; a longer one ends the connection.
        max_in_run: limit in bytes of a packet that goes on unseen; longer ones are handled one by one.
        retain_in_run: whether publishes with the retain flag may go on unseen.
        from_server: whether the side that sends is the broker.
    """

    __slots__ = (
        "_framer",
        "_from_server",
        "_legal",
        "_max_in_run",
        "_max_packet",
        "_position",
        "_retain_in_run",
        "_scan",
        "codec",
        "memo",
        "rest",
    )

    def __init__(
        self,
        memo: Memo,
        codec: Codec,
        *,
        max_packet: int,
        max_in_run: int,
        retain_in_run: bool,
        from_server: bool = False,
    ) -> None:
        self.memo = memo
        self.codec = codec
        # A scan does not compare the shortest packets with its limit: where that is less, none is in a run.
        self._scan: Scan = codec.scan if max_in_run >= MIN_MAX_PACKET else _no_run
        self._max_in_run = max_in_run
        self._retain_in_run = retain_in_run
        self._from_server = from_server
        self._max_packet = max_packet
        self._legal = legal_first_bytes(codec.level)
        self._framer = Framer(max_packet, level=codec.level)
        self.rest = b""  # packets that wait for the next turn, from `_position` on
        self._position = 0

    def feed(self, data: bytes) -> bool:
        """Take bytes that may be cut anywhere; return whether at least one packet was complete.

        Raises:
            MalformedPacket: a packet breaks the protocol; what came before it was handled.
        """
        if self.rest:
            self.rest = self.rest[self._position :] + data
            self._position = 0
            return False
        return self._run(self._framer.feed(data), 0)

    def go_on(self) -> None:
        """Handle what the last turn left."""
        rest, position = self.rest, self._position
        self.rest, self._position = b"", 0
        self._run(rest, position)

    def clear(self) -> None:
        """Forget whatever waits."""
        self.rest, self._position = b"", 0

    def _run(self, data: bytes, start: int) -> bool:
        size = len(data)
        position = start
        turns = SLOW_PACKETS_PER_TURN
        self.memo.refresh()
        scan = self._scan
        while position < size:
            stop, _, why = scan(
                data,
                position,
                self.memo.tables,
                max_packet=self._max_in_run,
                retain=self._retain_in_run,
                from_server=self._from_server,
            )
            if stop > position:
                self.forward(data if stop - position == size else data[position:stop])
                if why == END or not self.open:
                    return True
                position = stop
            if why == CUT or (end := self._framer.cut(data, position)) == NEED_MORE:
                self._framer.keep(data, position)
                return position > start
            if turns == 0 or self.full:
                self.rest, self._position = data, position
                return True
            turns -= 1
            self.handle(data[position:end])
            if not self.open:
                return True
            position = end
        return position > start

    @property
    @abstractmethod
    def open(self) -> bool:
        """Whether packets are still handled; the rest of the chunk is dropped otherwise."""

    @property
    def full(self) -> bool:
        """Whether the other side takes no more just now: packets that may grow on their way wait."""
        return False

    @abstractmethod
    def forward(self, run: bytes) -> None:
        """Pass permitted packets on as they are."""

    @abstractmethod
    def handle(self, packet: bytes) -> None:
        """Handle one complete packet that is not part of a run."""
