"""The route class of every ``/v1`` operation: access before body, body before everything else."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from fastapi import APIRouter, Depends
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from authsvc.core import tokens
from authsvc.core.errors import NotFound
from authsvc.core.facts import AdminRole, TokenKind
from authsvc.web.auth import CALLER, Access, Caller, Reach
from authsvc.web.problems import PROBLEM_RESPONSES, Problem, invalid, validation_problem

if TYPE_CHECKING:
    from authsvc.service import Service
    from authsvc.store import Store, Written

BODY_TIMEOUT_S = 10  # for 256 KiB; a slower sender is holding a connection, not sending a rule
_WITH_BODY = frozenset({"POST", "PATCH", "PUT"})
_CONTEXT = "authsvc.context"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the operations work with; made once by `create_app`."""

    service: Service
    now_us: Callable[[], int]
    random: Callable[[int], bytes] = secrets.token_bytes
    max_body_bytes: int = 256 * 1024
    privileges: asyncio.Lock = field(default_factory=asyncio.Lock)  # held from a look at them to the write they allow


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One authorised request: who, on which service, in which tenant ("" where the path names none)."""

    context: Context
    caller: Caller
    tenant: str
    path: str

    @property
    def service(self) -> Service:
        return self.context.service

    @property
    def store(self) -> Store:
        return self.context.service.store

    @property
    def now_us(self) -> int:
        return self.context.now_us()

    async def settled(self, written: Written[Any]) -> Any:
        """Return the written value once this process has applied its change: caches, grants, sessions."""
        await self.context.service.feed.settle(written.position)
        return written.value

    def mint(self, kind: TokenKind) -> tuple[str, bytes, str]:
        """Return a new secret, its digest and its visible prefix; the secret goes into one answer and nowhere else."""
        secret = tokens.mint(kind, self.context.random)
        parsed = tokens.parse(secret)
        if parsed is None:
            raise RuntimeError("a minted token does not parse")
        return secret, parsed.digest, parsed.prefix


class GuardedRoute(APIRoute):
    """A route that checks `Access` first; one that declares none cannot be made, so that none is open by oversight."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        access = _access_of(self.openapi_extra or {}, self.path)
        handle = super().get_route_handler()
        parameters = frozenset(
            parameter.alias for dependant in _flat(self.dependant) for parameter in dependant.query_params
        )

        async def guarded(request: Request) -> Response:
            caller: Caller = request.scope[CALLER]
            context: Context = request.app.state.context
            tenant = request.path_params.get("tenant")
            access.check(caller, tenant)
            if tenant is not None and await context.service.store.tenant(tenant) is None:
                raise NotFound("tenant", tenant)
            _check_query(request, parameters)
            request.scope[_CONTEXT] = Call(
                context=context, caller=caller, tenant=tenant or "", path=request.scope["path"]
            )
            if request.method in _WITH_BODY and self.body_field is not None:
                request = await _with_json(request, context.max_body_bytes)
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise validation_problem(error, patch=request.method == "PATCH") from None

        return guarded


def resource(tag: str) -> APIRouter:
    """Return a router for one resource: every route guarded, every problem documented, ids as the functions' names."""
    return APIRouter(
        tags=[tag],
        route_class=GuardedRoute,
        responses=PROBLEM_RESPONSES,
        generate_unique_id_function=lambda route: route.name,
    )


def access(required: Access) -> dict[str, Any]:
    """Return the keyword arguments that declare a route's access: ``@router.get("/things", **access(VIEW))``."""
    return {"openapi_extra": required.as_extra()}


async def _call(request: Request) -> Call:  # FastAPI runs what is not async in a thread
    call: Call = request.scope[_CONTEXT]
    return call


Current = Annotated[Call, Depends(_call)]


def _access_of(extra: Mapping[str, Any], path: str) -> Access:
    try:
        required = Access(role=AdminRole(extra["x-authsvc-role"]), reach=Reach(extra["x-authsvc-reach"]))
    except KeyError:
        raise RuntimeError(f"the route {path} declares no access") from None
    if (required.reach is Reach.TENANT) is not ("{tenant}" in path):
        raise RuntimeError(f"the route {path} and its reach `{required.reach}` contradict each other")
    return required


def _flat(dependant: Any) -> list[Any]:
    return [dependant, *(inner for one in dependant.dependencies for inner in _flat(one))]


def _check_query(request: Request, known: frozenset[str]) -> None:
    """Refuse parameters that the route does not have, among them any token: a query string ends up in logs."""
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise invalid("unknown_parameter", f"unknown query parameter; known ones: {names}", field="query")
        if given.count(name) > 1:
            raise invalid("repeated_parameter", f"`{name}` is given more than once", field=name)


class _JsonRequest(Request):
    """A request whose body was read and parsed already."""

    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


async def _with_json(request: Request, max_bytes: int) -> Request:
    """Return the request with its body read within the limits of size and time and parsed strictly."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in ("application/json", "application/merge-patch+json"):
        raise Problem(415, "unsupported_media_type", "send the body as `application/json`")
    declared = request.headers.get("content-length", "0")
    if not declared.isascii() or not declared.isdigit() or int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        raise Problem(408, "body_timeout", f"the body did not arrive within {BODY_TIMEOUT_S} s") from None
    ready = _JsonRequest(request.scope, _replay(bytes(body)))
    ready.parsed = parse_json(bytes(body))
    return ready


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON text (RFC 8259): UTF-8, no NaN, no name twice, bounded depth; raises a 422."""
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # also integers of thousands of digits
        raise invalid("malformed_json", "the body is not one valid JSON text in UTF-8", field="body") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):  # which one counts would depend on the parser
        raise invalid("repeated_field", "a field of the body is given more than once", field="body")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _replay(body: bytes) -> Callable[[], Coroutine[Any, Any, dict[str, Any]]]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _too_large(max_bytes: int) -> Problem:
    # The rest is not read: the connection cannot be used for another request.
    return Problem(413, "body_too_large", f"the body is larger than {max_bytes} bytes", headers={"Connection": "close"})
