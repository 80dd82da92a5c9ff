"""What one client may take, and how often an address may be wrong."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The `[limits]` of the settings; every default is the documented one."""

    connect_s: float = 5.0  # from accept to a whole CONNECT
    admission_s: float = 5.0  # from CONNECT to CONNACK
    refusal_linger_s: float = 1.0  # a refused client has this long to take its CONNACK

    max_connect_bytes: int = 65_536  # client id, will and token of 64 KiB at most together
    max_packet_bytes: int = 262_144
    max_connections: int = 10_000
    max_before_connect: int = 8_192  # of them, those whose CONNECT has not come: a storm queues twice `BACKLOG` of them
    max_client_id_bytes: int = 256
    max_subscriptions: int = 1_000  # a session
    max_topic_levels: int = 32
    max_persistent_sessions: int = 100  # a principal
    max_client_buffer_bytes: int = 1_048_576  # towards a client; above it the connection ends
    max_open_qos2: int = 1_000
    max_topic_aliases: int = 10  # of MQTT 5.0, a connection
    max_delayed_wills: int = 10_000  # of MQTT 5.0, of clients that are away

    max_retained_messages: int = 10_000  # where the gate keeps them in place of the broker
    max_retained_bytes: int = 64 * 1_048_576

    failed_connect_burst: int = 100  # an address
    failed_connects_per_s: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"limit `{name}` must be above 0, not {getattr(self, name)}")
        if self.max_packet_bytes < 129:  # scanner.MIN_MAX_PACKET
            raise ValueError(f"limit `max_packet_bytes` must be at least 129, not {self.max_packet_bytes}")


MAX_ADDRESSES: Final = 10_000


class Backoff:
    """A token bucket per address for CONNECTs that failed by their credential; valid ones never come here.

    An IPv6 host commands its /64, so that is what is counted. Bounded: beyond `max_addresses` the address that failed
    least recently is forgotten, which only forgives it.
    """

    __slots__ = ("_buckets", "_burst", "_max_addresses", "_refill_per_s")

    def __init__(self, *, burst: int = 100, refill_per_s: float = 10.0, max_addresses: int = MAX_ADDRESSES) -> None:
        self._burst = float(burst)
        self._refill_per_s = refill_per_s
        self._max_addresses = max_addresses
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> failures left, at what time

    def __len__(self) -> int:
        return len(self._buckets)

    def failed(self, address: str, now: float) -> bool:
        """Count a failed CONNECT; return True while it is within the budget, False when it is to be rate limited.

        Args:
            address: the peer's IP address, without port; anything else (a Unix socket) is a key of its own.
            now: seconds of a monotonic clock.
        """
        key = bucket_of(address)
        left, then = self._buckets.pop(key, (self._burst, now))
        left = min(self._burst, left + max(0.0, now - then) * self._refill_per_s)
        allowed = left >= 1.0
        self._buckets[key] = (left - 1.0 if allowed else left, max(now, then))
        if len(self._buckets) > self._max_addresses:
            self._buckets.popitem(last=False)
        return allowed


@lru_cache(maxsize=1_000)  # who fails, fails often
def bucket_of(address: str) -> str:
    """Return what is counted for an address: IPv4 itself, also when mapped into IPv6; the /64 of any other IPv6."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Address(int(ip) >> 64 << 64)) + "/64"
    return str(ip)
