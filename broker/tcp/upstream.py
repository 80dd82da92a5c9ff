"""Any MQTT 3.1.1 broker behind the gate, on a private listener: `authsvc up --upstream HOST:PORT`."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.tcp.link import TcpLink
from broker.tcp.service import Conversation, ServiceConnection
from broker.upstream import HELLO, Capabilities, Hello, LinkOwner

MOSQUITTO = Capabilities(
    name="tcp",
    retained=True,
    shared_subscriptions=True,
    durable=True,
    mqtt5=False,
    answers_pubrel=True,
    deduplicates_subscriptions=True,
)
CLEAR_ROUNDS = 100  # a broker may send only part of what it retains in one go
BACKLOG_RETRY_S = 0.01
QUIET_S = 0.1  # without another retained message: that was all of this round


class TcpUpstream:
    """A broker reached by `host` and `port`, or by the Unix socket `path`.

    `capabilities` says what that broker does; those of Mosquitto are the default.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 1883,
        *,
        path: Path | None = None,
        capabilities: Capabilities = MOSQUITTO,
        connect_timeout_s: float = 5.0,
        ping_interval_s: float = 5.0,
    ) -> None:
        self.capabilities = capabilities
        self._host = host
        self._port = port
        self._path = path
        self._timeout_s = connect_timeout_s
        self._links: dict[str, TcpLink] = {}
        self._service = ServiceConnection(
            self, self.address, ping_interval_s=ping_interval_s, answer_within_s=connect_timeout_s
        )

    @property
    def address(self) -> str:
        """Where the broker is, for messages."""
        return str(self._path) if self._path is not None else f"{self._host}:{self._port}"

    @property
    def reachable(self) -> bool:
        """Whether the service connection is up and its last ping was answered."""
        return self._service.up

    async def start(self) -> None:
        """Start the service connection; return after its first attempt, whether it succeeded or not."""
        await self._service.start()

    async def stop(self) -> None:
        """End every link and the service connection."""
        await self._service.stop()
        links = list(self._links.values())
        for link in links:
            link.abort()
        for link in links:
            await link.wait_closed()

    async def connect(self, owner: LinkOwner, upstream_id: str, *, clean: bool, hello: Hello = HELLO) -> TcpLink:
        """Connect one session. When it raises, the owner is not called."""
        while (old := self._links.get(upstream_id)) is not None:
            old.abort()
            await old.wait_closed()
        link = TcpLink(owner, upstream_id, clean=clean, gone=self._gone, hello=hello)
        self._links[upstream_id] = link
        connected = False
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._open(link)
                connected = True
                code = (await link.answer).code
        except OSError as error:  # TimeoutError among them
            raise UpstreamUnavailable(f"no broker at `{self.address}`: {error or 'no answer in time'}") from error
        finally:
            if not connected:
                self._gone(link)
            elif not link.answer.done() or link.answer.cancelled() or link.answer.exception() is not None:
                link.abort()
        if code != 0:
            link.abort()
            raise UpstreamUnavailable(f"the broker at `{self.address}` refused the session with code {code}")
        link.opened()
        return link

    async def _open(self, link: TcpLink) -> None:
        loop = asyncio.get_running_loop()
        if self._path is None:
            await loop.create_connection(lambda: link, self._host, self._port)
            return
        # Connected by hand: asyncio takes a connect(2) that failed for a full backlog for one that is under way.
        connecting = socket.socket(socket.AF_UNIX)
        try:
            connecting.setblocking(False)
            while (code := connecting.connect_ex(str(self._path))) == errno.EAGAIN:  # noqa: ASYNC110  # where TCP waits
                await asyncio.sleep(BACKLOG_RETRY_S)
            if code:
                raise OSError(code, os.strerror(code))  # noqa: TRY301
            await loop.create_unix_connection(lambda: link, sock=connecting)
        except BaseException:
            connecting.close()
            raise

    def _gone(self, link: TcpLink) -> None:
        if self._links.get(link.upstream_id) is link:
            del self._links[link.upstream_id]

    # --- in the gate's own name ------------------------------------------------------------------------------

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool,
        properties: bytes = b"",  # noqa: ARG002 - the service connection speaks 3.1.1
    ) -> None:
        """Publish on the service connection; with QoS 1 and 2 return when it is acknowledged."""
        await self._service.conversation.publish(topic, payload, qos=qos, retain=retain)

    def retain(self, topic: str, payload: bytes, *, qos: int) -> None:
        """Nothing to do: the broker keeps retained messages itself."""

    async def clear_session(self, upstream_id: str) -> None:
        """Connect clean, which deletes the session (MQTT-3.1.2-6), and disconnect."""
        talk = Conversation(self._timeout_s)
        link = await self.connect(talk, upstream_id, clean=True)
        link.write(wire.DISCONNECT_PACKET)
        link.close()
        await link.wait_closed()

    async def clear_retained(self, place: str) -> None:
        """Clear what is retained at `place` and below: ask for it, and answer each topic with an empty message.

        Live subscribers see the empty messages: MQTT 3.1.1 knows no other way to clear one.
        """
        talk = Conversation(self._timeout_s)
        talk.link = await self.connect(talk, self._service.new_id(), clean=True)
        try:
            filters = ((place, 0), (f"{place}/#", 0))
            for _ in range(CLEAR_ROUNDS):
                topics = await talk.retained_topics(filters, quiet_s=QUIET_S)
                if not topics:
                    return
                for topic in topics:
                    await talk.publish(topic, b"", qos=1, retain=True)
            raise UpstreamUnavailable(f"the broker at `{self.address}` still retains messages below `{place}`")
        finally:
            talk.link.write(wire.DISCONNECT_PACKET)
            talk.link.close()
