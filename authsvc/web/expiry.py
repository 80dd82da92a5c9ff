"""The one rule about new expiry times."""

from __future__ import annotations

from authsvc.web.problems import invalid
from authsvc.web.routes import Call


def check_expiry(call: Call, expires_at_us: int | None) -> None:
    """Raise a 422 for a token that would be born expired: a wrong year or offset, which only devices would notice."""
    if expires_at_us is not None and expires_at_us <= call.now_us:
        raise invalid("time_past", "this time is past; the token would never work", field="expires_at")
