"""From the fields of a CONNECT to a credential: the token is the password, the username says which thing.

Nothing is looked up here. What is returned holds the digest of the token, never its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from authsvc.core import tokens
from authsvc.core.facts import Refusal, TokenKind
from authsvc.core.reasons import Reason
from authsvc.core.topics import is_key, printable

_JWT: Final = re.compile(r"eyJ[0-9A-Za-z_-]*\.[0-9A-Za-z_-]*\.[0-9A-Za-z_-]*")
NEVER_EXPIRES: Final = 0xFFFF_FFFF  # MQTT 5.0, 3.1.2.11.2: a session expiry that is none
_AT_CONNECT: Final = frozenset({TokenKind.APP, TokenKind.DEVICE, TokenKind.GROUND})


@dataclass(frozen=True, slots=True, kw_only=True)
class WillMessage:
    """What the client wants published when its connection is lost.

    `delay_s` and `properties` (the raw section of what is to be published, without the delay) are those of MQTT 5.0.
    """

    topic: str
    payload: bytes = field(repr=False)
    qos: int
    retain: bool
    delay_s: int = 0
    properties: bytes = field(default=b"", repr=False)


class ConnectRequest(NamedTuple):
    """The fields of a CONNECT that passed the strict parser; `level` is 3 (MQTT 3.1), 4 (3.1.1) or 5 (5.0).

    `session_expiry_s` is for 5.0, where clean start does not say how long the session is kept (3.1.2.11.2); None is
    the rule of 3.x, where a session that is not clean never expires.
    It carries the secret: drop it when the admission is over. Its repr hides the password and whatever looks like a
    token in another field.
    """

    client_id: str
    clean_session: bool
    username: str | None = None
    password: bytes | None = None
    will: WillMessage | None = None
    keep_alive_s: int = 0
    level: int = 4
    session_expiry_s: int | None = None

    @property
    def persistent(self) -> bool:
        """Whether the session is to outlive its connection."""
        return not self.clean_session if self.session_expiry_s is None else self.session_expiry_s > 0

    def __repr__(self) -> str:
        username = None if self.username is None else tokens.redacted(self.username)
        return (
            f"ConnectRequest(client_id={tokens.redacted(self.client_id)!r}, clean_session={self.clean_session}, "
            f"username={username!r}, password={'none' if self.password is None else 'hidden'}, will={self.will!r}, "
            f"keep_alive_s={self.keep_alive_s}, level={self.level}, session_expiry_s={self.session_expiry_s})"
        )


class Credential(NamedTuple):
    """A well-formed claim, not yet verified. `thing_key` is None where the token alone says who it is."""

    kind: TokenKind
    digest: bytes
    prefix: str
    thing_key: str | None = None

    def __repr__(self) -> str:
        return f"Credential(kind={self.kind!r}, prefix={self.prefix!r}, thing_key={self.thing_key!r})"


def credential_of(request: ConnectRequest) -> Credential | Refusal:
    """Return the credential that a CONNECT presents, or why it presents none (design section 3, CONNECT fields).

    An app token needs the thing key as username; with a device token the key may be left out; a ground token ignores
    the username. Refused as ``malformed_credential``: no token in the password, a token in the username (alone or as
    well) or in the client id, a JWT, and tokens of kinds that open other doors. ``thing_key_invalid``: an app token
    without a valid key.
    """
    username = request.username or ""
    if tokens.holds_token(username):
        return _malformed("the username holds a token; the token belongs in the password, and there only")
    if tokens.holds_token(request.client_id):  # it is listed, logged and bound to the thing: whoever reads has it
        return _malformed("the client id holds a token; the token belongs in the password, and there only")
    parsed = tokens.parse(request.password or b"")
    if parsed is None:
        return _malformed(_what_is_wrong(request.password))
    if parsed.kind not in _AT_CONNECT:
        return _malformed(f"`{parsed.prefix}…` is not a token to connect with; app, device and ground tokens are")
    thing_key: str | None = None
    if parsed.kind is TokenKind.APP or (parsed.kind is TokenKind.DEVICE and username):
        if not is_key(username):
            detail = f"username `{printable(username)}` is no thing key; it must be 1 to 64 of `A-Z a-z 0-9 . _ -`"
            return Refusal(reason=Reason.THING_KEY_INVALID, detail=detail)
        thing_key = username
    return Credential(kind=parsed.kind, digest=parsed.digest, prefix=parsed.prefix, thing_key=thing_key)


def _what_is_wrong(password: bytes | None) -> str:
    if not password:
        return "there is no password; it must be a token"
    if _JWT.fullmatch(password.decode("latin-1")):
        return "the password is a JWT, which is not accepted here; it must be an app, device or ground token"
    return "the password is no token: wrong form or wrong checksum"


def _malformed(detail: str) -> Refusal:
    return Refusal(reason=Reason.MALFORMED_CREDENTIAL, detail=detail)
