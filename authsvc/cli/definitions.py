"""`authsvc definition` and `role`: access rules, as ``allow publish TOPIC`` on the command line or in a file."""

from __future__ import annotations

import json
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from authsvc.cli.client import Object, part
from authsvc.cli.operator import Operator, command, group
from authsvc.cli.places import Cascade, Key, Limit, Name, Search, cascade_query, given
from authsvc.cli.problems import CommandFailed

Rules = Annotated[
    list[str] | None,
    typer.Option("--rule", help="`EFFECT ACTION TOPIC qos_max=N retain=true`, the last two optional; may be repeated."),
]
File = Annotated[
    Path | None,
    typer.Option("--file", help="A JSON or TOML file with the fields of the HTTP body; other options win over it."),
]
Permissions = Annotated[list[str] | None, typer.Option("--permission", help="A permission's name; may be repeated.")]
Platform = Annotated[bool, typer.Option("--platform", help="A platform role: it may leave the tenant's wall.")]
Modules = Annotated[str | None, typer.Option("--modules", help="Definition of the modules behind such a gateway.")]
AutoModules = Annotated[
    bool | None,
    typer.Option("--auto-register-modules/--no-auto-register-modules", help="Gateways add modules themselves."),
]


class ThingKind(StrEnum):
    THING = "thing"
    GATEWAY = "gateway"
    MODULE = "module"


class BindClientId(StrEnum):
    APP_TOKEN = "app_token"  # noqa: S105  # the name of a binding
    ALWAYS = "always"
    NEVER = "never"


Binding = Annotated[
    BindClientId | None,
    typer.Option("--bind-client-id", help="By which tokens a thing is bound to its first client id: app_token."),
]


def add(app: typer.Typer) -> None:
    """Add the two groups to `app`."""
    _definitions(group(app, "definition", "Thing definitions: templates of things and their access rules."))
    _roles(group(app, "role", "Roles: named sets of access rules that tokens carry."))


def parse_rule(text: str) -> Object:
    """Return a rule from ``allow publish TOPIC [qos_max=N] [retain=true|false]``; the service judges its values."""
    words = text.split()
    if len(words) < 3:
        raise CommandFailed(f"rule `{text}` is not of the form `allow publish TOPIC`")
    rule: Object = {"effect": words[0], "action": words[1], "topic": words[2]}
    for condition in words[3:]:
        name, _, value = condition.partition("=")
        if name == "qos_max" and value in {"0", "1", "2"}:
            rule["qos_max"] = int(value)
        elif name == "retain" and value in {"true", "false"}:
            rule["retain"] = value == "true"
        else:
            raise CommandFailed(f"rule `{text}`: `{condition}` is neither qos_max=0|1|2 nor retain=true|false")
    return rule


def read_body(path: Path | None) -> Object:
    """Return the fields of a JSON or TOML file, {} for None."""
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        body = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise CommandFailed(f"`{path}` cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CommandFailed(f"`{path}` is not well-formed: {error}") from None
    if not isinstance(body, dict):
        raise CommandFailed(f"`{path}` does not hold an object")
    return body


def _rules(rules: list[str] | None) -> list[Object] | None:
    return [parse_rule(rule) for rule in rules] if rules else None


def _modules(definition: str | None, auto_register: bool | None) -> Object | None:
    if definition is None:
        if auto_register is not None:
            raise CommandFailed("--auto-register-modules needs --modules DEFINITION")
        return None
    return given(definition=definition, auto_register=auto_register)


def _definitions(app: typer.Typer) -> None:
    columns = ("key", "kind", "bind_client_id", "modules", "rules")

    @command(
        app,
        "create",
        example="authsvc definition create pump --rule 'allow publish {tenant}/{ground}/{thing}/state/# qos_max=1'",
    )
    def create(
        operator: Operator,
        key: Key,
        name: Name = None,
        kind: Annotated[ThingKind | None, typer.Option("--kind", help="What its things are: thing.")] = None,
        rule: Rules = None,
        bind_client_id: Binding = None,
        modules: Modules = None,
        auto_register_modules: AutoModules = None,
        file: File = None,
    ) -> None:
        """Create a thing definition; without a rule it gets the built-in ones of its kind."""
        own = given(
            key=key,
            name=name,
            kind=kind,
            rules=_rules(rule),
            bind_client_id=bind_client_id,
            modules=_modules(modules, auto_register_modules),
        )
        body = {**read_body(file), **own}
        operator.out.one(operator.api.call("POST", operator.path("thing-definitions"), body=body), key="key")

    @command(app, "list", example="authsvc definition list")
    def list_(operator: Operator, search: Search = None, limit: Limit = None) -> None:
        """List thing definitions with their rules."""
        found = operator.api.items(operator.path("thing-definitions"), limit=limit, q=search)
        operator.out.rows(found, columns, key="key", empty="no thing definition")

    @command(app, "show", example="authsvc definition show gateway --json")
    def show(operator: Operator, key: Key) -> None:
        """Show one thing definition."""
        operator.out.one(operator.api.get(operator.path("thing-definitions", key)), key="key")

    @command(app, "update", example="authsvc definition update pump --file pump.toml")
    def update(
        operator: Operator,
        key: Key,
        name: Name = None,
        rule: Rules = None,
        bind_client_id: Binding = None,
        modules: Modules = None,
        auto_register_modules: AutoModules = None,
        file: File = None,
    ) -> None:
        """Change a definition; --rule replaces all rules. Live sessions follow at once."""
        own = given(
            name=name,
            rules=_rules(rule),
            bind_client_id=bind_client_id,
            modules=_modules(modules, auto_register_modules),
        )
        answer = operator.api.call("PATCH", operator.path("thing-definitions", key), body={**read_body(file), **own})
        operator.out.one(answer, key="key")

    @command(app, "delete", example="authsvc definition delete pump")
    def delete(operator: Operator, key: Key, cascade: Cascade = False) -> None:
        """Delete a definition that nothing refers to."""
        operator.api.call("DELETE", operator.path("thing-definitions", key), query=cascade_query(cascade))
        operator.out.done(f"thing definition {key} deleted")


def _roles(app: typer.Typer) -> None:
    def base(operator: Operator, platform: bool, *key: str) -> str:
        return "/".join(["/v1/roles", *map(part, key)]) if platform else operator.path("roles", *key)

    @command(app, "create", example="authsvc role create alarms --rule 'allow subscribe {tenant}/{ground}/+/event/#'")
    def create(
        operator: Operator,
        key: Key,
        name: Name = None,
        rule: Rules = None,
        permission: Permissions = None,
        platform: Platform = False,
        file: File = None,
    ) -> None:
        """Create a role of the tenant, or with --platform one of the platform (carried as `platform/KEY`)."""
        own = given(key=key, name=name, rules=_rules(rule), permissions=permission)
        operator.out.one(
            operator.api.call("POST", base(operator, platform), body={**read_body(file), **own}), key="key"
        )

    @command(app, "list", example="authsvc role list --platform")
    def list_(operator: Operator, platform: Platform = False, search: Search = None, limit: Limit = None) -> None:
        """List roles with their rules."""
        found = operator.api.items(base(operator, platform), limit=limit, q=search)
        operator.out.rows(found, ("key", "name", "permissions", "rules"), key="key", empty="no role")

    @command(app, "show", example="authsvc role show alarms")
    def show(operator: Operator, key: Key, platform: Platform = False) -> None:
        """Show one role."""
        operator.out.one(operator.api.get(base(operator, platform, key)), key="key")

    @command(app, "update", example="authsvc role update alarms --rule 'deny subscribe {tenant}/{ground}/+/event/raw'")
    def update(
        operator: Operator,
        key: Key,
        name: Name = None,
        rule: Rules = None,
        permission: Permissions = None,
        platform: Platform = False,
        file: File = None,
    ) -> None:
        """Change a role; --rule replaces all rules. Live sessions follow at once."""
        own = given(name=name, rules=_rules(rule), permissions=permission)
        answer = operator.api.call("PATCH", base(operator, platform, key), body={**read_body(file), **own})
        operator.out.one(answer, key="key")

    @command(app, "delete", example="authsvc role delete alarms")
    def delete(operator: Operator, key: Key, platform: Platform = False, cascade: Cascade = False) -> None:
        """Delete a role that no token carries."""
        operator.api.call("DELETE", base(operator, platform, key), query=cascade_query(cascade))
        operator.out.done(f"role {key} deleted")
