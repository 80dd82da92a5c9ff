"""Access rules: what may be stored (`check_rule`), what is built in, and how they become a `Grant` (`compile_grant`).

Rules + principal ──compile_grant──► Grant ──decide──► Decision. The grant and its decisions live in `grants` and are
offered here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from authsvc.core.errors import InvalidInput
from authsvc.core.facts import Effect, GroundAccess, KeySet, Role, Rule, RuleAction, ThingDefinition, ThingKind
from authsvc.core.grants import Action, CompiledRule, Decision, Grant, LeftOut, Memo
from authsvc.core.topics import SetLevel, TopicTemplate, Variable, printable

__all__ = [
    "Action",
    "CompiledRule",
    "Decision",
    "Grant",
    "LeftOut",
    "Memo",
    "built_in_rules",
    "check_rule",
    "check_rules",
    "compile_grant",
    "ground_token_rules",
    "uses_client_variable",
]


def _allow(action: RuleAction, topic: str) -> Rule:
    return Rule(effect=Effect.ALLOW, action=action, topic=topic)


_OWN_TOPICS: Final = (
    _allow(RuleAction.PUBLISH, "{tenant}/{ground}/{thing}/state/#"),
    _allow(RuleAction.PUBLISH, "{tenant}/{ground}/{thing}/event/#"),
    _allow(RuleAction.SUBSCRIBE, "{tenant}/{ground}/{thing}/command/#"),
)
_MODULE_TOPICS: Final = (
    _allow(RuleAction.PUBLISH, "{tenant}/{ground}/{module}/state/#"),
    _allow(RuleAction.PUBLISH, "{tenant}/{ground}/{module}/event/#"),
    _allow(RuleAction.SUBSCRIBE, "{tenant}/{ground}/{module}/command/#"),
)
# A deny whose variable stands for nothing here (a ground token has no thing) denies nothing, and one outside the wall
# reaches nothing that an allow inside it gives. Any other deny that cannot be compiled takes all allows of its action
# with it: what it was meant to keep shut is not known.
_VOID: Final = frozenset({"variable_missing", "rule_outside_tenant"})


def check_rule(rule: Rule, *, tenant: str | None) -> None:
    """Raise InvalidInput if `rule` may not be stored in `tenant` (None: in a platform role, which may leave the wall).

    Codes: ``topic_invalid topic_too_deep rule_outside_tenant qos_max_invalid qos_max_on_deny retain_on_subscribe``;
    `field` is the rule's field.
    """
    template = TopicTemplate.parse(rule.topic)
    if rule.qos_max is not None:
        if rule.effect is Effect.DENY:
            raise InvalidInput("qos_max_on_deny", "`qos_max` is for allow rules; a deny has no QoS", field="qos_max")
        if rule.qos_max not in (0, 1, 2):
            raise InvalidInput("qos_max_invalid", f"`qos_max` is {rule.qos_max}; it must be 0, 1 or 2", field="qos_max")
    if rule.retain is not None and rule.action is RuleAction.SUBSCRIBE:
        raise InvalidInput("retain_on_subscribe", "`retain` is for publish rules", field="retain")
    if tenant is not None and template.levels[0] not in (Variable.TENANT, tenant):
        detail = f"topic `{printable(rule.topic)}` must begin with the level `{{tenant}}` or `{tenant}`"
        raise InvalidInput("rule_outside_tenant", detail, field="topic")


def check_rules(rules: Sequence[Rule], *, tenant: str | None) -> tuple[Rule, ...]:
    """Return the rules if every one may be stored. Raises InvalidInput with the place, ``rules.0.topic``."""
    for number, rule in enumerate(rules):
        try:
            check_rule(rule, tenant=tenant)
        except InvalidInput as error:
            raise InvalidInput(error.code, error.detail, field=f"rules.{number}.{error.field}") from None
    return tuple(rules)


def built_in_rules(kind: ThingKind) -> tuple[Rule, ...]:
    """Return the rules that a definition of `kind` has when none are given (the native topic layout)."""
    return _OWN_TOPICS + _MODULE_TOPICS if kind is ThingKind.GATEWAY else _OWN_TOPICS


def ground_token_rules(access: GroundAccess) -> tuple[Rule, ...]:
    """Return the rules of a ground token with `access`."""
    read = _allow(RuleAction.SUBSCRIBE, "{tenant}/{ground}/#")
    write = _allow(RuleAction.PUBLISH, "{tenant}/{ground}/+/command/#")
    return {
        GroundAccess.READ: (read,),
        GroundAccess.WRITE: (write,),
        GroundAccess.READ_WRITE: (read, write),
    }[access]


def uses_client_variable(
    definition: ThingDefinition | None, roles: Sequence[Role] = (), extra_rules: Sequence[Rule] = ()
) -> bool:
    """Return whether some rule uses `{client}`: only then must the client id be safe in a topic."""
    rules = [*(definition.rules if definition else ()), *(rule for role in roles for rule in role.rules), *extra_rules]
    return any("{client}" in rule.topic.split("/") for rule in rules)


def compile_grant(
    *,
    principal: str,
    tenant: str,
    ground: str,
    thing: str | None,
    definition: ThingDefinition | None,
    roles: Sequence[Role] = (),
    extra_rules: Sequence[Rule] = (),
    extra_source: str = "token",
    modules: KeySet | None = None,
    members: KeySet | None = None,
    client_id: str,
    expires_at_us: int | None,
) -> Grant:
    """Return the grant of `principal`: all rules of its definition, its roles and `extra_rules`, with values in place.

    Rule ids are ``definition/{key}#{n}``, ``role/{key}#{n}``, ``platform/{key}#{n}`` and ``{extra_source}#{n}`` (a
    ground token passes its rules and ``token/{access}``). `modules` and `members` are kept by reference: they may
    change during the life of the grant. A bad rule is no error: see `Grant.left_out`. Raises ValueError when the
    definition or a role belongs to another tenant.
    """
    for record in (*((definition,) if definition else ()), *(role for role in roles if not role.platform)):
        if record.tenant != tenant:
            raise ValueError(f"`{record.key}` of tenant `{record.tenant}` cannot be compiled into tenant `{tenant}`")
    values = {"tenant": tenant, "ground": ground, "client": client_id}
    if thing is not None:
        values["thing"] = thing
    if definition is not None:
        values["definition"] = definition.key
    sets = {level: keys for level, keys in ((SetLevel.MODULE, modules), (SetLevel.MEMBER, members)) if keys is not None}
    compiled: list[CompiledRule] = []
    left_out: list[LeftOut] = []
    broken_denies: set[RuleAction] = set()
    for rule_id, rule, wall in _sources(tenant, definition, roles, extra_rules, extra_source):
        try:
            compiled.append(_compile(rule_id, rule, wall=wall, values=values, sets=sets))
        except InvalidInput as error:
            left = LeftOut(
                id=rule_id,
                effect=rule.effect,
                action=rule.action,
                topic=rule.topic,
                code=error.code,
                detail=error.detail,
            )
            left_out.append(left)
            if rule.effect is Effect.DENY and error.code not in _VOID:
                broken_denies.add(rule.action)
    used = {level for rule in compiled for level in rule.filter.sets}
    return Grant(
        principal=principal,
        tenant=tenant,
        ground=ground,
        thing=thing,
        definition=None if definition is None else definition.key,
        client_id=client_id,
        rules=tuple(rule for rule in compiled if rule.effect is Effect.DENY or rule.action not in broken_denies),
        sets={level: keys for level, keys in sets.items() if level in used},
        expires_at_us=expires_at_us,
        left_out=tuple(left_out),
    )


def _sources(
    tenant: str,
    definition: ThingDefinition | None,
    roles: Sequence[Role],
    extra_rules: Sequence[Rule],
    extra_source: str,
) -> Iterator[tuple[str, Rule, str | None]]:
    """Yield each rule with its id and its wall: the tenant in which it must stay, or None for platform roles."""
    if definition is not None:
        for number, rule in enumerate(definition.rules):
            yield f"definition/{definition.key}#{number}", rule, tenant
    for role in roles:
        source, wall = ("platform", None) if role.platform else ("role", tenant)
        for number, rule in enumerate(role.rules):
            yield f"{source}/{role.key}#{number}", rule, wall
    for number, rule in enumerate(extra_rules):
        yield f"{extra_source}#{number}", rule, tenant


def _compile(
    rule_id: str, rule: Rule, *, wall: str | None, values: Mapping[str, str], sets: Mapping[SetLevel, KeySet]
) -> CompiledRule:
    check_rule(rule, tenant=wall)
    rendered = TopicTemplate.parse(rule.topic).render(values)
    for level in rendered.sets:
        if level not in sets:
            raise InvalidInput("variable_missing", f"there is no set `{{{level.value}}}` here", field="topic")
    return CompiledRule(rule_id, rule.effect, rule.action, rendered, rule.qos_max, rule.retain)
