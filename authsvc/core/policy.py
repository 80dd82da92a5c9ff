"""Access rules: what may be stored (`check_rule`), what is built in, and how they become a `Grant` (`compile_grant`).

Rules + principal ──compile_grant──► Grant ──decide──► Decision. The grant and its decisions live in `grants` and are
offered here too.
"""

from __future__ import annotations

from collections.abc import Sequence

from authsvc.core.facts import GroundAccess, KeySet, Role, Rule, ThingDefinition, ThingKind
from authsvc.core.grants import Action, CompiledRule, Decision, Grant, LeftOut, Memo

__all__ = [
    "Action",
    "CompiledRule",
    "Decision",
    "Grant",
    "LeftOut",
    "Memo",
    "built_in_rules",
    "check_rule",
    "compile_grant",
    "ground_token_rules",
    "uses_client_variable",
]


def check_rule(rule: Rule, *, tenant: str | None) -> None:
    """Raise InvalidInput if `rule` may not be stored in `tenant` (None: in a platform role, which may leave the wall).

    Codes: ``topic_invalid topic_too_deep rule_outside_tenant qos_max_invalid qos_max_on_deny retain_on_subscribe``;
    `field` is the rule's field.
    """
    raise NotImplementedError


def built_in_rules(kind: ThingKind) -> tuple[Rule, ...]:
    """Return the rules that a definition of `kind` has when none are given (the native topic layout)."""
    raise NotImplementedError


def ground_token_rules(access: GroundAccess) -> tuple[Rule, ...]:
    """Return the rules of a ground token with `access`."""
    raise NotImplementedError


def uses_client_variable(
    definition: ThingDefinition | None, roles: Sequence[Role] = (), extra_rules: Sequence[Rule] = ()
) -> bool:
    """Return whether some rule uses `{client}`: only then must the client id be safe in a topic."""
    raise NotImplementedError


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
    change during the life of the grant. Never raises for a bad rule: see `Grant.left_out`.
    """
    raise NotImplementedError
