"""`authsvc token`: app tokens, and with ``--thing`` device tokens, with ``--ground`` and ``--access`` ground tokens."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from authsvc.cli.client import Object
from authsvc.cli.operator import Operator, command, group
from authsvc.cli.places import Limit, given
from authsvc.cli.problems import CommandFailed

TokenId = Annotated[str, typer.Argument(metavar="ID", help="The token's id, as `token list` shows it.")]
OfThing = Annotated[str | None, typer.Option("--thing", help="Device tokens of this thing, instead of app tokens.")]
OfGround = Annotated[str | None, typer.Option("--ground", help="Ground tokens of this ground, instead of app tokens.")]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Access(StrEnum):
    READ = "read"
    WRITE = "write"
    READ_WRITE = "read_write"


def expiry(text: str | None) -> str | None:
    """Return the RFC 3339 time of ``90s``, ``15m``, ``12h`` or ``30d`` from now; other text as it is."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text or "")
    if match is None:
        return text
    span = timedelta(**{_UNITS[match[2]]: int(match[1])})
    return (datetime.now(UTC) + span).isoformat(timespec="seconds").replace("+00:00", "Z")


def add(app: typer.Typer) -> None:
    """Add the group to `app`."""
    tokens = group(app, "token", "Tokens: of a fleet, a thing (--thing) or a ground (--ground).")
    _create(tokens)
    _others(tokens)


def _create(app: typer.Typer) -> None:
    @command(
        app,
        "create",
        example="TOKEN=$(authsvc token create line-4 --definition gateway --ground plant-1 --quiet)",
    )
    def create(
        operator: Operator,
        name: Annotated[str, typer.Argument(help="A name for people.")],
        thing: Annotated[str | None, typer.Option("--thing", help="Make a device token of this thing.")] = None,
        access: Annotated[Access | None, typer.Option("--access", help="Make a ground token of --ground.")] = None,
        ground: Annotated[
            str | None, typer.Option("--ground", help="The ground it registers into, or speaks for.")
        ] = None,
        definition: Annotated[str | None, typer.Option("--definition", help="What new things become.")] = None,
        role: Annotated[list[str] | None, typer.Option("--role", help="A role it carries; may be repeated.")] = None,
        tag: Annotated[list[str] | None, typer.Option("--tag", help="A tag for new things; may be repeated.")] = None,
        security_tag: Annotated[list[str] | None, typer.Option("--security-tag", help="May be repeated.")] = None,
        license_: Annotated[str | None, typer.Option("--license", help="Whose seats new things take.")] = None,
        auto_register: Annotated[
            bool | None, typer.Option("--auto-register/--no-auto-register", help="Whether first connections register.")
        ] = None,
        max_things: Annotated[int | None, typer.Option("--max-things", min=0, help="How many it may register.")] = None,
        expires: Annotated[
            str | None, typer.Option("--expires", help="A time, or from now: 90s, 15m, 12h, 30d.")
        ] = None,
    ) -> None:
        """Create a token and show its secret, once.

        Without --thing and --access it is an app token: gateways that connect with it register themselves.
        """
        of_apps = given(
            thing_definition=definition,
            roles=role,
            tags=tag,
            security_tags=security_tag,
            license=license_,
            auto_register=auto_register,
            max_things=max_things,
        )
        body: Object = given(name=name, expires_at=expiry(expires))
        if thing is not None or access is not None:
            if of_apps:
                raise CommandFailed(
                    f"only app tokens take `{next(iter(of_apps))}`: leave it out, or --thing and --access"
                )
            if thing is not None and (access is not None or ground is not None):
                raise CommandFailed(
                    "--thing makes a device token, --ground with --access a ground token: name one of them"
                )
        if thing is not None:
            path, what = operator.path("things", thing, "tokens"), "device token"
        elif access is not None:
            if ground is None:
                raise CommandFailed("a ground token needs its --ground")
            path, what = operator.path("grounds", ground, "tokens"), "ground token"
            body["access"] = access
        else:
            path, what = operator.path("app-tokens"), "app token"
            body.update(of_apps, **given(ground=ground))
        operator.out.secret(operator.api.call("POST", path, body=body), what=what)


def _others(app: typer.Typer) -> None:
    @command(app, "list", example="authsvc token list --revoked")
    def list_(
        operator: Operator,
        thing: OfThing = None,
        ground: OfGround = None,
        revoked: Annotated[bool, typer.Option("--revoked", help="Those that were revoked, instead.")] = False,
        limit: Limit = None,
    ) -> None:
        """List tokens, without their secrets."""
        columns: tuple[str, ...] = (
            "id",
            "name",
            "thing_definition",
            "ground",
            "roles",
            "license",
            "max_things",
            "expires_at",
        )
        if thing is not None or ground is not None:
            columns = (
                ("id", "name", "access", "prefix", "expires_at") if ground else ("id", "name", "prefix", "expires_at")
            )
        if revoked:
            columns = (*columns, "revoked_at")
        found = operator.api.items(_path(operator, thing, ground), limit=limit, revoked=revoked or None)
        operator.out.rows(found, columns, key="id", empty="no token")

    @command(app, "show", example="authsvc token show 5kQ2tJr0cM1fXb7NnWz9Lp")
    def show(operator: Operator, token: TokenId, thing: OfThing = None, ground: OfGround = None) -> None:
        """Show one token, without its secret."""
        if thing is None and ground is None:
            operator.out.one(operator.api.get(operator.path("app-tokens", token)), key="id")
            return
        for revoked in (None, True):
            for found in operator.api.items(_path(operator, thing, ground), revoked=revoked):
                if found["id"] == token:
                    operator.out.one(found, key="id")
                    return
        raise CommandFailed(f"no token `{token}` of `{thing or ground}`")

    @command(app, "update", example="authsvc token update 5kQ2tJr0cM1fXb7NnWz9Lp --max-things 600 --expires 90d")
    def update(
        operator: Operator,
        token: TokenId,
        name: Annotated[str | None, typer.Option("--name", help="A name for people.")] = None,
        role: Annotated[list[str] | None, typer.Option("--role", help="Replaces all roles; may be repeated.")] = None,
        tag: Annotated[list[str] | None, typer.Option("--tag", help="Replaces all tags; may be repeated.")] = None,
        license_: Annotated[str | None, typer.Option("--license", help="Whose seats new things take.")] = None,
        auto_register: Annotated[bool | None, typer.Option("--auto-register/--no-auto-register")] = None,
        max_things: Annotated[int | None, typer.Option("--max-things", min=0, help="How many it may register.")] = None,
        expires: Annotated[
            str | None, typer.Option("--expires", help="A time, or from now: 90s, 15m, 12h, 30d.")
        ] = None,
    ) -> None:
        """Change an app token; live sessions that rest on it follow at once."""
        body = given(
            name=name,
            roles=role,
            tags=tag,
            license=license_,
            auto_register=auto_register,
            max_things=max_things,
            expires_at=expiry(expires),
        )
        operator.out.one(operator.api.call("PATCH", operator.path("app-tokens", token), body=body), key="id")

    @command(app, "revoke", example="authsvc token revoke 5kQ2tJr0cM1fXb7NnWz9Lp")
    def revoke(operator: Operator, token: TokenId, thing: OfThing = None, ground: OfGround = None) -> None:
        """Revoke a token: connections that rest on it end before this command returns."""
        operator.api.call("DELETE", _path(operator, thing, ground, token))
        operator.out.done(f"token {token} revoked")

    @command(app, "regenerate", example="authsvc token regenerate 5kQ2tJr0cM1fXb7NnWz9Lp --overlap 86400 --quiet")
    def regenerate(
        operator: Operator,
        token: TokenId,
        overlap: Annotated[int, typer.Option("--overlap", min=0, help="Seconds that the old secret stays valid.")] = 0,
    ) -> None:
        """Give an app token a new secret; the old one ends now, or after the overlap."""
        path = f"{operator.path('app-tokens', token)}/regenerate"
        operator.out.secret(operator.api.call("POST", path, body={"overlap_s": overlap}), what="new secret")


def _path(operator: Operator, thing: str | None, ground: str | None, *token: str) -> str:
    if thing is not None and ground is not None:
        raise CommandFailed("name --thing or --ground, not both")
    if thing is not None:
        return operator.path("things", thing, "tokens", *token)
    if ground is not None:
        return operator.path("grounds", ground, "tokens", *token)
    return operator.path("app-tokens", *token)
