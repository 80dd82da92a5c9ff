"""EMQX 5 and 6: HTTP authenticator and HTTP authorizer."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from authsvc.adapters.adapter import Adapter


def deny(path: str) -> Response:  # noqa: ARG001
    """Return the denial that ends the chain: EMQX takes any status but 200 for "ask the next one"."""
    return JSONResponse({"result": "deny"})


ADAPTER = Adapter(kind="emqx", routes={}, deny=deny, swap="kick")
