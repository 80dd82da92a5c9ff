"""The composition root: the only place that owns clocks, opens things and starts tasks.

data directory, lock ─► store ─► service ─► upstream ─► gate, HTTP ─► ready … signal ─► all of it in reverse
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress

import structlog
import uvicorn
import uvloop

from authsvc.adapters.configuring import attached_configs, check_callers, hooks_address, tls_context
from authsvc.adapters.routes import Hooks
from authsvc.core.errors import AuthsvcError, StoreUnavailable
from authsvc.first_start import (
    ADMIN_TOKEN_VARIABLE,
    StartError,
    locked,
    make_data_directory,
    open_store,
    prepare,
)
from authsvc.listening import bound_socket, http_socket, mqtt_listeners, shown
from authsvc.logs import configure_logs
from authsvc.service import Service
from authsvc.settings import Settings
from authsvc.upstreams import make_upstream, said_of_broker
from authsvc.web.app import Check, create_app, create_hooks_app
from authsvc.web.server import make_server
from broker.gate import Gate
from broker.limits import Limits

__all__ = ["StartError", "main", "run"]

log = structlog.get_logger(__name__)

ENDED_BY = (signal.SIGTERM, signal.SIGINT)
STEP_S = 4.0  # of one step of the end; the slow ones run side by side
# A connection makes hundreds of objects, and few of them are garbage in cycles: to look them through after every 700,
# as Python does by default, takes a third of the time of a CONNECT.
GARBAGE_AFTER = (20_000, 20, 20)


def main(settings: Settings, *, with_broker: bool, upstream: str | None = None) -> int:
    """Run the service in its own event loop and return the exit status: 0 ended by a signal, 1 failed."""
    configure_logs(level=settings.log.level, form=settings.log.form)
    gc.set_threshold(*GARBAGE_AFTER)
    status = 0
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings, with_broker=with_broker, upstream=upstream))
    except* AuthsvcError as group:
        for error in _leaves(group):
            print(f"authsvc: {error}", file=sys.stderr)  # noqa: T201  # for whoever started it
        status = 1
    except* Exception as group:
        for error in _leaves(group):
            log.critical("crashed", error=f"{type(error).__name__}: {error}", exc_info=error)
        print("authsvc: ended by an error of its own; see the log above", file=sys.stderr)  # noqa: T201
        status = 1
    _let_go_of_output()
    return status


async def run(settings: Settings, *, with_broker: bool, upstream: str | None = None) -> None:
    """Run the service until SIGTERM or SIGINT, then end in order within 5 s.

    `upstream` (``host:port`` or a Unix socket path; by default that of the settings) replaces the embedded broker.
    Prints a line per listener when it is ready. Raises StartError with a message for the operator when it cannot
    start, and what a task raised when one crashed.
    """
    data = settings.service.data
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(_asked_to_end())
        make_data_directory(data)
        stack.enter_context(locked(data))
        store = await open_store(data, now_us=_now_us)
        stack.push_async_callback(_within, store.close, "store")
        admin_key = await prepare(
            store, data, random=secrets.token_bytes, given_token=os.environ.get(ADMIN_TOKEN_VARIABLE) or None
        )
        service = Service(
            store=store,
            now_us=_now_us,
            monotonic=time.monotonic,
            random=secrets.token_bytes,
            max_persistent_sessions=settings.limits.max_persistent_sessions,
            max_client_id_bytes=settings.limits.max_client_id_bytes,
            max_cached_things=settings.cache.things,
            max_cached_grants=settings.cache.grants,
        )
        await service.start()
        async with asyncio.TaskGroup() as tasks:
            background = tasks.create_task(_supervised(service.run, "service", stop), name="service")
            try:
                await _serve(settings, service, upstream, tasks, stop, with_broker=with_broker, admin_key=admin_key)
            finally:
                background.cancel()
    log.info("ended")


async def _serve(
    settings: Settings,
    service: Service,
    upstream: str | None,
    tasks: asyncio.TaskGroup,
    stop: asyncio.Event,
    *,
    with_broker: bool,
    admin_key: str | None,
) -> None:
    """Open everything that is reached from outside, say so, and close it when `stop` is set."""
    lines: list[str] = []
    checks: dict[str, Check] = {}
    async with AsyncExitStack() as stack:
        web = stack.enter_context(http_socket(settings))
        if with_broker:
            lines += await _open_gate(settings, service, upstream or "", stack, checks)
        attached = hooks = await _attach(settings, service, stack, tasks, stop)
        servers: list[uvicorn.Server] = []
        if hooks is not None and (address := hooks_address(settings)) is not None:
            own = bound_socket(*address, "hooks")
            stack.callback(own.close)
            server = make_server(create_hooks_app(hooks), sock=own, tls=(tls := tls_context(settings)))
            servers.append(await _open_http(server, "hooks", stack, tasks, stop))
            lines.append(f"hooks on http{'s' if tls else ''}://{shown(*own.getsockname()[:2])}")
            hooks = None
        server = make_server(create_app(service, now_us=_now_us, readiness=checks, hooks=hooks), sock=web)
        servers.append(await _open_http(server, "HTTP API", stack, tasks, stop))
        lines.append(f"HTTP API on http://{shown(*web.getsockname()[:2])}")
        gc.freeze()  # what lives as long as the process is not looked through again
        _say(lines, admin_key)
        log.info("ready", listeners=lines, pid=os.getpid(), data=str(settings.service.data))
        try:
            await stop.wait()
        finally:
            log.info("ending")
            if attached is not None:
                attached.ending()
            for server in servers:
                server.should_exit = True  # they end beside the gate


async def _open_http(
    server: uvicorn.Server, name: str, stack: AsyncExitStack, tasks: asyncio.TaskGroup, stop: asyncio.Event
) -> uvicorn.Server:
    """Start an HTTP server and return it when it listens."""
    task = tasks.create_task(_supervised(server.serve, name, stop), name=name)
    stack.push_async_callback(_http_ended, server, task)
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.005)
    return server


async def _attach(
    settings: Settings, service: Service, stack: AsyncExitStack, tasks: asyncio.TaskGroup, stop: asyncio.Event
) -> Hooks | None:
    """Return the hooks of the attached brokers, their sessions restored, or None without any. Raises StartError."""
    configs = attached_configs(settings)
    check_callers(settings, configs)
    with suppress(StoreUnavailable):  # at the next start then
        await service.store.attached_sessions.forget_others([config.name for config in configs])
    if not configs:
        return None
    hooks = Hooks(service, configs)
    stack.push_async_callback(_within, hooks.close, "hooks")
    await hooks.start()
    task = tasks.create_task(_supervised(hooks.run, "hooks", stop), name="hooks")
    stack.callback(task.cancel)
    return hooks


async def _open_gate(
    settings: Settings, service: Service, upstream_address: str, stack: AsyncExitStack, checks: dict[str, Check]
) -> list[str]:
    """Start the upstream and open the gate's listeners; return a line for each. Raises StartError."""
    limits = Limits(**settings.limits.model_dump())
    listeners, amqtt = mqtt_listeners(settings)
    upstream = make_upstream(settings, amqtt, limits, address=upstream_address)
    if not upstream.capabilities.durable:
        await service.store.forget_upstream()
    await upstream.start()
    stack.push_async_callback(_within, upstream.stop, "upstream")
    checks["upstream"] = lambda: None if upstream.reachable else "does not answer"
    gate = Gate(
        service, upstream, limits, on_denied_publish=settings.mqtt.on_denied_publish, name=settings.service.name
    )
    stack.push_async_callback(_within, gate.close, "gate")
    lines = said_of_broker(settings)
    for listener in listeners:
        try:
            host, port = await gate.listen(listener)
        except OSError as error:
            raise StartError(f"MQTT listener `{listener.name}`: {error.strerror or error}") from error
        kind = ("WebSocket" if listener.websocket else "MQTT") + (" with TLS" if listener.tls else "")
        lines.append(f"{kind} listener `{listener.name}` on {shown(host, port)}")
    return lines


@contextmanager
def _asked_to_end() -> Iterator[asyncio.Event]:
    """Yield what SIGTERM and SIGINT set. From the end of the context on they are ignored: the process ends already.

    Handlers of the loop would go with it, and a second signal, as of an impatient Ctrl-C, would be the exit status.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in ENDED_BY:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    try:
        yield stop
    finally:
        for number in ENDED_BY:
            signal.signal(number, signal.SIG_IGN)


async def _supervised(work: Callable[[], Awaitable[None]], name: str, stop: asyncio.Event) -> None:
    """Run a task that must not end before `stop`: when it does, the process ends, with its name in the log."""
    try:
        await work()
        if not stop.is_set():
            raise RuntimeError(f"{name} ended by itself")  # noqa: TRY301  # logged below like any other
    except Exception as error:
        log.critical("task_crashed", task=name, error=f"{type(error).__name__}: {error}")
        raise


async def _http_ended(server: uvicorn.Server, task: asyncio.Task[None]) -> None:
    """Let requests that are being answered be answered."""
    server.should_exit = True
    with suppress(TimeoutError):
        async with asyncio.timeout(STEP_S):
            await asyncio.wait([task])


async def _within(close: Callable[[], Awaitable[None]], name: str) -> None:
    """Close a part, but not for ever: the whole end may take 5 s."""
    try:
        async with asyncio.timeout(STEP_S):
            await close()
    except TimeoutError:
        log.warning("closed_late", part=name)


def _say(lines: list[str], admin_key: str | None) -> None:
    if admin_key is not None:
        lines = [*lines, f"first admin key written to {admin_key}"]
    with suppress(OSError):  # whoever started it may have closed its output already
        for line in lines:
            print(line, flush=True)  # noqa: T201  # what the command promises on standard output


def _let_go_of_output() -> None:
    """Drop what cannot be written any more: Python would try again at its exit, and make 120 of the exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # as it is where it was closed before the start
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


def _now_us() -> int:
    return time.time_ns() // 1_000
