"""Decisions: tables of what is allowed and why."""

from itertools import permutations

import pytest

from authsvc.core.facts import KeySet, RuleAction
from authsvc.core.grants import Action, Decision
from authsvc.core.index import TRIE_AFTER, TRIE_AT_ONCE_FROM, TRIE_FROM
from authsvc.core.reasons import Reason
from tests.core.rules import grant, rule

PUBLISH, SUBSCRIBE, DELIVER = Action


def asked(compiled, action, topic, **conditions):
    """Return (reason, rule number) of a decision, and check that `allowed` and `qos` fit the reason."""
    decision = compiled.decide(action, topic, **conditions)
    assert decision.allowed is (decision.reason is Reason.RULE_ALLOWS)
    if not decision.allowed or action is not SUBSCRIBE:
        assert decision.qos == 0
    return decision.reason.value, None if decision.rule is None else int(decision.rule.partition("#")[2])


def test_without_rules_nothing_is_allowed():
    """Deny by default, for every action."""
    for action in Action:
        assert grant().decide(action, "t/x") == Decision(allowed=False, reason=Reason.NO_RULE_MATCHES)


def test_of_several_rules_that_miss_by_their_flag_alone_the_same_one_is_named_in_whatever_order_they_stand():
    """The first by its text."""
    rules = [rule(f"allow publish {topic}", retain=False) for topic in ("t/+", "t/x", "t/#")]
    for order in permutations(rules):
        reason, number = asked(grant(*order), PUBLISH, "t/x", retain=True)
        assert (reason, order[number].topic) == ("retain_denied", "t/#")


def test_rules_are_read_by_adapters_as_they_are_decided_on():
    """In order of rank, one action at a time."""
    compiled = grant("allow publish t/b", "deny publish t/a", "allow subscribe t/c")
    assert [(entry.id, entry.levels, entry.allow) for entry in compiled.entries(RuleAction.PUBLISH)] == [
        ("definition/d#1", ("t", "a"), False),
        ("definition/d#0", ("t", "b"), True),
    ]
    assert [entry.levels for entry in compiled.entries(RuleAction.SUBSCRIBE)] == [("t", "c")]


PUBLISH_RULES = [
    "allow publish t/a/#",
    rule("allow publish t/low/+", qos_max=0),
    rule("allow publish t/flagged", retain=True),
    rule("allow publish t/unflagged", retain=False),
    "deny publish t/a/secret/#",
    rule("deny publish t/a/once", retain=True),
    rule("allow publish t/both", qos_max=0, retain=True),
    rule("allow publish t/mixed", qos_max=0),
    rule("allow publish t/mixed", qos_max=1, retain=False),
    "allow subscribe t/read/#",
    "deny publish t/x/y",
]


@pytest.mark.parametrize(
    ("topic", "qos", "retain", "reason", "number"),
    [
        ("t/a", 2, True, "rule_allows", 0),
        ("t/a/b/c", 0, False, "rule_allows", 0),
        ("t/a/secret", 0, False, "rule_denies", 4),
        ("t/a/secret/x", 0, False, "rule_denies", 4),
        ("t/a/once", 0, False, "rule_allows", 0),
        ("t/a/once", 0, True, "rule_denies", 5),
        ("t/low/x", 0, False, "rule_allows", 1),
        ("t/low/x", 1, False, "qos_too_high", 1),
        ("t/low/x", 2, True, "qos_too_high", 1),
        ("t/low/x/y", 0, False, "no_rule_matches", None),
        ("t/flagged", 0, True, "rule_allows", 2),
        ("t/flagged", 0, False, "retain_denied", 2),
        ("t/unflagged", 2, False, "rule_allows", 3),
        ("t/unflagged", 2, True, "retain_denied", 3),
        ("t/both", 0, True, "rule_allows", 6),
        ("t/both", 1, True, "qos_too_high", 6),
        ("t/both", 0, False, "retain_denied", 6),
        ("t/both", 1, False, "no_rule_matches", None),  # two obstacles: neither is the only one
        ("t/mixed", 1, False, "rule_allows", 8),
        ("t/mixed", 1, True, "qos_too_high", 7),  # rule 7 lacks the QoS only, rule 8 the flag only
        ("t/mixed", 2, True, "qos_too_high", 7),
        ("t/read/x", 0, False, "no_rule_matches", None),  # to read is not to write
        ("t/x/y", 0, False, "rule_denies", 10),
        ("other/x", 0, False, "no_rule_matches", None),
        ("t/a/../../other", 0, False, "rule_allows", 0),  # levels are literal
        ("t%2fa", 0, False, "no_rule_matches", None),
    ],
)
def test_publish(topic, qos, retain, reason, number):
    """Deny over allow, QoS and the retain flag, and the reason that says what is missing."""
    assert asked(grant(*PUBLISH_RULES), PUBLISH, topic, qos=qos, retain=retain) == (reason, number)


@pytest.mark.parametrize("topic", ["", "+", "#", "t/+", "t/a/#", "t/a+"])
def test_what_is_no_topic_is_never_published_or_delivered(topic):
    """A wildcard in a topic must not match itself in a rule."""
    everything = grant("allow publish #", "allow subscribe #", "allow publish t/+", platform=True)
    for action in (PUBLISH, DELIVER):
        assert asked(everything, action, topic) == ("protocol_error", None)


SUBSCRIBE_RULES = [
    "allow subscribe t/a/+",
    rule("allow subscribe t/b/#", qos_max=1),
    rule("allow subscribe t/b/c/#", qos_max=0),
    "deny subscribe t/b/secret/#",
    "allow publish t/w/#",
    "deny subscribe t/none/#",
]


@pytest.mark.parametrize(
    ("filter_", "checked", "unchecked"),
    [
        ("t/a/+", ("rule_allows", 0), ...),
        ("t/a/x", ("rule_allows", 0), ...),
        ("t/a/#", ("filter_too_wide", 0), ...),
        ("t/+/x", ("filter_too_wide", 0), ...),
        ("#", ("filter_too_wide", 0), ...),
        ("+/#", ("filter_too_wide", 0), ...),
        ("t/b", ("rule_allows", 1), ...),
        ("t/b/#", ("rule_allows", 1), ("rule_denies", 3)),  # the deny overlaps: narrowed, or refused
        ("t/b/+", ("rule_allows", 1), ("rule_denies", 3)),
        ("t/b/c/#", ("rule_allows", 1), ...),
        ("t/b/secret/#", ("rule_denies", 3), ...),
        ("t/b/secret/+/x", ("rule_denies", 3), ...),
        ("t/b/secret", ("rule_denies", 3), ...),
        ("t/none/x", ("rule_denies", 5), ...),
        ("t/w/x", ("no_rule_matches", None), ...),
        ("other/#", ("no_rule_matches", None), ...),
        ("$SYS/#", ("no_rule_matches", None), ...),
        ("$share/group/t/a/+", ("rule_allows", 0), ...),
        ("$share/group/t/a/#", ("filter_too_wide", 0), ...),
        ("$share/group/t/b/#", ("rule_denies", 3), ...),  # never narrowed: the group would lose what one is denied
        ("$share/t/a", ("no_rule_matches", None), ...),
        ("$share//t/a/x", ("protocol_error", None), ...),
        ("$share/+/t/a/x", ("protocol_error", None), ...),
        ("$share/group", ("protocol_error", None), ...),
        ("", ("protocol_error", None), ...),
        ("t/a/#/x", ("protocol_error", None), ...),
        ("t/a/x+", ("protocol_error", None), ...),
    ],
)
def test_subscribe(filter_, checked, unchecked):
    """Containment in one allow rule; a covering deny refuses, an overlapping one narrows where it can."""
    compiled = grant(*SUBSCRIBE_RULES)
    assert asked(compiled, SUBSCRIBE, filter_) == checked
    expected = checked if unchecked is ... else unchecked
    assert asked(compiled, SUBSCRIBE, filter_, deliveries_checked=False) == expected


def test_a_union_of_rules_covers_no_filter():
    """`a/b` and `a/c` together are not `a/+`."""
    assert asked(grant("allow subscribe t/b", "allow subscribe t/c"), SUBSCRIBE, "t/+") == ("filter_too_wide", 0)


@pytest.mark.parametrize(
    ("filter_", "qos", "granted"),
    [("t/a/x", 2, 2), ("t/a/x", 0, 0), ("t/b/x", 2, 1), ("t/b/x", 0, 0), ("t/b/c/x", 2, 1)],
)
def test_a_subscription_above_qos_max_is_granted_at_the_best_covering_rule(filter_, qos, granted):
    """Never refused for its QoS, never raised above what was asked."""
    assert grant(*SUBSCRIBE_RULES).decide(SUBSCRIBE, filter_, qos=qos).qos == granted


@pytest.mark.parametrize(
    ("topic", "reason", "number"),
    [
        ("t/a/x", "rule_allows", 0),
        ("t/a/x/y", "no_rule_matches", None),
        ("t/b/x", "rule_allows", 1),
        ("t/b/secret", "rule_denies", 3),
        ("t/b/secret/x", "rule_denies", 3),
        ("t/w/x", "no_rule_matches", None),
        ("other/x", "no_rule_matches", None),
    ],
)
def test_deliver(topic, reason, number):
    """Judged by its topic alone: QoS and the retain flag of a delivery are the broker's business."""
    for qos, retain in [(0, False), (2, True)]:
        assert asked(grant(*SUBSCRIBE_RULES), DELIVER, topic, qos=qos, retain=retain) == (reason, number)


@pytest.mark.parametrize(
    ("pattern", "topic", "allowed"),
    [
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("$SYS/+", "$SYS/x", True),
        ("a/#", "a/$SYS", True),
    ],
)
@pytest.mark.parametrize("filling", [0, TRIE_AT_ONCE_FROM], ids=["walk", "trie"])
def test_only_a_platform_role_that_spells_them_reaches_dollar_topics(pattern, topic, allowed, filling):
    """MQTT-4.7.2-1, for few rules and for many."""
    others = [f"allow publish z{n}/x" for n in range(filling)]
    compiled = grant(f"allow publish {pattern}", *others, platform=True)
    assert compiled.decide(PUBLISH, topic).allowed is allowed


def member_grant(*rules):
    """Return a grant with the members m1 and m2, and the set itself."""
    members = KeySet({"m1", "m2"})
    return grant(*rules, members=members, modules=KeySet()), members


@pytest.mark.parametrize(
    ("filter_", "checked", "unchecked"),
    [
        ("t/m1/asset/+/state", "rule_allows", ...),
        ("t/m1/asset/x/state", "rule_allows", ...),
        ("t/m3/asset/x/state", "no_rule_matches", ...),
        ("t/+/asset/+/state", "rule_allows", "filter_too_wide"),
        ("t/+/asset/x/state", "rule_allows", "filter_too_wide"),
        ("t/+/asset/+/+", "filter_too_wide", ...),
        ("t/+/+/+/state", "filter_too_wide", ...),
        ("t/#", "filter_too_wide", ...),
        ("t/+/#", "filter_too_wide", ...),
        ("t/+/asset/#", "filter_too_wide", ...),
        ("+/+/asset/+/state", "filter_too_wide", ...),
    ],
)
def test_a_filter_may_be_wider_in_set_levels_only_and_only_where_deliveries_are_checked(filter_, checked, unchecked):
    """A member by name is fine anywhere; `+` there needs the filtering of deliveries; `#` over a set never passes."""
    compiled, _ = member_grant("allow subscribe t/{member}/asset/+/state")
    assert asked(compiled, SUBSCRIBE, filter_)[0] == checked
    expected = checked if unchecked is ... else unchecked
    assert asked(compiled, SUBSCRIBE, filter_, deliveries_checked=False)[0] == expected


def test_a_member_is_reachable_at_once_and_one_that_left_is_not():
    """Membership is asked at every new decision, for publish and deliver alike."""
    compiled, members = member_grant("allow subscribe t/{member}/x", "allow publish t/{member}/y/#")
    for key, before in [("m1", True), ("m3", False)]:
        assert compiled.decide(DELIVER, f"t/{key}/x").allowed is before
        assert compiled.decide(PUBLISH, f"t/{key}/y").allowed is before
    members.replace({"m3"})
    for key, after in [("m1", False), ("m3", True)]:
        assert compiled.decide(DELIVER, f"t/{key}/x").allowed is after
        assert compiled.decide(PUBLISH, f"t/{key}/y/z").allowed is after
    assert not compiled.decide(DELIVER, "t/{member}/x").allowed


@pytest.mark.parametrize(
    ("filter_", "checked", "unchecked"),
    [
        ("t/m1/x", "rule_denies", ...),
        ("t/m3/x", "rule_allows", ...),
        ("t/m1/y", "rule_allows", ...),
        ("t/+/x", "rule_allows", "rule_denies"),
        ("t/#", "rule_allows", "rule_denies"),
    ],
)
def test_a_deny_with_a_set_level(filter_, checked, unchecked):
    """It covers its members by name, and only overlaps a wildcard."""
    compiled, _ = member_grant("allow subscribe t/#", "deny subscribe t/{member}/x")
    assert asked(compiled, SUBSCRIBE, filter_)[0] == checked
    expected = checked if unchecked is ... else unchecked
    assert asked(compiled, SUBSCRIBE, filter_, deliveries_checked=False)[0] == expected
    assert asked(compiled, DELIVER, "t/m1/x")[0] == "rule_denies"
    assert asked(compiled, DELIVER, "t/m3/x")[0] == "rule_allows"


def test_two_sets_in_one_grant_are_told_apart():
    """`{module}` and `{member}` are asked separately, also by the trie."""
    modules, members = KeySet({"a"}), KeySet({"b"})
    others = [f"allow publish t/z{n}" for n in range(TRIE_AT_ONCE_FROM)]
    compiled = grant(
        "allow publish t/{module}/x", "allow publish t/{module}/y", "allow publish t/{member}/z", *others,
        modules=modules, members=members,
    )  # fmt: skip
    allowed = [
        topic for topic in ("a/x", "a/y", "a/z", "b/x", "b/y", "b/z") if compiled.decide(PUBLISH, f"t/{topic}").allowed
    ]
    assert allowed == ["a/x", "a/y", "b/z"]


def test_expiry_is_not_judged_by_a_decision():
    """A grant has no clock; whoever holds it ends it."""
    assert grant("allow publish t/x", expires_at_us=0).decide(PUBLISH, "t/x").allowed


def test_a_topic_of_thirty_thousand_levels_is_decided_like_any_other():
    """No rule looks further than its own depth, so neither does a decision."""
    for filling in (0, TRIE_AT_ONCE_FROM):
        compiled = grant(
            "allow publish t/a/#", "deny publish t/a/+", *[f"allow publish t/z{n}" for n in range(filling)]
        )
        assert asked(compiled, PUBLISH, "t/a" + "/x" * 30_000) == ("rule_allows", 0)
        assert asked(compiled, PUBLISH, "t/a/x")[0] == "rule_denies"
        assert asked(compiled, PUBLISH, "t" + "/" * 30_000)[0] == "no_rule_matches"


@pytest.mark.parametrize("count", [TRIE_FROM - 2, TRIE_FROM], ids=["too few for a trie", "enough"])
def test_who_keeps_asking_gets_the_same_answers_faster(count):
    """The trie that is built after some questions changes none of them, and is built for no smaller number of rules."""
    compiled = grant(*[f"allow publish t/{n}/+" for n in range(count)], "deny publish t/+/secret")
    topics = ["t/0/x", "t/1/secret", "t/none/x", "t/0/x/y"]
    first = [asked(compiled, PUBLISH, topic) for topic in topics]
    for _ in range(TRIE_AFTER):
        assert [asked(compiled, PUBLISH, topic) for topic in topics] == first
    assert first == [("rule_allows", 0), ("rule_denies", count), ("no_rule_matches", None), ("no_rule_matches", None)]
