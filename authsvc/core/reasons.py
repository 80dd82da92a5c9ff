"""Every reason for a yes, a no or an end, and the CONNACK code that a client sees for it.

One enum serves refusals at CONNECT, decisions on packets and the ends of sessions, so that an operator reads the
same word in ``explain``, in the refusal list and in the logs. The values are public and stable: only add.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why something was accepted, allowed, denied, refused or ended."""

    ACCEPTED = "accepted"
    MALFORMED_CREDENTIAL = "malformed_credential"
    UNKNOWN_TOKEN = "unknown_token"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_REVOKED = "token_revoked"
    THING_UNKNOWN = "thing_unknown"
    THING_BLOCKED = "thing_blocked"
    THING_KEY_INVALID = "thing_key_invalid"
    THING_RETIRED = "thing_retired"
    THING_KEY_MISMATCH = "thing_key_mismatch"
    THING_OUT_OF_SCOPE = "thing_out_of_scope"
    CLIENT_ID_INVALID = "client_id_invalid"
    CLIENT_ID_MISMATCH = "client_id_mismatch"
    CLIENT_ID_TAKEN = "client_id_taken"
    DEFINITION_MISSING = "definition_missing"
    LICENSE_EXHAUSTED = "license_exhausted"
    QUOTA_EXHAUSTED = "quota_exhausted"
    WILL_DENIED = "will_denied"
    TENANT_SUSPENDED = "tenant_suspended"
    RATE_LIMITED = "rate_limited"
    STORE_UNAVAILABLE = "store_unavailable"
    BROKER_UNAVAILABLE = "broker_unavailable"
    CONNECTION_LIMIT = "connection_limit"
    SESSION_LIMIT = "session_limit"
    SUBSCRIPTION_LIMIT = "subscription_limit"
    PROTOCOL_ERROR = "protocol_error"
    TAKEN_OVER = "taken_over"
    KICKED = "kicked"
    RULE_ALLOWS = "rule_allows"
    RULE_DENIES = "rule_denies"
    NO_RULE_MATCHES = "no_rule_matches"
    FILTER_TOO_WIDE = "filter_too_wide"
    QOS_TOO_HIGH = "qos_too_high"
    RETAIN_DENIED = "retain_denied"
    GRANT_EXPIRED = "grant_expired"
    DISCONNECTED = "disconnected"  # ends only: the client said DISCONNECT
    CONNECTION_LOST = "connection_lost"  # ends only: the network or the client closed without one
    KEEP_ALIVE_EXPIRED = "keep_alive_expired"  # ends only: MQTT-3.1.2-24
    SHUTTING_DOWN = "shutting_down"  # ends only: the gate closes


_BAD_CREDENTIAL = frozenset(
    {
        Reason.MALFORMED_CREDENTIAL,
        Reason.UNKNOWN_TOKEN,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_REVOKED,
        Reason.THING_KEY_MISMATCH,
    }
)
_UNAVAILABLE = frozenset(
    {
        Reason.STORE_UNAVAILABLE,
        Reason.BROKER_UNAVAILABLE,
        Reason.RATE_LIMITED,
        Reason.CONNECTION_LIMIT,
    }
)

# Only these tell that somebody is guessing; a valid credential that is refused for another reason is never throttled.
GUESSES = frozenset({Reason.MALFORMED_CREDENTIAL, Reason.UNKNOWN_TOKEN, Reason.TOKEN_EXPIRED, Reason.TOKEN_REVOKED})


def connack_code(reason: Reason) -> int:
    """Return the MQTT 3.1.1 CONNACK return code (3.2.2.3) for the reason; 0 only for ``accepted``.

    The code is coarse on purpose: which of unknown, expired and revoked it was is for the operator, not the client.
    """
    if reason is Reason.ACCEPTED:
        return 0
    if reason in _BAD_CREDENTIAL:
        return 4
    if reason in _UNAVAILABLE:
        return 3
    if reason is Reason.CLIENT_ID_INVALID:
        return 2
    return 5
