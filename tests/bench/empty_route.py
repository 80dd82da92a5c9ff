"""The web stack of the hooks with nothing behind it: `python -m tests.bench.empty_route PORT`."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from authsvc.run import GARBAGE_AFTER
from authsvc.web.server import make_server


async def empty(_: Request) -> JSONResponse:
    return JSONResponse({"result": "allow"})


async def serve(port: int) -> None:
    server = make_server(Starlette(routes=[Route("/empty", empty, methods=["POST"])]), port=port)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, setattr, server, "should_exit", True)
    await server.serve()


if __name__ == "__main__":
    gc.set_threshold(*GARBAGE_AFTER)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
