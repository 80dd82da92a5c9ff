"""The memo of decisions: what it remembers, when it forgets, how much it holds."""

import random

from authsvc.core.facts import KeySet
from authsvc.core.grants import MEMO_ENTRIES, MEMO_TOPIC_BYTES, Action, Memo
from tests.core.rules import grant, rule

PUBLISH, _, DELIVER = Action


def test_a_memo_remembers_allowed_and_denied_by_flags_and_topic():
    """The table of `header & 0x07`: DUP is no part of it, QoS and the retain bit are."""
    memo = Memo(grant(rule("allow publish t/x", qos_max=1, retain=False)), PUBLISH)
    tables = memo.tables
    for flags in range(6):
        expected = flags in (0, 2)
        assert memo.decide(flags, b"t/x", "t/x").allowed is expected
        assert memo.tables[flags] == {b"t/x": expected}
    assert memo.tables is tables
    assert len(tables) == 8


def test_a_memo_of_deliveries_asks_the_subscribe_rules():
    """One memo, one direction."""
    compiled = grant("allow subscribe t/x")
    assert Memo(compiled, DELIVER).decide(1, b"t/x", "t/x").allowed
    assert not Memo(compiled, PUBLISH).decide(0, b"t/x", "t/x").allowed


def test_a_memo_is_emptied_when_a_set_changes_and_only_then():
    """A thing that leaves the ground must not live on in the memo."""
    members = KeySet({"m1"})
    compiled = grant("allow subscribe t/{member}/x", members=members)
    memo = Memo(compiled, DELIVER)
    assert memo.decide(0, b"t/m1/x", "t/m1/x").allowed
    table = memo.tables[0]
    memo.refresh()
    assert table == {b"t/m1/x": True}
    members.discard("m1")
    memo.refresh()
    assert table == {}
    assert memo.tables[0] is table
    assert not memo.decide(0, b"t/m1/x", "t/m1/x").allowed


def test_a_memo_never_mixes_decisions_from_before_and_after_a_change():
    """A decision in mid-chunk forgets first what a change has voided."""
    members = KeySet({"m1"})
    memo = Memo(grant("allow subscribe t/{member}/x", members=members), DELIVER)
    memo.decide(0, b"t/m1/x", "t/m1/x")
    members.replace({"m2"})
    memo.decide(0, b"t/m2/x", "t/m2/x")
    assert memo.tables[0] == {b"t/m2/x": True}


def test_a_memo_is_bounded_over_all_its_tables():
    """A client that walks through topics costs a bounded memory, and stays correctly judged."""
    memo = Memo(grant("allow publish t/#"), PUBLISH)
    chance = random.Random(7)
    for number in range(3 * MEMO_ENTRIES):
        topic = f"t/{number}"
        assert memo.decide(chance.choice([0, 1, 2]), topic.encode(), topic).allowed
        assert sum(map(len, memo.tables)) <= MEMO_ENTRIES
    before = sum(map(len, memo.tables))
    memo.decide(0, b"t/again", "t/again")
    memo.decide(0, b"t/again", "t/again")  # known already: takes no second place
    assert sum(map(len, memo.tables)) <= before + 1


def test_a_very_long_topic_is_decided_but_not_kept():
    """A thousand topics of 64 KiB would be 64 MiB a connection."""
    for length, kept in [(MEMO_TOPIC_BYTES, 1), (MEMO_TOPIC_BYTES + 1, 0)]:
        memo = Memo(grant("allow publish t/#"), PUBLISH)
        topic = "t/" + "x" * (length - 2)
        assert memo.decide(0, topic.encode(), topic).allowed
        assert len(memo.tables[0]) == kept
