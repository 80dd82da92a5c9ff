"""Mosquitto as a child, on a Unix socket in a directory that nobody else enters."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from broker.limits import Limits
from broker.managed.child import BrokerNotStarted, Child, RunAs, write_private
from broker.managed.upstream import ManagedUpstream

SEARCHED = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"  # where distributions put it, besides PATH
SOCKET = "mosquitto.sock"
CONFIG = "mosquitto.conf"
LONGEST_PATH = 107  # of a Unix socket, without the closing zero: unix(7)
QUEUED_MESSAGES = 10_000  # of an absent session
QUEUED_BYTES = 64 * 1_048_576
SAVE_EVERY_S = 5


def find_mosquitto() -> str | None:
    """Return the path of the program, None if it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=SEARCHED)


def configuration(limits: Limits) -> str:
    """Return the configuration (mosquitto.conf(5)); paths are relative to the child's directory.

    The one listener is a socket behind a 0700 directory, and the gate has judged all that comes by it: so anonymous,
    and no limit narrower than the gate's.
    """
    return f"""\
# Written by authsvc at each start; changes are lost.
per_listener_settings false
listener 0 {SOCKET}
allow_anonymous true
max_connections -1
sys_interval 0
max_packet_size {limits.max_packet_bytes + 1024}
max_inflight_messages 100
max_queued_messages {QUEUED_MESSAGES}
max_queued_bytes {QUEUED_BYTES}
max_keepalive 65535
retain_available true
persistence true
persistence_location ./
persistence_file mosquitto.db
autosave_on_changes false
autosave_interval {SAVE_EVERY_S}
connection_messages false
log_dest stdout
log_timestamp false
log_type error
log_type warning
"""


def managed_mosquitto(folder: Path, *, limits: Limits, run_as: RunAs | None = None) -> ManagedUpstream:
    """Return a Mosquitto that runs in `folder`, a directory below the data directory. Raises BrokerNotStarted."""
    program = find_mosquitto()
    if program is None:
        raise BrokerNotStarted("mosquitto is not installed (Debian: apt-get install mosquitto), nor in PATH")
    user = run_as or RunAs()
    path = folder.absolute() / SOCKET
    if len(str(path).encode()) > LONGEST_PATH:
        raise BrokerNotStarted(f"`{path}` is too long for a Unix socket (107 bytes): take a shorter data directory")

    def prepare() -> Sequence[str]:
        write_private(folder / CONFIG, configuration(limits), user)
        path.unlink(missing_ok=True)  # of one that was killed; who still lives holds the lock, and is waited for
        return program, "-c", CONFIG

    async def is_ready(_pid: int) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(probe, str(path))
            except OSError:
                return False
        return True

    upstream = ManagedUpstream(path=path)
    upstream.child = Child(
        "mosquitto",
        folder=folder,
        run_as=user,
        prepare=prepare,
        is_ready=is_ready,
        changed=upstream.came_or_went,
    )
    return upstream
