"""Resident memory per connected session in the gate, with a broker behind TCP."""

from __future__ import annotations

import resource
import socket
import statistics
import time

import psutil

from broker import wire
from tests.bench import load, servers
from tests.bench.fleets import prepare
from tests.bench.table import Row

SESSIONS = 2_000


def run(rounds: int) -> list[Row]:
    """Connect 2,000 known things that subscribe, publish once and stay; the growth of the service's memory, each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, SESSIONS + 1_000)), hard))
    grown = statistics.median(_grown() for _ in range(min(rounds, 3)))
    bound = 12 * 1024
    return [Row("memory per session in the gate", "12 KiB", grown, bound, grown / bound, 1, "B", at_most=True)]


def _grown() -> float:
    """Return bytes per session of a service that was started for it."""
    with servers.mosquitto() as broker, servers.authsvc(upstream=broker) as service:
        fleet = prepare(service)
        logins = fleet.register(SESSIONS)
        load.connect_rate(service.mqtt, logins)  # warms caches and the allocator: they are not the session's
        time.sleep(1)
        process = psutil.Process(service.pid)
        before = process.memory_info().rss
        held: list[socket.socket] = []
        for number, login in enumerate(logins):
            sock = load.open_client(service.mqtt, login)
            load.subscribe(sock, f"default/default/bench-{number:06d}/state/#", 1)
            sock.sendall(wire.encode_publish(f"default/default/bench-{number:06d}/event/x", b"1"))
            held.append(sock)
        time.sleep(1)
        grown = (process.memory_info().rss - before) / SESSIONS
        for sock in held:
            sock.close()
    return grown
