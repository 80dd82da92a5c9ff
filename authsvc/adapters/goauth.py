"""The dialect of mosquitto-go-auth: its HTTP backend asks for a user, a superuser and each action, one by one.

    POST user       username password clientid         at CONNECT
    POST superuser  username                           never: a rule says what somebody may
    POST acl        username clientid topic acc        1 a delivery, 2 a publish or a will, 4 a SUBSCRIBE

The bodies are JSON or form (`http_params_mode`). A status outside 2xx denies in every `http_response_mode`, and from
500 on it counts as an error of the backend, which denies and is not kept in its cache. A yes is JSON, which the modes
`status` and `json` understand; the mode `text` wants ``ok`` and nothing else: paths with ``text/`` in front.
Source: backends/http.go of iegomez/mosquitto-go-auth.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from starlette.responses import JSONResponse, PlainTextResponse, Response

from authsvc.adapters.adapter import Adapter, Hook, HookRequest, MalformedHook
from authsvc.adapters.attached import Attached
from authsvc.core.credentials import ConnectRequest
from authsvc.core.facts import Refusal
from authsvc.core.policy import Action
from authsvc.core.reasons import Reason
from authsvc.sessions import Session

READ: Final = 1
WRITE: Final = 2
SUBSCRIBE: Final = 4
TEXT: Final = "text/"  # in front of the path: how the backend was told to read the answer

_UNAVAILABLE: Final = frozenset({Reason.STORE_UNAVAILABLE, Reason.BROKER_UNAVAILABLE})


def deny(path: str) -> Response:
    """Return a denial, which is one in each of the three modes."""
    return _answer(path, status=403, error="denied")


async def user(attached: Attached, request: HookRequest) -> Response:
    """Admit a CONNECT, of which the backend shows neither the will nor the clean session flag."""
    connect = ConnectRequest(
        client_id=request.text("clientid"),
        clean_session=True,  # it is not told, and not asked for: the row stands as if the broker kept something
        username=request.text("username", ""),
        password=request.text("password", "").encode(),
    )
    return _connected(request.path, await attached.connect(connect, peer=""))


async def superuser(attached: Attached, request: HookRequest) -> Response:  # noqa: ARG001
    """Say that nobody is above the rules."""
    return deny(request.path)


async def acl(attached: Attached, request: HookRequest) -> Response:
    """Decide one action of the session of the client id. The user name is no proof of anything here."""
    client_id, topic = request.text("clientid"), request.text("topic")
    access = request.integer("acc")
    if access == WRITE:
        allowed = may_publish(attached, client_id, topic)
    elif access == READ:
        allowed = attached.decide(client_id, Action.DELIVER, topic).allowed
    elif access == SUBSCRIBE:
        allowed = may_subscribe(attached, client_id, topic)
    else:
        raise MalformedHook("`acc` is none of 1, 2, 4")
    return _answer(request.path) if allowed else deny(request.path)


def may_publish(attached: Attached, client_id: str, topic: str) -> bool:
    """Return whether the client may publish to the topic at whatever QoS, with and without the retain flag.

    Brokers that do not say which it is get the stricter answer: a rule with `qos_max` or one for a single value of
    `retain` allows nothing there.
    """
    return all(attached.decide(client_id, Action.PUBLISH, topic, qos=2, retain=flag).allowed for flag in (False, True))


def may_subscribe(attached: Attached, client_id: str, filter_: str) -> bool:
    """Return whether the client may subscribe the filter at whatever QoS, which these brokers do not tell either."""
    decision = attached.decide(client_id, Action.SUBSCRIBE, filter_, qos=2)
    return decision.allowed and decision.qos == 2


def _connected(path: str, outcome: Session | Refusal) -> Response:
    if not isinstance(outcome, Refusal):
        return _answer(path)
    if outcome.reason in _UNAVAILABLE:
        return _answer(path, status=503, error="unavailable")
    return deny(path)


@cache  # a handful of paths, statuses and errors, all of them ours
def _answer(path: str, *, status: int = 200, error: str = "") -> Response:
    if path.startswith(TEXT):
        return PlainTextResponse(error or "ok", status_code=status)
    return JSONResponse({"ok": not error, "error": error}, status_code=status)


_METHODS: Final = frozenset({"POST", "PUT"})  # `http_method get` would put the password where addresses are logged
_HOOKS: Final = {
    "user": Hook(handler=user, fields=frozenset({"username", "password", "clientid"}), methods=_METHODS),
    "superuser": Hook(handler=superuser, fields=frozenset({"username"}), methods=_METHODS),
    "acl": Hook(handler=acl, fields=frozenset({"username", "clientid", "topic", "acc"}), methods=_METHODS),
}

ADAPTER = Adapter(
    kind="goauth",
    routes={**_HOOKS, **{TEXT + path: hook for path, hook in _HOOKS.items()}},
    deny=deny,
    swap="keep",
    deliveries_checked=True,
)
