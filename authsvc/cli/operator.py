"""What all operator commands share: the options that find the service, and one place where failures become exit 1."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from authsvc.cli.client import DEFAULT_URL, Api, key_for, part
from authsvc.cli.output import Output, console
from authsvc.cli.problems import CommandFailed

Url = Annotated[str, typer.Option("--url", envvar="AUTHSVC_URL", help="Where the service answers.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Data directory whose admin-token is used; else AUTHSVC_ADMIN_TOKEN, else ./var."),
]
TenantKey = Annotated[str, typer.Option("--tenant", "-t", envvar="AUTHSVC_TENANT", help="Tenant to work in.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the key, id or secret alone.")]

_COMMON: dict[str, tuple[Any, Any]] = {
    "tenant": (TenantKey, "default"),
    "url": (Url, DEFAULT_URL),
    "data": (Data, None),
    "as_json": (Json, False),
    "quiet": (Quiet, False),
}


class Operator:
    """A command's context: `api` to ask, `out` to show, `base` the path of the tenant it works in."""

    def __init__(self, api: Api, out: Output, tenant: str) -> None:
        self.api = api
        self.out = out
        self.tenant = tenant

    @property
    def base(self) -> str:
        return f"/v1/tenants/{part(self.tenant)}"

    def path(self, *parts: str) -> str:
        """Return the path below the tenant; each part is quoted."""
        return "/".join([self.base, *map(part, parts)])


def command(app: typer.Typer, name: str, *, example: str, platform: bool = False) -> Callable[..., Callable[..., None]]:
    """Register a function whose first argument is an `Operator`; the rest are its own arguments and options.

    --tenant (not for `platform` commands), --url, --data, --json and --quiet are added to its signature. CommandFailed
    becomes one line on stderr and exit status 1.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        common = {key: value for key, value in _COMMON.items() if not (platform and key == "tenant")}
        own = [
            parameter.replace(annotation=hints[key])
            for key, parameter in inspect.signature(function).parameters.items()
            if key != "operator"
        ]
        added = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, (annotation, default) in common.items()
        ]
        kept = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]

        @functools.wraps(function)
        def run(**values: Any) -> None:
            shared = {key: values.pop(key) for key in common}
            out = Output(as_json=shared["as_json"], quiet=shared["quiet"])
            with failures(), Api(shared["url"], key_for(shared["url"], shared["data"])) as api:
                function(Operator(api, out, shared.get("tenant", "")), **values)

        run.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*kept, *added]}
        app.command(name, epilog=example_of(example))(run)
        return function

    return register


def example_of(*lines: str) -> str:
    """Return the help text's last lines, which every command has."""
    return "Example: " + "\n\n".join(lines)


class failures:  # noqa: N801  # reads as a word of the with statement
    """Context manager: CommandFailed becomes ``error: …`` on stderr and exit status 1."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, CommandFailed):
            console(stderr=True).print(f"error: {error}", soft_wrap=True)
            raise typer.Exit(1) from None


def group(app: typer.Typer, name: str, help_: str) -> typer.Typer:
    """Return a new group of commands below `app`."""
    made = typer.Typer(name=name, help=help_, no_args_is_help=True, epilog=example_of(f"authsvc {name} --help"))
    app.add_typer(made)
    return made
