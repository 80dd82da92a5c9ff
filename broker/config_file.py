"""`broker.yaml`: a plain amqtt configuration, read as listeners of the gate and the rest for amqtt."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConfig:
    """One listener that the gate opens. `host` None is every interface; `max_connections` 0 is without limit."""

    name: str
    host: str | None
    port: int
    tls: ssl.SSLContext | None = None
    websocket: bool = False
    max_connections: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFile:
    """What the file says: where the gate listens, and what amqtt is given (external listeners, other plugins)."""

    listeners: tuple[ListenerConfig, ...]
    amqtt: dict[str, Any]


def load_broker_config(path: Path) -> BrokerFile:
    """Return the parsed file. Raises InvalidInput naming file and key."""
    raise NotImplementedError
