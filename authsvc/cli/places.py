"""`authsvc tenant`, `ground` and `license`: where things are, and how many there may be."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from authsvc.cli.client import Object, part
from authsvc.cli.operator import Operator, command, group

Key = Annotated[str, typer.Argument(help="Its key: letters, digits, `.`, `_`, `-`, at most 64.")]
Name = Annotated[str | None, typer.Option("--name", help="A name for people; the key if left out.")]
Cascade = Annotated[bool, typer.Option("--cascade", help="Delete what refers to it, too.")]
Search = Annotated[str | None, typer.Option("--search", help="Part of the key or name, in any case.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Show at most so many; all if left out.")]

Seats = Annotated[int, typer.Option("--seats", min=0, help="How many things may be registered under it.")]


class TenantState(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"


def given(**values: object) -> Object:
    """Return the fields that were given on the command line: None is left out, so that the API's default holds."""
    return {name: value for name, value in values.items() if value is not None}


def cascade_query(cascade: bool) -> Object:
    return {"cascade": True} if cascade else {}


def add(app: typer.Typer) -> None:
    """Add the three groups to `app`."""
    _tenants(group(app, "tenant", "Tenants: the walls around everything else."))
    _grounds(group(app, "ground", "Grounds: named groups of things inside a tenant."))
    _licenses(group(app, "license", "Licences: seats that auto-registered things take."))


def _tenants(app: typer.Typer) -> None:
    columns = ("key", "name", "state", "created_at")

    @command(app, "create", example="authsvc tenant create acme --name 'Acme Pumps'", platform=True)
    def create(operator: Operator, key: Key, name: Name = None) -> None:
        """Create a tenant with its ground `default` and the definitions thing, gateway and module."""
        operator.out.one(operator.api.call("POST", "/v1/tenants", body=given(key=key, name=name)), key="key")

    @command(app, "list", example="authsvc tenant list --json", platform=True)
    def list_(operator: Operator, search: Search = None, limit: Limit = None) -> None:
        """List tenants."""
        found = operator.api.items("/v1/tenants", limit=limit, q=search)
        operator.out.rows(found, columns, key="key", empty="no tenant")

    @command(app, "show", example="authsvc tenant show acme", platform=True)
    def show(operator: Operator, key: Key) -> None:
        """Show one tenant."""
        operator.out.one(operator.api.get(f"/v1/tenants/{part(key)}"), key="key")

    @command(app, "update", example="authsvc tenant update acme --state suspended", platform=True)
    def update(operator: Operator, key: Key, name: Name = None, state: TenantState | None = None) -> None:
        """Rename, suspend (its sessions end at once) or activate a tenant."""
        answer = operator.api.call("PATCH", f"/v1/tenants/{part(key)}", body=given(name=name, state=state))
        operator.out.one(answer, key="key")

    @command(app, "delete", example="authsvc tenant delete acme --cascade", platform=True)
    def delete(operator: Operator, key: Key, cascade: Cascade = False) -> None:
        """Delete a tenant; with --cascade all that is in it."""
        operator.api.call("DELETE", f"/v1/tenants/{part(key)}", query=cascade_query(cascade))
        operator.out.done(f"tenant {key} deleted")


def _grounds(app: typer.Typer) -> None:
    @command(app, "create", example="authsvc ground create plant-1 --name 'Plant 1, Trento'")
    def create(operator: Operator, key: Key, name: Name = None) -> None:
        """Create a ground."""
        operator.out.one(operator.api.call("POST", operator.path("grounds"), body=given(key=key, name=name)), key="key")

    @command(app, "list", example="authsvc ground list")
    def list_(operator: Operator, search: Search = None, limit: Limit = None) -> None:
        """List grounds."""
        found = operator.api.items(operator.path("grounds"), limit=limit, q=search)
        operator.out.rows(found, ("key", "name", "created_at"), key="key", empty="no ground")

    @command(app, "show", example="authsvc ground show plant-1")
    def show(operator: Operator, key: Key) -> None:
        """Show one ground."""
        operator.out.one(operator.api.get(operator.path("grounds", key)), key="key")

    @command(app, "update", example="authsvc ground update plant-1 --name 'Plant 1, Rovereto'")
    def update(operator: Operator, key: Key, name: Name = None) -> None:
        """Rename a ground; its key never changes."""
        operator.out.one(operator.api.call("PATCH", operator.path("grounds", key), body=given(name=name)), key="key")

    @command(app, "delete", example="authsvc ground delete plant-1")
    def delete(operator: Operator, key: Key, cascade: Cascade = False) -> None:
        """Delete a ground that nothing refers to."""
        operator.api.call("DELETE", operator.path("grounds", key), query=cascade_query(cascade))
        operator.out.done(f"ground {key} deleted")


def _licenses(app: typer.Typer) -> None:
    @command(app, "create", example="authsvc license create line-4 --seats 500")
    def create(operator: Operator, key: Key, seats: Seats) -> None:
        """Create a licence."""
        operator.out.one(
            operator.api.call("POST", operator.path("licenses"), body={"key": key, "seats": seats}), key="key"
        )

    @command(app, "list", example="authsvc license list")
    def list_(operator: Operator, limit: Limit = None) -> None:
        """List licences with the seats that are taken."""
        found = operator.api.items(operator.path("licenses"), limit=limit)
        operator.out.rows(found, ("key", "seats", "used", "created_at"), key="key", empty="no licence")

    @command(app, "show", example="authsvc license show line-4")
    def show(operator: Operator, key: Key) -> None:
        """Show one licence."""
        operator.out.one(operator.api.get(operator.path("licenses", key)), key="key")

    @command(app, "update", example="authsvc license update line-4 --seats 600")
    def update(operator: Operator, key: Key, seats: Seats) -> None:
        """Change the seats; fewer than are used admits nobody new."""
        operator.out.one(operator.api.call("PATCH", operator.path("licenses", key), body={"seats": seats}), key="key")

    @command(app, "delete", example="authsvc license delete line-4")
    def delete(operator: Operator, key: Key, cascade: Cascade = False) -> None:
        """Delete a licence."""
        operator.api.call("DELETE", operator.path("licenses", key), query=cascade_query(cascade))
        operator.out.done(f"licence {key} deleted")
