"""`matches`, `covers` and `overlaps` against brute force: all filters up to 4 levels, all topics up to 5."""

import re
from functools import cache
from itertools import product

import pytest

from authsvc.core.facts import KeySet
from authsvc.core.topics import (
    covers,
    levels_cover,
    levels_match,
    levels_overlap,
    matches,
    overlaps,
    split_filter,
)

# `c` is in no filter: without such a fresh letter the brute force would call `+` covered by the union of all letters.
TOPIC_LEVELS = ("a", "b", "", "$x", "c")
FILTER_LEVELS = ("a", "b", "", "$x", "+")


def all_topics(depth):
    """Return every topic name of up to `depth` levels; none is empty (MQTT-4.7.3-1)."""
    names = ["/".join(levels) for n in range(1, depth + 1) for levels in product(TOPIC_LEVELS, repeat=n)]
    return [name for name in names if name]


def all_filters(depth, levels=FILTER_LEVELS):
    """Return every topic filter of up to `depth` levels, those that end in `#` included."""
    plain = [chosen for n in range(1, depth + 1) for chosen in product(levels, repeat=n)]
    hashed = [(*chosen, "#") for n in range(depth) for chosen in product(levels, repeat=n)]
    return [f for f in plain + hashed if f != ("",)]


@cache
def pattern_of(filter_):
    """Return the filter as a regular expression: another road to the same meaning, written from section 4.7."""
    levels = filter_.split("/")
    deep = levels[-1] == "#"
    fixed = levels[:-1] if deep else levels
    text = "/".join("[^/]*" if level == "+" else re.escape(level) for level in fixed)
    if deep:
        text = f"{text}(/.*)?" if fixed else ".*"
    return re.compile(("(?!\\$)" if levels[0] in "+#" and levels[0] else "") + text)


@cache
def mask_of(filter_, topics):
    """Return the set of topics that match, one bit each."""
    match = pattern_of(filter_).fullmatch
    mask = 0
    for bit, topic in enumerate(topics):
        if match(topic):
            mask |= 1 << bit
    return mask


TOPICS = tuple(all_topics(5))
FILTERS = tuple("/".join(f) for f in all_filters(4))


def test_the_brute_force_is_as_large_as_it_claims():
    """Guard the enumeration itself: 779 or more filters, 3,904 topics, no filter that matches nothing."""
    assert len(TOPICS) == 5 + 25 + 125 + 625 + 3125 - 1
    assert len(FILTERS) == (5 + 25 + 125 + 625) + (1 + 5 + 25 + 125) - 1
    assert all(mask_of(f, TOPICS) for f in FILTERS)


def test_matches_agrees_with_the_enumeration_for_every_filter_and_topic():
    """No topic is matched that should not be, and none is missed."""
    split = [topic.split("/") for topic in TOPICS]
    wrong = []
    for filter_ in FILTERS:
        mask = mask_of(filter_, TOPICS)
        levels = filter_.split("/")
        normal = split_filter(filter_)
        for bit, topic in enumerate(split):
            expected = bool(mask >> bit & 1)
            if levels_match(topic, levels) is not expected:
                wrong.append((filter_, topic))
        if normal != levels:  # the second spelling of `#` and `/#`
            wrong += [
                (normal, t) for bit, t in enumerate(split) if levels_match(t, normal) is not bool(mask >> bit & 1)
            ]
    assert wrong == []


def test_matches_of_texts_is_matches_of_levels():
    """The public form splits and asks the same question."""
    for filter_ in FILTERS[::7]:
        for topic in TOPICS[::31]:
            assert matches(topic, filter_) is (pattern_of(filter_).fullmatch(topic) is not None)


def test_covers_agrees_with_the_enumeration_for_every_pair_of_filters():
    """`covers` is containment of the sets of topics, in both directions of every pair."""
    masks = [mask_of(f, TOPICS) for f in FILTERS]
    wrong = []
    for allowed, allowed_mask in zip(FILTERS, masks, strict=True):
        outside = ~allowed_mask
        for requested, requested_mask in zip(FILTERS, masks, strict=True):
            if covers(allowed=allowed, requested=requested) is not (requested_mask & outside == 0):
                wrong.append((allowed, requested))
    assert wrong == []


def test_overlaps_agrees_with_the_enumeration_for_every_pair_of_filters():
    """`overlaps` is a shared topic, whichever filter is named first."""
    masks = [mask_of(f, TOPICS) for f in FILTERS]
    wrong = []
    for a, a_mask in zip(FILTERS, masks, strict=True):
        for b, b_mask in zip(FILTERS, masks, strict=True):
            if overlaps(a, b) is not (a_mask & b_mask != 0):
                wrong.append((a, b))
    assert wrong == []


@pytest.mark.parametrize(
    ("allowed", "requested", "expected"),
    [
        ("a/#", "a/+", True),
        ("a/#", "a/b/#", True),
        ("a/#", "a", True),
        ("a/#", "a/", True),
        ("a/#", "+/b", False),
        ("a/#", "#", False),
        ("a/+", "a/#", False),
        ("a/+/#", "a/#", False),
        ("+/#", "#", True),
        ("#", "$SYS/#", False),
        ("+/a", "$x/a", False),
        ("/+/#", "/#", True),
        ("a/b", "a/+", False),
    ],
)
def test_covers_in_cases_worth_reading(allowed, requested, expected):
    """Containment, not textual equality and not a match of one filter's text by the other."""
    assert covers(allowed=allowed, requested=requested) is expected


SET_CHOICES = {"none": frozenset(), "one": frozenset({"a"}), "two": frozenset({"a", "b"}), "dollar": frozenset({"$x"})}
SHALLOW_TOPICS = tuple(all_topics(4))
SHALLOW_FILTERS = tuple("/".join(f) for f in all_filters(3))


def with_sets():
    """Yield filters of up to 3 levels with at least one set level, `S` standing for it."""
    return [f for f in all_filters(3, levels=("a", "S", "+")) if "S" in f]


def spelled_out(levels, members):
    """Yield the plain filters that a filter with set levels stands for: one for each choice of members."""
    choices = [sorted(members) if level == "S" else [level] for level in levels]
    return ["/".join(chosen) for chosen in product(*choices)]


@pytest.mark.parametrize("members", SET_CHOICES.values(), ids=SET_CHOICES.keys())
def test_a_set_level_is_the_union_over_its_members(members):
    """`matches` and strict `covers` with set levels are those of all spelled-out filters together."""
    keys = KeySet(members)
    split = [topic.split("/") for topic in SHALLOW_TOPICS]
    requests = [(f, split_filter(f), mask_of(f, SHALLOW_TOPICS)) for f in SHALLOW_FILTERS]
    for levels in with_sets():
        real = [keys if level == "S" else level for level in levels]
        union = 0
        for filter_ in spelled_out(levels, members):
            union |= mask_of(filter_, SHALLOW_TOPICS)
        for bit, topic in enumerate(split):
            assert levels_match(topic, real) is bool(union >> bit & 1), (levels, topic)
        for filter_, requested, mask in requests:
            assert levels_cover(allowed=real, requested=requested) is (mask & ~union == 0), (levels, filter_)


@pytest.mark.parametrize("members", SET_CHOICES.values(), ids=SET_CHOICES.keys())
def test_widening_goes_as_far_as_the_set_levels_and_no_further(members):
    """A widened filter is covered with `+` in place of the sets, and names only members where it is literal there."""
    keys = KeySet(members)
    for levels in with_sets():
        real = [keys if level == "S" else level for level in levels]
        as_plus = "/".join("+" if level == "S" else level for level in levels)
        for filter_ in SHALLOW_FILTERS:
            requested = split_filter(filter_)
            asked = [requested[i] for i, level in enumerate(levels) if level == "S" and i < len(requested)]
            literals_are_members = all(level == "+" or level in members for level in asked)
            plus_covers = covers(allowed=as_plus, requested=filter_)
            if requested[0] == "$x" and levels[0] == "S":  # a member that `+` would not reach
                plus_covers = covers(allowed="/".join(["$x", *as_plus.split("/")[1:]]), requested=filter_)
            expected = plus_covers and literals_are_members
            assert levels_cover(allowed=real, requested=requested, widen_sets=True) is expected, (levels, filter_)


@pytest.mark.parametrize("members", SET_CHOICES.values(), ids=SET_CHOICES.keys())
def test_a_set_level_overlaps_its_members_and_every_wildcard(members):
    """A literal overlaps as a member of the set as it is; a wildcard overlaps whatever the set may come to hold."""
    keys = KeySet(members)
    for levels in with_sets():
        real = [keys if level == "S" else level for level in levels]
        union = 0
        for filter_ in spelled_out(levels, members | {"c"}):
            union |= mask_of(filter_, SHALLOW_TOPICS)
        for filter_ in SHALLOW_FILTERS:  # `c` is the thing yet to join: no filter of the enumeration names it
            expected = mask_of(filter_, SHALLOW_TOPICS) & union != 0
            assert levels_overlap(real, split_filter(filter_)) is expected, (levels, filter_)
