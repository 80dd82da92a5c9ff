"""A uvicorn server for the application, to be run as a task inside the loop that the rest of the service lives in.

Request smuggling, slow and oversized headers are the parser's and the server's to refuse: httptools (llhttp) rejects a
request that carries both Content-Length and Transfer-Encoding, the constants below bound the rest.
"""

from __future__ import annotations

import socket

import uvicorn
from starlette.types import ASGIApp

MAX_INCOMPLETE_EVENT_BYTES = 64 * 1024  # only h11 reads it; kept so that a fallback to h11 stays bounded
KEEP_ALIVE_S = 5  # an idle kept-alive connection is closed after it
MAX_CONCURRENCY = 512  # connections and tasks together; beyond it uvicorn answers 503
GRACEFUL_SHUTDOWN_S = 3  # within the five seconds that a clean end may take
BACKLOG = 512


def make_server(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    sock: socket.socket | None = None,
) -> uvicorn.Server:
    """Return a server that is not started: ``await server.serve(sockets=[sock])`` runs it, `should_exit` ends it."""
    raise NotImplementedError
