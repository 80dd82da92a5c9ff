"""What many distinct filters cost the embedded broker: the time of a message, and of a connection."""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
from collections.abc import Iterator

from broker import wire
from tests.bench import load, servers
from tests.bench.fleets import Fleet, prepare
from tests.bench.table import Row

FEW, MANY = 10, 5_000
PER_SESSION = 1_000  # the limit of subscriptions
MESSAGES = 500
TOPIC = "default/default/bench-000000/state/x"


def run(rounds: int) -> Iterator[Row]:
    """Yield median seconds from publish to delivery (QoS 1) and from CONNECT to CONNACK, with 5,000 filters and 10."""
    few = [_measured(FEW) for _ in range(min(rounds, 3))]
    many = [_measured(MANY) for _ in range(min(rounds, 3))]
    for number, what in enumerate(("message", "connection")):
        ours = statistics.median(figures[number] for figures in many)
        theirs = statistics.median(figures[number] for figures in few)
        name = f"{what}, {MANY:,} distinct filters, gate and amqtt"
        yield Row(name, f"{FEW} filters", ours, theirs, ours / theirs, 5, "s", at_most=True)


def _measured(filters: int) -> tuple[float, float]:
    with servers.authsvc() as service, contextlib.ExitStack() as held:
        fleet = prepare(service)
        for first in range(0, filters, PER_SESSION):
            sock = held.enter_context(contextlib.closing(_reader(fleet, f"filters-{first}")))
            for number in range(first, min(first + PER_SESSION, filters)):
                load.subscribe(sock, f"default/default/other-{number}/state/#", 1)
        reader = held.enter_context(contextlib.closing(_reader(fleet, "probe")))
        load.subscribe(reader, TOPIC, 1)
        source = held.enter_context(contextlib.closing(load.open_client(service.mqtt, fleet.login(0))))
        messages = [_delivered(source, reader, number % 60_000 + 1) for number in range(MESSAGES)]
        connections = []
        for _ in range(MESSAGES // 5):
            started = time.perf_counter()
            load.open_client(service.mqtt, fleet.login(1)).close()
            connections.append(time.perf_counter() - started)
    return statistics.median(messages), statistics.median(connections)


def _reader(fleet: Fleet, client_id: str) -> socket.socket:
    login = fleet.reader()
    return load.open_client(
        fleet.service.mqtt, load.Login(client_id=client_id, username=login.username, password=login.password)
    )


def _delivered(source: socket.socket, reader: socket.socket, packet_id: int) -> float:
    """Publish one message and return the seconds until the reader has it; both sides acknowledge."""
    packet = wire.encode_publish(TOPIC, load.PAYLOAD, qos=1, packet_id=packet_id)
    started = time.perf_counter()
    source.sendall(packet)
    got = load.exactly(reader, len(packet))
    took = time.perf_counter() - started
    at = len(packet) - len(load.PAYLOAD) - 2
    reader.sendall(wire.encode_ack(wire.PUBACK, int.from_bytes(got[at : at + 2])))
    load.exactly(source, 4)
    return took
