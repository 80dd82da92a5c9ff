"""Outlines: what a fleet's outline gives to a thing is what `compile_grant` gives to it."""

import dataclasses

import pytest

from authsvc.core.facts import KeySet, Role, ThingDefinition, ThingKind
from authsvc.core.outline import outline_of
from authsvc.core.policy import built_in_rules, compile_grant
from authsvc.core.topics import SetLevel
from tests.core.rules import rule

NATIVE = built_in_rules(ThingKind.GATEWAY)
CASES = {
    "nothing": ((), ()),
    "the built-in rules": (NATIVE, ()),
    "the key first, last, alone and nowhere": (
        ("allow publish t/{thing}", "allow publish {tenant}/{thing}/#", "deny subscribe t/#", "allow publish t/+/x"),
        (Role(tenant="", key="p", name="p", rules=(rule("allow subscribe {thing}"), rule("deny publish {thing}/#"))),),
    ),
    "literals that are keys": (("allow publish t/0/1/{thing}", "allow subscribe t/1/{thing}/0"), ()),
    "conditions": (
        (rule("allow publish t/{thing}/a", qos_max=1, retain=False), rule("deny publish t/b", retain=True)),
        (),
    ),
    "sets": (("allow subscribe {tenant}/{ground}/{module}/{thing}/x", "allow publish t/{member}/{definition}"), ()),
    "left out": (("allow publish other/{thing}", "allow subscribe t/{thing}"), ()),
    "a broken deny": (("allow publish t/{thing}", "deny publish t/{nonsense}/{thing}", "allow subscribe t/x"), ()),
}


def _definition(rules):
    rules = tuple(rule(r) if isinstance(r, str) else r for r in rules)
    return ThingDefinition(tenant="t", key="d", name="d", rules=rules)


def _plain(grant):
    return {field.name: getattr(grant, field.name) for field in dataclasses.fields(grant) if field.init}


@pytest.mark.parametrize("with_sets", [True, False])
@pytest.mark.parametrize(("rules", "roles"), CASES.values(), ids=CASES.keys())
def test_a_grant_by_the_outline_is_the_grant_that_is_compiled(rules, roles, with_sets):
    """Every field of it: rules with their ids, order and conditions, sets by reference, what was left out."""
    definition = _definition(rules)
    sets = {SetLevel.MODULE: KeySet({"m"}), SetLevel.MEMBER: KeySet()} if with_sets else {}
    some = {"modules": KeySet(), "members": KeySet()} if with_sets else {}
    outline = outline_of(tenant="t", ground="g", definition=definition, roles=roles, **some)
    for key in ("0", "1", "gw-1", "Z" * 64):
        mine = outline.grant_of(key, principal=f"thing/t/{key}", sets=sets, expires_at_us=7)
        theirs = compile_grant(
            principal=f"thing/t/{key}",
            tenant="t",
            ground="g",
            thing=key,
            definition=definition,
            roles=roles,
            modules=sets.get(SetLevel.MODULE),
            members=sets.get(SetLevel.MEMBER),
            client_id="",
            expires_at_us=7,
        )
        assert _plain(mine) == _plain(theirs)
        assert all(mine.sets[level] is sets[level] for level in mine.sets)
        assert [type(compiled) for compiled in mine.rules] == [type(compiled) for compiled in theirs.rules]


@pytest.mark.parametrize("topic", ["t/{thing}/{client}", "t/{thing}/x/{thing}"])
def test_where_more_is_each_things_own_there_is_no_outline(topic):
    """The client id, or the key in two places of one filter: such grants are compiled one by one."""
    assert outline_of(tenant="t", ground="g", definition=_definition([f"allow publish {topic}"])) is None


@pytest.mark.parametrize("key", ["", "+", "#", "a/b", "$SYS", "a\0", "a" * 65])
def test_what_is_no_key_gets_no_grant_by_an_outline(key):
    """Nothing that could change a filter is put into one."""
    outline = outline_of(tenant="t", ground="g", definition=_definition(["allow publish t/{thing}/#"]))
    assert outline.grant_of(key, principal="p", sets={}, expires_at_us=None) is None


def test_a_set_that_is_missing_gets_no_grant_by_an_outline():
    """The rule would be left out then, which is for `compile_grant` to say."""
    definition = _definition(["allow publish t/{module}/#"])
    outline = outline_of(tenant="t", ground="g", definition=definition, modules=KeySet())
    assert outline.grant_of("gw", principal="p", sets={}, expires_at_us=None) is None


def test_records_of_another_tenant_have_no_outline():
    with pytest.raises(ValueError, match="cannot be compiled"):
        outline_of(tenant="other", ground="g", definition=_definition([]))
