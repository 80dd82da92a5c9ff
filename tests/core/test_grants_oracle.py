"""Decisions against the simple definition of the design, and against the same rules in another order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authsvc.core import index
from authsvc.core.facts import Effect, KeySet, RuleAction
from authsvc.core.grants import Action, CompiledRule, Grant
from authsvc.core.reasons import Reason
from authsvc.core.topics import RenderedFilter, SetLevel, covers, matches, overlaps

PUBLISH, SUBSCRIBE, DELIVER = Action


@pytest.fixture(scope="module", autouse=True, params=[0, index.TRIE_AFTER], ids=["trie at once", "walk first"])
def trie_after(request):
    """Ask each property of the trie and of the walk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "TRIE_AFTER", request.param)
        yield


LEVELS = st.sampled_from(["a", "b", "", "$x", "+", SetLevel.MODULE, SetLevel.MEMBER])
TOPIC_LEVELS = st.sampled_from(["a", "b", "", "$x", "c"])
KEYS = st.frozensets(st.sampled_from(["a", "b", "c"]))


@st.composite
def rendered_filters(draw):
    """Draw a filter with set levels, of up to 4 levels."""
    levels = draw(st.lists(LEVELS, max_size=3))
    if draw(st.booleans()):
        levels.append("#")
    if levels in ([], [""]):
        levels = ["a"]
    return RenderedFilter(tuple(levels), tuple(level for level in levels if isinstance(level, SetLevel)))


@st.composite
def compiled_rules(draw):
    """Draw up to 14 rules: on both sides of the number from which a trie is built."""
    rules = []
    for number in range(draw(st.integers(0, 14))):
        effect, action = draw(st.sampled_from(Effect)), draw(st.sampled_from(RuleAction))
        rules.append(
            CompiledRule(
                id=f"definition/d#{number}",
                effect=effect,
                action=action,
                filter=draw(rendered_filters()),
                qos_max=draw(st.sampled_from([None, 0, 1, 2])) if effect is Effect.ALLOW else None,
                retain=draw(st.sampled_from([None, True, False])) if action is RuleAction.PUBLISH else None,
            )
        )
    return rules


def grant_of(rules, sets):
    """Return a grant with exactly these compiled rules."""
    return Grant(
        principal="p", tenant="t", ground="g", thing=None, definition=None, client_id="c", rules=tuple(rules), sets=sets
    )


def spelled(rule_, sets, *, plus=False):
    """Return the plain filters that the rule stands for; with `plus`, the one with `+` in place of each set."""
    texts = [[]]
    for level in rule_.filter.levels:
        choices = [level] if isinstance(level, str) else ["+"] if plus else sorted(sets[level].keys)
        texts = [[*text, choice] for text in texts for choice in choices]
    return ["/".join(text) for text in texts]


def simple_publish(rules, sets, topic, qos, retain):
    """Return what the design says of a PUBLISH: (reason, ids of the rules that may be named)."""
    relevant = [
        r for r in rules if r.action is RuleAction.PUBLISH and any(matches(topic, text) for text in spelled(r, sets))
    ]

    def flag_ok(r):
        return r.retain in (None, retain)

    def qos_ok(r):
        return r.qos_max is None or qos <= r.qos_max

    allows = [r for r in relevant if r.effect is Effect.ALLOW]
    for reason, found in [
        (Reason.RULE_DENIES, [r for r in relevant if r.effect is Effect.DENY and flag_ok(r)]),
        (Reason.RULE_ALLOWS, [r for r in allows if flag_ok(r) and qos_ok(r)]),
        (Reason.QOS_TOO_HIGH, [r for r in allows if flag_ok(r) and not qos_ok(r)]),
        (Reason.RETAIN_DENIED, [r for r in allows if not flag_ok(r) and qos_ok(r)]),
    ]:
        if found:
            return reason, {r.id for r in found}
    return Reason.NO_RULE_MATCHES, {None}


def simple_deliver(rules, sets, topic):
    """Return what the design says of a delivery."""
    relevant = [
        r for r in rules if r.action is RuleAction.SUBSCRIBE and any(matches(topic, text) for text in spelled(r, sets))
    ]
    for reason, effect in [(Reason.RULE_DENIES, Effect.DENY), (Reason.RULE_ALLOWS, Effect.ALLOW)]:
        found = {r.id for r in relevant if r.effect is effect}
        if found:
            return reason, found
    return Reason.NO_RULE_MATCHES, {None}


TOPICS = st.lists(TOPIC_LEVELS, min_size=1, max_size=5).map("/".join).filter(bool)


@settings(max_examples=400, deadline=None)
@given(compiled_rules(), KEYS, KEYS, TOPICS, st.sampled_from([0, 1, 2]), st.booleans())
def test_publish_and_deliver_agree_with_the_simple_definition(rules, modules, members, topic, qos, retain):
    """Index, trie, ranks and set levels change nothing about what the rules say."""
    sets = {SetLevel.MODULE: KeySet(modules), SetLevel.MEMBER: KeySet(members)}
    compiled = grant_of(rules, sets)
    reason, ids = simple_publish(rules, sets, topic, qos, retain)
    decision = compiled.decide(PUBLISH, topic, qos=qos, retain=retain)
    assert decision.reason is reason
    assert decision.rule in ids
    reason, ids = simple_deliver(rules, sets, topic)
    decision = compiled.decide(DELIVER, topic)
    assert decision.reason is reason
    assert decision.rule in ids


@st.composite
def filters(draw):
    """Draw a plain filter of up to 4 levels."""
    levels = draw(st.lists(st.sampled_from(["a", "b", "", "$x", "+"]), max_size=3))
    if draw(st.booleans()) or levels in ([], [""]):
        levels.append("#")
    return "/".join(levels)


@settings(max_examples=400, deadline=None)
@given(compiled_rules(), KEYS, KEYS, filters(), st.sampled_from([0, 1, 2]), st.booleans())
def test_subscribe_agrees_with_the_simple_definition(rules, modules, members, filter_, qos, checked):
    """One allow rule covers it (set levels widened where deliveries are checked), no deny covers or crosses it."""
    sets = {SetLevel.MODULE: KeySet(modules), SetLevel.MEMBER: KeySet(members)}
    plain = [r for r in rules if r.action is RuleAction.SUBSCRIBE and not r.filter.sets]
    decision = grant_of(plain, {}).decide(SUBSCRIBE, filter_, qos=qos, deliveries_checked=checked)
    denies = [r.filter.text for r in plain if r.effect is Effect.DENY]
    allows = [r for r in plain if r.effect is Effect.ALLOW]
    covering = [r for r in allows if covers(allowed=r.filter.text, requested=filter_)]
    if any(covers(allowed=text, requested=filter_) for text in denies):
        assert decision.reason is Reason.RULE_DENIES
    elif not covering:
        crossing = any(overlaps(r.filter.text, filter_) for r in allows)
        assert decision.reason is (Reason.FILTER_TOO_WIDE if crossing else Reason.NO_RULE_MATCHES)
    elif not checked and any(overlaps(text, filter_) for text in denies):
        assert decision.reason is Reason.RULE_DENIES
    else:
        assert decision.reason is Reason.RULE_ALLOWS
        assert decision.qos == min(qos, max(2 if r.qos_max is None else r.qos_max for r in covering))
    # With set levels: what is allowed lies within the rules with `+` in place of the sets, and strictly within without.
    decision = grant_of(rules, sets).decide(SUBSCRIBE, filter_, deliveries_checked=checked)
    if decision.allowed and not filter_.startswith("$"):
        (chosen,) = [r for r in rules if r.id == decision.rule]
        assert any(covers(allowed=text, requested=filter_) for text in spelled(chosen, sets, plus=checked))


@settings(max_examples=200, deadline=None)
@given(
    compiled_rules(), KEYS, KEYS, TOPICS, filters(), st.sampled_from([0, 1, 2]), st.booleans(), st.booleans(),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_the_order_of_rules_never_changes_a_decision(
    rules, modules, members, topic, filter_, qos, retain, checked, chance
):
    """Shuffled, the same rules give the same answer, the same reason and name the same rule."""
    sets = {SetLevel.MODULE: KeySet(modules), SetLevel.MEMBER: KeySet(members)}
    shuffled = list(rules)
    chance.shuffle(shuffled)
    first, second = grant_of(rules, sets), grant_of(shuffled, sets)
    for action, text in [(PUBLISH, topic), (DELIVER, topic), (SUBSCRIBE, filter_), (SUBSCRIBE, f"$share/g/{filter_}")]:
        conditions = {"qos": qos, "retain": retain, "deliveries_checked": checked}
        assert first.decide(action, text, **conditions) == second.decide(action, text, **conditions)
