"""What EMQX keeps of a grant never says more than the grant, and with what it asks the verdict is the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.adapters.emqx_acl import acl_of
from authsvc.core.facts import KeySet
from authsvc.core.policy import Action, Grant
from tests.adapters.emqx_model import Asked, match_tokens, verdict, words
from tests.core.rules import grant, rule

WORDS = ("a", "b", "$s", "")
FILTER_WORDS = ("a", "b", "$s", "", "+")
VERSIONS = pytest.mark.parametrize("checks_dollar", [False, True], ids=["before 5.8.2", "since"])


def topics(most: int = 3) -> list[str]:
    found = ["/".join(levels) for depth in range(1, most + 1) for levels in itertools.product(WORDS, repeat=depth)]
    return [topic for topic in found if topic]


def filters(most: int = 3) -> list[str]:
    found = []
    for depth in range(1, most + 1):
        for levels in itertools.product(FILTER_WORDS, repeat=depth - 1):
            found += ["/".join((*levels, last)) for last in (*FILTER_WORDS, "#")]
    return [filter_ for filter_ in found if filter_]


TOPICS, FILTERS = topics(), filters()
ASKED = [
    *(Asked("publish", topic, qos, retain) for topic in TOPICS for qos in (0, 2) for retain in (False, True)),
    *(Asked("subscribe", filter_, qos) for filter_ in FILTERS for qos in (0, 2)),
]


def ours(held: Grant, asked: Asked) -> bool:
    """Return what the authorizer's hook answers: the truth."""
    decision = held.decide(
        Action(asked.action), asked.topic, qos=asked.qos, retain=asked.retain, deliveries_checked=False
    )
    return decision.allowed and (asked.action == "publish" or decision.qos == asked.qos)


def disagreements(held: Grant, asked: list[Asked], *, checks_dollar: bool) -> list[tuple[Asked, str]]:
    acl = acl_of(held)
    found = [(one, verdict(acl, one, checks_dollar=checks_dollar)) for one in asked]
    return [(one, said) for one, said in found if said != "nomatch" and (said == "allow") is not ours(held, one)]


EXACT = [
    pytest.param(["allow publish t/g/gw/state/#", "allow subscribe t/g/gw/command/#"], id="the native layout"),
    pytest.param(["allow publish a/#", "deny publish a/b"], id="a deny inside an allow"),
    pytest.param(["allow publish a/+/b", "deny publish +/b/#"], id="a deny that begins with a wildcard"),
    pytest.param(["allow subscribe a/+"], id="one level"),
    pytest.param(["allow subscribe a/+/#"], id="at least one level"),
    pytest.param(["allow subscribe a/+/b"], id="a level between"),
    pytest.param(["allow subscribe a/#", "deny subscribe a/b"], id="a deny that overlaps"),
    pytest.param(["allow subscribe a/#", "allow subscribe b/#", "deny subscribe +/b"], id="a deny over both"),
    pytest.param(["allow subscribe #", "allow publish #"], id="everything but the dollar"),
    pytest.param(["allow subscribe $s/#", "allow publish $s/a"], id="the dollar"),
    pytest.param(["allow publish +/a", "deny publish $s/#"], id="dollar denied"),
    pytest.param([rule("allow subscribe a/#", qos_max=1), rule("allow publish a/#", qos_max=0)], id="qos"),
    pytest.param([rule("allow publish a/#", retain=False), rule("deny publish a/b", retain=True)], id="retain"),
    pytest.param([rule("deny publish a/#", retain=True), "allow publish a/b"], id="retained denied"),
    pytest.param(["allow subscribe /#", "allow publish /a", "allow publish a/"], id="empty levels"),
]


@VERSIONS
@pytest.mark.parametrize("rules", EXACT)
def test_emqx_and_we_say_the_same_of_every_topic_and_filter(rules: list[object], checks_dollar: bool) -> None:
    """Three levels deep over four words, with every flag: what the list decides is what we would."""
    held = grant(*rules, platform=True)
    assert disagreements(held, ASKED, checks_dollar=checks_dollar) == []


@VERSIONS
def test_the_model_shows_what_a_plain_translation_would_give_away(checks_dollar: bool) -> None:
    """The traps are real: a list of all rules as they stand grants `a/#` under `a/+`, and `$s` under `#`."""
    naive = [{"permission": "allow", "action": "subscribe", "topic": "a/+"}]
    assert verdict(naive, Asked("subscribe", "a/#"), checks_dollar=checks_dollar) == "allow"
    naive = [{"permission": "allow", "action": "subscribe", "topic": "a/+/#"}]
    assert verdict(naive, Asked("subscribe", "a/#"), checks_dollar=checks_dollar) == "allow"
    naive = [{"permission": "allow", "action": "publish", "topic": "#"}]
    assert verdict(naive, Asked("publish", "$s/a"), checks_dollar=checks_dollar) == (
        "nomatch" if checks_dollar else "allow"
    )


def test_what_the_list_can_say_it_says() -> None:
    """The native layout costs no question: only what is left out goes on to the authorizer."""
    held = grant(
        "allow publish {tenant}/{ground}/{thing}/state/#", "allow subscribe {tenant}/{ground}/{thing}/command/#"
    )
    assert acl_of(held) == [
        {"permission": "allow", "action": "publish", "topic": "t/g/gw/state/#"},
        {"permission": "allow", "action": "subscribe", "topic": "t/g/gw/command/#"},
    ]
    said = acl_of(grant(rule("deny publish t/x", retain=True), rule("allow publish t/#", qos_max=1)))
    assert said == [
        {"permission": "deny", "action": "publish", "topic": "t/x", "retain": True},
        {"permission": "allow", "action": "publish", "topic": "t/#", "qos": [0, 1]},
    ]


LEFT_OUT = [
    pytest.param("allow subscribe t/+", id="a last plus"),
    pytest.param("allow subscribe t/+/#", id="plus and hash"),
    pytest.param("allow publish +/x", id="a first wildcard"),
    pytest.param("allow publish t/${username}/x", id="a placeholder of EMQX"),
    pytest.param("allow publish eq t/x", id="a command of EMQX"),
    pytest.param("allow publish t/{member}/x", id="a set"),
]


@pytest.mark.parametrize("text", LEFT_OUT)
def test_what_emqx_reads_otherwise_is_left_out(text: str) -> None:
    """It is asked about instead."""
    members = KeySet({"m1"})
    assert acl_of(grant(text, platform=True, members=members)) == []


def test_a_deny_that_cannot_be_said_takes_what_it_meets_with_it() -> None:
    """A set may come to hold whatever stands there: no allow that it could meet is in the list."""
    held = grant(
        "allow publish t/#", "allow publish t2/#", "deny publish t/{member}/x", platform=True, members=KeySet()
    )
    assert [line["topic"] for line in acl_of(held)] == ["t2/#"]


LEVEL = st.sampled_from(["a", "b", "$s", "", "+"])
FILTER = st.builds(
    lambda levels, hash_: "/".join([*levels, *(["#"] if hash_ else [])]) or "a",
    st.lists(LEVEL, min_size=0, max_size=3),
    st.booleans(),
)
RULE = st.one_of(
    st.builds(
        lambda text, qos, retain: rule(f"allow publish {text}", qos_max=qos, retain=retain),
        FILTER,
        st.sampled_from([None, 0, 1]),
        st.sampled_from([None, True, False]),
    ),
    st.builds(lambda text, retain: rule(f"deny publish {text}", retain=retain), FILTER, st.sampled_from([None, True])),
    st.builds(lambda text, qos: rule(f"allow subscribe {text}", qos_max=qos), FILTER, st.sampled_from([None, 0, 1])),
    st.builds(lambda text: rule(f"deny subscribe {text}"), FILTER),
)


@given(st.lists(RULE, max_size=6), st.booleans(), st.randoms(use_true_random=False))
def test_no_grant_makes_emqx_and_us_disagree(rules: list[object], checks_dollar: bool, random: object) -> None:
    """Whatever rules: never more than the grant, never another answer than ours."""
    held = grant(*rules, platform=True)
    asked = random.sample(ASKED, 150)
    assert disagreements(held, asked, checks_dollar=checks_dollar) == []


def test_the_model_matches_topics_as_mqtt_does() -> None:
    """Of topic names EMQX's matcher is the standard's: the model is no straw man."""
    from authsvc.core.topics import matches  # noqa: PLC0415

    for topic in TOPICS:
        for filter_ in FILTERS:
            if not (topic.startswith("$") and filter_[0] in "+#"):
                assert match_tokens(words(topic), words(filter_)) == matches(topic, filter_), (topic, filter_)
