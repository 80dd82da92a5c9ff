"""The outermost layer: a request id for every answer, the last resort for what nobody foresaw, and safe headers."""

from __future__ import annotations

import secrets
import traceback

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authsvc.core.errors import AuthsvcError
from authsvc.web.problems import internal, of_error

_log = structlog.get_logger(__name__)
_FRAMES = 6  # of the traceback that the log keeps


class Guard:
    """ASGI middleware: turns an exception into a 500 problem, and logs where it happened but none of its words.

    The words of an exception may hold what a caller sent (pydantic, SQL drivers): only its type and the places of the
    innermost frames are logged. Answers under ``/v1`` are never stored by caches, whether or not they show a secret.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                if scope["path"].startswith("/v1"):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        try:
            await self._app(scope, receive, guarded_send)
        except Exception as error:  # noqa: BLE001  # the last resort
            problem = of_error(error) if isinstance(error, AuthsvcError) else None
            if problem is None:
                problem = internal(request_id)
                _log.error(
                    "request_failed",
                    request_id=request_id,
                    method=scope["method"],
                    error=type(error).__name__,
                    where=[
                        f"{frame.filename}:{frame.lineno} {frame.name}"
                        for frame in traceback.extract_tb(error.__traceback__)[-_FRAMES:]
                    ],
                )
            if started:  # half an answer is out: only cutting the connection tells the client
                raise RuntimeError(f"request {request_id} failed after its answer had begun") from None
            await problem.response()(scope, receive, guarded_send)
