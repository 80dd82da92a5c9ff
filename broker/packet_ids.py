"""Which packet ids are open: what the gate must remember to tell its own acknowledgements from the upstream's.

`SessionState` lives as long as the upstream session and survives reconnects of the client; `OpenRequests` lives as
long as one upstream connection. Ids are per type and first in, first out: a client may use one id twice.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import TypeVar

HIGHEST_ID = 65_535

Waiting = TypeVar("Waiting")


class SessionState:
    """What the gate knows of one upstream session.

    `subscriptions` maps each filter that the upstream holds, as far as known, to its QoS. `answered` are QoS 2 ids of
    the client whose PUBLISH was denied and whose PUBREC came from here; `passed` those that went upstream and whose
    PUBREL has not. `withheld` are QoS 2 ids of deliveries that the gate acknowledged in the client's place. The three
    are sets, kept as dictionaries: most sessions have none of them, and an empty set is three times as large.
    """

    __slots__ = ("answered", "passed", "subscriptions", "withheld")

    def __init__(self) -> None:
        self.subscriptions: dict[str, int] = {}
        self.answered: dict[int, None] = {}
        self.passed: dict[int, None] = {}
        self.withheld: dict[int, None] = {}

    @property
    def open_qos2(self) -> int:
        """Return how many QoS 2 exchanges the client has begun and not ended."""
        return len(self.answered) + len(self.passed)


class SessionStates:
    """The states of persistent upstream sessions, the longest unused forgotten first. A forgotten one costs little:
    deliveries are judged one by one, and a PUBREL whose id is unknown is passed on.
    """

    def __init__(self, limit: int = 20_000) -> None:
        self._limit = limit
        self._states: OrderedDict[str, SessionState] = OrderedDict()

    def resume(self, upstream_id: str, *, present: bool) -> SessionState:
        """Return the state of a session that the upstream says it has (`present`), or a new one."""
        state = self._states.get(upstream_id) if present else None
        if state is None:
            state = self._states[upstream_id] = SessionState()
        self._states.move_to_end(upstream_id)
        while len(self._states) > self._limit:
            self._states.popitem(last=False)
        return state

    def forget(self, upstream_id: str) -> None:
        """Drop what is known of a session that was wiped."""
        self._states.pop(upstream_id, None)

    def __len__(self) -> int:
        return len(self._states)


class PendingSubscribe:
    """A SUBSCRIBE that went upstream and waits for its SUBACK.

    `size` is the number of codes that the client is owed: `codes` as far as they go, the last of them for the rest,
    but for the `places` of the forwarded filters, one list of indices for each. `withdrawn` and `unsubscribed` are
    filters that were taken back since.
    """

    __slots__ = ("codes", "forwarded", "places", "size", "unsubscribed", "withdrawn")

    def __init__(
        self, size: int, codes: bytearray, forwarded: Sequence[tuple[str, int]], places: Sequence[Sequence[int]]
    ) -> None:
        self.size = size
        self.codes = codes
        self.forwarded = forwarded
        self.places = places
        self.withdrawn: set[str] = set()  # by a swap: the code becomes a refusal
        self.unsubscribed: set[str] = set()  # by the client itself: the code stays


class OpenRequests:
    """The SUBSCRIBE and UNSUBSCRIBE packets of one upstream connection that are not answered yet."""

    __slots__ = ("_subscribes", "_unsubscribes", "count", "filters")

    def __init__(self) -> None:
        self._subscribes: dict[int, deque[PendingSubscribe]] = {}
        self._unsubscribes: dict[int, deque[bool]] = {}
        self.count = 0
        self.filters = 0  # of the SUBSCRIBEs

    def subscribing(self, packet_id: int, pending: PendingSubscribe) -> None:
        """Remember a SUBSCRIBE that was sent upstream."""
        self._subscribes.setdefault(packet_id, deque()).append(pending)
        self.count += 1
        self.filters += len(pending.forwarded)

    def unsubscribing(self, packet_id: int, *, own: bool) -> None:
        """Remember an UNSUBSCRIBE that was sent upstream, by the gate itself (`own`) or for the client."""
        self._unsubscribes.setdefault(packet_id, deque()).append(own)
        self.count += 1

    def subscribed(self, packet_id: int) -> PendingSubscribe | None:
        """Return the oldest SUBSCRIBE with this id, which is answered now; None if there is none."""
        pending = self._answered(self._subscribes, packet_id)
        if pending is not None:
            self.filters -= len(pending.forwarded)
        return pending

    def unsubscribed(self, packet_id: int) -> bool | None:
        """Return whether the oldest UNSUBSCRIBE with this id, answered now, was the gate's own; None if none."""
        return self._answered(self._unsubscribes, packet_id)

    def pending_subscribes(self) -> Iterator[PendingSubscribe]:
        """Iterate over the SUBSCRIBEs without answer."""
        for waiting in self._subscribes.values():
            yield from waiting

    def free_id(self, state: SessionState) -> int:
        """Return an id that no open request and no open QoS 2 exchange uses; from the top, where clients seldom are."""
        for packet_id in range(HIGHEST_ID, 0, -1):
            if not (
                packet_id in self._subscribes
                or packet_id in self._unsubscribes
                or packet_id in state.answered
                or packet_id in state.passed
            ):
                return packet_id
        raise AssertionError("the tables are bounded far below 65,535 ids")

    def _answered(self, table: dict[int, deque[Waiting]], packet_id: int) -> Waiting | None:
        waiting = table.get(packet_id)
        if not waiting:
            return None
        first = waiting.popleft()
        if not waiting:
            del table[packet_id]
        self.count -= 1
        return first
