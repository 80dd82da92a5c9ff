"""EMQX 5 and 6: the HTTP authenticator, the HTTP authorizer, and its REST interface.

    POST authn          clientid username password, peerhost …          at CONNECT
    POST authz          clientid topic action, qos retain …             what the connection's list does not decide
    POST disconnected   clientid reason                                 from a rule on client.disconnected, if wanted

Every answer is 200 with ``allow`` or ``deny``. Any other status, and ``ignore``, means "ask the next one", which may be
nobody: then `no_match` decides (emqx_authn_http.erl, emqx_authz_http.erl). `acl` is read since 5.7.2, `expire_at` with
it and `client_attrs` since 5.7; older ones overlook them and ask for every publish and subscribe.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from authsvc.adapters.adapter import Adapter, Hook, HookRequest, MalformedHook
from authsvc.adapters.attached import Attached
from authsvc.adapters.emqx_acl import acl_of
from authsvc.adapters.emqx_management import management
from authsvc.core.credentials import ConnectRequest
from authsvc.core.facts import Refusal
from authsvc.core.policy import Action, Decision, Grant
from authsvc.core.reasons import Reason

# EMQX refuses whoever has a list that "does not appear to be in seconds": beyond half of now in milliseconds.
_LATEST_S: Final = 253_402_300_799  # the end of the year 9999
_ALLOW: Final = JSONResponse({"result": "allow"})
_DENY: Final = JSONResponse({"result": "deny"})
_NOT_THE_LAST: Final = frozenset({"takenover", "takeovered", "discarded"})  # another connection has the client id now


def deny(path: str) -> Response:  # noqa: ARG001
    """Return the denial that ends the chain."""
    return _DENY


async def authn(attached: Attached, request: HookRequest) -> Response:
    """Admit a CONNECT. EMQX shows neither the will, which it judges when it is sent, nor the clean start flag."""
    outcome = await attached.connect(
        ConnectRequest(
            client_id=request.text("clientid"),
            clean_session=True,
            username=request.text("username", ""),
            password=request.text("password", "").encode(),
        ),
        peer=_peer(request),
    )
    if isinstance(outcome, Refusal):
        return deny(request.path)
    expires_at_us = outcome.expires_at_us
    expire_at = None if expires_at_us is None else min(expires_at_us // 1_000_000, _LATEST_S)
    return _admission(outcome.grant, expire_at)


async def authz(attached: Attached, request: HookRequest) -> Response:
    """Decide one publish or subscribe of an admitted client id. The user name is no proof of anything here."""
    client_id, topic, action = request.text("clientid"), request.text("topic"), request.text("action")
    qos = request.integer("qos", most=2) if _is_told(request, "qos") else 2  # then the stricter answer
    if action == "publish":
        flags = (request.flag("retain"),) if _is_told(request, "retain") else (False, True)
        allowed = all(
            attached.decide(client_id, Action.PUBLISH, topic, qos=qos, retain=retain).allowed for retain in flags
        )
    elif action == "subscribe":
        allowed = _may_subscribe(attached, client_id, topic, qos)
    else:
        raise MalformedHook("`action` is neither publish nor subscribe")
    return _ALLOW if allowed else _DENY


async def disconnected(attached: Attached, request: HookRequest) -> Response:
    """Take that a client has left; EMQX may keep its session. A take-over is no leaving."""
    if request.text("reason", "") not in _NOT_THE_LAST:
        await attached.gone(request.text("clientid"), keeps_session=True)
    return JSONResponse({"result": "ok"})


def _may_subscribe(attached: Attached, client_id: str, filter_: str, qos: int) -> bool:
    """EMQX cannot grant less than what was asked: a SUBSCRIBE above the rule's QoS is refused."""
    decision = attached.decide(client_id, Action.SUBSCRIBE, filter_, qos=qos)
    if decision.allowed and decision.qos < qos:
        session = attached.session(client_id)
        if session is not None:
            refused = Decision(allowed=False, reason=Reason.QOS_TOO_HIGH, rule=decision.rule)
            attached.service.denied(session, Action.SUBSCRIBE.value, filter_, refused)
        return False
    return decision.allowed


@lru_cache(maxsize=4096)  # many share a grant, and it is most of the work of an answer
def _admission(grant: Grant, expire_at: int | None) -> Response:
    answer: dict[str, Any] = {
        "result": "allow",
        "is_superuser": False,
        "acl": acl_of(grant),
        "client_attrs": {"tenant": grant.tenant, "ground": grant.ground, "thing": grant.thing or ""},
    }
    if expire_at is not None:
        answer["expire_at"] = expire_at
    return JSONResponse(answer)


def _peer(request: HookRequest) -> str:
    host = request.text("peerhost", "")
    return f"{host}:{request.integer('peerport', most=65_535)}" if _is_told(request, "peerport") else host


def _is_told(request: HookRequest, name: str) -> bool:
    """Return whether EMQX knows the placeholder: qos and retain since 5.2, peerport since 5.9.

    What it does not know it sends as it stands in its configuration.
    """
    return request.fields.get(name) not in (None, "", "undefined", f"${{{name}}}")


_AT_CONNECT: Final = frozenset(
    {
        *("clientid", "username", "password", "peerhost", "peerport", "cert_subject", "cert_common_name"),
        *("cert_pem", "zone", "listener", "mountpoint", "proto_name"),
    }
)

ADAPTER = Adapter(
    kind="emqx",
    routes={
        "authn": Hook(handler=authn, fields=_AT_CONNECT),
        "authz": Hook(
            handler=authz, fields=(_AT_CONNECT - {"password"}) | {"topic", "action", "access", "qos", "retain"}
        ),
        "disconnected": Hook(handler=disconnected),
    },
    deny=deny,
    swap="kick",
    management=management,
)
