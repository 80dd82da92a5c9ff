"""How fast clients get in: known things, first connections, and everybody at once after a restart."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from tests.bench import connector, servers
from tests.bench.fleets import prepare
from tests.bench.load import Login
from tests.bench.table import Row
from tests.bench.traffic import paired

KNOWN = 1_000
FIRST = 2_000
STORM = 5_000
FIRST_GOAL = 2_000.0  # a second


def connections(rounds: int) -> Iterator[Row]:
    """Known things connect and disconnect, 64 at a time: the gate against Mosquitto's own two ways to check names."""
    names = {f"bench-{number:06d}": f"{number:049d}" for number in range(KNOWN)}  # as long as a token
    theirs = [Login(client_id=name, username=name, password=word.encode()) for name, word in names.items()]
    rivals: dict[str, Callable[[], AbstractContextManager[servers.Address]]] = {
        "Mosquitto, password file and ACL file": lambda: servers.mosquitto_password_file(names),
        "Mosquitto, dynamic-security": lambda: servers.mosquitto_dynamic_security(names),
    }
    with servers.mosquitto() as broker, servers.authsvc(upstream=broker) as service:
        ours = prepare(service).register(KNOWN)
        for rival, started in rivals.items():
            with started() as other:
                found = paired(
                    {
                        "ours": lambda: connector.connect(service.mqtt, ours).rate,
                        "theirs": lambda: connector.connect(other, theirs).rate,  # noqa: B023  # used within the turn
                    },
                    rounds,
                )
            what = "connections, gate and Mosquitto, known things"
            yield Row(what, rival, found["ours"], found["theirs"], found["ours"] / found["theirs"], 1.3, "/s")


def first(rounds: int) -> Iterator[Row]:
    """Things connect for the first time and are registered, 64 at a time; a new fleet each round."""
    rates = []
    with servers.mosquitto() as broker, servers.authsvc(upstream=broker) as service:
        fleet = prepare(service)
        for number in range(rounds + 1):
            logins = [fleet.login(number * FIRST + n) for n in range(FIRST)]
            rates.append(connector.connect(service.mqtt, logins).rate)
    ours = statistics.median(rates[1:])
    what = "first connections, registered, gate and Mosquitto"
    yield Row(what, "2,000/s", ours, FIRST_GOAL, ours / FIRST_GOAL, 1.0, "/s")


def reconnect(rounds: int) -> Iterator[Row]:
    """After a restart 5,000 clients connect at the same instant and stay: seconds until the last one is in."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with servers.mosquitto() as broker, servers.authsvc(upstream=broker, data=data) as service:
            fleet = prepare(service)
            logins = [fleet.login(number) for number in range(STORM)]
            connector.connect(service.mqtt, logins)
        plain = [Login(client_id=login.client_id) for login in logins]
        ours, theirs = [], []
        for _ in range(rounds):
            with servers.mosquitto() as broker, servers.authsvc(upstream=broker, data=data) as service:
                ours.append(connector.connect(service.mqtt, logins, at_once=STORM, stay=True).seconds)
            with servers.mosquitto() as broker:
                theirs.append(connector.connect(broker, plain, at_once=STORM, stay=True).seconds)
    mine, other = statistics.median(ours), statistics.median(theirs)
    what = "5,000 devices reconnect at once, until all are in"
    yield Row(what, "Mosquitto, anonymous", mine, other, mine / other, 3.0, "s", at_most=True)
