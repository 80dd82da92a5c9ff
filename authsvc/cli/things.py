"""`authsvc thing`: what has registered, where it is, what it may be, and the modules behind a gateway."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from authsvc.cli.client import Object
from authsvc.cli.operator import Operator, command, group
from authsvc.cli.places import Key, Limit, Name, Search, given

COLUMNS = ("key", "thing_definition", "ground", "state", "gateway", "client_id", "tags", "last_seen")
Definition = Annotated[str | None, typer.Option("--definition", help="Thing definition.")]
InGround = Annotated[str | None, typer.Option("--ground", help="Ground.")]
Tag = Annotated[list[str] | None, typer.Option("--tag", help="A tag; may be repeated.")]
SecurityTag = Annotated[list[str] | None, typer.Option("--security-tag", help="A security tag; may be repeated.")]
ThingKey = Annotated[str, typer.Argument(metavar="THING", help="The thing's key.")]
GatewayKey = Annotated[str, typer.Argument(metavar="GATEWAY", help="The gateway's key.")]


class State(StrEnum):
    ACTIVE = "active"
    BLOCKED = "blocked"


def add(app: typer.Typer) -> None:
    """Add the group to `app`."""
    things = group(app, "thing", "Things: devices, gateways and modules.")
    _reading(things)
    _writing(things)
    _modules(things)


def _reading(app: typer.Typer) -> None:
    @command(app, "list", example="authsvc thing list --ground plant-1 --state blocked")
    def list_(
        operator: Operator,
        ground: InGround = None,
        definition: Definition = None,
        tag: Annotated[str | None, typer.Option("--tag", help="Those that carry this tag.")] = None,
        state: State | None = None,
        search: Search = None,
        limit: Limit = None,
    ) -> None:
        """List things."""
        found = operator.api.items(
            operator.path("things"), limit=limit, ground=ground, definition=definition, tag=tag, state=state, q=search
        )
        operator.out.rows(found, COLUMNS, key="key", empty="no thing")

    @command(app, "show", example="authsvc thing show pump-7")
    def show(operator: Operator, thing: ThingKey) -> None:
        """Show one thing."""
        operator.out.one(operator.api.get(operator.path("things", thing)), key="key")


def _writing(app: typer.Typer) -> None:
    def patch(operator: Operator, thing: str, body: Object) -> None:
        operator.out.one(operator.api.call("PATCH", operator.path("things", thing), body=body), key="key")

    @command(app, "create", example="authsvc thing create pump-7 --definition thing --ground plant-1")
    def create(
        operator: Operator,
        key: Key,
        name: Name = None,
        definition: Definition = None,
        ground: InGround = None,
        tag: Tag = None,
        security_tag: SecurityTag = None,
    ) -> None:
        """Create a thing by hand; a key that was deleted before is allowed again by it."""
        body = given(
            key=key, name=name, thing_definition=definition, ground=ground, tags=tag, security_tags=security_tag
        )
        operator.out.one(operator.api.call("POST", operator.path("things"), body=body), key="key")

    @command(app, "update", example="authsvc thing update pump-7 --ground plant-2 --tag spare")
    def update(
        operator: Operator,
        thing: ThingKey,
        name: Name = None,
        definition: Definition = None,
        ground: InGround = None,
        tag: Tag = None,
        security_tag: SecurityTag = None,
    ) -> None:
        """Change, move or retag a thing; its live session goes on with its new grant at once."""
        patch(
            operator,
            thing,
            given(name=name, thing_definition=definition, ground=ground, tags=tag, security_tags=security_tag),
        )

    @command(app, "block", example="authsvc thing block pump-7")
    def block(operator: Operator, thing: ThingKey) -> None:
        """Block a thing: its connection ends, what it retained is cleared, it is refused until activated."""
        patch(operator, thing, {"state": "blocked"})

    @command(app, "activate", example="authsvc thing activate pump-7")
    def activate(operator: Operator, thing: ThingKey) -> None:
        """Let a blocked thing connect again."""
        patch(operator, thing, {"state": "active"})

    @command(app, "delete", example="authsvc thing delete pump-7")
    def delete(
        operator: Operator,
        thing: ThingKey,
        forget: Annotated[
            bool, typer.Option("--forget", help="Forget the key, too: an app token may register it again.")
        ] = False,
    ) -> None:
        """Delete a thing: its connection ends, its seat is free, its key stays retired unless forgotten."""
        operator.api.call("DELETE", operator.path("things", thing), query={"forget": True} if forget else None)
        operator.out.done(f"thing {thing} deleted{' and forgotten' if forget else ''}")

    @command(app, "reset-client-id", example="authsvc thing reset-client-id pump-7")
    def reset_client_id(operator: Operator, thing: ThingKey) -> None:
        """Forget the client id that the thing is bound to; its next connection binds a new one."""
        operator.api.call("DELETE", operator.path("things", thing, "client-id"))
        operator.out.done(f"client id of {thing} reset")


def _modules(app: typer.Typer) -> None:
    @command(app, "modules", example="authsvc thing modules gw-001")
    def modules(operator: Operator, gateway: GatewayKey, limit: Limit = None) -> None:
        """List the modules behind a gateway."""
        found = operator.api.items(operator.path("things", gateway, "modules"), limit=limit)
        operator.out.rows(found, ("key", "name", "thing_definition", "ground", "state"), key="key", empty="no module")

    @command(app, "bind-module", example="authsvc thing bind-module gw-001 pump-7")
    def bind_module(
        operator: Operator,
        gateway: GatewayKey,
        module: Annotated[str, typer.Argument(metavar="MODULE", help="The module's key; created if it is new.")],
        definition: Definition = None,
        name: Name = None,
    ) -> None:
        """Bind a module to a gateway, which may publish and subscribe for it at once."""
        body = given(key=module, thing_definition=definition, name=name)
        operator.out.one(operator.api.call("POST", operator.path("things", gateway, "modules"), body=body), key="key")

    @command(app, "unbind-module", example="authsvc thing unbind-module gw-001 pump-7")
    def unbind_module(
        operator: Operator, gateway: GatewayKey, module: Annotated[str, typer.Argument(metavar="MODULE")]
    ) -> None:
        """Unbind a module from its gateway."""
        operator.api.call("DELETE", operator.path("things", gateway, "modules", module))
        operator.out.done(f"module {module} unbound from {gateway}")
