"""`authsvc session`, `refusals` and `explain`: who is connected, who was refused, and why."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from typing import Annotated

import typer

from authsvc.cli.client import Object
from authsvc.cli.operator import Operator, command, group
from authsvc.cli.output import cell, console, table
from authsvc.cli.places import Limit, given
from authsvc.cli.problems import CommandFailed, Refused

_FOLLOW_EVERY_S = 1.0  # equal refusals are merged within a second, so asking more often shows nothing more
REFUSAL_COLUMNS = ("time", "client_id", "thing", "action", "topic", "reason", "rule", "count", "peer", "token_prefix")


class Action(StrEnum):
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    DELIVER = "deliver"


def add(app: typer.Typer) -> None:
    """Add the group and the two commands to `app`."""
    _sessions(group(app, "session", "Sessions: live connections."))
    _refusals(app)
    _explain(app)


def _sessions(app: typer.Typer) -> None:
    columns = ("id", "client_id", "principal", "thing", "ground", "token_id", "broker", "peer", "since")

    @command(app, "list", example="authsvc session list")
    def list_(operator: Operator, limit: Limit = None) -> None:
        """List live connections."""
        found = operator.api.items(operator.path("sessions"), limit=limit)
        operator.out.rows(found, columns, key="id", empty="nobody is connected")

    @command(app, "kick", example="authsvc session kick 2mQ9aVx4tJr0cM1fXb7NnW")
    def kick(
        operator: Operator, session: Annotated[str, typer.Argument(metavar="ID", help="The session's id.")]
    ) -> None:
        """End a connection; its client may connect again (revoke its token or block its thing to keep it out)."""
        operator.api.call("DELETE", operator.path("sessions", session))
        operator.out.done(f"session {session} ended")


def _refusals(app: typer.Typer) -> None:
    @command(app, "refusals", example="authsvc refusals --follow --thing pump-7")
    def refusals(
        operator: Operator,
        client_id: Annotated[str | None, typer.Option("--client-id", help="Of this client id.")] = None,
        thing: Annotated[str | None, typer.Option("--thing", help="Of this thing.")] = None,
        limit: Annotated[int | None, typer.Option("--limit", min=1, max=1000, help="The last so many.")] = None,
        unknown: Annotated[
            bool, typer.Option("--unknown", help="Those of no known tenant (unknown tokens); takes a platform key.")
        ] = False,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    ) -> None:
        """Show the last refusals and denials, with their reasons."""
        path = "/v1/refusals" if unknown else operator.path("refusals")

        def ask() -> list[Object]:
            return list(operator.api.get(path, client_id=client_id, thing=thing, limit=limit)["items"])

        if not follow:
            operator.out.rows(ask(), REFUSAL_COLUMNS, key="reason", empty="nothing was refused")
            if not unknown:
                _hint_at_unknown(operator, client_id, thing)
            return
        seen: dict[tuple[object, ...], int] = {}
        try:
            while True:
                for refusal in sorted(ask(), key=lambda item: str(item["time"])):
                    _show_new(operator, refusal, seen)
                time.sleep(_FOLLOW_EVERY_S)
        except KeyboardInterrupt:
            return


def _hint_at_unknown(operator: Operator, client_id: str | None, thing: str | None) -> None:
    """Say on stderr that there are refusals of no known tenant: whose token is wrong is looked for among these."""
    try:
        found = operator.api.get("/v1/refusals", client_id=client_id, thing=thing, limit=1000)["items"]
    except Refused:  # a key that is bound to a tenant
        return
    if found:
        operator.out.note(f"and {len(found)} of no known tenant: authsvc refusals --unknown")


def _show_new(operator: Operator, refusal: Object, seen: dict[tuple[object, ...], int]) -> None:
    """Print a refusal that is new, or that was merged with more of its kind since it was printed."""
    name = tuple(str(refusal.get(column)) for column in REFUSAL_COLUMNS if column != "count")
    count = int(refusal.get("count", 1))
    if seen.get(name, 0) >= count:
        return
    seen[name] = count
    if len(seen) > 5000:
        for old in list(seen)[:2500]:  # the service keeps 1,000: what is older never comes again
            del seen[old]
    if operator.out.as_json:
        operator.out.line(refusal)
    else:
        console().print("  ".join(str(cell(refusal.get(column))) for column in REFUSAL_COLUMNS), soft_wrap=True)
        sys.stdout.flush()


def _explain(app: typer.Typer) -> None:
    @command(app, "explain", example="authsvc explain publish default/plant-1/pump-7/state/temp --thing pump-7")
    def explain(
        operator: Operator,
        action: Annotated[Action, typer.Argument(help="What is asked.")],
        topic: Annotated[str, typer.Argument(help="Topic name, or filter for subscribe.")],
        client_id: Annotated[
            str | None, typer.Option("--client-id", help="Of the live session of this client id.")
        ] = None,
        thing: Annotated[str | None, typer.Option("--thing", help="Of this thing.")] = None,
        token_id: Annotated[
            str | None, typer.Option("--token-id", help="Of whoever would connect with this token.")
        ] = None,
        qos: Annotated[int | None, typer.Option("--qos", min=0, max=2, help="Of the publish or subscription.")] = None,
        retain: Annotated[bool | None, typer.Option("--retain/--no-retain", help="Of the publish.")] = None,
    ) -> None:
        """Say whether it would be allowed now, and by which rule."""
        if sum(subject is not None for subject in (client_id, thing, token_id)) != 1:
            raise CommandFailed("name whose rules to ask: one of --client-id, --thing and --token-id")
        body = given(
            client_id=client_id, thing=thing, token_id=token_id, action=action, topic=topic, qos=qos, retain=retain
        )
        answer = operator.api.call("POST", operator.path("explain"), body=body)
        trace = answer.get("trace")
        if operator.out.as_json or operator.out.quiet or not isinstance(trace, list):
            operator.out.one(answer, key="reason")
            return
        operator.out.one({name: value for name, value in answer.items() if name != "trace"}, key="reason")
        if trace and isinstance(trace[0], dict):
            console().print(table(trace, tuple(trace[0])))
            return
        for step in trace:
            console().print("  ", cell(step), soft_wrap=True)
