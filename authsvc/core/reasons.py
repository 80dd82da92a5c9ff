"""Every reason for a yes, a no or an end, and the code that a client sees for it, in each version of MQTT.

One enum serves refusals at CONNECT, decisions on packets and the ends of sessions, so that an operator reads the
same word in ``explain``, in the refusal list and in the logs. The values are public and stable: only add.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


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


# MQTT 5.0, 3.2.2.2: what stands here, else 0x87 (not authorized).
_CONNACK_5: Final = {
    Reason.ACCEPTED: 0x00,
    **dict.fromkeys(_BAD_CREDENTIAL, 0x86),  # bad user name or password
    Reason.CLIENT_ID_INVALID: 0x85,
    Reason.PROTOCOL_ERROR: 0x82,
    Reason.STORE_UNAVAILABLE: 0x88,  # server unavailable
    Reason.BROKER_UNAVAILABLE: 0x88,
    Reason.CONNECTION_LIMIT: 0x97,  # quota exceeded
    Reason.SESSION_LIMIT: 0x97,
    Reason.LICENSE_EXHAUSTED: 0x97,
    Reason.QUOTA_EXHAUSTED: 0x97,
    Reason.RATE_LIMITED: 0x9F,  # connection rate exceeded
}
# MQTT 5.0, 3.14.2.1: what stands here, else 0x98 (administrative action). A server has no 0x88 there.
_DISCONNECT_5: Final = {
    Reason.DISCONNECTED: 0x00,
    Reason.CONNECTION_LOST: 0x80,  # the network, or a client that does not read
    Reason.PROTOCOL_ERROR: 0x82,
    **dict.fromkeys(
        (  # of a publish that was denied, where that ends the connection
            Reason.RULE_DENIES,
            Reason.NO_RULE_MATCHES,
            Reason.QOS_TOO_HIGH,
            Reason.RETAIN_DENIED,
        ),
        0x87,
    ),
    Reason.STORE_UNAVAILABLE: 0x89,  # server busy
    Reason.BROKER_UNAVAILABLE: 0x89,
    Reason.SHUTTING_DOWN: 0x8B,
    Reason.KEEP_ALIVE_EXPIRED: 0x8D,
    Reason.TAKEN_OVER: 0x8E,
    Reason.CONNECTION_LIMIT: 0x97,
    Reason.SESSION_LIMIT: 0x97,
    Reason.SUBSCRIPTION_LIMIT: 0x97,
    Reason.LICENSE_EXHAUSTED: 0x97,
    Reason.QUOTA_EXHAUSTED: 0x97,
    Reason.TOKEN_EXPIRED: 0xA0,  # maximum connect time
    Reason.GRANT_EXPIRED: 0xA0,
}
# MQTT 5.0, 3.9.3: what stands here, else 0x87.
_SUBACK_5: Final = {Reason.SUBSCRIPTION_LIMIT: 0x97}


def connack_code5(reason: Reason) -> int:
    """Return the MQTT 5.0 reason code (3.2.2.2) to answer a CONNECT with; 0 only for ``accepted``."""
    return _CONNACK_5.get(reason, 0x87)


def disconnect_code5(reason: Reason) -> int:
    """Return the MQTT 5.0 reason code (3.14.2.1) of the DISCONNECT that tells a client why the server ends it."""
    return _DISCONNECT_5.get(reason, 0x98)


def suback_code5(reason: Reason) -> int:
    """Return the MQTT 5.0 reason code (3.9.3) of a filter that was denied for the reason."""
    return _SUBACK_5.get(reason, 0x87)
