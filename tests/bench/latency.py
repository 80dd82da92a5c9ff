"""What a message waits: at a steady rate, with the gate and without, and while somebody guesses tokens beside it."""

from __future__ import annotations

import contextlib
import selectors
import statistics
import struct
import time
from collections.abc import Iterator

from authsvc.core import tokens
from authsvc.core.facts import TokenKind
from broker import wire
from tests.bench import connector, load, servers
from tests.bench.fleets import prepare
from tests.bench.table import Row

TOPIC = "default/default/bench-000000/state/x"
RATE = 1_000  # messages a second
SECONDS = 5.0  # of one measurement
FIRST = 500  # messages that do not count: connections that have just begun are another question, on either side
ADDED_P50 = 150e-6
ADDED_P99 = 1e-3
BAD_LOGINS = 300  # a second
BAD_SECONDS = 20.0


def added(rounds: int) -> Iterator[Row]:
    """Send 1,000 messages a second through Mosquitto with the gate and without; the difference is what it adds."""
    with servers.mosquitto() as broker, servers.authsvc(upstream=broker) as service:
        fleet = prepare(service)
        fleet.register(1)
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(waits(service.mqtt, fleet.login(0), fleet.reader(), seconds=SECONDS))
            theirs.append(waits(broker, load.Login(client_id="source"), load.Login(client_id="sink"), seconds=SECONDS))
    for name, rank, most in (("p50", 49, ADDED_P50), ("p99", 98, ADDED_P99)):
        mine, other = (statistics.median(run[rank] for run in runs) for runs in (ours, theirs))
        what = f"latency of one message at 1,000/s, {name}; the ratio is of what the gate adds to {most * 1e6:,.0f} µs"
        yield Row(what, "Mosquitto alone", mine, other, (mine - other) / most, 1.0, "s", at_most=True)


def bad_logins(rounds: int) -> Iterator[Row]:
    """The p99 of live deliveries while 300 well-formed, unknown tokens a second are tried, against without them."""
    seconds = BAD_SECONDS if rounds > 1 else 3.0
    with servers.mosquitto() as broker, servers.authsvc(upstream=broker) as service:
        fleet = prepare(service)
        fleet.register(1)
        quiet, loud = [], []
        for _ in range(min(rounds, 3)):
            quiet.append(waits(service.mqtt, fleet.login(0), fleet.reader(), seconds=seconds)[98])
            guesses = _guesses(int(BAD_LOGINS * (seconds + FIRST / RATE)))
            with connector.refused_beside(service.mqtt, guesses, rate=BAD_LOGINS):
                loud.append(waits(service.mqtt, fleet.login(0), fleet.reader(), seconds=seconds)[98])
    mine, other = statistics.median(loud), statistics.median(quiet)
    what = "live delivery p99, 300 bad logins/s beside it"
    yield Row(what, "without them", mine, other, mine / other, 2.0, "s", at_most=True)


def waits(address: servers.Address, publisher: load.Login, reader: load.Login, *, seconds: float) -> list[float]:
    """Publish at `RATE` and return the 99 percentiles of the time from send to receipt, in seconds."""
    found: list[float] = []
    with (
        contextlib.closing(load.open_client(address, publisher)) as source,
        contextlib.closing(load.open_client(address, reader)) as sink,
    ):
        load.subscribe(sink, "default/default/#", 0)
        packet = wire.encode_publish(TOPIC, bytes(8))
        head = packet[:-8]
        total = FIRST + int(seconds * RATE)
        with selectors.SelectSelector() as selector:  # the others wait for whole milliseconds, and then send two
            selector.register(sink, selectors.EVENT_READ)
            rest, sent = b"", 0
            started = time.perf_counter()
            while len(found) < total:
                now = time.perf_counter()
                due = min(total, int((now - started) * RATE) + 1)
                while sent < due:
                    source.sendall(head + struct.pack("d", time.perf_counter()))
                    sent += 1
                timeout = 30.0 if sent == total else max(0.0, started + sent / RATE - time.perf_counter())
                if not selector.select(timeout):
                    if sent == total:
                        raise TimeoutError(f"{len(found)} of {total} messages arrived")
                    continue
                arrived = sink.recv(65_536)
                now = time.perf_counter()
                rest += arrived
                whole = len(rest) // len(packet)
                for n in range(whole):
                    end = (n + 1) * len(packet)
                    found.append(now - struct.unpack("d", rest[end - 8 : end])[0])
                rest = rest[whole * len(packet) :]
    return statistics.quantiles(found[FIRST:], n=100)


def _guesses(count: int) -> list[load.Login]:
    """Return logins with well-formed tokens that nobody has."""
    return [
        load.Login(client_id=f"g-{n}", username=f"g-{n}", password=tokens.mint(TokenKind.APP).encode())
        for n in range(count)
    ]
