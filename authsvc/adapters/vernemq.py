"""VerneMQ: its six authentication webhooks, for MQTT 3 and 5, and the two that tell that a client left.

    auth_on_register[_m5]   peer_addr peer_port mountpoint client_id username password clean_session|clean_start
    auth_on_subscribe[_m5]  username mountpoint client_id topics: [{topic, qos, …}]
    auth_on_publish[_m5]    username mountpoint client_id qos topic payload retain; for a will just after register
    on_client_gone, on_client_offline                      mountpoint client_id

All are POSTed as JSON to one address; the header `vernemq-hook` says which it is. Status 200 always: another counts as
an error, which refuses as well. An answer without `max-age=` in its cache-control is never kept; with `max-age=0` it
would be kept for the rest of the second, and an admission that we were not asked about has no session here. VerneMQ's
subscriptions are judged once, deliveries never, a will at CONNECT and not again. Sources: vernemq/vmq-docs
plugindevelopment/webhookplugins.md; vernemq/vernemq apps/vmq_webhooks, vmq_plugin_util.erl, vmq_mqtt_fsm.erl,
vmq_mqtt5_fsm.erl of 2026-08.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from authsvc.adapters.adapter import Adapter, AttachedConfig, Hook, HookRequest, MalformedHook
from authsvc.adapters.attached import Attached
from authsvc.adapters.connection import HookConnection
from authsvc.adapters.held import still_right
from authsvc.adapters.management import Management
from authsvc.adapters.vernemq_management import VerneManagement, nameable
from authsvc.core.credentials import ConnectRequest
from authsvc.core.facts import Refusal, RuleAction
from authsvc.core.policy import Action, Decision, Grant
from authsvc.core.reasons import Reason
from authsvc.sessions import Session

MAX_TOPICS: Final = 1_000  # of one SUBSCRIBE
MAX_LIFETIME_S: Final = 4_294_967  # the timers of older Erlangs take 2^32 ms
REFUSED: Final = 128  # of a filter, MQTT 3.1.1 section 3.9.3
NOT_AUTHORIZED: Final = 135  # of a filter, MQTT 5 section 3.9.3
_HEADERS: Final = {"cache-control": "no-store"}
_OK: Final = JSONResponse({"result": "ok"}, headers=_HEADERS)
_DENY: Final = JSONResponse({"result": {"error": "not_allowed"}}, headers=_HEADERS)
_M5: Final = "_m5"
_NOT_SAID: Final = Decision(allowed=False, reason=Reason.PROTOCOL_ERROR)


def deny(path: str) -> Response:  # noqa: ARG001
    """Return the refusal that every hook understands."""
    return _DENY


async def hook(attached: Attached, request: HookRequest) -> Response:
    """Answer whichever hook the header names; one that we do not serve is refused."""
    name = request.headers.get("vernemq-hook", "")
    if request.text("mountpoint", "") != "":  # it would be another name space under the same topics
        raise MalformedHook("`mountpoint` is not empty: a mountpoint is not supported")
    m5 = name.endswith(_M5)
    base = name.removesuffix(_M5)
    if base == "auth_on_register":
        return await _register(attached, request, m5=m5)
    if base == "auth_on_publish":
        return _publish(attached, request)
    if base == "auth_on_subscribe":
        return _subscribe(attached, request, m5=m5)
    if name in ("on_client_gone", "on_client_offline"):
        await attached.gone(request.text("client_id"), keeps_session=name == "on_client_offline")
        return _answer({})
    raise MalformedHook("the header `vernemq-hook` names no hook that is answered here")


async def _register(attached: Attached, request: HookRequest, *, m5: bool) -> Response:
    properties = _properties(request) if m5 else {}
    connect = ConnectRequest(
        client_id=request.text("client_id"),
        clean_session=request.flag("clean_start" if m5 else "clean_session"),
        username=request.optional_text("username"),
        password=request.text("password", "").encode(),
        level=5 if m5 else 4,
        session_expiry_s=_expiry_s(properties) if m5 else None,
    )
    peer = _peer(request)
    if "p_authentication_method" in properties:  # MQTT 5 section 4.12: another way to log in, which we do not offer
        refusal = Refusal(reason=Reason.MALFORMED_CREDENTIAL, detail="enhanced authentication is not offered")
        attached.service.refuse(refusal, request=connect, peer=peer)
        return deny(request.path)
    if not nameable(connect.client_id):
        detail = 'VerneMQ can be told to end a client id only without `"`, `\\`, `=`, `,`, `~` and control characters'
        attached.service.refuse(Refusal(reason=Reason.CLIENT_ID_INVALID, detail=detail), request=connect, peer=peer)
        return deny(request.path)
    outcome = await attached.connect(connect, peer=peer)
    if isinstance(outcome, Refusal):
        return deny(request.path)
    if outcome.expires_at_us is None:
        return _OK
    left_s = (outcome.expires_at_us - attached.service.now_us()) // 1_000_000
    lifetime_s = min(max(left_s, 1), MAX_LIFETIME_S)  # 0 would mean: no end
    return _answer({"result": "ok", "modifiers": {"max_connection_lifetime": lifetime_s}})


def _publish(attached: Attached, request: HookRequest) -> Response:
    session = _session(attached, request)
    if session is None:
        return deny(request.path)
    decision = attached.decide(
        session.client_id,
        Action.PUBLISH,
        request.text("topic"),
        qos=request.integer("qos", most=2),
        retain=request.flag("retain"),
    )
    return _OK if decision.allowed else _DENY


def _subscribe(attached: Attached, request: HookRequest, *, m5: bool) -> Response:
    """Answer each filter. Unless something must change, plainly ``ok``: a list would drop subscription identifiers."""
    session = _session(attached, request)
    asked = [_subscription(entry) for entry in _topics(request)]
    if session is None:
        return deny(request.path)
    answered: list[dict[str, Any]] = []
    for entry in asked:
        decision = attached.decide(session.client_id, Action.SUBSCRIBE, entry["topic"], qos=entry["qos"])
        if decision.allowed:
            answered.append({**entry, "qos": decision.qos})
        else:
            answered.append({"topic": entry["topic"], "qos": NOT_AUTHORIZED if m5 else REFUSED})
    if answered == asked:
        return _OK
    if all(entry["qos"] >= REFUSED for entry in answered):
        return deny(request.path)
    if m5:
        return _answer({"result": "ok", "modifiers": {"topics": answered}})
    return _answer({"result": "ok", "topics": answered})


def _topics(request: HookRequest) -> list[Any]:
    topics = request.fields.get("topics")
    if not isinstance(topics, list) or not 0 < len(topics) <= MAX_TOPICS:
        raise MalformedHook(f"`topics` is no list of 1 to {MAX_TOPICS}")
    return topics


def _subscription(entry: object) -> dict[str, Any]:
    """Return the filter, its QoS and, from MQTT 5, the options that a list in the answer must repeat."""
    if not isinstance(entry, Mapping):
        raise MalformedHook("an entry of `topics` is no object")
    topic, qos = entry.get("topic"), entry.get("qos")
    if not isinstance(topic, str) or type(qos) is not int or not 0 <= qos <= 2:
        raise MalformedHook("an entry of `topics` has no filter or no QoS")
    options = {name: entry[name] for name in ("no_local", "rap", "retain_handling") if name in entry}
    return {"topic": topic, "qos": qos, **options}


def _properties(request: HookRequest) -> Mapping[str, Any]:
    properties = request.fields.get("properties", {})
    if isinstance(properties, Mapping):
        return properties
    if properties == []:  # an empty one, to some encoders of Erlang
        return {}
    raise MalformedHook("`properties` is no object")


def _expiry_s(properties: Mapping[str, Any]) -> int:
    expiry_s = properties.get("p_session_expiry_interval", 0)
    if type(expiry_s) is not int or not 0 <= expiry_s <= 0xFFFF_FFFF:
        raise MalformedHook("`p_session_expiry_interval` is no number of seconds")
    return expiry_s


def _peer(request: HookRequest) -> str:
    """Return `address:port` for the records. VerneMQ writes ``undefined`` where it knows none."""
    address, port = request.fields.get("peer_addr"), request.fields.get("peer_port")
    try:
        shown = ipaddress.ip_address(address if isinstance(address, str) else "")
    except ValueError:
        return ""
    host = f"[{shown}]" if shown.version == 6 else str(shown)
    return f"{host}:{port}" if type(port) is int else host


def _session(attached: Attached, request: HookRequest) -> Session | None:
    """Return the session of the client id; the user name must be the admitted one."""
    session = attached.session(request.text("client_id"))
    if session is None or not isinstance(session.connection, HookConnection):
        return None
    if session.connection.username != (request.optional_text("username") or ""):
        attached.service.denied(session, "login", "another user name", _NOT_SAID)  # it may be of another tenant
        return None
    return session


def _answer(content: Mapping[str, Any]) -> Response:
    return JSONResponse(content, headers=_HEADERS)


def same_subscriptions(held: Grant, new: Grant) -> bool:
    """Return whether what was subscribed under `held` may go on; publishes are asked anew, subscriptions are not."""
    return still_right(_of_subscribing(held), _of_subscribing(new))


def _of_subscribing(grant: Grant) -> Grant:
    return replace(grant, rules=tuple(rule for rule in grant.rules if rule.action is RuleAction.SUBSCRIBE))


def _make_management(config: AttachedConfig) -> Management | None:
    return VerneManagement(config) if config.management_url else None


ADAPTER = Adapter(
    kind="vernemq",
    routes={"": Hook(handler=hook)},  # the endpoint is /hooks/NAME
    deny=deny,
    swap="kick",
    same=same_subscriptions,
    management=_make_management,
)
