"""Short ways to write rules and grants in tables."""

from authsvc.core.facts import Effect, Role, Rule, RuleAction, ThingDefinition
from authsvc.core.policy import compile_grant


def rule(text, **conditions):
    """Return the rule of ``allow publish a/b`` or ``deny subscribe a/#``."""
    effect, action, topic = text.split(" ", 2)
    return Rule(effect=Effect(effect), action=RuleAction(action), topic=topic, **conditions)


def grant(*rules, platform=False, **changes):
    """Return the grant of thing `gw` in ground `g` of tenant `t` by the rules, in a definition or a platform role."""
    rules = tuple(rule(r) if isinstance(r, str) else r for r in rules)
    arguments = {
        "principal": "thing/t/gw",
        "tenant": "t",
        "ground": "g",
        "thing": "gw",
        "definition": ThingDefinition(tenant="t", key="d", name="d", rules=() if platform else rules),
        "roles": [Role(tenant="", key="p", name="p", rules=rules)] if platform else [],
        "client_id": "c1",
        "expires_at_us": None,
    }
    return compile_grant(**{**arguments, **changes})
