"""A way from Aedes to the service that a test can cut, stop, and speak into."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

EVENT = re.compile(rb"(?<=\n\r\n)")  # where the chunk of a line ends


class Proxy:
    """Passes connections on to `port`. `cut` breaks them, `refusing` takes no new ones.

    While `stopped` nothing passes; while `deaf` nothing that the service says. `pause_s` lies behind each event of a
    stream, as between events that a busy machine sends one by one.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = ""
        self.refusing = False
        self.deaf = False
        self.pause_s = 0.0
        self.streams: list[asyncio.StreamWriter] = []  # to the agent: connections that carry the events
        self._running = asyncio.Event()
        self._running.set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def stopped(self) -> bool:
        return not self._running.is_set()

    @stopped.setter
    def stopped(self, stopped: bool) -> None:
        if stopped:
            self._running.clear()
        else:
            self._running.set()

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def say(self, line: bytes) -> None:
        """Put a line into the newest event stream, as a chunk of HTTP/1.1."""
        self.streams[-1].write(b"%x\r\n%s\n\r\n" % (len(line) + 1, line))

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers |= {writer, back}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, back, writer))
                both.create_task(self._pass(there, writer, None))
        finally:
            self._writers -= {writer, back}
            if writer in self.streams:
                self.streams.remove(writer)
            for each in (writer, back):
                each.transport.abort()

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, agent: asyncio.StreamWriter | None
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                if agent is not None and data.startswith(b"GET ") and b"/events?" in data:
                    self.streams.append(agent)
                await self._running.wait()
                while self.deaf and agent is None:
                    await asyncio.sleep(0.01)
                for part in EVENT.split(data) if self.pause_s and sink in self.streams else [data]:
                    sink.write(part)
                    await sink.drain()
                    if sink in self.streams:
                        await asyncio.sleep(self.pause_s)
        sink.transport.abort()


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """Yield a proxy on a free port of the loopback interface."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.take, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.stopped = proxy.deaf = False
        proxy.cut()
        await asyncio.sleep(0)
