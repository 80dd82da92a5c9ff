"""Messages and connections through the gate, against the same broker without it. All processes on this machine."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace

from broker import wire
from tests.bench import load, servers
from tests.bench.fleets import Fleet, prepare
from tests.bench.table import Row

TOPIC = "default/default/bench-000000/state/x"
PLUGIN = "tests.bench.stock_amqtt.AllowAll"

Rate = Callable[[], float]


def _pumped(address: servers.Address, publisher: load.Login, reader: load.Login, *, qos: int, total: int) -> float:
    with contextlib.closing(load.open_client(address, publisher)) as source:
        with contextlib.closing(load.open_client(address, reader)) as sink:
            level = publisher.level
            load.subscribe(sink, "default/default/#", qos, level=level)
            return load.pump(source, sink, TOPIC, qos=qos, total=total, window=2_000, level=level)


def _plain(address: servers.Address, *, qos: int, total: int, level: int = wire.MQTT_3_1_1) -> Rate:
    source, sink = (load.Login(client_id=name, level=level) for name in ("source", "sink"))
    return lambda: _pumped(address, source, sink, qos=qos, total=total)


def _gated(fleet: Fleet, *, qos: int, total: int, level: int = wire.MQTT_3_1_1) -> Rate:
    source, sink = (replace(login, level=level) for login in (fleet.login(0), fleet.reader()))
    return lambda: _pumped(fleet.service.mqtt, source, sink, qos=qos, total=total)


def paired(rates: dict[str, Rate], rounds: int) -> dict[str, float]:
    """Run the rates in turn, `rounds` times after one to warm up; return the median of each."""
    for rate in rates.values():
        rate()
    figures: dict[str, list[float]] = {name: [] for name in rates}
    for _ in range(rounds):
        for name, rate in rates.items():
            figures[name].append(rate())
    return {name: statistics.median(values) for name, values in figures.items()}


def embedded(rounds: int) -> Iterator[Row]:
    """Gate and amqtt in one process against stock amqtt: messages of both QoS, and connections of known things."""
    with servers.stock_amqtt() as stock, servers.stock_amqtt(PLUGIN) as checked, servers.authsvc() as service:
        fleet = prepare(service)
        for qos in (0, 1):
            total = 6_000
            found = paired(
                {
                    "ours": _gated(fleet, qos=qos, total=total),
                    "stock": _plain(stock, qos=qos, total=total),
                    "checked": _plain(checked, qos=qos, total=total),
                },
                rounds,
            )
            ours = found["ours"]
            what = f"QoS {qos} messages, gate and amqtt"
            yield Row(what, "stock amqtt, anonymous", ours, found["stock"], ours / found["stock"], 1.1, "/s")
            yield Row(what, "stock amqtt, topic plugin", ours, found["checked"], ours / found["checked"], 1.4, "/s")
        logins = fleet.register(1_000)
        plain = [load.Login(client_id=login.client_id) for login in logins]
        found = paired(
            {
                "ours": lambda: load.connect_rate(service.mqtt, logins),
                "stock": lambda: load.connect_rate(stock, plain),
            },
            rounds,
        )
        ratio = found["ours"] / found["stock"]
        yield Row(
            "connections, gate and amqtt, known things", "stock amqtt", found["ours"], found["stock"], ratio, 0.85, "/s"
        )


def tcp(rounds: int) -> Iterator[Row]:
    """The gate before Mosquitto against the same Mosquitto, in MQTT 3.1.1 and 5.0."""
    goals = ((wire.MQTT_3_1_1, "", 0.8, 1.0), (wire.MQTT_5_0, "MQTT 5.0, ", 0.7, 0.9))
    with servers.mosquitto() as broker, servers.authsvc(upstream=broker) as service:
        fleet = prepare(service)
        for level, name, *bounds in goals:
            for qos, total, goal in ((0, 100_000, bounds[0]), (1, 50_000, bounds[1])):
                found = paired(
                    {
                        "ours": _gated(fleet, qos=qos, total=total, level=level),
                        "theirs": _plain(broker, qos=qos, total=total, level=level),
                    },
                    rounds,
                )
                ratio = found["ours"] / found["theirs"]
                what = f"{name}QoS {qos} messages, gate and Mosquitto"
                yield Row(what, "the same Mosquitto, anonymous", found["ours"], found["theirs"], ratio, goal, "/s")
