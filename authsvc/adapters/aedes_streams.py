"""The event streams to the agents in Aedes processes: ends, grants and sets go out, and what they confirm comes back.

Each line is a JSON object with a number that grows (`rev`): an agent that hears an end learns from it whether the
connection that it knows was admitted before or after. What is asked of the agents (`call`) they answer by a notice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary

from authsvc.adapters.management import MANAGEMENT_TIMEOUT_S, ManagementUnavailable
from authsvc.core.facts import KeySet
from authsvc.service import Service

BEAT_S: Final = 4.0  # an agent that hears nothing for 12 s opens the stream anew
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024  # in one stream; an agent that reads so slowly starts again
SETS_TOGETHER_S: Final = 0.005  # changes of one set within it go out as one
AWAY_US: Final = 3_600_000_000  # a node without a stream for so long is gone for good: others speak for all
KEYS_PER_S: Final = 500_000  # of one set: a ground of 100,000 things is sent five times a second at most


@dataclass(slots=True, kw_only=True, eq=False)
class _Call:
    waiting: set[str]  # nodes
    done: asyncio.Future[None]
    found: bool = False
    clients: set[str] = field(default_factory=set)


class Stream:
    """The open stream to one agent; `lines` is its body."""

    def __init__(self, node: str, run: str) -> None:
        self.node = node
        self.run = run
        self.listed: set[str] = set()  # client ids that the comparison under way has named so far
        self.sets: set[KeySet] = set()  # that their sessions refer to
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting = 0
        self.open = True

    def put(self, line: bytes) -> None:
        if not self.open:
            return
        self._waiting += len(line)
        self._lines.put_nowait(line)
        if self._waiting > MAX_WAITING_BYTES:
            self.close()

    def close(self) -> None:
        if self.open:
            self.open = False
            self._lines.put_nowait(None)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield what is put, and something every few seconds."""
        while True:
            try:
                async with asyncio.timeout(BEAT_S):
                    line = await self._lines.get()
            except TimeoutError:
                yield b'{"type":"beat"}\n'
                continue
            if line is None:
                return
            self._waiting -= len(line)
            yield line


class Streams:
    """`Management` of the Aedes processes of one ``[brokers.NAME]``; several processes have several nodes."""

    def __init__(self) -> None:
        self.epoch = ""
        self._service: Service | None = None
        self._rev = 0
        self._streams: dict[str, Stream] = {}
        self._away: dict[str, int] = {}  # nodes that had a stream -> when it ended
        self._calls: dict[int, _Call] = {}
        self._next_call = 1
        self._comparing: dict[int, _Call] = {}
        self._set_ids: WeakKeyDictionary[KeySet, str] = WeakKeyDictionary()
        self._dirty: set[KeySet] = set()
        self._flush: asyncio.TimerHandle | None = None
        self._ending = False
        self.admitted: dict[str, tuple[str, int]] = {}  # client id -> session that was opened here, rev of its answer

    def use(self, service: Service) -> None:
        """Follow the service's clock and sets; called with every request, does something once."""
        if self._service is None:
            self._service = service
            self.epoch = service.new_id()
            service.sets.watch(self._set_changed)

    def rev(self) -> int:
        """Return the next number: later in this process, and after a restart too unless the clock was set back."""
        assert self._service is not None
        self._rev = max(self._rev + 1, self._service.now_us())
        return self._rev

    def told(self, keys: KeySet, set_id: str) -> None:
        """Note that an agent was told the set: it will be told of changes."""
        self._set_ids[keys] = set_id

    # --- streams -----------------------------------------------------------------------------------------------------

    def opened(self, node: str, run: str) -> Stream:
        """Return a new stream to the node's agent, in place of the one it had."""
        former = self._streams.get(node)
        if former is not None:
            self.send({"type": "replaced"}, former)
            self.closed(former)
        self._away.pop(node, None)
        stream = self._streams[node] = Stream(node, run)
        if self._ending:
            stream.close()
        return stream

    def closed(self, stream: Stream) -> None:
        """Forget a stream that has ended; who waits for its agent learns it at once."""
        stream.close()
        if self._streams.get(stream.node) is stream:
            del self._streams[stream.node]
            if self._service is not None:
                self._away[stream.node] = self._service.now_us()
            for call in (*self._calls.values(), *self._comparing.values()):
                if stream.node in call.waiting and not call.done.done():
                    call.done.set_exception(ManagementUnavailable(f"the event stream of `{stream.node}` ended"))

    def stream(self, node: str, run: str) -> Stream | None:
        """Return the open stream of this very agent."""
        stream = self._streams.get(node)
        return stream if stream is not None and stream.run == run and stream.open else None

    def send(self, event: dict[str, Any], only: Stream | None = None) -> None:
        """Put an event on every stream, or on one."""
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        for stream in list(self._streams.values()) if only is None else [only]:
            stream.put(line)

    def end(self, client_id: str, *, will: str, rev: int | None = None, only: Stream | None = None) -> None:
        """Have the client's connection ended now, where it was admitted before `rev`."""
        at = self.rev() if rev is None else rev
        self.send({"type": "end", "client_id": client_id, "rev": at, "will": will, "wipe": False}, only)

    def end_elsewhere(self, node: str, client_id: str, *, rev: int) -> None:
        """Have the connection that was taken over ended in every process but `node`, which does so by itself."""
        for stream in list(self._streams.values()):
            if stream.node != node:
                self.end(client_id, will="send", rev=rev, only=stream)

    def send_sets(self, sets: Iterable[KeySet], only: Stream | None = None) -> None:
        """Put the sets as they are now on the streams."""
        for keys in sets:
            set_id = self._set_ids.get(keys)
            if set_id is not None:
                self.send({"type": "set", "id": set_id, "rev": self.rev(), "keys": sorted(keys.keys)}, only)

    # --- answers of agents -------------------------------------------------------------------------------------------

    def answered(self, node: str, number: int, *, found: bool) -> None:
        """Take an agent's answer to a call."""
        call = self._calls.get(number)
        if call is not None:
            call.found |= found
            _arrived(call, node)

    def compared(self, stream: Stream) -> None:
        """Take the end of a comparison: `stream.listed` are all connections of the agent."""
        for call in self._comparing.values():
            if stream.node in call.waiting:
                call.clients |= stream.listed
                _arrived(call, stream.node)
        stream.listed = set()
        stream.sets = set()

    # --- Management --------------------------------------------------------------------------------------------------

    async def disconnect(self, client_id: str, *, wipe: bool) -> None:
        """Have every agent end the client's connection, and wipe what Aedes keeps for it.

        Raises ManagementUnavailable.
        """
        will = "never" if wipe else "send"
        await self._ask({"type": "end", "client_id": client_id, "will": will, "wipe": wipe})

    async def has_session(self, client_id: str) -> bool | None:
        """Return whether some Aedes has a connection, subscriptions or a queue of the client id."""
        if not self._complete():
            return None
        return (await self._ask({"type": "has", "client_id": client_id})).found

    async def clients(self) -> frozenset[str] | None:
        """Return the client ids of all connections; None while a node is away."""
        if not self._complete():
            return None
        number, call = self._call()
        self._comparing[number] = call
        try:
            self.send({"type": "compare"})
            await self._wait(call)
        finally:
            del self._comparing[number]
        return frozenset(call.clients)

    def end_all(self) -> None:
        """End the streams, and each that is opened from now on: the service ends."""
        self._ending = True
        for stream in list(self._streams.values()):
            self.closed(stream)

    async def close(self) -> None:
        """End the streams."""
        if self._flush is not None:
            self._flush.cancel()
        for stream in list(self._streams.values()):
            self.closed(stream)

    def _complete(self) -> bool:
        if self._service is None or not self._streams:
            return False
        since_us = self._service.now_us() - AWAY_US
        self._away = {node: at_us for node, at_us in self._away.items() if at_us > since_us}
        return not self._away

    async def _ask(self, event: dict[str, Any]) -> _Call:
        if not self._streams:
            raise ManagementUnavailable("no event stream is open: the agent in Aedes will open one")
        number, call = self._call()
        self._calls[number] = call
        try:
            self.send({**event, "rev": self.rev(), "call": number})
            await self._wait(call)
        finally:
            del self._calls[number]
        return call

    def _call(self) -> tuple[int, _Call]:
        number, self._next_call = self._next_call, self._next_call + 1
        return number, _Call(waiting=set(self._streams), done=asyncio.get_running_loop().create_future())

    async def _wait(self, call: _Call) -> None:
        try:
            async with asyncio.timeout(MANAGEMENT_TIMEOUT_S):
                await call.done
        except TimeoutError:
            raise ManagementUnavailable(f"no answer from {', '.join(sorted(call.waiting))}") from None

    # --- sets --------------------------------------------------------------------------------------------------------

    def _set_changed(self, keys: KeySet) -> None:
        if keys not in self._set_ids or not self._streams:
            return
        self._dirty.add(keys)
        if self._flush is None:
            most = max(len(dirty) for dirty in self._dirty)
            self._flush = asyncio.get_running_loop().call_later(SETS_TOGETHER_S + most / KEYS_PER_S, self._flush_sets)

    def _flush_sets(self) -> None:
        self._flush = None
        dirty, self._dirty = self._dirty, set()
        self.send_sets(dirty)


def _arrived(call: _Call, node: str) -> None:
    call.waiting.discard(node)
    if not call.waiting and not call.done.done():
        call.done.set_result(None)
