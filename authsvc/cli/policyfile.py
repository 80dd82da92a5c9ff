"""Files of `authsvc policy test`: access rules tested as data, by the core alone; no service, no store, no broker.

A file names one or more grants (who connects, with which rules) and cases (what is asked, what must come out):

    [grants.gw]
    tenant = "acme"
    ground = "plant-1"
    thing = "gw-1"
    modules = ["pump-7"]
    definition = { key = "gateway", kind = "gateway" }   # without rules: the built-in ones of the kind

    [[case]]
    name = "a gateway speaks for its module"
    grant = "gw"                                         # may be left out where there is one grant
    action = "publish"
    topic = "acme/plant-1/pump-7/state/temperature"
    allowed = true
    rule = "definition/gateway#2"                        # and `reason`, `qos`: compared where they are given
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from authsvc.cli.problems import CommandFailed
from authsvc.core.errors import InvalidInput
from authsvc.core.facts import (
    Effect,
    GroundAccess,
    KeySet,
    Role,
    Rule,
    RuleAction,
    ThingDefinition,
    ThingKind,
)
from authsvc.core.policy import Action, Grant, built_in_rules, check_rule, compile_grant, ground_token_rules
from authsvc.core.reasons import Reason


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Rule(_Strict):
    effect: Effect
    action: RuleAction
    topic: str
    qos_max: int | None = Field(default=None, ge=0, le=2)
    retain: bool | None = None

    def fact(self) -> Rule:
        return Rule(effect=self.effect, action=self.action, topic=self.topic, qos_max=self.qos_max, retain=self.retain)


class _Definition(_Strict):
    key: str
    kind: ThingKind = ThingKind.THING
    rules: tuple[_Rule, ...] | None = None


class _Role(_Strict):
    key: str
    rules: tuple[_Rule, ...] = ()
    platform: bool = False


class _Grant(_Strict):
    tenant: str = "default"
    ground: str = "default"
    thing: str | None = None
    client_id: str = ""
    definition: _Definition | None = None
    roles: tuple[_Role, ...] = ()
    ground_token: GroundAccess | None = None
    modules: tuple[str, ...] = ()
    members: tuple[str, ...] = ()


class _Case(_Strict):
    name: str = ""
    grant: str = ""
    action: Action
    topic: str
    qos: int = Field(default=0, ge=0, le=2)
    retain: bool = False
    deliveries_checked: bool = True
    allowed: bool
    reason: Reason | None = None
    rule: str | None = None
    granted_qos: int | None = None


class _File(_Strict):
    grants: Mapping[str, _Grant]
    case: tuple[_Case, ...] = Field(min_length=1)  # a file that tests nothing passes nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One case: `wrong` says what differs, "" if nothing does."""

    file: str
    name: str
    wrong: str


def run_file(path: Path) -> list[Outcome]:
    """Return the outcome of every case of a file.

    Raises:
        CommandFailed: the file cannot be read, is no policy test, or one of its rules is one the service refuses.

    """
    try:
        read = TypeAdapter(_File).validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CommandFailed(f"`{path}` cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise CommandFailed(f"`{path}` is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(level) for level in first["loc"])
        raise CommandFailed(f"`{path}`: `{place}`: {first['msg'].lower()}") from None
    grants = {name: _compile(path, name, grant) for name, grant in read.grants.items()}
    return [_judge(path, number, case, grants) for number, case in enumerate(read.case)]


def _compile(path: Path, name: str, grant: _Grant) -> Grant:
    definition = None
    if grant.definition is not None:
        given = grant.definition.rules
        definition = ThingDefinition(
            tenant=grant.tenant,
            key=grant.definition.key,
            name=grant.definition.key,
            kind=grant.definition.kind,
            rules=built_in_rules(grant.definition.kind) if given is None else tuple(rule.fact() for rule in given),
        )
    roles = [
        Role(
            tenant="" if role.platform else grant.tenant,
            key=role.key,
            name=role.key,
            rules=tuple(rule.fact() for rule in role.rules),
        )
        for role in grant.roles
    ]
    try:
        for rule in definition.rules if definition else ():
            check_rule(rule, tenant=grant.tenant)
        for role in roles:
            for rule in role.rules:
                check_rule(rule, tenant=role.tenant or None)
        return compile_grant(
            principal=f"thing/{grant.tenant}/{grant.thing}" if grant.thing else f"ground/{grant.tenant}/{grant.ground}",
            tenant=grant.tenant,
            ground=grant.ground,
            thing=grant.thing,
            definition=definition,
            roles=roles,
            extra_rules=ground_token_rules(grant.ground_token) if grant.ground_token else (),
            extra_source=f"token/{grant.ground_token}" if grant.ground_token else "token",
            modules=KeySet(set(grant.modules)),
            members=KeySet(set(grant.members)),
            client_id=grant.client_id or grant.thing or "",
            expires_at_us=None,
        )
    except InvalidInput as error:
        raise CommandFailed(f"`{path}`: grant `{name}`: {error.code}: {error.detail}") from None


def _judge(path: Path, number: int, case: _Case, grants: Mapping[str, Grant]) -> Outcome:
    key = case.grant or (next(iter(grants)) if len(grants) == 1 else "")
    if key not in grants:
        raise CommandFailed(f"`{path}`: case {number + 1} names grant `{key}`; there are: {', '.join(grants)}")
    decision = grants[key].decide(
        case.action, case.topic, qos=case.qos, retain=case.retain, deliveries_checked=case.deliveries_checked
    )
    compared: list[tuple[str, Any, Any]] = [("allowed", case.allowed, decision.allowed)]
    if case.reason is not None:
        compared.append(("reason", case.reason.value, decision.reason.value))
    if case.rule is not None:
        compared.append(("rule", case.rule, decision.rule or ""))
    if case.granted_qos is not None:
        compared.append(("granted_qos", case.granted_qos, decision.qos))
    wrong = "; ".join(f"{what} is {got}, expected {want}" for what, want, got in compared if want != got)
    if wrong:
        wrong += f" (decided: {decision.reason.value}, rule {decision.rule or 'none'})"
    return Outcome(file=str(path), name=case.name or f"case {number + 1}: {case.action} {case.topic}", wrong=wrong)
