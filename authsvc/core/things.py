"""What a token may do with a thing: admit it, register it, bind its client id. Decisions only; the store applies them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from authsvc.core.facts import (
    BindClientId,
    Ground,
    Refusal,
    Thing,
    ThingDefinition,
    ThingState,
    Token,
    TokenKind,
)
from authsvc.core.reasons import Reason
from authsvc.core.topics import is_key, printable, safe_level

DEFAULT_GROUND: Final = "default"
MAX_CLIENT_ID_BYTES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A registration as it would be: the store makes it so in one transaction, or refuses.

    `license` is "" when no seat is taken; `max_things` None when the token has no quota. Both are counted by the store.
    """

    thing: Thing
    license: str
    max_things: int | None
    token_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """The client id to bind to the thing, by compare and set."""

    client_id: str


def registration_ground(token: Token) -> str:
    """Return the key of the ground into which the app token registers."""
    return token.ground or DEFAULT_GROUND


def thing_key_of(token: Token, presented: str | None) -> str | Refusal | None:
    """Return the key of the thing that the token speaks for, given the key in the username (None: none).

    A device token speaks for its own thing only (``thing_key_mismatch``); a ground token for no thing (None).
    """
    raise NotImplementedError


def admits(token: Token, thing: Thing) -> Refusal | None:
    """Return why the token does not admit the existing thing, or None if it does.

    A device token admits its thing; an app token what it registered, any thing in its ground, and without a ground
    every thing of its tenant. A thing of another tenant is unknown.
    """
    raise NotImplementedError


def plan_registration(
    token: Token, key: str, *, definition: ThingDefinition | None, ground: Ground | None, now_us: int
) -> Plan | Refusal:
    """Return the thing that the token would register under `key`, or why it registers none.

    `definition` and `ground` are the records that the token names (`registration_ground`), None where they are gone.
    """
    raise NotImplementedError


def check_client_id(client_id: str, *, clean_session: bool, uses_client_variable: bool) -> Refusal | None:
    """Return why the client id cannot be used (``client_id_invalid``), or None.

    An empty one needs a clean session (MQTT-3.1.3-8); it gets a fresh one before anything is compiled.
    `uses_client_variable` says that rules put it into topics, where `+ # /` and control characters would change them.
    """
    raise NotImplementedError


def binding_of(
    *,
    definition: ThingDefinition | None,
    token_kind: TokenKind,
    thing: Thing | None,
    client_id: str,
) -> Bind | Refusal | None:
    """Return the binding to make, ``client_id_mismatch``, or None when there is nothing to do.

    `thing` is None when it is only about to be registered; `client_id` is the one that the client sent, perhaps empty.
    """
    raise NotImplementedError
