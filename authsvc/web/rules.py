"""Access rules on their way into the store, each held against the wall with its place in the body."""

from __future__ import annotations

from collections.abc import Sequence

from authsvc.core.errors import InvalidInput
from authsvc.core.facts import Rule
from authsvc.core.policy import check_rule
from authsvc.web.models import RuleBody


def checked_rules(bodies: Sequence[RuleBody], *, tenant: str | None) -> tuple[Rule, ...]:
    """Return the rules; `tenant` None allows the topics of platform roles. Raises InvalidInput (`rules.0.topic`)."""
    rules = []
    for number, body in enumerate(bodies):
        rule = body.rule()
        try:
            check_rule(rule, tenant=tenant)
        except InvalidInput as error:
            inner = error.field.rpartition(".")[2] or "topic"
            raise InvalidInput(error.code, error.detail, field=f"rules.{number}.{inner}") from None
        rules.append(rule)
    return tuple(rules)
