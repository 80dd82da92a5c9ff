"""Answers a second of two hooks for known things, against an empty route of the same web stack."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import time
from collections.abc import Iterator, Mapping, Sequence

from tests.bench import servers
from tests.bench.fleets import prepare
from tests.bench.table import Row
from tests.bench.traffic import paired

ANSWERS = 10_000
SOCKETS = 16  # kept alive, each with one request under way, as a broker's pool has them
THINGS = 200
GOAL = 0.5
SECRET = "a-secret-for-the-benchmark-only"


def hooks(rounds: int) -> Iterator[Row]:
    """EMQX's question at CONNECT and mosquitto-go-auth's for one publish; each answer says yes."""
    names = {f"AUTHSVC__BROKERS__{kind}__SECRET": SECRET for kind in ("EMQX", "GOAUTH")}
    with servers.authsvc(env=names) as service, servers.empty_route() as empty:
        port = int(service.http.rpartition(":")[2])
        fleet = prepare(service)
        logins = [fleet.login(n) for n in range(THINGS)]
        token = fleet.app_token
        keys = [login.client_id for login in logins]
        connects = [{"clientid": key, "username": key, "password": token} for key in keys]
        actions = [
            {"clientid": key, "username": key, "topic": f"default/default/{key}/trace/x", "acc": 2} for key in keys
        ]
        authn = [_request("/hooks/emqx/authn", body) for body in connects]
        user = [_request("/hooks/goauth/user", body) for body in connects]
        acl = [_request("/hooks/goauth/acl", body) for body in actions]
        nothing = [_request("/empty", body) for body in connects]
        for requests, answers in ((authn, (b'"allow"',)), (user, (b'"ok":true', b'"ok": true'))):
            _each_says(port, requests, answers)  # registered from here on, and sessions for what follows
        for what, requests in (("EMQX authn", authn), ("go-auth acl", acl)):
            found = paired(
                {
                    "ours": lambda requests=requests: rate(port, requests),  # type: ignore[misc]
                    "empty": lambda: rate(empty[1], nothing),
                },
                rounds,
            )
            ratio = found["ours"] / found["empty"]
            yield Row(
                f"hook answers, {what}, known thing", "an empty route", found["ours"], found["empty"], ratio, GOAL, "/s"
            )


def rate(port: int, requests: Sequence[bytes], *, answers: int = ANSWERS) -> float:
    """Send the requests in turn over `SOCKETS` connections until there are that many answers; return answers a second.

    Raises ConnectionError for an answer that is not 200.
    """
    done = sent = 0
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        started = time.perf_counter()
        for _ in range(SOCKETS):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(requests[sent % len(requests)])
            sent += 1
            selector.register(sock, selectors.EVENT_READ, bytearray())
        while done < answers:
            ready = selector.select(30)
            if not ready:
                raise TimeoutError(f"no progress at {done} of {answers} answers")
            for key, _ in ready:
                one, answer = key.fileobj, key.data
                assert isinstance(one, socket.socket)
                more = one.recv(65_536)
                answer += more
                if not more or not answer.startswith(b"HTTP/1.1 200"):
                    raise ConnectionError(f"answered `{bytes(answer[:200])!r}`")
                if not _whole(answer):
                    continue
                answer.clear()
                done += 1
                one.sendall(requests[sent % len(requests)])
                sent += 1
        return done / (time.perf_counter() - started)


def _whole(answer: bytearray) -> bool:
    head = answer.find(b"\r\n\r\n")
    at = answer.find(b"content-length: ")
    return 0 <= at < head and len(answer) >= head + 4 + int(answer[at + 16 : answer.index(b"\r", at)])


def _request(path: str, fields: Mapping[str, object]) -> bytes:
    body = json.dumps(fields).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {SECRET}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _each_says(port: int, requests: Sequence[bytes], wanted: Sequence[bytes]) -> None:
    """Send each request once and see that the answer is a yes. Raises ConnectionError with one that is not."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        for request in requests:
            sock.sendall(request)
            answer = bytearray()
            while not _whole(answer):
                answer += sock.recv(65_536) or b"\r\n\r\ncontent-length: 0\r"
            if not any(word in answer for word in wanted):
                raise ConnectionError(f"answered `{bytes(answer[-300:])!r}`")
