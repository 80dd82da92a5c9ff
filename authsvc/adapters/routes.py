"""The hooks' part of the HTTP face: ``/hooks/NAME/…`` of each configured broker, and nothing else."""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from authsvc.adapters.adapter import Adapter, AttachedConfig, Hook, HookRequest, MalformedHook
from authsvc.adapters.attached import Attached
from authsvc.adapters.bodies import Bodies
from authsvc.adapters.caller import Callers
from authsvc.adapters.strict import parse
from authsvc.core.reasons import Reason
from authsvc.web.joined import join
from authsvc.web.problems import Problem

if TYPE_CHECKING:
    from authsvc.service import Service

log = structlog.get_logger(__name__)

MODULES: Final = {
    "emqx": "authsvc.adapters.emqx",
    "vernemq": "authsvc.adapters.vernemq",
    "rabbitmq": "authsvc.adapters.rabbitmq",
    "nanomq": "authsvc.adapters.nanomq",
    "goauth": "authsvc.adapters.goauth",
    "aedes": "authsvc.adapters.aedes",
}
PREFIX: Final = "/hooks/"


def adapter_of(kind: str) -> Adapter:
    """Return the adapter of a broker kind; its module is loaded when it is first needed."""
    adapter = importlib.import_module(MODULES[kind]).ADAPTER
    assert isinstance(adapter, Adapter)
    return adapter


class Hooks:
    """ASGI application of every attached broker's hooks. `run` it as a task; mount it with its full path."""

    def __init__(self, service: Service, configs: Sequence[AttachedConfig]) -> None:
        self._service = service
        self.attached: dict[str, Attached] = {}
        self._bodies = Bodies()
        self._routes: dict[str, tuple[Attached, Callers, str, Hook]] = {}
        for config in configs:
            adapter = adapter_of(config.kind)
            attached = Attached(service, config, adapter, adapter.management(config))
            self.attached[config.name] = attached
            callers = Callers(config.secrets)
            for path, hook in adapter.routes.items():
                self._routes[f"{PREFIX}{config.name}/{path}".removesuffix("/")] = (attached, callers, path, hook)

    async def start(self) -> None:
        """Restore the sessions of every broker, before any hook is answered. Raises StoreUnavailable."""
        for attached in self.attached.values():
            await attached.following.restore()
            if attached.management is None:
                log.warning("broker_cannot_be_told", broker=attached.name)

    async def run(self) -> None:
        """Send kicks, sweep and write what is owed, for ever; owned by the caller's task group."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._bodies.run(), name="bodies of hook requests")
            for attached in self.attached.values():
                tasks.create_task(attached.run(), name=f"attached broker {attached.name}")

    def ending(self) -> None:
        """End the answers that have no end by themselves, so that the HTTP servers need not cut them off."""
        for attached in self.attached.values():
            if attached.adapter.ending is not None:
                attached.adapter.ending(attached)

    async def close(self) -> None:
        """Write what is owed. The brokers' connections go on; their hooks are refused until the next start."""
        await asyncio.gather(*(attached.close() for attached in self.attached.values()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(scope, receive)
        if not isinstance(response, StreamingResponse):
            join(scope)
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        route = self._routes.get(scope["path"])
        if route is None:
            return Problem(404, "not_found", "there is nothing at this path").response()
        attached, callers, path, hook = route
        headers, content_types = _headers(scope)
        if not callers.admit(headers):  # first: a stranger has nothing written but the one record
            return self._wrong_caller(attached, scope)
        if scope["method"] not in hook.methods:
            log.warning("hook_method_refused", broker=attached.name, path=path, method=scope["method"])
            return Problem(405, "method_not_allowed", "this path does not take this method").response()
        try:
            body = await self._bodies.read(receive)
            raw_form = hook.fields if hook.raw_form else None
            fields = parse(scope["method"], content_types, scope["query_string"], body, raw_form=raw_form)
            if hook.fields is not None and not hook.fields.issuperset(fields):
                raise MalformedHook("a field that this broker does not send")  # noqa: TRY301
            return await hook.handler(attached, HookRequest(path=path, fields=fields, headers=headers))
        except MalformedHook as error:
            log.warning("hook_malformed", broker=attached.name, path=path, problem=str(error))
        except Exception as error:  # noqa: BLE001  # an accident never looks like a yes, nor like an ignore
            log.error("hook_failed", broker=attached.name, path=path, problem=type(error).__name__)  # noqa: TRY400  # its words may hold a secret
        return attached.adapter.deny(path)

    def _wrong_caller(self, attached: Attached, scope: Scope) -> Response:
        peer = ":".join(str(part) for part in scope.get("client") or ())
        record = self._service.refusals.add(
            tenant=None,
            reason=Reason.UNKNOWN_TOKEN,
            peer=peer,
            action="hook",
            topic=scope["path"],
            detail=f"a caller without the secret of broker `{attached.name}`",
        )
        if record.count == 1:
            log.warning("hook_caller_refused", broker=attached.name, peer=peer)
        return Problem(
            401,
            "unauthenticated",
            "send the broker's secret as `Authorization: Bearer …`",
            headers={"WWW-Authenticate": "Bearer"},
        ).response()


def _headers(scope: Scope) -> tuple[dict[str, str], list[str]]:
    """Return the headers that were sent once, and every content type."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    found = dict(headers)
    if len(found) != len(headers):
        times = Counter(name for name, _ in headers)
        found = {name: value for name, value in headers if times[name] == 1}
    return found, [value for name, value in headers if name == "content-type"]
