"""The codes that clients see: every reason has one in each version of MQTT, and one that the packet may carry."""

from __future__ import annotations

import pytest

from authsvc.core.reasons import Reason, connack_code, connack_code5, disconnect_code5, suback_code5
from broker.wire.reason_codes import CONNACK_CODES, DISCONNECT_BY_SERVER, SUBACK_CODES

CONNACK_5 = {
    Reason.ACCEPTED: 0x00,
    Reason.MALFORMED_CREDENTIAL: 0x86,
    Reason.UNKNOWN_TOKEN: 0x86,
    Reason.TOKEN_EXPIRED: 0x86,
    Reason.TOKEN_REVOKED: 0x86,
    Reason.THING_KEY_MISMATCH: 0x86,
    Reason.CLIENT_ID_INVALID: 0x85,
    Reason.WILL_DENIED: 0x87,
    Reason.THING_BLOCKED: 0x87,
    Reason.CLIENT_ID_TAKEN: 0x87,
    Reason.STORE_UNAVAILABLE: 0x88,
    Reason.BROKER_UNAVAILABLE: 0x88,
    Reason.SESSION_LIMIT: 0x97,
    Reason.LICENSE_EXHAUSTED: 0x97,
    Reason.RATE_LIMITED: 0x9F,
}
DISCONNECT_5 = {
    Reason.TOKEN_REVOKED: 0x98,
    Reason.THING_BLOCKED: 0x98,
    Reason.THING_RETIRED: 0x98,
    Reason.TENANT_SUSPENDED: 0x98,
    Reason.KICKED: 0x98,
    Reason.TOKEN_EXPIRED: 0xA0,
    Reason.TAKEN_OVER: 0x8E,
    Reason.KEEP_ALIVE_EXPIRED: 0x8D,
    Reason.SHUTTING_DOWN: 0x8B,
    Reason.PROTOCOL_ERROR: 0x82,
    Reason.BROKER_UNAVAILABLE: 0x89,
    Reason.NO_RULE_MATCHES: 0x87,
    Reason.RULE_DENIES: 0x87,
}


@pytest.mark.parametrize(("reason", "code"), CONNACK_5.items(), ids=lambda value: str(value))
def test_a_refused_connect_has_the_code_of_its_reason(reason: Reason, code: int) -> None:
    """MQTT 5.0, 3.2.2.2; which of unknown, expired and revoked it was is not told."""
    assert connack_code5(reason) == code


@pytest.mark.parametrize(("reason", "code"), DISCONNECT_5.items(), ids=lambda value: str(value))
def test_an_end_by_the_server_has_the_code_of_its_reason(reason: Reason, code: int) -> None:
    """MQTT 5.0, 3.14.2.1."""
    assert disconnect_code5(reason) == code


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_codes_that_the_packets_may_carry(reason: Reason) -> None:
    """Zero is the one yes; a DISCONNECT of a server has no 0x88, for one."""
    assert connack_code5(reason) in CONNACK_CODES
    assert disconnect_code5(reason) in DISCONNECT_BY_SERVER
    assert suback_code5(reason) in SUBACK_CODES
    assert (connack_code5(reason) == 0) is (connack_code(reason) == 0) is (reason is Reason.ACCEPTED)
    assert suback_code5(reason) >= 0x80


def test_a_filter_too_many_is_told_from_one_that_is_not_permitted() -> None:
    """MQTT 5.0, 3.9.3."""
    assert suback_code5(Reason.SUBSCRIPTION_LIMIT) == 0x97
    assert suback_code5(Reason.NO_RULE_MATCHES) == 0x87
