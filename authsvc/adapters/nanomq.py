"""NanoMQ: `auth_req` at CONNECT, `acl_req` at each PUBLISH and SUBSCRIBE; of the answer only the status counts.

    POST auth   clientid username password ipaddress     %c %u %P %a
    POST acl    clientid access topic                    %c %A %t; access 1 is a SUBSCRIBE, 2 a PUBLISH

200 allows, everything else denies. As a form NanoMQ writes the values as they are, nothing escaped: it is read so
(`Hook.raw_form`) and must hold every parameter, so that one that a client smuggles into its client id or topic behind
an `&` is one too many. JSON has no such trouble.
Source: src/sp/protocol/mqtt/auth_http.c of nanomq/NanoNNG.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from starlette.responses import PlainTextResponse, Response

from authsvc.adapters.adapter import Adapter, Hook, HookRequest, MalformedHook
from authsvc.adapters.attached import Attached
from authsvc.adapters.goauth import may_publish, may_subscribe
from authsvc.core.credentials import ConnectRequest
from authsvc.core.errors import InvalidInput
from authsvc.core.facts import Refusal
from authsvc.core.topics import check_topic_filter

SUBSCRIBE: Final = 1
PUBLISH: Final = 2
MAX_PARTS: Final = 32  # between the commas of `%t`; every way to join them is asked about
STATUS_TOPIC: Final = "$SYS/brokers/client_status/"  # the broker tells there who comes and goes, in the client's name

_ALLOW: Final = PlainTextResponse("allow")
_DENY: Final = PlainTextResponse("deny", status_code=403)


def deny(path: str) -> Response:  # noqa: ARG001
    """Return a denial."""
    return _DENY


async def auth(attached: Attached, request: HookRequest) -> Response:
    """Admit a CONNECT, of which NanoMQ shows neither the will nor the clean session flag."""
    address = request.text("ipaddress", "")
    connect = ConnectRequest(
        client_id=request.text("clientid"),
        clean_session=True,  # it is not told, and not asked for: the row stands as if the broker kept something
        username=request.text("username", ""),
        password=request.text("password").encode(),
    )
    outcome = await attached.connect(connect, peer=f"{address}:0" if address else "")
    return _DENY if isinstance(outcome, Refusal) else _ALLOW


async def acl(attached: Attached, request: HookRequest) -> Response:
    """Decide one PUBLISH, or all filters of one SUBSCRIBE, of the session of the client id."""
    client_id, topic = request.text("clientid"), request.text("topic")
    access = request.integer("access")
    if access == PUBLISH:
        allowed = _is_own_status(attached, client_id, topic) or may_publish(attached, client_id, topic)
    elif access == SUBSCRIBE:
        filters = list(_every_reading(topic))
        allowed = bool(filters) and all(may_subscribe(attached, client_id, each) for each in filters)
    else:
        raise MalformedHook("`access` is neither 1 nor 2")
    return _ALLOW if allowed else _DENY


def _is_own_status(attached: Attached, client_id: str, topic: str) -> bool:
    """Return whether this is the broker's own message on the client, which it sends through `acl_req` as well."""
    if topic != STATUS_TOPIC + client_id or "+" in client_id or "#" in client_id:
        return False
    return attached.session(client_id) is not None


def _every_reading(topics: str) -> Iterator[str]:
    """Yield each filter that may be meant by a list joined with commas: a filter may hold a comma itself.

    What is no valid filter was not joined so; the whole list is none when a part that stands in every reading is.
    Raises MalformedHook for more than 32 parts.
    """
    parts = topics.split(",")
    if len(parts) > MAX_PARTS:
        raise MalformedHook(f"more than {MAX_PARTS} filters in one SUBSCRIBE")
    for first in range(len(parts)):
        for end in range(first + 1, len(parts) + 1):
            reading = ",".join(parts[first:end])
            if end - first == 1 or _is_filter(reading):
                yield reading


def _is_filter(text: str) -> bool:
    try:
        check_topic_filter(text, max_levels=None)
    except InvalidInput:
        return False
    return True


ADAPTER = Adapter(
    kind="nanomq",
    routes={
        "auth": Hook(handler=auth, fields=frozenset({"clientid", "username", "password", "ipaddress"}), raw_form=True),
        "acl": Hook(handler=acl, fields=frozenset({"clientid", "access", "topic"}), raw_form=True),
    },
    deny=deny,
    swap="keep",
)
