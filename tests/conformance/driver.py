"""What a column is to the player: something that opens clients, and a running service behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

PATIENCE_S = 5.0


class Closed(Exception):
    """The broker has closed the connection; `code` is the reason of its DISCONNECT in MQTT 5."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__("closed" if code is None else f"closed with {code:#x}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: str
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """One CONNECT. `will` is (topic, payload, qos, retain, delay in seconds)."""

    client_id: str
    username: str
    password: str
    clean: bool = True
    expiry_s: int = 0
    will: tuple[str, str, int, bool, int] | None = None


class Client(Protocol):
    """One connection. Whatever finds it closed by the broker raises Closed; nothing is done by itself but acks."""

    session_present: bool

    @property
    def gone(self) -> bool:
        """Whether the connection is known to be closed."""

    async def connect(self, hello: Hello) -> int:
        """Return the CONNACK's code; 0 is a yes."""

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> list[int]:
        """Return the SUBACK's codes."""

    async def unsubscribe(self, topic_filter: str) -> None: ...

    async def publish(self, topic: str, payload: str, *, qos: int, retain: bool, alias: int = 0) -> int:
        """Return the reason of the last acknowledgement: 0, or in MQTT 5 a refusal."""

    async def message(self, patience_s: float) -> Message:
        """Return the next delivery, acknowledged. Raises TimeoutError."""

    async def closed(self, patience_s: float) -> int | None:
        """Return the DISCONNECT's reason (None: none) once the broker has closed. Raises TimeoutError."""

    def cut(self) -> None: ...

    async def disconnect(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What the player must know to wait for the right thing; no verdict depends on it."""

    kicks: bool = True  # the service can end a connection at this broker
    settle_s: float = 0.05  # within which a changed grant is applied there, or has ended the connection
    tells_gone: bool = True  # the service learns at once that a client left
    at_once: int = 12  # cases side by side


@dataclass(frozen=True, slots=True)
class Service:
    """A running service: where its API is, and the first admin key."""

    url: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stage:
    """A broker on which cases can be played; `open` opens a connection, without CONNECT."""

    service: Service
    open: Callable[[], Awaitable[Client]]


class Missing(Exception):
    """What a broker needs is not installed; the message says what."""


class Broker(Protocol):
    """One broker of the matrix. It is started once, and ended with the stack that it was started in."""

    name: str
    page: str  # its file in docs/brokers
    levels: tuple[int, ...]  # 3, 4, 5
    traits: Traits

    def start(self, house: House) -> None:
        """Start what runs in processes. Raises Missing."""

    def stage(self, level: int) -> AbstractAsyncContextManager[Stage]:
        """Yield the stage for cases of this protocol level, in the loop that plays them."""


class House(Protocol):
    """What brokers share while the suite runs."""

    folder: Path
    stack: ExitStack
    hooks_url: str  # where the hooks of that service will be

    def hooks(self) -> Service:
        """Return the one service that all brokers with hooks ask; started at the first call."""


@dataclass(frozen=True, slots=True)
class Column:
    """One broker at one protocol level."""

    broker: Broker
    level: int

    @property
    def name(self) -> str:
        return f"{self.broker.name} {LEVELS[self.level]}"


LEVELS = {3: "3.1", 4: "3.1.1", 5: "5.0"}
