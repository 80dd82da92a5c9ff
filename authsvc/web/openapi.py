"""The OpenAPI document of the whole API: FastAPI's for ``/v1``, made exact, and the probes of the root."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from authsvc.web.problems import MEANINGS, MEDIA_TYPE, PROBLEM_REF, ProblemBody

_BODY_ONLY = frozenset({408, 413, 415})

_DESCRIPTION = """Things, tokens and access rules of an MQTT broker.

Errors are `application/problem+json` with a stable `code`. Times are RFC 3339 in UTC. Lists are
`{"items": […], "next": cursor or null}`. A secret is shown in the answer of its creation and never again.
`x-authsvc-role` is the role that an operation takes, `x-authsvc-reach` which keys it is for by their tenant."""


def document(api: FastAPI) -> dict[str, Any]:
    """Return the document; `api` holds the routes of ``/v1``."""
    found = get_openapi(
        title="authsvc", version=_version(), description=_DESCRIPTION, routes=api.routes, openapi_version="3.1.0"
    )
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    found["components"]["securitySchemes"] = {
        "adminKey": {"type": "http", "scheme": "bearer", "description": "an admin key, `asadm_…`"}
    }
    paths = {f"/v1{path}": _exact(item) for path, item in found["paths"].items()}
    found["paths"] = {**_probes(), **paths}
    return found


def _exact(item: dict[str, Any]) -> dict[str, Any]:
    for operation in item.values():
        operation["security"] = [{"adminKey": []}]
        with_body = "requestBody" in operation
        for status in MEANINGS:
            if status in _BODY_ONLY and not with_body:
                operation["responses"].pop(str(status), None)
        if with_body:  # RFC 7396 has a media type of its own; both are taken
            content = operation["requestBody"]["content"]
            content["application/merge-patch+json"] = content["application/json"]
        for parameter in operation.get("parameters", ()):
            _without_null(parameter)
    return item


def _without_null(parameter: dict[str, Any]) -> None:
    """Take `null` off a parameter that may be left out: a query string cannot say null."""
    options = parameter["schema"].pop("anyOf", None)
    if options:
        parameter["schema"].update(next(option for option in options if option != {"type": "null"}))


def _probes() -> dict[str, Any]:
    def probe(summary: str, answer: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {
            "get": {
                "tags": ["probes"],
                "summary": summary,
                "security": [],
                "responses": {
                    "200": {"description": "yes", "content": {"application/json": {"schema": answer}}},
                    **more,
                },
            }
        }

    status = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    not_ready = {"description": "no; `reasons` says why", "content": {MEDIA_TYPE: {"schema": PROBLEM_REF}}}
    return {
        "/healthz": probe("Tell whether the process answers", status),
        "/readyz": probe("Tell whether clients can be served", status, **{"503": not_ready}),
        "/openapi.json": probe("This document", {"type": "object"}),
    }


def _version() -> str:
    try:
        return version("authsvc")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
