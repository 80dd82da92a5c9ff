"""The table of filters: what amqtt would find for a topic, without asking each filter."""

from __future__ import annotations

import itertools
import random

import pytest
from amqtt.broker import Broker

from broker.embedded.filters import MAX_KNOWN, FilterTable
from tests.broker.link_owner import connected, subscribe, unsubscribe

A = "A" * 22
LEVELS = ("a", "b", "", "+", "#", "$x")
FILTERS = [
    "/".join(levels)
    for depth in (1, 2, 3)
    for levels in itertools.product(LEVELS, repeat=depth)
    if "#" not in levels[:-1]
]


TOPICS = [
    "/".join(levels) for depth in (1, 2, 3, 4) for levels in itertools.product(("a", "b", "", "$x"), repeat=depth)
]


@pytest.fixture
async def asked():
    """amqtt's own comparison of a topic with a filter."""
    return Broker({"listeners": {"default": {"type": "external", "bind": "x"}}, "plugins": {}})._matches


async def test_a_topic_finds_the_filters_that_amqtt_would_find(asked):
    """Every filter up to 3 levels against every topic up to 4: the same as amqtt's comparison one by one."""
    table = FilterTable()
    for filter_ in FILTERS:
        table[filter_] = [(filter_, 0)]
    for topic in TOPICS:
        found = [entries[0][0] for entries in table.matching(topic)]
        assert sorted(found) == sorted(filter_ for filter_ in FILTERS if asked(topic, filter_)), topic


async def test_filters_come_and_go(asked):
    """After any sequence of additions and removals the table finds what is in it, and an empty one holds nothing."""
    chance = random.Random(7)
    table = FilterTable()
    for _ in range(500):
        filter_ = chance.choice(FILTERS)
        if filter_ in table:
            del table[filter_]
        else:
            table[filter_] = [(filter_, 0)]
        for topic in ("a", "a/b", "/b/a", "$x/a", chance.choice(TOPICS)):
            found = [entries[0][0] for entries in table.matching(topic)]
            assert sorted(found) == sorted(filter_ for filter_ in table if asked(topic, filter_))
    table.clear()
    assert table == {}
    assert table._root.empty
    assert all(table.matching(topic) == () for topic in TOPICS)


def test_what_is_remembered_of_topics_is_bounded():
    """A publisher of ever new topics, or of long ones, fills no memory."""
    table = FilterTable()
    table["#"] = []
    for number in range(MAX_KNOWN + 10):
        table.matching(f"t/{number}")
    assert len(table._known) <= MAX_KNOWN
    before = len(table._known)
    assert table.matching("x/" * 1000) == ([],)
    assert len(table._known) == before


async def test_amqtt_uses_the_table(upstream):
    """A SUBSCRIBE fills it and an UNSUBSCRIBE empties it, in the lists that were found before."""
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x/+", 1))
    assert isinstance(upstream.broker.subscriptions, FilterTable)
    (entries,) = upstream.broker.subscriptions.matching("x/1")
    assert [(session.client_id, qos) for session, qos in entries] == [(A, 1)]
    await unsubscribe(link, owner, "x/+")
    assert upstream.broker.subscriptions.matching("x/1") == ()
