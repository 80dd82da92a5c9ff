"""What ends a command with exit status 1, and how it is said in one line."""

from __future__ import annotations

from collections.abc import Mapping

_LONGEST_DETAIL = 600  # characters; enough for every message of ours, little enough for a foreign server's page


class CommandFailed(Exception):  # noqa: N818  # says what happened, and is never an internal error
    """A command could not do what was asked; its text is one line for the operator and holds no secret."""


class Refused(CommandFailed):
    """The service answered with a problem: `status`, its stable `code`, and the `field` it speaks of or ""."""

    def __init__(self, status: int, code: str, detail: str, field: str = "") -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        place = f" (field `{field}`)" if field else ""
        super().__init__(f"{code}: {detail}{place}")


def refused(status: int, body: object) -> Refused:
    """Return the failure that a problem answer speaks of; a body that is none becomes ``http_<status>``."""
    if not isinstance(body, Mapping):
        return Refused(status, f"http_{status}", "the answer is not from authsvc: check --url")
    code = _text(body.get("code")) or f"http_{status}"
    detail = _text(body.get("detail")) or _text(body.get("title")) or f"the service answered {status}"
    counts = body.get("counts")
    if isinstance(counts, Mapping) and counts:
        named = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        if named not in detail:
            detail = f"{detail} ({named})"
    if status == 409 and code == "in_use":
        detail += "; --cascade deletes them too"
    errors = [error for error in body.get("errors") or () if isinstance(error, Mapping)]
    if len(errors) > 1:
        detail = "; ".join(f"`{_text(error.get('field'))}` {_text(error.get('detail'))}" for error in errors)
        return Refused(status, code, detail[:_LONGEST_DETAIL])
    field = _text(body.get("field")) or (_text(errors[0].get("field")) if errors else "")
    return Refused(status, code, detail, field)


def _text(value: object) -> str:
    """Return a printable single line: control characters of whoever answered never reach the terminal."""
    if not isinstance(value, str):
        return ""
    line = "".join(character if character.isprintable() else " " for character in value)
    return line[:_LONGEST_DETAIL]
