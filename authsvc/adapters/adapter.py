"""What a broker's module gives to the frame: a table of routes and how that broker is told that a session ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from starlette.responses import Response

from authsvc.adapters.held import still_right
from authsvc.core.policy import Grant
from authsvc.core.reasons import Reason

if TYPE_CHECKING:
    from authsvc.adapters.attached import Attached
    from authsvc.adapters.management import Management
    from authsvc.sessions import Session, Will


class MalformedHook(Exception):  # noqa: N818  # an answer to give, not an accident
    """A request that is not what the broker sends. The message names the field, never its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedConfig:
    """One section ``[brokers.NAME]``, with secrets read; an empty `management_url` means that nothing can be told."""

    name: str
    kind: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    management_url: str = ""
    management_user: str = ""
    management_password: str = field(default="", repr=False)
    vhost: str = "/"
    hold_s: float = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRequest:
    """One strictly parsed request. `fields` holds the JSON object, or the form's or query's parameters as text."""

    path: str  # after /hooks/NAME/
    fields: Mapping[str, Any] = field(repr=False)  # holds the password
    headers: Mapping[str, str] = field(repr=False)  # names in lower case; a repeated one is left out

    def text(self, name: str, default: str | None = None) -> str:
        """Return the field as text; raises MalformedHook if it is no text, or missing without a default.

        JSON null counts as missing. NUL is refused: no MQTT string holds it (MQTT-1.5.3-2).
        """
        value = self.fields.get(name)
        if value is None:
            if default is None:
                raise MalformedHook(f"`{name}` is missing")
            return default
        if not isinstance(value, str) or "\0" in value:
            raise MalformedHook(f"`{name}` is not a text")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return the field as text, or None if it is missing or null."""
        return None if self.fields.get(name) is None else self.text(name)

    def integer(self, name: str, default: int | None = None, *, least: int = 0, most: int = 1 << 31) -> int:
        """Return the field as a whole number, also from decimal text; raises MalformedHook."""
        value = self.fields.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
            value = int(value)
        if type(value) is not int or not least <= value <= most:
            raise MalformedHook(f"`{name}` is not a whole number from {least} to {most}")
        return value

    def flag(self, name: str, default: bool | None = None) -> bool:  # a value, not a switch
        """Return the field as a truth value, also from ``true``, ``false``, ``1``, ``0``; raises MalformedHook."""
        value = self.fields.get(name)
        if value is None and default is not None:
            return default
        found = _FLAGS.get(value, None) if isinstance(value, str | bool | int) else None
        if found is None:
            raise MalformedHook(f"`{name}` is neither true nor false")
        return found


_FLAGS: Final[Mapping[str | bool | int, bool]] = {
    True: True,
    False: False,
    "true": True,
    "false": False,
    "1": True,
    "0": False,
}

Handler = Callable[["Attached", HookRequest], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One route. `fields` are all that a request may hold; None where the broker adds some of its own.

    `raw_form` is for a broker that escapes nothing in its forms: such a form must hold each of `fields`, just once.
    """

    handler: Handler
    fields: frozenset[str] | None = None
    methods: frozenset[str] = frozenset({"POST"})
    raw_form: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What the module of one broker gives, as its ``ADAPTER``.

    `deny` makes the broker's own words for a refusal; the frame uses it for a request that is malformed or whose
    handler failed: ``deny(path)``. When a session gets a new grant: "keep" does nothing, since every action is asked
    anew; "kick" ends the session at the broker, unless `same` says that what was told under the first grant is right
    under the second; "push" calls `push`. `ended` is called when the service ends a session, before it is kicked.
    `gives_client_ids` is for a broker that takes the id which the session has, where the client sent none. `ending` is
    called when the service ends, before its listeners are closed: an answer without an end must come to one.
    `asks_in_turn` is for a broker whose questions wait for one another: a CONNECT there waits for nothing that needs
    another answer of ours (`claims`).
    """

    kind: str
    routes: Mapping[str, Hook]
    deny: Callable[[str], Response]
    swap: Literal["keep", "kick", "push"]
    deliveries_checked: bool = False
    management: Callable[[AttachedConfig], Management | None] = lambda config: None  # noqa: ARG005
    same: Callable[[Grant, Grant], bool] = still_right
    push: Callable[[Attached, Session], None] | None = None
    ended: Callable[[Attached, Session, Reason, Will], None] | None = None
    gives_client_ids: bool = False
    asks_in_turn: bool = False
    ending: Callable[[Attached], None] | None = None
