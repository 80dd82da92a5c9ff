"""Which rules may be stored, which are built in, and how they become a grant."""

from dataclasses import replace

import pytest

from authsvc.core.errors import InvalidInput
from authsvc.core.facts import Effect, GroundAccess, KeySet, Role, Rule, RuleAction, ThingDefinition, ThingKind
from authsvc.core.policy import (
    Action,
    CompiledRule,
    built_in_rules,
    check_rule,
    check_rules,
    ground_token_rules,
    uses_client_variable,
)
from authsvc.core.topics import SetLevel
from tests.core.rules import grant, rule


@pytest.mark.parametrize(
    "topic",
    [
        "{tenant}/#",
        "t/#",
        "t",
        "{tenant}/{ground}/+/x",
        "{tenant}/{client}",
        "t/{member}/#",
        "{tenant}/{module}/$x",
        "t/",
    ],
)
def test_a_rule_inside_the_wall_may_be_stored(topic):
    """The first level is the tenant, by variable or spelled out."""
    check_rule(rule(f"allow publish {topic}"), tenant="t")
    check_rule(rule(f"deny subscribe {topic}"), tenant="t")


OUTSIDE = [
    "#",
    "+/#",
    "+",
    "other/#",
    "T/#",
    "tt/#",
    "/t/#",
    "$SYS/#",
    "$share/g/t/#",
    "{ground}/#",
    "{member}/#",
    "{client}/x",
]


@pytest.mark.parametrize("topic", OUTSIDE)
def test_a_rule_outside_the_wall_is_refused_when_it_is_stored(topic):
    """Wildcards, other tenants, system topics and every other variable; for denies as for allows."""
    for effect in Effect:
        with pytest.raises(InvalidInput) as caught:
            check_rule(rule(f"{effect.value} publish {topic}"), tenant="t")
        assert (caught.value.code, caught.value.field) == ("rule_outside_tenant", "topic")


@pytest.mark.parametrize("topic", OUTSIDE)
def test_a_platform_role_may_leave_the_wall(topic):
    """Bridges and monitors; only platform roles, and `$`-topics need one."""
    check_rule(rule(f"allow publish {topic}"), tenant=None)


@pytest.mark.parametrize(
    ("bad", "code", "field"),
    [
        (rule("allow publish t/#/x"), "topic_invalid", "topic"),
        (rule("allow publish "), "topic_invalid", "topic"),
        (rule("allow publish t/{nope}"), "topic_invalid", "topic"),
        (rule("allow publish t/" + "/".join("x" * 32)), "topic_too_deep", "topic"),
        (rule("deny publish t/x", qos_max=1), "qos_max_on_deny", "qos_max"),
        (rule("allow publish t/x", qos_max=3), "qos_max_invalid", "qos_max"),
        (rule("allow publish t/x", qos_max=-1), "qos_max_invalid", "qos_max"),
        (rule("allow subscribe t/x", retain=True), "retain_on_subscribe", "retain"),
        (rule("deny subscribe t/x", retain=False), "retain_on_subscribe", "retain"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_with_its_code_and_field(bad, code, field):
    """In tenant and platform roles alike."""
    for tenant in ("t", None):
        with pytest.raises(InvalidInput) as caught:
            check_rule(bad, tenant=tenant)
        assert (caught.value.code, caught.value.field) == (code, field)


def test_conditions_where_they_belong_may_be_stored():
    """QoS on allow rules, the retain flag on publish rules."""
    for qos in (0, 1, 2):
        check_rule(rule("allow subscribe t/x", qos_max=qos), tenant="t")
    check_rule(rule("deny publish t/x", retain=True), tenant="t")


def test_the_built_in_rules_are_the_native_layout():
    """A thing has its own topics; a gateway has them for each of its modules too."""
    own = [
        rule("allow publish {tenant}/{ground}/{thing}/state/#"),
        rule("allow publish {tenant}/{ground}/{thing}/event/#"),
        rule("allow subscribe {tenant}/{ground}/{thing}/command/#"),
    ]
    for_modules = [replace(r, topic=r.topic.replace("{thing}", "{module}")) for r in own]
    assert list(built_in_rules(ThingKind.THING)) == own
    assert list(built_in_rules(ThingKind.MODULE)) == own
    assert list(built_in_rules(ThingKind.GATEWAY)) == own + for_modules
    for kind in ThingKind:
        for built_in in built_in_rules(kind):
            check_rule(built_in, tenant="t")


def test_the_rules_of_ground_tokens():
    """Read: all of the ground. Write: commands to each of its things. Neither leaves the ground."""
    read, write = [rule("allow subscribe {tenant}/{ground}/#")], [rule("allow publish {tenant}/{ground}/+/command/#")]
    assert list(ground_token_rules(GroundAccess.READ)) == read
    assert list(ground_token_rules(GroundAccess.WRITE)) == write
    assert list(ground_token_rules(GroundAccess.READ_WRITE)) == read + write


def test_a_grant_names_where_each_rule_comes_from_and_is_plain_data():
    """Adapters translate the rules without asking anything else; set levels are named."""
    modules = KeySet({"m1"})
    compiled = grant(
        rule("allow publish {tenant}/{ground}/{thing}/{module}/#", qos_max=1, retain=False),
        roles=[
            Role(
                tenant="t",
                key="r",
                name="r",
                rules=(rule("deny publish t/x"), rule("allow subscribe t/{definition}/{client}")),
            ),
            Role(tenant="", key="r", name="r", rules=(rule("allow subscribe $SYS/#"),)),
        ],
        extra_rules=ground_token_rules(GroundAccess.READ),
        extra_source="token/read",
        modules=modules,
        members=KeySet({"unused"}),
        expires_at_us=77,
    )
    assert [(r.id, r.effect.value, r.action.value, r.filter.text, r.qos_max, r.retain) for r in compiled.rules] == [
        ("definition/d#0", "allow", "publish", "t/g/gw/{module}/#", 1, False),
        ("role/r#0", "deny", "publish", "t/x", None, None),
        ("role/r#1", "allow", "subscribe", "t/d/c1", None, None),
        ("platform/r#0", "allow", "subscribe", "$SYS/#", None, None),
        ("token/read#0", "allow", "subscribe", "t/g/#", None, None),
    ]
    assert all(isinstance(r, CompiledRule) for r in compiled.rules)
    assert compiled.rules[0].filter.levels == ("t", "g", "gw", SetLevel.MODULE, "#")
    assert compiled.sets == {SetLevel.MODULE: modules}
    assert (compiled.expires_at_us, compiled.definition, compiled.thing, compiled.left_out) == (77, "d", "gw", ())


def test_the_version_of_a_grant_follows_the_sets_it_refers_to_and_no_others():
    """A set that no rule uses does not void decisions."""
    modules, members = KeySet(), KeySet()
    compiled = grant("allow publish t/{module}/x", modules=modules, members=members)
    assert compiled.version == 0
    members.add("a")
    assert compiled.version == 0
    modules.add("a")
    assert compiled.version == 1
    modules.discard("a")
    assert compiled.version == 2
    assert grant("allow publish t/x").version == 0


@pytest.mark.parametrize("topic", OUTSIDE)
def test_a_stored_rule_outside_the_wall_is_left_out_loudly_when_a_grant_is_compiled(topic):
    """Whatever happened to the store, one tenant's rule never speaks of another's topics."""
    compiled = grant(f"allow publish {topic}", members=KeySet({"other"}))
    assert compiled.rules == ()
    (left,) = compiled.left_out
    assert (left.id, left.effect, left.topic, left.code) == (
        "definition/d#0",
        Effect.ALLOW,
        topic,
        "rule_outside_tenant",
    )
    for asked in ("other/x", "x", "$SYS/x", "t/x", "g/x", "c1/x"):
        assert not compiled.decide(Action.PUBLISH, asked).allowed


@pytest.mark.parametrize(
    ("topic", "changes", "code"),
    [
        ("t/{thing}/x", {"thing": None}, "variable_missing"),
        ("t/{definition}/x", {"definition": None, "extra": True}, "variable_missing"),
        ("t/{module}/x", {"modules": None}, "variable_missing"),
        ("t/{member}/x", {"members": None}, "variable_missing"),
        ("t/{client}/x", {"client_id": "+"}, "value_unsafe"),
        ("t/{client}/x", {"client_id": ""}, "value_unsafe"),
        ("t/{ground}/x", {"ground": ""}, "value_unsafe"),
        ("t/{thing}/x", {"thing": "a/b"}, "value_unsafe"),
        ("t/{nope}/x", {}, "topic_invalid"),
    ],
)
def test_a_rule_that_cannot_be_rendered_is_left_out_with_its_code(topic, changes, code):
    """The rest of the grant stands."""
    rules = (rule(f"allow publish {topic}"), rule("allow publish t/fine"))
    changes = dict(changes)
    if changes.pop("extra", False):
        compiled = grant(extra_rules=rules, **changes)
    else:
        compiled = grant(*rules, **changes)
    assert [left.code for left in compiled.left_out] == [code]
    assert compiled.decide(Action.PUBLISH, "t/fine").allowed
    assert len(compiled.rules) == 1


@pytest.mark.parametrize(
    ("deny", "client_id"),
    [("deny publish t/{client}/secret", "a/b"), ("deny publish t/{nope}", "c1"), ("deny publish t/#/x", "c1")],
)
def test_a_deny_that_cannot_be_compiled_takes_the_allows_of_its_action_with_it(deny, client_id):
    """What it was meant to keep shut is not known, so nothing of that action stays open."""
    compiled = grant("allow publish t/#", deny, "allow subscribe t/#", client_id=client_id)
    assert not compiled.decide(Action.PUBLISH, "t/x").allowed
    assert compiled.decide(Action.DELIVER, "t/x").allowed
    assert len(compiled.left_out) == 1


def test_a_deny_that_speaks_of_nothing_here_denies_nothing():
    """A ground token has no thing: a deny on the thing's own topics is void for it, and recorded."""
    compiled = grant("allow publish t/#", "deny publish t/{thing}/x", "deny publish other/#", thing=None)
    assert compiled.decide(Action.PUBLISH, "t/gw/x").allowed
    assert [left.code for left in compiled.left_out] == ["variable_missing", "rule_outside_tenant"]


def test_records_of_another_tenant_are_never_compiled():
    """That would be a mistake of the caller, and an accident never looks like a yes."""
    foreign = ThingDefinition(tenant="other", key="d", name="d")
    with pytest.raises(ValueError, match="`other`"):
        grant(definition=foreign)
    with pytest.raises(ValueError, match="`other`"):
        grant(roles=[Role(tenant="other", key="r", name="r")])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, False),
        (
            {"definition": ThingDefinition(tenant="t", key="d", name="d", rules=(rule("allow publish t/{client}/x"),))},
            True,
        ),
        ({"definition": ThingDefinition(tenant="t", key="d", name="d", rules=(rule("allow publish t/x"),))}, False),
        ({"roles": [Role(tenant="t", key="r", name="r", rules=(rule("deny subscribe t/+/{client}"),))]}, True),
        ({"extra_rules": [rule("allow publish t/{client}")]}, True),
    ],
)
def test_whether_rules_use_the_client_id(where, expected):
    """Only then is a client id judged as a topic level."""
    assert uses_client_variable(**{"definition": None, **where}) is expected


def test_an_unsafe_client_id_reaches_no_topic():
    """CVE-2017-7650: a client id of `#` or `+` must not make a pattern match everything."""
    for client_id in ("#", "+", "a/#", "x/../y"):
        compiled = grant(
            Rule(effect=Effect.ALLOW, action=RuleAction.SUBSCRIBE, topic="t/{client}/x"), client_id=client_id
        )
        assert compiled.rules == ()


@pytest.mark.parametrize("topic", OUTSIDE)
def test_the_wall_stands_for_roles_and_token_rules_as_for_definitions(topic):
    """Only a platform role may leave it."""
    outside = rule(f"allow subscribe {topic}")
    for where in ({"roles": [Role(tenant="t", key="r", name="r", rules=(outside,))]}, {"extra_rules": [outside]}):
        compiled = grant(members=KeySet(), **where)
        assert compiled.rules == ()
        assert [left.code for left in compiled.left_out] == ["rule_outside_tenant"]


def test_of_several_rules_the_first_wrong_one_is_named_by_its_place():
    """Good lists come back as they are; of a bad one the caller learns which rule and which field."""
    good = [rule("allow publish t/a"), rule("deny subscribe t/#")]
    assert check_rules(good, tenant="t") == tuple(good)
    with pytest.raises(InvalidInput) as caught:
        check_rules([*good, rule("allow publish u/a"), rule("allow publish +/a")], tenant="t")
    assert (caught.value.code, caught.value.field) == ("rule_outside_tenant", "rules.2.topic")
