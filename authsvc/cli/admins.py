"""`authsvc admin-key`: keys for the HTTP API, of the platform or bound to one tenant."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from authsvc.cli.client import part
from authsvc.cli.operator import Operator, command, group


class AdminRole(StrEnum):
    OWNER = "owner"
    OPERATOR = "operator"
    VIEWER = "viewer"


def add(app: typer.Typer) -> None:
    """Add the group to `app`."""
    keys = group(app, "admin-key", "Admin keys: who may use the HTTP API, and this command line.")

    @command(
        keys,
        "create",
        example="KEY=$(authsvc admin-key create night-shift --role viewer --of acme --quiet)",
        platform=True,
    )
    def create(
        operator: Operator,
        name: Annotated[str, typer.Argument(help="A name for people.")],
        role: Annotated[AdminRole, typer.Option("--role", help="What it may do.")],
        of: Annotated[
            str | None, typer.Option("--of", help="The tenant it is bound to; the platform if left out.")
        ] = None,
    ) -> None:
        """Create an admin key and show it, once."""
        body = {"name": name, "tenant": of, "role": role}
        operator.out.secret(operator.api.call("POST", "/v1/admin-keys", body=body), what="admin key")

    @command(keys, "list", example="authsvc admin-key list", platform=True)
    def list_(operator: Operator) -> None:
        """List admin keys, without their secrets."""
        found = operator.api.items("/v1/admin-keys")
        operator.out.rows(
            found, ("id", "name", "role", "tenant", "prefix", "created_at"), key="id", empty="no admin key"
        )

    @command(keys, "delete", example="authsvc admin-key delete 5kQ2tJr0cM1fXb7NnWz9Lp", platform=True)
    def delete(operator: Operator, key: Annotated[str, typer.Argument(metavar="ID", help="The key's id.")]) -> None:
        """Delete an admin key: it is refused from now on."""
        operator.api.call("DELETE", f"/v1/admin-keys/{part(key)}")
        operator.out.done(f"admin key {key} deleted")
