"""A grant as the rules that EMQX keeps for a connection: only what it decides exactly as we do.

EMQX goes through the list in order, the first rule that matches decides, and what no rule matches goes on to the HTTP
authorizer, where we are asked (emqx_authz_client_info.erl, `authorize_v2`; emqx_authz_rule.erl, `matches`). So every
rule that is left out costs a question and nothing else. Left out is what EMQX reads differently:

* a subscribe allow whose last word is ``+``, or that ends in ``+/#``: EMQX matches the filter of a SUBSCRIBE as if it
  were a topic (emqx_topic.erl, `match_tokens`), so ``t/+`` would grant ``t/#``, and ``t/+/#`` too;
* a subscribe allow that shares a topic with a deny: that refuses every wider filter, which no rule of EMQX says;
* filters that begin with a wildcard: before 5.8.2 they match ``$SYS`` as well (`match` of lists of words);
* set levels, which change while EMQX keeps its list;
* filters with ``${``, which EMQX would fill in, and those that begin with ``eq ``, which it reads as a command.
"""

from __future__ import annotations

from typing import Any, Final

from authsvc.core.facts import Effect, RuleAction
from authsvc.core.grants import CompiledRule
from authsvc.core.policy import Grant
from authsvc.core.topics import levels_overlap, split_filter

AclRule = dict[str, Any]

_ALL_QOS: Final = 2


def acl_of(grant: Grant) -> list[AclRule]:
    """Return the list for the answer of the authenticator: publish denies, publish allows, subscribe allows."""
    acl = [_rule(deny) for deny in _of(grant, RuleAction.PUBLISH, Effect.DENY) if _is_plain(deny)]
    unsaid = [deny for deny in _of(grant, RuleAction.PUBLISH, Effect.DENY) if not _is_plain(deny)]
    acl += [
        _rule(allow)
        for allow in _of(grant, RuleAction.PUBLISH, Effect.ALLOW)
        if _is_plain(allow) and not _meets_any(allow, unsaid)
    ]
    denies = _of(grant, RuleAction.SUBSCRIBE, Effect.DENY)
    acl += [
        _rule(allow)
        for allow in _of(grant, RuleAction.SUBSCRIBE, Effect.ALLOW)
        if _is_plain(allow) and not _is_read_wider(allow) and not _meets_any(allow, denies)
    ]
    return acl


def _of(grant: Grant, action: RuleAction, effect: Effect) -> list[CompiledRule]:
    return [rule for rule in grant.rules if rule.action is action and rule.effect is effect]


def _rule(rule: CompiledRule) -> AclRule:
    """Return the rule in the array format (emqx_authz_rule_raw.erl, `parse_rule`)."""
    said: AclRule = {"permission": rule.effect.value, "action": rule.action.value, "topic": rule.filter.text}
    if rule.qos_max is not None and rule.qos_max < _ALL_QOS:
        said["qos"] = list(range(rule.qos_max + 1))
    if rule.retain is not None:
        said["retain"] = rule.retain
    return said


def _is_plain(rule: CompiledRule) -> bool:
    """Return whether EMQX reads the filter as it stands, in every version that takes a list."""
    text = rule.filter.text
    return not rule.filter.sets and text[0] not in "+#" and "${" not in text and not text.startswith("eq ")


def _is_read_wider(rule: CompiledRule) -> bool:
    levels = rule.filter.levels
    return levels[-1] == "+" or (levels[-1] == "#" and len(levels) > 1 and levels[-2] == "+")


def _meets_any(allow: CompiledRule, denies: list[CompiledRule]) -> bool:
    mine = _widest(allow)
    return any(levels_overlap(_widest(deny), mine) for deny in denies)


def _widest(rule: CompiledRule) -> list[str]:
    """Return the filter's levels with ``+`` for a set: whatever it comes to hold."""
    return split_filter("/".join(level if isinstance(level, str) else "+" for level in rule.filter.levels))
