"""What a token may do with a thing: admit it, register it, bind its client id. Decides only; the store applies."""

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
    if token.kind is TokenKind.DEVICE:
        if presented is not None and presented != token.thing:
            detail = f"username `{printable(presented)}` is not the thing of token `{token.id}`"
            return Refusal(reason=Reason.THING_KEY_MISMATCH, detail=detail)
        return token.thing
    if token.kind is TokenKind.APP:
        return _invalid_key("") if presented is None else presented
    return None


def admits(token: Token, thing: Thing) -> Refusal | None:
    """Return why the token does not admit the existing thing, or None if it does.

    A device token admits its thing; an app token what it registered, any thing in its ground, and without a ground
    every thing of its tenant. A thing of another tenant is unknown.
    """
    if thing.tenant != token.tenant:  # the wall: never say more than "unknown"
        return Refusal(reason=Reason.THING_UNKNOWN, detail=f"there is no thing `{thing.key}`")
    if token.kind is TokenKind.DEVICE:
        if thing.key != token.thing:
            detail = f"token `{token.id}` speaks for another thing than `{thing.key}`"
            return Refusal(reason=Reason.THING_KEY_MISMATCH, detail=detail)
    elif token.kind is not TokenKind.APP or not _in_scope(token, thing):
        detail = f"thing `{thing.key}` was not registered by token `{token.id}` and is not in its ground"
        return Refusal(reason=Reason.THING_OUT_OF_SCOPE, detail=detail)
    if thing.state is not ThingState.ACTIVE:
        return Refusal(reason=Reason.THING_BLOCKED, detail=f"thing `{thing.key}` is blocked")
    return None


def plan_registration(
    token: Token, key: str, *, definition: ThingDefinition | None, ground: Ground | None, now_us: int
) -> Plan | Refusal:
    """Return the thing that the token would register under `key`, or why it registers none.

    `definition` and `ground` are the records that the token names (`registration_ground`), None where they are gone.
    """
    if token.kind is not TokenKind.APP or not token.auto_register or not token.definition:
        detail = f"there is no thing `{printable(key)}`, and token `{token.id}` registers none"
        return Refusal(reason=Reason.THING_UNKNOWN, detail=detail)
    if not is_key(key):
        return _invalid_key(key)
    if definition is None or (definition.tenant, definition.key) != (token.tenant, token.definition):
        detail = f"thing definition `{token.definition}`, which token `{token.id}` names, does not exist"
        return Refusal(reason=Reason.DEFINITION_MISSING, detail=detail)
    ground_key = registration_ground(token)
    if ground is None or (ground.tenant, ground.key) != (token.tenant, ground_key):
        detail = f"ground `{ground_key}`, into which token `{token.id}` registers, does not exist"
        return Refusal(reason=Reason.DEFINITION_MISSING, detail=detail)
    thing = Thing(
        tenant=token.tenant,
        key=key,
        name=key,
        definition=definition.key,
        ground=ground.key,
        tags=token.tags,
        security_tags=token.security_tags,
        token_id=token.id,
        license=token.license,
        first_seen_us=now_us,
        last_seen_us=now_us,
        created_at_us=now_us,
    )
    return Plan(thing=thing, license=token.license, max_things=token.max_things, token_id=token.id)


def check_client_id(
    client_id: str, *, clean_session: bool, uses_client_variable: bool, max_bytes: int = MAX_CLIENT_ID_BYTES
) -> Refusal | None:
    """Return why the client id cannot be used (``client_id_invalid``), or None.

    An empty one needs a clean session (MQTT-3.1.3-8); it gets a fresh one before anything is compiled.
    `uses_client_variable` says that rules put it into topics, where `+ # /` and control characters would change them.
    """
    if client_id == "":
        if clean_session:
            return None
        return _invalid_client_id("an empty client id needs a clean session")
    if len(client_id.encode("utf-8", "surrogatepass")) > max_bytes:
        return _invalid_client_id(f"the client id is longer than {max_bytes} bytes")
    if uses_client_variable and not safe_level(client_id):
        detail = f"client id `{printable(client_id)}` holds `+ # /` or a control character, and rules use `{{client}}`"
        return _invalid_client_id(detail)
    return None


def binding_of(
    *,
    definition: ThingDefinition | None,
    token_kind: TokenKind,
    thing: Thing | None,
    client_id: str,
) -> Bind | Refusal | None:
    """Return the binding to make, ``client_id_mismatch``, or None when there is nothing to do.

    `thing` is None when it is only about to be registered; `client_id` is the one that the client sent, perhaps empty:
    that is never bound, and does not pass where another is. By the definition's `bind_client_id`, connections by app
    tokens are judged (``app_token``), those by any token that speaks for a thing (``always``), or none (``never``).
    """
    policy = BindClientId.APP_TOKEN if definition is None else definition.bind_client_id
    judged = policy is BindClientId.ALWAYS or (policy is BindClientId.APP_TOKEN and token_kind is TokenKind.APP)
    if not judged:
        return None
    bound = None if thing is None else thing.client_id
    if bound is None:
        return Bind(client_id=client_id) if client_id else None
    if bound != client_id:
        detail = "another client id is bound to the thing; an operator can reset the binding"
        return Refusal(reason=Reason.CLIENT_ID_MISMATCH, detail=detail)
    return None


def _in_scope(token: Token, thing: Thing) -> bool:
    return thing.token_id == token.id or token.ground in ("", thing.ground)


def _invalid_key(key: str) -> Refusal:
    detail = f"username `{printable(key)}` is no thing key; it must be 1 to 64 of `A-Z a-z 0-9 . _ -`"
    return Refusal(reason=Reason.THING_KEY_INVALID, detail=detail)


def _invalid_client_id(detail: str) -> Refusal:
    return Refusal(reason=Reason.CLIENT_ID_INVALID, detail=detail)
