"""Aedes, by the npm package ``authsvc-aedes`` (broker/aedes): asked once at CONNECT, decided in its process.

    POST connect    the fields of a CONNECT ─► the grant as plain data, or a refusal with its CONNACK code
    GET  events     NDJSON without an end: greeting, then ends, grants and sets (`aedes_streams`)
    POST resync     the agent's live connections, in parts, after each greeting and when it is asked to compare
    POST notices    who left, what was denied, which calls are done

A connection that the service does not know is ended: it may have been revoked while nobody could say so.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, cast

import structlog
from starlette.responses import JSONResponse, Response, StreamingResponse

from authsvc.adapters.adapter import Adapter, Hook, HookRequest, MalformedHook
from authsvc.adapters.aedes_streams import Stream, Streams
from authsvc.adapters.attached import Attached
from authsvc.adapters.held import digest
from authsvc.core.credentials import ConnectRequest, WillMessage
from authsvc.core.facts import KeySet, Refusal, RuleAction
from authsvc.core.index import Entry
from authsvc.core.policy import Action, Decision, Grant
from authsvc.core.reasons import Reason, connack_code
from authsvc.core.topics import SetLevel
from authsvc.sessions import Session, Will

log = structlog.get_logger(__name__)

MAX_LISTED: Final = 1_000  # in one request
MAX_COUNTED: Final = 100  # of equal denials in one notice
_OWNERS: Final = {SetLevel.MODULE: "thing", SetLevel.MEMBER: "ground"}  # of a set, as fields of a grant


def deny(path: str) -> Response:
    """Return a refusal of a CONNECT; elsewhere a status that makes the agent start again."""
    if path == "connect":
        return JSONResponse({"result": "deny", "reason": Reason.PROTOCOL_ERROR.value, "code": 5})
    return JSONResponse({"result": "deny"}, status_code=422)


async def connect(attached: Attached, request: HookRequest) -> Response:
    """Admit a CONNECT and answer with its session and grant."""
    node, _ = _node_of(request)
    streams = _streams(attached)
    outcome = await attached.connect(_connect_request(request), peer=request.text("peer", ""))
    if isinstance(outcome, Refusal):
        reason = outcome.reason
        return JSONResponse({"result": "deny", "reason": reason.value, "code": connack_code(reason)})
    rev = streams.rev()  # in one step with the opening of the session: whatever changes it comes later
    streams.admitted[outcome.client_id] = (outcome.id, rev)
    streams.end_elsewhere(node, outcome.client_id, rev=rev)
    return JSONResponse({"result": "allow", "rev": rev, **_session_data(attached, outcome)})


async def events(attached: Attached, request: HookRequest) -> Response:
    """Open the event stream of one agent."""
    streams = _streams(attached)
    stream = streams.opened(*_node_of(request))
    log.info("agent_attached", broker=attached.name, node=stream.node)
    streams.send({"type": "hello", "epoch": streams.epoch}, stream)

    async def body() -> AsyncIterator[bytes]:
        try:
            async for line in stream.lines():
                yield line
        finally:
            streams.closed(stream)
            log.info("agent_detached", broker=attached.name, node=stream.node)

    return StreamingResponse(body(), media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})


async def resync(attached: Attached, request: HookRequest) -> Response:
    """Compare a part of the agent's connections with the sessions here: ends and new grants go out by its stream."""
    streams = _streams(attached)
    stream = streams.stream(*_node_of(request))
    if stream is None or request.text("epoch") != streams.epoch:
        return JSONResponse({"result": "gone"}, status_code=409)
    for client_id, session_id, etag in _listed(request):
        stream.listed.add(client_id)
        _compare(attached, streams, stream, client_id=client_id, session_id=session_id, etag=etag)
    if request.flag("last"):
        streams.send_sets(stream.sets, stream)
        streams.compared(stream)
        streams.send({"type": "synchronised"}, stream)
    return JSONResponse({"result": "ok"})


async def notices(attached: Attached, request: HookRequest) -> Response:
    """Take what an agent has to say."""
    streams = _streams(attached)
    node, _ = _node_of(request)
    for done in _objects(request, "done"):
        streams.answered(node, _whole(done, "call"), found=done.get("found") is True)
    for gone in _objects(request, "gone"):
        client_id, session_id = _text(gone, "client_id"), _text(gone, "session")
        if streams.admitted.get(client_id, ("", 0))[0] == session_id:
            del streams.admitted[client_id]
        await attached.gone(client_id, keeps_session=gone.get("kept") is True, session_id=session_id)
    for denied in _objects(request, "denied"):
        _record(attached, denied)
    return JSONResponse({"result": "ok"})


def grant_data(grant: Grant, set_data: Mapping[SetLevel, Any]) -> dict[str, Any]:
    """Return the rules as plain data, in order of rank; `set_data` is what stands for each set that they refer to."""
    names = {keys: level.value for level, keys in grant.sets.items()}
    return {
        "publish": [_rule(entry, names) for entry in grant.entries(RuleAction.PUBLISH)],
        "subscribe": [_rule(entry, names) for entry in grant.entries(RuleAction.SUBSCRIBE)],
        "sets": {level.value: set_data[level] for level in grant.sets},
    }


def _rule(entry: Entry, names: Mapping[KeySet, str]) -> dict[str, Any]:
    return {
        "rule": entry.id,
        "allow": entry.allow,
        "levels": [level if isinstance(level, str) else {"set": names[level]} for level in entry.levels],
        "qos_max": entry.qos_max,
        "retain": entry.retain,
    }


def _session_data(attached: Attached, session: Session) -> dict[str, Any]:
    streams, grant = _streams(attached), session.grant
    sets = {}
    for level, keys in grant.sets.items():
        set_id = _set_id(grant, level)
        streams.told(keys, set_id)
        sets[level] = {"id": set_id, "rev": streams.rev(), "keys": sorted(keys.keys)}
    expires = session.expires_at_us
    return {
        "session": session.id,
        "client_id": session.client_id,
        "epoch": streams.epoch,
        "principal": session.principal,
        "etag": _etag(session),
        "expires_in_ms": None if expires is None else max(0, (expires - attached.service.now_us()) // 1000),
        "grant": grant_data(grant, sets),
    }


def _set_id(grant: Grant, level: SetLevel) -> str:
    return f"{level.value}/{grant.tenant}/{getattr(grant, _OWNERS[level])}"


def _etag(session: Session) -> str:
    return f"{digest(session.grant)}/{session.expires_at_us or ''}"


def _compare(
    attached: Attached, streams: Streams, stream: Stream, *, client_id: str, session_id: str, etag: str
) -> None:
    session = attached.session(client_id)
    if session is None:  # how it ended is not known any more, so nothing is said in its name
        streams.end(client_id, will="never", only=stream)
        return
    opened_as, rev = streams.admitted.get(client_id, ("", 0))
    if session.id != session_id and session.id == opened_as:  # a newer connection, whose answer was lost or is coming
        streams.end(client_id, will="send", rev=rev, only=stream)
        return
    for level, keys in session.grant.sets.items():
        streams.told(keys, _set_id(session.grant, level))
        stream.sets.add(keys)
    if session.id != session_id or etag != _etag(session):
        _push(attached, session, was=session_id, only=stream)


def _push(attached: Attached, session: Session, *, was: str = "", only: Stream | None = None) -> None:
    streams = _streams(attached)
    event = {"type": "grant", "was": was or session.id, "rev": streams.rev(), **_session_data(attached, session)}
    streams.send(event, only)


def _ended(attached: Attached, session: Session, reason: Reason, will: Will) -> None:  # noqa: ARG001
    """Have it ended at once; the kick that follows makes sure, and wipes."""
    streams = _streams(attached)
    streams.admitted.pop(session.client_id, None)
    streams.end(session.client_id, will="send" if will is Will.SEND else "never")


def _record(attached: Attached, denied: Mapping[str, Any]) -> None:
    session = attached.session(_text(denied, "client_id"))
    if session is None or session.id != _text(denied, "session"):
        return
    try:
        action, reason = Action(_text(denied, "action")), Reason(_text(denied, "reason"))
    except ValueError:
        raise MalformedHook("`denied` holds an action or a reason that nobody knows") from None
    rule = denied.get("rule")
    decision = Decision(allowed=False, reason=reason, rule=rule if isinstance(rule, str) else None)
    for _ in range(min(_whole(denied, "count"), MAX_COUNTED)):
        attached.service.denied(session, action.value, _text(denied, "topic"), decision)


def _connect_request(request: HookRequest) -> ConnectRequest:
    password = request.optional_text("password")
    try:
        secret = None if password is None else base64.b64decode(password, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedHook("`password` is not base64") from None
    return ConnectRequest(
        client_id=request.text("client_id", ""),
        clean_session=request.flag("clean"),
        username=request.optional_text("username"),
        password=secret,
        will=_will(request.fields.get("will")),
        keep_alive_s=request.integer("keep_alive", 0, most=65_535),
        level=request.integer("level", least=3, most=4),
    )


def _will(value: Any) -> WillMessage | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("retain"), bool):
        raise MalformedHook("`will` is malformed")
    qos = _whole(value, "qos")
    if qos > 2:
        raise MalformedHook("`will` is malformed")
    return WillMessage(topic=_text(value, "topic"), payload=b"", qos=qos, retain=value["retain"])


def _node_of(request: HookRequest) -> tuple[str, str]:
    return request.text("node"), request.text("run")


def _listed(request: HookRequest) -> list[tuple[str, str, str]]:
    sessions = request.fields.get("sessions")
    if not isinstance(sessions, list) or len(sessions) > MAX_LISTED:
        raise MalformedHook("`sessions` is no list, or too long a one")
    for session in sessions:
        if not isinstance(session, list) or [type(part) for part in session] != [str, str, str]:
            raise MalformedHook("`sessions` holds what is no session")
    return [cast("tuple[str, str, str]", tuple(session)) for session in sessions]


def _objects(request: HookRequest, name: str) -> list[dict[str, Any]]:
    found = request.fields.get(name, [])
    if not isinstance(found, list) or len(found) > MAX_LISTED or not all(isinstance(each, dict) for each in found):
        raise MalformedHook(f"`{name}` is no list of objects, or too long a one")
    return found


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise MalformedHook(f"`{name}` is not a text")
    return found


def _whole(value: Mapping[str, Any], name: str) -> int:
    found = value.get(name)
    if type(found) is not int or found < 0:
        raise MalformedHook(f"`{name}` is not a whole number")
    return found


def _streams(attached: Attached) -> Streams:
    streams = attached.management
    assert isinstance(streams, Streams)
    streams.use(attached.service)
    return streams


ADAPTER = Adapter(
    kind="aedes",
    routes={
        "connect": Hook(handler=connect),
        "events": Hook(handler=events, fields=frozenset({"node", "run"}), methods=frozenset({"GET"})),
        "resync": Hook(handler=resync),
        "notices": Hook(handler=notices),
    },
    deny=deny,
    swap="push",
    deliveries_checked=True,
    management=lambda config: Streams(),  # noqa: ARG005
    push=_push,
    ended=_ended,
    ending=lambda attached: _streams(attached).end_all(),
    gives_client_ids=True,
)
