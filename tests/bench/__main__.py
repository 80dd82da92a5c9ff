"""`python -m tests.bench [--quick] [NAME…]`: run the benchmarks, all by default, and print the performance table."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterable

from tests.bench import admission, connections, connector, decisions, filters, hooks, latency, load, memory, traffic
from tests.bench.table import HEAD, Row

BENCHMARKS: dict[str, Callable[[int], Iterable[Row]]] = {  # each takes the number of paired rounds
    "decisions": decisions.run,
    "admission": admission.run,
    "embedded": traffic.embedded,
    "filters": filters.run,
    "tcp": traffic.tcp,
    "connections": connections.connections,
    "first": connections.first,
    "reconnect": connections.reconnect,
    "latency": latency.added,
    "bad_logins": latency.bad_logins,
    "hooks": hooks.hooks,
    "memory": memory.run,
    "scale": admission.scale,
}

ROUNDS = 7


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="one round each: shows that they run, not what is true")
    arguments = parser.parse_args()
    chosen = arguments.names or list(BENCHMARKS)
    rounds = 1 if arguments.quick else ROUNDS
    if unknown := [name for name in chosen if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(f'`{name}`' for name in unknown)}; there are {', '.join(BENCHMARKS)}")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} before")
    print(f"generator alone: {load.ceiling():,.0f} messages/s, {connector.ceiling():,.0f} connections/s\n")
    print(HEAD)
    for name in chosen:
        for row in BENCHMARKS[name](rounds):
            print(row.markdown(), flush=True)
    print(f"\nload {os.getloadavg()[0]:.2f} after")


if __name__ == "__main__":
    main()
