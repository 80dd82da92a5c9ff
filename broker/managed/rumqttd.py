"""rumqttd as a child, from the wheel `iotcore`: MQTT 3.1.1 and 5.0 on two loopback ports, for the gate's user only.

What it does was measured with rumqttd 0.20; tests/broker/test_managed_rumqttd.py has a test for each line that the gate
relies on. It is no broker for many tenants by itself: `rumqttd_link` puts right what would end sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.limits import Limits
from broker.managed.child import BrokerNotStarted, Child, RunAs, write_private
from broker.managed.rumqttd_link import RumqttdLink
from broker.managed.upstream import ManagedUpstream
from broker.retained import RetainedStore
from broker.tcp.dial import Dial
from broker.upstream import HELLO, Capabilities, Hello, Link, LinkOwner

CONFIG = "rumqttd.toml"
USERNAME = "gate"
KEEP_ALIVE_S = 65_535  # it refuses 0
NEVER = 0xFFFFFFFF  # as a session expiry
# Of each filter's log, in bytes of topics and payloads: what a client that is away, or slow, finds when it comes.
SEGMENT_BYTES, SEGMENTS = 262_144, 4
EVERYTHING_BYTES = 65_536  # of the log of `#`, which is there so that a topic without a subscriber is no error

RUMQTTD = Capabilities(
    name="rumqttd",
    # It clears one for any empty message, with or without the flag, and sends at most 100 of them for a SUBSCRIBE.
    retained=False,
    shared_subscriptions=False,  # groups are told apart by name only, those of two filters or two tenants are one
    durable=False,
    mqtt5=True,
    answers_pubrel=False,  # it ends the connection
    dollar_topics=False,  # it ends the connection of who subscribes one
    deduplicates_subscriptions=False,  # a repeated filter keeps its first QoS
)


def configuration(limits: Limits, *, port: int, port5: int, password: str) -> str:
    """Return its TOML: two listeners on loopback, one static user, nothing else that listens."""
    parts = [
        "# Written by authsvc at each start; changes are lost.",
        "id = 0",
        "[router]",
        "id = 0",
        f"max_connections = {limits.max_connections + 100}",
        "max_outgoing_packet_count = 200",
        f"max_segment_size = {SEGMENT_BYTES}",
        f"max_segment_count = {SEGMENTS}",
        'initialized_filters = ["#"]',
        '[router.custom_segment."#"]',
        f"max_segment_size = {EVERYTHING_BYTES}",
        "max_segment_count = 2",
    ]
    for version, at in (("v4", port), ("v5", port5)):
        parts += [
            f"[{version}.1]",
            f'name = "{version}"',
            f'listen = "127.0.0.1:{at}"',
            "next_connection_delay_ms = 0",
            f"[{version}.1.connections]",
            "connection_timeout_ms = 5000",
            f"max_payload_size = {limits.max_packet_bytes + 1024}",
            "max_inflight_count = 100",
            "dynamic_filters = false",
            f"auth = {{ {json.dumps(USERNAME)} = {json.dumps(password)} }}",
        ]
    return "\n".join(parts) + "\n"


class RumqttdUpstream(ManagedUpstream):
    """Connects past what rumqttd takes amiss, and keeps the retained messages in its place."""

    def __init__(self, *, limits: Limits, **options: Any) -> None:
        super().__init__(capabilities=RUMQTTD, mqtt5="yes", **options)
        self.kept = RetainedStore(max_messages=limits.max_retained_messages, max_bytes=limits.max_retained_bytes)
        self._stopping = False
        self._expiring: dict[str, asyncio.TimerHandle] = {}  # sessions of 5.0, by upstream id
        self._clearing: dict[str, asyncio.Task[None]] = {}

    def move(self, dial: Dial, dial5: Dial) -> None:
        """Reach the broker at other ports from now on."""
        self._dial, self._dial5 = dial, dial5

    async def connect(self, owner: LinkOwner, upstream_id: str, *, clean: bool, hello: Hello = HELLO) -> Link:
        """Connect one session. When it raises, the owner is not called."""
        if clean and hello.level == wire.MQTT_5_0 and hello.session_expiry_s:
            # Clean start and expiry are two things in 5.0 (3.1.2.4); it keeps what did not start clean.
            await self.clear_session(upstream_id)
            clean = False
        if (old := self._links.get(upstream_id)) is not None:  # first: with its end its time begins
            old.close()  # not by a reset: see `rumqttd_link`
            await old.wait_closed()
        if (timer := self._expiring.pop(upstream_id, None)) is not None:
            timer.cancel()
        if (clearing := self._clearing.get(upstream_id)) is not None and clearing is not asyncio.current_task():
            await asyncio.wait({clearing})
        return await super().connect(owner, upstream_id, clean=clean, hello=hello)

    async def _connect(  # type: ignore[override]  # every connection, those in the gate's own name too
        self, owner: LinkOwner, upstream_id: str, *, clean: bool, hello: Hello
    ) -> Link:
        link = RumqttdLink(
            owner,
            hello.level,
            self.kept.match,
            expiry_s=hello.session_expiry_s if hello.level == wire.MQTT_5_0 else None,
            ended=lambda expiry_s: self._left(upstream_id, expiry_s),
        )
        if hello.level != wire.MQTT_5_0:
            hello = hello._replace(level=wire.MQTT_5_0, session_expiry_s=0 if clean else NEVER)
        return link.over(await super()._connect(link, upstream_id, clean=clean, hello=hello))

    def _left(self, upstream_id: str, expiry_s: int) -> None:
        """End a session of 5.0 when its time is over (3.1.2.11.2): rumqttd knows no such time."""
        if expiry_s == NEVER:
            return
        if expiry_s:
            loop = asyncio.get_running_loop()
            self._expiring[upstream_id] = loop.call_later(expiry_s, self._left, upstream_id, 0)
            return
        self._expiring.pop(upstream_id, None)
        if upstream_id not in self._clearing and self.child.pid is not None and not self._stopping:
            task = asyncio.create_task(self._forget(upstream_id), name=f"expiry of {upstream_id}")
            self._clearing[upstream_id] = task
            task.add_done_callback(lambda _: self._clearing.pop(upstream_id, None))

    async def _forget(self, upstream_id: str) -> None:
        with contextlib.suppress(UpstreamUnavailable):  # then it is being restarted, and has forgotten everything
            await self.clear_session(upstream_id)

    async def stop(self) -> None:
        """End every link, then the broker."""
        self._stopping = True
        for timer in self._expiring.values():
            timer.cancel()
        tasks = list(self._clearing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().stop()

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, properties: bytes = b"") -> None:
        """Publish on the service connection, and keep the message if it is to be retained."""
        if retain:
            self.retain(topic, payload, qos=qos)
        await super().publish(topic, payload, qos=qos, retain=False, properties=properties)

    def retain(self, topic: str, payload: bytes, *, qos: int) -> None:
        """Keep a retained message, or clear it with an empty payload."""
        self.kept.set(topic, payload, qos)

    async def clear_retained(self, place: str) -> None:
        """Clear what is retained at `place` and below."""
        self.kept.clear_below(place)


def managed_rumqttd(folder: Path, *, limits: Limits, run_as: RunAs | None = None) -> RumqttdUpstream:
    """Return a rumqttd that runs in `folder`, a directory below the data directory. Raises BrokerNotStarted."""
    if importlib.util.find_spec("iotcore") is None:
        raise BrokerNotStarted("rumqttd is not installed: pip install 'authsvc[rumqttd]' brings it")
    user = run_as or RunAs()
    upstream = RumqttdUpstream(limits=limits)
    ports: list[int] = []

    def prepare() -> Sequence[str]:
        ports[:] = _free_ports(2)
        password = secrets.token_urlsafe(32)
        write_private(folder / CONFIG, configuration(limits, port=ports[0], port5=ports[1], password=password), user)
        reached = [
            Dial(port=port, username=USERNAME, password=password.encode(), keep_alive_s=KEEP_ALIVE_S) for port in ports
        ]
        upstream.move(*reached)
        return "rumqttd", CONFIG

    async def is_ready(pid: int) -> bool:
        return all(listens(pid, port) for port in ports)

    upstream.child = Child(
        "rumqttd",
        folder=folder,
        run_as=user,
        prepare=prepare,
        is_ready=is_ready,
        changed=upstream.came_or_went,
    )
    return upstream


def listens(pid: int, port: int) -> bool:
    """Whether that process, and nobody else, listens on the loopback port (proc(5)): it is about to get a password."""
    wanted = f"0100007F:{port:04X}"
    with Path("/proc/net/tcp").open(encoding="ascii") as table:
        inodes = [fields[9] for fields in map(str.split, table) if fields[1] == wanted and fields[3] == "0A"]
    if len(inodes) != 1:
        return False
    try:
        files = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it has ended, or a file was closed meanwhile: looked at again
        return False
    return f"socket:[{inodes[0]}]" in files


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on; all are held until all are known, so that they differ."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
