"""The HTTP face: a Starlette root with probes and the OpenAPI document, and FastAPI mounted for ``/v1``."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from authsvc.core.errors import AuthsvcError
from authsvc.web.admin import ROUTERS
from authsvc.web.auth import Authenticated
from authsvc.web.guard import Guard, Rescue
from authsvc.web.openapi import document
from authsvc.web.probes import Check, readiness_of
from authsvc.web.problems import Problem, of_error, of_http_exception, of_validation
from authsvc.web.routes import Context

if TYPE_CHECKING:
    from authsvc.service import Service

__all__ = ["MAX_BODY_BYTES", "Check", "create_app", "create_hooks_app"]

HOOKS_PREFIX = "/hooks/"
MAX_BODY_BYTES = 256 * 1024  # the largest honest body is a definition of some hundred rules, about 50 KiB


def create_app(
    service: Service,
    *,
    now_us: Callable[[], int],
    random: Callable[[int], bytes] = secrets.token_bytes,
    readiness: Mapping[str, Check] = MappingProxyType({}),
    max_body_bytes: int = MAX_BODY_BYTES,
    hooks: ASGIApp | None = None,
) -> Starlette:
    """Return the application; nothing is opened or started by it.

    `readiness` maps a name ("upstream", "listeners") to a check that returns what is wrong, or None; the store and the
    change feed are checked without being named. `hooks` answers below ``/hooks``, by the callers' own secrets. Raises
    nothing.
    """
    api = FastAPI(
        redirect_slashes=False,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        exception_handlers=_HANDLERS,
        middleware=[Middleware(Rescue)],  # FastAPI would answer what nobody foresaw in its own words
    )
    for router in ROUTERS:  # their routes as they are: including a router would build each a second time
        api.router.routes.extend(router.routes)
    api.state.context = Context(service=service, now_us=now_us, random=random, max_body_bytes=max_body_bytes)
    described: list[Response] = []

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        reasons = readiness_of(service, readiness)
        if reasons:
            raise Problem(503, "not_ready", "something is missing: see `reasons`", reasons=reasons)
        return JSONResponse({"status": "ready"})

    async def openapi(_: Request) -> Response:
        if not described:  # made when first asked for, beside the loop: it takes a third of a second
            described.append(JSONResponse(await asyncio.to_thread(document, api)))
        return described[0]

    return _root(
        hooks,
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/openapi.json", openapi),
        Mount("/v1", app=Authenticated(api, store=service.store)),
    )


def create_hooks_app(hooks: ASGIApp) -> Starlette:
    """Return the application of a listener that serves nothing but the hooks."""
    return _root(hooks)


class _Root(Starlette):
    """The application with the hooks beside it: they are asked per packet, and answer for themselves."""

    hooks: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.hooks is not None and scope["type"] == "http" and scope["path"].startswith(HOOKS_PREFIX):
            await self.hooks(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _root(hooks: ASGIApp | None, *routes: BaseRoute) -> Starlette:
    app = _Root(routes=routes, middleware=[Middleware(Guard), Middleware(Rescue)], exception_handlers=_HANDLERS)
    app.router.redirect_slashes = False
    app.hooks = hooks
    return app


async def _http_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return of_http_exception(error).response()


async def _validation_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return of_validation(error.errors()).response()


async def _own_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, AuthsvcError)
    problem = of_error(error)
    if problem is None:
        raise error
    return problem.response()


_HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    HTTPException: _http_problem,
    RequestValidationError: _validation_problem,
    AuthsvcError: _own_problem,
}
