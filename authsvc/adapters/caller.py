"""Who may call a broker's hooks: whoever shows its secret, or comes through a listener that demands a certificate."""

from __future__ import annotations

import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

MIN_SECRET_CHARACTERS: Final = 16
SECRET_HEADER: Final = "x-authsvc-secret"  # noqa: S105  # a name


class Callers:
    """The secrets of one broker: the present one, and the one before it during a rotation. Compared by digest."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._digests = tuple(hashlib.sha256(secret.encode()).digest() for secret in secrets)

    def __repr__(self) -> str:
        return f"Callers({len(self._digests)} secrets)"

    @property
    def open(self) -> bool:
        """Whether no secret is asked for: then the listener alone decides who may call."""
        return not self._digests

    def admit(self, headers: Mapping[str, str]) -> bool:
        """Return whether the request shows a secret, as ``Authorization: Bearer`` or ``X-Authsvc-Secret``, not both.

        RabbitMQ and VerneMQ can send no header of one's choice, but Basic authentication from the user and password of
        a URL: then the secret is the password, whatever the user is called.

        `headers` leaves out what was sent twice: two values could be believed by two readers.
        """
        if not self._digests:
            return True
        shown = headers.get(SECRET_HEADER)
        bearer = headers.get("authorization")
        if bearer is not None:
            scheme, _, value = bearer.partition(" ")
            if shown is not None or scheme.lower() not in ("bearer", "basic"):
                return False
            shown = value.strip(" ") if scheme.lower() == "bearer" else _password(value.strip(" "))
        if not shown:
            return False
        digest = hashlib.sha256(shown.encode("latin-1", "replace")).digest()
        right = False
        for expected in self._digests:  # all of them: the time does not tell which one it was
            right |= hmac.compare_digest(digest, expected)
        return right


def _password(basic: str) -> str:
    """Return the password of Basic credentials (RFC 7617), empty where they are malformed."""
    try:
        return binascii.a2b_base64(basic, strict_mode=True).decode("latin-1").partition(":")[2]
    except ValueError:
        return ""
