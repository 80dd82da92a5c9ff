"""VerneMQ: webhooks."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from authsvc.adapters.adapter import Adapter


def deny(path: str) -> Response:  # noqa: ARG001
    """Return the refusal of every hook."""
    return JSONResponse({"result": {"error": "not_allowed"}})


ADAPTER = Adapter(kind="vernemq", routes={}, deny=deny, swap="keep")
