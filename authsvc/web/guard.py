"""The outermost layers: a request id and safe headers for every answer, and the last resort for what nobody foresaw."""

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
_REQUEST_ID = "authsvc.request_id"


class Guard:
    """ASGI middleware: gives every answer an id and headers that keep it out of caches and guesses.

    Nothing under ``/v1`` may be stored, whether or not it shows a secret.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope[_REQUEST_ID] = secrets.token_hex(8)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                if scope["path"].startswith("/v1"):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Rescue:
    """ASGI middleware: turns an exception into a 500 problem, and logs where it happened but none of its words.

    The words of an exception may hold what a caller sent (pydantic, SQL drivers): only its type and the places of the
    innermost frames are logged.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            if scope["type"] != "http":
                raise
            problem = of_error(error) if isinstance(error, AuthsvcError) else None
            if problem is None:
                problem = internal(scope[_REQUEST_ID])
                _log.error(
                    "request_failed",
                    request_id=scope[_REQUEST_ID],
                    method=scope["method"],
                    error=type(error).__name__,
                    where=[
                        f"{frame.filename}:{frame.lineno} {frame.name}"
                        for frame in traceback.extract_tb(error.__traceback__)[-_FRAMES:]
                    ],
                )
            if started:  # half an answer is out: only cutting the connection tells the client
                raise RuntimeError(f"request {scope[_REQUEST_ID]} failed after its answer had begun") from None
            await problem.response()(scope, receive, send)
