"""Every error of the HTTP API as one `application/problem+json` document (RFC 9457) with a stable `code`.

What the caller sent is never repeated here except keys that it named in the path: a body may hold a secret. What went
wrong inside is never shown at all: an answer of 500 carries a request id, and the log line with that id the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from authsvc.core.errors import (
    AuthsvcError,
    Conflict,
    InUse,
    InvalidInput,
    NotFound,
    StoreReadOnly,
    StoreUnavailable,
    UpstreamUnavailable,
)
from authsvc.core.topics import KEY_PATTERN

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1  # a lock is over within a second or so; a lost file is looked at again once a second
_SHOWN_FIELDS = 50  # of a body with thousands of wrong fields the first are enough


PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}
MEANINGS = {
    401: "no valid admin key",
    403: "the key's role or tenant does not allow this",
    404: "no such object, or not one that the key can see",
    408: "the body came too slowly",
    409: "contradicts what is stored",
    413: "the body is too large",
    415: "the body is not JSON",
    422: "a value is wrong; `errors` says where",
    500: "an error of the service; the log has more under `request_id`",
    503: "the store cannot be read, or not be written, just now",
}

PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": meaning, "content": {MEDIA_TYPE: {"schema": PROBLEM_REF}}}
    for status, meaning in MEANINGS.items()
}


class FieldError(BaseModel):
    """One wrong value: where (`rules.0.topic`), a stable code and what to do about it."""

    model_config = ConfigDict(frozen=True)

    field: str
    code: str
    detail: str


class ProblemBody(BaseModel):
    """RFC 9457, with the members from `code` on added by this service."""

    model_config = ConfigDict(
        title="Problem",
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "code": "not_found",
                    "detail": "no tenant `acme`",
                }
            ]
        },
    )

    type: str = Field(description="always `about:blank`: `code` says which problem it is")
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldError] | None = None
    counts: dict[str, int] | None = None
    reasons: dict[str, str] | None = None
    request_id: str | None = None


class Problem(HTTPException):
    """An error answer on its way out. `extra` holds further members of the document, never a secret."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(status_code=status, detail=detail, headers=headers)
        self.code = code
        self.extra = extra

    def response(self) -> JSONResponse:
        """Return the document as an answer."""
        body = {
            "type": "about:blank",
            "title": HTTPStatus(self.status_code).phrase,
            "status": self.status_code,
            "code": self.code,
            "detail": self.detail,
            **self.extra,
        }
        return JSONResponse(body, self.status_code, headers=self.headers, media_type=MEDIA_TYPE)


def unauthenticated() -> Problem:
    """Return the one answer to no key, a wrong one and one of the wrong kind: which it was is not told."""
    headers = {"WWW-Authenticate": "Bearer"}
    return Problem(401, "unauthenticated", "send a valid admin key as `Authorization: Bearer …`", headers=headers)


def forbidden(detail: str) -> Problem:
    """Return the answer to a key that is valid, sees the object, and may not do this."""
    return Problem(403, "forbidden", detail)


def invalid(code: str, detail: str, *, field: str = "") -> Problem:
    """Return a 422 about one value; `field` is its path in the body or the name of the parameter."""
    errors = [{"field": field, "code": code, "detail": detail}]
    return Problem(422, code, detail, errors=errors)


def internal(request_id: str) -> Problem:
    """Return the answer to whatever nobody foresaw."""
    return Problem(500, "internal_error", "something went wrong here; the log has more", request_id=request_id)


def of_error(error: AuthsvcError) -> Problem | None:
    """Return what the outside sees of an error that the service raised on purpose, or None for an unknown one."""
    match error:
        case InvalidInput():
            return invalid(error.code, error.detail, field=error.field)
        case NotFound():
            return Problem(404, error.code, str(error))
        case InUse():
            return Problem(409, error.code, error.detail, counts=error.counts)
        case Conflict():
            return Problem(409, error.code, error.detail)
        case StoreReadOnly():  # the words of the exception may name a path: they are for the log
            return _unavailable("store_read_only", "the store cannot be written just now")
        case StoreUnavailable():
            return _unavailable("store_unavailable", "the store cannot be read just now")
        case UpstreamUnavailable():
            return _unavailable("broker_unavailable", "the broker does not answer just now")
        case _:
            return None


def of_http_exception(error: HTTPException) -> Problem:
    """Return the document for what the routing of Starlette or FastAPI raised (404, 405, 400)."""
    if isinstance(error, Problem):
        return error
    known = {
        400: ("malformed_request", "the request could not be read"),
        404: ("not_found", "there is nothing at this path"),
        405: ("method_not_allowed", "this path does not take this method"),
        413: ("body_too_large", "the body is too large"),
    }
    code, detail = known.get(error.status_code, ("http_error", HTTPStatus(error.status_code).phrase.lower()))
    return Problem(error.status_code, code, detail, headers=error.headers)


_BETTER = {
    "extra_forbidden": ("unknown_field", "unknown field"),
    "missing": ("missing", "missing"),
    "string_pattern_mismatch": ("pattern", "holds characters that are not allowed here"),
    "string_unicode": ("unicode", "is not valid Unicode"),
}
_NEVER_CHANGES = frozenset({"key", "id", "tenant", "created_at", "used", "token"})


def of_validation(errors: Sequence[Mapping[str, Any]], *, patch: bool = False) -> Problem:
    """Return the 422 for errors of pydantic. Only place, kind and pydantic's sentence go in, never the input."""
    shown: list[dict[str, str]] = []
    for error in errors[:_SHOWN_FIELDS]:
        place = [str(part) for part in error["loc"]]
        in_body = place[:1] == ["body"]
        field = ".".join(place[1:]) or place[0]
        code, detail = _BETTER.get(error["type"], (error["type"], _sentence(error)))
        if error["type"] == "string_pattern_mismatch" and KEY_PATTERN in error["ctx"]["pattern"]:
            detail = "a key holds letters, digits, `.`, `_` and `-`, begins with a letter or digit, and has at most 64"
        if error["type"] == "value_error" and isinstance(error.get("ctx", {}).get("error"), CodedValueError):
            code = error["ctx"]["error"].code
        if code == "unknown_field":
            if patch and in_body and place[-1] in _NEVER_CHANGES:
                detail = f"`{place[-1]}` never changes"
            elif len(place[-1]) > 64 or not place[-1].isprintable():  # do not throw a payload back
                field = ".".join(place[1:-1])
        shown.append({"field": field, "code": code, "detail": detail})
    first = shown[0]
    where = f"`{first['field']}`: " if first["field"].isprintable() else ""
    return Problem(422, "validation_failed", f"{where}{first['detail']}", errors=shown)


class CodedValueError(ValueError):
    """A wrong value found by a validator of ours; `code` becomes the code of the field error."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def validation_problem(error: RequestValidationError, *, patch: bool) -> Problem:
    """Return the 422 for a request that FastAPI found wrong."""
    return of_validation(error.errors(), patch=patch)


def _sentence(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _unavailable(code: str, detail: str) -> Problem:
    return Problem(503, code, detail, headers={"Retry-After": str(RETRY_AFTER_S)})
