"""Retained messages kept in place of the broker: found exactly, bounded, and gone below a place when told."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authsvc.core.topics import matches
from broker.retained import LEVEL_BYTES, Retained, RetainedStore

LEVELS = ["a", "b", "", "$x"]
topics = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4).map("/".join).filter(bool)
filters = (
    st.tuples(st.lists(st.sampled_from([*LEVELS, "+"]), max_size=4), st.booleans())
    .map(lambda parts: "/".join([*parts[0], *(["#"] if parts[1] else [])]))
    .filter(bool)
)


def found(store, filter_):
    return sorted(message.topic for message in store.match(filter_))


@settings(max_examples=400, deadline=None)
@given(st.lists(topics, max_size=12), filters)
def test_found_is_what_the_topic_matcher_says(kept, filter_):
    """The tree and the core's matcher are two ways to the same answer."""
    store = RetainedStore()
    for topic in kept:
        store.set(topic, b"x", 0)
    assert found(store, filter_) == sorted(topic for topic in set(kept) if matches(topic, filter_))


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "empty", "clear", "below"]), topics, st.binary(min_size=1, max_size=3)),
        max_size=25,
    )
)
def test_store_does_what_a_dictionary_does(steps):
    """Any sequence of calls leaves the messages, the number and the bytes that a plain dictionary would hold."""
    store, model = RetainedStore(), {}
    for step, topic, payload in steps:
        match step:
            case "set":
                assert store.set(topic, payload, 1)
                model[topic] = Retained(topic=topic, payload=payload, qos=1)
            case "empty":
                assert store.set(topic, b"", 1)
                model.pop(topic, None)
            case "clear":
                assert store.clear(topic) is (model.pop(topic, None) is not None)
            case "below":
                gone = [name for name in model if name == topic or name.startswith(topic + "/")]
                assert store.clear_below(topic) == len(gone)
                for name in gone:
                    del model[name]
        everything = store.match("#") + store.match("$x/#")
        assert {message.topic: message for message in everything} == model
        assert len(store) == len(model)
        assert store.bytes_held == sum(message.size for message in model.values())
    if not model:
        assert not store._root.below, "empty nodes stay in the tree"


def test_last_message_replaces_the_one_before():
    """One message a topic (MQTT-3.3.1-5)."""
    store = RetainedStore()
    store.set("a/b", b"1", 0)
    store.set("a/b", b"2", 1)
    assert store.match("a/b") == [Retained(topic="a/b", payload=b"2", qos=1)]
    assert len(store) == 1


def test_empty_payload_clears():
    """MQTT-3.3.1-10, and it is not kept itself (MQTT-3.3.1-11)."""
    store = RetainedStore()
    store.set("a", b"1", 0)
    assert store.set("a", b"", 0)
    assert store.match("#") == []
    assert len(store) == store.bytes_held == 0


def test_number_is_bounded_and_nobody_s_message_makes_room():
    """A full store refuses new topics, replaces old ones, and takes new ones again when one is cleared."""
    store = RetainedStore(max_messages=2)
    assert store.set("a", b"1", 0)
    assert store.set("b", b"1", 0)
    assert not store.set("c", b"1", 0)
    assert store.set("a", b"2", 0)
    assert found(store, "#") == ["a", "b"]
    store.clear("b")
    assert store.set("c", b"1", 0)


def test_bytes_are_bounded_by_topic_payload_and_levels():
    """What counts is what is held: payload, topic, and a node for each level."""
    size = Retained(topic="a/b", payload=b"12345", qos=0).size
    assert size == 3 + 5 + 2 * LEVEL_BYTES
    store = RetainedStore(max_bytes=size)
    assert store.set("a/b", b"12345", 0)
    assert not store.set("x", b"1", 0)
    assert store.bytes_held == size
    assert not RetainedStore(max_bytes=1_000_000).set("/" * 20_000, b"1", 0)


def test_message_that_no_longer_fits_does_not_leave_the_outdated_one():
    """A subscriber is told nothing rather than what is no longer true."""
    store = RetainedStore(max_bytes=400)
    assert store.set("a", b"on", 0)
    assert not store.set("a", bytes(400), 0)
    assert store.match("a") == []
    assert len(store) == store.bytes_held == 0


def test_place_is_cleared_with_all_below_and_nothing_beside():
    """`t/g/thing` takes its own message and those below, not those of a longer key or of its parents."""
    store = RetainedStore()
    topics_kept = ["t/g/thing", "t/g/thing/state", "t/g/thing/state/a", "t/g/thing2/state", "t/g", "t/g/other"]
    for topic in topics_kept:
        store.set(topic, b"x", 0)
    assert store.clear_below("t/g/thing") == 3
    assert found(store, "#") == ["t/g", "t/g/other", "t/g/thing2/state"]
    assert store.clear_below("t/g/thing") == store.clear_below("nowhere/at/all") == 0


@pytest.mark.parametrize("filter_", ["#", "+/#", "+", "+/x"])
def test_wildcard_at_the_first_level_does_not_find_dollar_topics(filter_):
    """MQTT-4.7.2-1."""
    store = RetainedStore()
    for topic in ("$SYS", "$SYS/x"):
        store.set(topic, b"1", 0)
    assert store.match(filter_) == []
    assert found(store, "$SYS/#") == ["$SYS", "$SYS/x"]


def test_topic_of_the_most_levels_possible_is_kept_found_and_cleared():
    """No recursion: a topic may consist of 65,535 slashes."""
    store = RetainedStore()
    deep = "/" * 65_535
    assert store.set(deep, b"x", 0)
    assert found(store, "#") == found(store, deep) == found(store, "/" * 65_534 + "/+") == [deep]
    assert store.clear_below("") == 1
    assert not store._root.below


def match_s(messages: int) -> float:
    store = RetainedStore(max_messages=messages)
    for number in range(messages):
        assert store.set(f"t/g/thing-{number}/state/a", b"x", 0)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for number in range(0, messages, messages // 100):
            assert len(store.match(f"t/g/thing-{number}/#")) == 1
        best = min(best, time.perf_counter() - start)
    return best


def test_subscription_to_one_thing_costs_the_same_among_many():
    """The 1,000 filters of a session do not each walk everything that is kept."""
    assert match_s(8_000) < 4 * match_s(800)
