"""Opaque tokens: ``as`` + kind + ``_`` + 43 base62 characters of 32 random bytes + 6 of the CRC-32 of all before.

The checksum refuses a typo without a look-up; what is stored is the SHA-256 of the whole text (256 random bits need
no slow hash). Nothing here keeps, prints or raises with a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from authsvc.core.facts import Refusal, Secret, Token, TokenKind
from authsvc.core.reasons import Reason

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_BYTES: Final = 32
_RANDOM_CHARS: Final = 43  # 62**43 > 2**256
_CHECK_CHARS: Final = 6  # 62**6 > 2**32
_PREFIX_CHARS: Final = len("asapp_") + 4  # shown in lists and logs: kind and 4 of the 43 random characters
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)  # two digits in one step
_ID_CHARS: Final = 22  # 62**22 > 2**128
_ID_BYTES: Final = 32  # of which those below 248 count, each for one character: fewer than 22 about never
_IDS_BYTES: Final = 2048  # for some 90 ids
_ID_DIGITS: Final = bytes(ord(_ALPHABET[byte % 62]) for byte in range(256))
_ID_NOT: Final = bytes(range(248, 256))  # 4 * 62: the rest would favour some characters

DIGEST_BEGINS: Final = 8  # bytes of a digest that tell a secret from all others but by an accident

_TOKEN: Final = re.compile(rb"as(app|dev|gnd|adm|ref|sec)_[0-9A-Za-z]{49}")
_KINDS: Final = {kind.value.encode(): kind for kind in TokenKind}
# Wider than a token, so that one with a typo, a lost end or another case is hidden too; and JWTs, whoever signed them.
_TOKEN_LIKE: Final = re.compile(
    r"(as(?:app|dev|gnd|adm|ref|sec)_)[0-9A-Za-z]{20,}|eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]*",
    re.IGNORECASE,
)
_TOKEN_LIKE_CHARS: Final = 21  # at least; most of what is looked through is shorter


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedToken:
    """A well-formed token, the secret itself left behind: look it up by `digest`, speak of it by `prefix`."""

    kind: TokenKind
    digest: bytes = field(repr=False)
    prefix: str


def mint(kind: TokenKind, random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a new token. It is shown to whoever asked for it once, and only its `digest` is kept."""
    body = f"as{kind.value}_{_base62(int.from_bytes(random(_RANDOM_BYTES)), _RANDOM_CHARS)}"
    return body + _checksum(body.encode())


def parse(text: str | bytes) -> ParsedToken | None:
    """Return the parsed token, or None for whatever is not exactly one: wrong form, wrong checksum, padding, case."""
    raw = text.encode(errors="replace") if isinstance(text, str) else text
    found = _TOKEN.fullmatch(raw)
    if found is None or _checksum(raw[:-_CHECK_CHARS]).encode() != raw[-_CHECK_CHARS:]:
        return None
    return ParsedToken(kind=_KINDS[found[1]], digest=hashlib.sha256(raw).digest(), prefix=raw[:_PREFIX_CHARS].decode())


def digest(text: str) -> bytes:
    """Return the SHA-256 by which a token is stored and found (32 bytes)."""
    return hashlib.sha256(text.encode()).digest()


def prefix(text: str) -> str:
    """Return the part of a token that may be shown: its kind and 4 of 43 random characters, ``asapp_x7Kq``."""
    return text[:_PREFIX_CHARS]


def verify(token: Token, secret: Secret, *, now_us: int, presented: bytes | None = None) -> Refusal | None:
    """Return why `token` by `secret` is not good at `now_us`, or None if it is.

    `presented` is the digest of what the client sent; give it where the pair was not found by exactly that digest.
    """
    if presented is not None and not hmac.compare_digest(presented, secret.digest):
        return Refusal(reason=Reason.UNKNOWN_TOKEN, detail="no such token")
    for record, what in ((token, "token"), (secret, "this secret of token")):
        if record.revoked_at_us is not None:
            return Refusal(reason=Reason.TOKEN_REVOKED, detail=f"{what} `{token.id}` was revoked")
        if record.expires_at_us is not None and record.expires_at_us <= now_us:
            return Refusal(reason=Reason.TOKEN_EXPIRED, detail=f"{what} `{token.id}` has expired")
    return None


def new_id(random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a new id of 22 base62 characters (128 random bits) for objects and upstream sessions; not a secret."""
    text = ""
    while len(text) < _ID_CHARS:
        text += _id_digits(random(_ID_BYTES))
    return text[:_ID_CHARS]


class Ids:
    """Makes ids as `new_id` does, but draws the random bytes of many at once: a system call for each takes longer."""

    __slots__ = ("_at", "_digits", "_random")

    def __init__(self, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._random = random
        self._digits = ""
        self._at = 0

    def new(self) -> str:
        """Return a new id; no digit is used twice."""
        while self._at + _ID_CHARS > len(self._digits):
            self._digits, self._at = _id_digits(self._random(_IDS_BYTES)), 0
        start = self._at
        self._at += _ID_CHARS
        return self._digits[start : self._at]


def holds_token(text: str) -> bool:
    """Return whether `text` holds something that looks like a token, also one with a typo, or like a JWT."""
    return len(text) >= _TOKEN_LIKE_CHARS and _TOKEN_LIKE.search(text) is not None


def redacted(text: str) -> str:
    """Return `text` with everything that `holds_token` finds cut to the kind, for logs and error messages."""
    if len(text) < _TOKEN_LIKE_CHARS:
        return text
    return _TOKEN_LIKE.sub(_cut, text)  # a template would be looked up anew for every text


def _cut(found: re.Match[str]) -> str:
    return f"{found[1] or ''}…"


def _id_digits(random: bytes) -> str:
    """Return the base62 digits that random bytes give; those that would favour a digit give none."""
    return random.translate(_ID_DIGITS, _ID_NOT).decode()


def _checksum(body: bytes) -> str:
    return _base62(zlib.crc32(body), _CHECK_CHARS)


def _base62(number: int, width: int) -> str:
    text = ""
    for _ in range(width // 2):
        number, pair = divmod(number, 3844)
        text = _PAIRS[pair] + text
    return text if width % 2 == 0 else _ALPHABET[number % 62] + text
