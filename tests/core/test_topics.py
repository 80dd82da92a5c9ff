"""Keys, topic names, filters, shared subscriptions and templates: what is valid, and what is said of the rest."""

import pytest

from authsvc.core.errors import InvalidInput
from authsvc.core.topics import (
    SetLevel,
    TopicTemplate,
    check_key,
    check_topic_filter,
    check_topic_name,
    is_key,
    printable,
    safe_level,
    shared_filter,
)

VALUES = {"tenant": "acme", "ground": "hall", "thing": "gw-1", "definition": "gateway", "client": "c1"}
INJECTIONS = ["+", "#", "a/b", "/", "a+", "#a", "", "a\0b", "\0", "a\nb", "\x1b[2J", "\x7f", "\x85", "\ud800"]


@pytest.mark.parametrize("key", ["a", "A1", "0", "gw-1.2_x", "x" * 64, "a..b"])
def test_a_key_of_the_documented_form_is_taken(key):
    """One to 64 of the documented characters, a letter or digit first."""
    assert check_key("thing", key) == key
    assert is_key(key)


@pytest.mark.parametrize(
    "key",
    ["", ".", "..", "-a", "_a", "x" * 65, "a b", "a/b", "a+", "#", "é", "a\n", "a\0", " a", "٣", "\uff21", "$SYS"],
)
def test_any_other_key_is_refused_by_name(key):
    """Nothing is trimmed, folded or normalised: a key is what it is or it is refused."""
    with pytest.raises(InvalidInput, match="thing key") as caught:
        check_key("thing", key)
    assert (caught.value.code, caught.value.field) == ("key_invalid", "key")
    assert not is_key(key)


def test_the_tenant_key_me_is_reserved_and_other_kinds_may_use_it():
    """`me` will stand for a device's own place at the beginning of a topic."""
    with pytest.raises(InvalidInput, match="reserved"):
        check_key("tenant", "me")
    assert check_key("ground", "me") == "me"


@pytest.mark.parametrize("value", INJECTIONS, ids=ascii)
def test_a_value_that_would_change_a_filter_is_no_safe_level(value):
    """Wildcards, separators, NUL, control characters and nothing at all."""
    assert not safe_level(value)


@pytest.mark.parametrize("value", ["a", "$SYS", ".*", "' OR 1=1--", "%", "{thing}", "ü", "a b"])
def test_whatever_means_nothing_in_a_filter_is_a_safe_level(value):
    """There is no regular expression and no LIKE behind a level."""
    assert safe_level(value)


@pytest.mark.parametrize("topic", ["a", "/", "//", "a/b/", "$SYS/x", "ü/ß", "a b", "x" * 65_535, "\U0001f600" * 16_383])
def test_a_valid_topic_name_is_returned_as_it_is(topic):
    """Empty levels, blanks and any script are fine."""
    assert check_topic_name(topic) == topic


@pytest.mark.parametrize(
    "topic",
    ["", "a/+", "#", "a#", "a\0", "\x1f", "\x9f", "\ud800", "\udfff", "x" * 65_536, "\U0001f600" * 16_384],
    ids=lambda topic: ascii(topic[:9]),
)
def test_an_invalid_topic_name_is_refused(topic):
    """MQTT-1.5.3-1, -2, MQTT-4.7.3-1, -3, MQTT-3.3.2-2, and control characters."""
    with pytest.raises(InvalidInput) as caught:
        check_topic_name(topic)
    assert caught.value.code == "topic_invalid"


@pytest.mark.parametrize("filter_", ["#", "+", "a/#", "+/+/#", "/", "+//+", "$SYS/#", "a/b"])
def test_a_valid_filter_is_returned_as_it_is(filter_):
    """Wildcards that fill their levels, `#` last."""
    assert check_topic_filter(filter_) == filter_


@pytest.mark.parametrize(
    "filter_", ["", "a/#/b", "#/", "##", "a#", "a/b#", "a+", "+a/b", "a/++", "a\0/#", "\ud800/#"], ids=ascii
)
def test_a_malformed_filter_is_refused(filter_):
    """MQTT-4.7.1-2 and MQTT-4.7.1-3."""
    with pytest.raises(InvalidInput) as caught:
        check_topic_filter(filter_)
    assert caught.value.code == "topic_invalid"


def test_a_filter_that_is_only_too_deep_has_a_code_of_its_own():
    """Too many levels are refused with 0x80, they do not close the connection as a malformed filter does."""
    deep = "/".join("a" * 33)
    with pytest.raises(InvalidInput) as caught:
        check_topic_filter(deep)
    assert caught.value.code == "topic_too_deep"
    assert check_topic_filter(deep, max_levels=None) == deep
    assert check_topic_filter("/".join("a" * 32))


@pytest.mark.parametrize(
    ("filter_", "parts"),
    [
        ("a/b", None),
        ("$shared/g/a", None),
        ("x/$share/g/a", None),
        ("$share/g/a", ("g", "a")),
        ("$share/g/#", ("g", "#")),
        ("$share/g//", ("g", "/")),
        ("$share/g/$SYS/#", ("g", "$SYS/#")),
    ],
)
def test_a_shared_subscription_gives_group_and_inner_filter(filter_, parts):
    """Only the inner filter says what is asked for."""
    assert shared_filter(filter_) == parts


@pytest.mark.parametrize(
    "filter_", ["$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g+/a", "$share/#"]
)
def test_what_only_begins_like_a_shared_subscription_is_refused(filter_):
    """It is never taken for a literal topic."""
    with pytest.raises(InvalidInput, match=r"\$share/group/filter"):
        shared_filter(filter_)


def test_a_template_is_rendered_level_by_level():
    """Single values become literals, set variables stay named."""
    rendered = TopicTemplate.parse("{tenant}/{ground}/{thing}/{definition}/{client}/x/+/{module}/{member}/#").render(
        VALUES
    )
    expected = ("acme", "hall", "gw-1", "gateway", "c1", "x", "+", SetLevel.MODULE, SetLevel.MEMBER, "#")
    assert rendered.levels == expected
    assert rendered.sets == (SetLevel.MODULE, SetLevel.MEMBER)
    assert rendered.text == "acme/hall/gw-1/gateway/c1/x/+/{module}/{member}/#"


@pytest.mark.parametrize("value", INJECTIONS, ids=ascii)
@pytest.mark.parametrize("name", VALUES)
def test_rendering_refuses_a_value_that_would_change_the_filter(name, value):
    """No key and no client id reaches further than one level."""
    with pytest.raises(InvalidInput) as caught:
        TopicTemplate.parse("x/{" + name + "}/y").render({**VALUES, name: value})
    assert caught.value.code == "value_unsafe"


def test_rendering_refuses_a_dollar_at_the_beginning_and_only_there():
    """A client id `$SYS` must not open the broker's own topics; further down a dollar means nothing."""
    with pytest.raises(InvalidInput, match=r"\$SYS"):
        TopicTemplate.parse("{client}/#").render({"client": "$SYS"})
    assert TopicTemplate.parse("a/{client}").render({"client": "$SYS"}).text == "a/$SYS"


def test_a_missing_value_is_not_an_empty_one():
    """A ground token has no thing; that is another matter than an unsafe thing."""
    with pytest.raises(InvalidInput, match="no value for `{thing}`") as caught:
        TopicTemplate.parse("{tenant}/{thing}").render({"tenant": "acme"})
    assert caught.value.code == "variable_missing"


@pytest.mark.parametrize(
    "text", ["a/{thing.key}", "a/{Thing}", "a/x{thing}", "a/{thing}x", "{", "a/}", "{}", "{tenant}{ground}"]
)
def test_an_unknown_or_partial_variable_names_the_known_ones(text):
    """The message carries the way out."""
    with pytest.raises(InvalidInput, match="{tenant} {ground} {thing} {definition} {client} {module} {member}"):
        TopicTemplate.parse(text)


@pytest.mark.parametrize("text", ["", "a/#/b", "a+", "a\0"])
def test_a_template_must_be_a_filter(text):
    """What is no filter with variables is none without."""
    with pytest.raises(InvalidInput):
        TopicTemplate.parse(text)


def test_printable_escapes_what_could_forge_a_log_line_and_shortens():
    """Names from the network are shown, never obeyed."""
    assert printable("a\nb\x1b[0m\ud800") == "a\\nb\\x1b[0m\\ud800"
    assert printable("x" * 100) == "x" * 80 + "…"
