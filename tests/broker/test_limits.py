"""The documented limits, and the budget of failed CONNECTs per address."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from broker.limits import Backoff, Limits, bucket_of


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("connect_s", 5.0),
        ("admission_s", 5.0),
        ("refusal_linger_s", 1.0),
        ("max_connect_bytes", 64 * 1024),
        ("max_packet_bytes", 256 * 1024),
        ("max_connections", 10_000),
        ("max_before_connect", 8_192),
        ("max_client_id_bytes", 256),
        ("max_subscriptions", 1_000),
        ("max_topic_levels", 32),
        ("max_persistent_sessions", 100),
        ("max_client_buffer_bytes", 1024 * 1024),
        ("max_open_qos2", 1_000),
        ("max_topic_aliases", 10),
        ("max_delayed_wills", 10_000),
        ("failed_connect_burst", 100),
        ("failed_connects_per_s", 10.0),
    ],
)
def test_default_is_the_documented_one(name, value):
    """Users rely on these figures; a change is a change of the documents first."""
    assert getattr(Limits(), name) == value


@pytest.mark.parametrize("name", Limits.__slots__)
@pytest.mark.parametrize("value", [0, -1])
def test_limit_that_would_let_nobody_in_is_refused(name, value):
    """Zero is not a way to say unlimited; the message names the limit."""
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})


def test_packet_limit_below_the_scanner_s_least_is_refused():
    """The scanner compares only multi-byte lengths with the limit."""
    with pytest.raises(ValueError, match="129"):
        Limits(max_packet_bytes=128)
    assert Limits(max_packet_bytes=129).max_packet_bytes == 129


def test_limits_do_not_change():
    """Everybody who holds them holds the same ones."""
    with pytest.raises(FrozenInstanceError):
        Limits().connect_s = 1.0


def test_burst_is_within_the_budget_and_the_next_failure_is_not():
    """A hundred failures at once, then no more."""
    backoff = Backoff()
    assert all(backoff.failed("192.0.2.1", 0.0) for _ in range(100))
    assert not backoff.failed("192.0.2.1", 0.0)


def test_budget_refills_by_the_second_up_to_the_burst():
    """Ten a second come back, and never more than the burst."""
    backoff = Backoff(burst=20, refill_per_s=10.0)
    for _ in range(20):
        backoff.failed("a", 0.0)
    assert not backoff.failed("a", 0.05)
    assert [backoff.failed("a", 1.0) for _ in range(11)].count(True) == 10
    assert [backoff.failed("a", 1_000.0) for _ in range(25)].count(True) == 20


def test_throttled_failures_do_not_push_the_refill_away():
    """Who keeps failing without budget is judged by the refill alone, not locked out for longer."""
    backoff = Backoff(burst=1, refill_per_s=1.0)
    assert backoff.failed("a", 0.0)
    assert not any(backoff.failed("a", 0.01 * i) for i in range(1, 99))
    assert backoff.failed("a", 1.01)


def test_clock_that_goes_back_gives_nothing():
    """A time before the last one neither refills nor counts later as elapsed."""
    backoff = Backoff(burst=1, refill_per_s=1.0)
    assert backoff.failed("a", 10.0)
    assert not backoff.failed("a", 0.0)
    assert not backoff.failed("a", 10.5)
    assert backoff.failed("a", 11.0)


def test_addresses_have_budgets_of_their_own():
    """One guesser does not throttle another address."""
    backoff = Backoff(burst=1)
    assert backoff.failed("192.0.2.1", 0.0)
    assert backoff.failed("192.0.2.2", 0.0)
    assert not backoff.failed("192.0.2.1", 0.0)


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("unix", "unix"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_address_is_counted_by_what_its_owner_commands(address, bucket):
    """IPv6 by /64, mapped IPv4 as IPv4, anything else as it is, bounded."""
    assert bucket_of(address) == bucket


def test_memory_is_bounded_and_the_last_guesser_is_remembered():
    """Beyond the bound the address that failed least recently is forgotten, not the busy one."""
    backoff = Backoff(burst=2, max_addresses=10)
    backoff.failed("guesser", 0.0)
    backoff.failed("guesser", 0.0)
    for number in range(1_000):
        backoff.failed(f"10.0.{number // 250}.{number % 250}", 0.0)
        assert not backoff.failed("guesser", 0.0)
        assert len(backoff) <= 10
