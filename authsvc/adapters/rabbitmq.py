"""RabbitMQ's MQTT plugin: `rabbitmq_auth_backend_http` asks for user, virtual host, resource and topic.

    POST user      username password vhost client_id                  at CONNECT; AMQP and management send no client id
    POST vhost     username vhost ip tags client_id                   right after it
    POST resource  username vhost resource name permission client_id  before a queue or an exchange is used
    POST topic     … name permission routing_key variable_map.*       read: a binding (SUBSCRIBE), write: a PUBLISH

Answers are ``allow``, ``allow TAGS`` (user only) and ``deny`` with status 200; whatever else it gets, it refuses.
What each call holds and when it is made was observed on RabbitMQ 3.10.8. An MQTT topic arrives as a routing key, `/`
written `.` and `+` written `*`: a `.` of the client's becomes a `/` for us as it does for every subscriber, and what
rests on a level that holds `.` or `*` is refused, because its topics could not be told from others.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import Final

from starlette.responses import PlainTextResponse, Response

from authsvc.adapters.adapter import Adapter, AttachedConfig, Hook, HookRequest
from authsvc.adapters.attached import Attached
from authsvc.adapters.connection import HookConnection
from authsvc.adapters.management import Management
from authsvc.adapters.rabbitmq_management import Kick, RabbitManagement
from authsvc.core.credentials import ConnectRequest, Credential, credential_of
from authsvc.core.facts import Effect, Refusal
from authsvc.core.policy import Action, Decision, Grant
from authsvc.core.reasons import Reason
from authsvc.core.topics import printable
from authsvc.sessions import Session, Will

EXCHANGE: Final = "amq.topic"
MAX_QOS: Final = 1  # RabbitMQ carries QoS 2 as 1, and tells the QoS of nothing
ADMINISTRATOR: Final = "administrator"  # the tag without which nobody may close the connection of another
_NOT_SAID: Final = Decision(allowed=False, reason=Reason.PROTOCOL_ERROR)
_ALLOW: Final = PlainTextResponse("allow")
_DENY: Final = PlainTextResponse("deny")


def deny(path: str) -> Response:  # noqa: ARG001
    """Return a denial. It has no reason in it: RabbitMQ could show one to the client."""
    return _DENY


async def user(attached: Attached, request: HookRequest) -> Response:
    """Admit an MQTT CONNECT. AMQP, STOMP and management logins, which send no client id, are refused but our own."""
    username, password = request.text("username", ""), request.text("password", "")
    client_id = request.text("client_id", "")
    management = _management(attached)
    if management is not None and username == management.user:
        return _manager_logs_in(management, password, client_id)
    if not client_id:
        return deny(request.path)
    connect = ConnectRequest(
        client_id=client_id,
        clean_session=True,  # it is not told, and not asked for: the row stands as if the broker kept a queue
        username=username,
        password=password.encode(),
    )
    if request.text("vhost", "") != attached.config.vhost:
        return _refused(attached, connect, Reason.PROTOCOL_ERROR, "another virtual host than the configured one")
    credential = credential_of(connect)
    if isinstance(credential, Credential) and not _sayable(credential.thing_key or ""):
        detail = "thing keys with `.` or `*` cannot be told apart on RabbitMQ; choose a key without"
        return _refused(attached, connect, Reason.THING_KEY_INVALID, detail)
    outcome = await attached.connect(connect, peer="")
    if isinstance(outcome, Refusal):
        return deny(request.path)
    level = unsayable_level(outcome.grant)
    if level is not None:
        attached.service.sessions.end(outcome, Reason.THING_KEY_INVALID, Will.NEVER)
        detail = f"level `{printable(level)}` of a rule cannot be told apart on RabbitMQ: it holds `.` or `*`"
        return _refused(attached, connect, Reason.THING_KEY_INVALID, detail)
    if management is not None:
        management.admitted(client_id)
    return _ALLOW


async def vhost(attached: Attached, request: HookRequest) -> Response:
    """Grant the configured virtual host to a session that was just admitted, and learn its address."""
    session, kick = _who(attached, request)
    if request.text("vhost", "") != attached.config.vhost or (session is None and kick is None):
        return deny(request.path)
    if session is not None and not session.peer:
        session.peer = _address(request.text("ip", ""))
    return _ALLOW


async def resource(attached: Attached, request: HookRequest) -> Response:
    """Grant a client its own queues, and to route through the topic exchange; nothing else there is."""
    if request.text("vhost", "") != attached.config.vhost:
        return deny(request.path)
    kind, name, permission = request.text("resource"), request.text("name"), request.text("permission")
    session, kick = _who(attached, request)
    if kick is not None:  # it took the connection over; deleting the queue asks for `configure`
        kick.registered = True
        return _verdict(kick.wipe and (kind, permission) == ("queue", "configure") and name in queues(kick.client_id))
    if session is None:
        return _verdict(_manager_deletes(attached, request, kind, name, permission))
    if kind == "queue":
        allowed = permission in ("configure", "read", "write") and name in queues(session.client_id)
    else:
        allowed = kind == "exchange" and name == EXCHANGE and permission in ("read", "write")
    if not allowed:
        attached.service.denied(session, permission, f"{kind} {name}", _NOT_SAID)
    return _verdict(allowed)


async def topic(attached: Attached, request: HookRequest) -> Response:
    """Decide a SUBSCRIBE (read) or a PUBLISH or will (write) on the grant of the client id."""
    session, _ = _who(attached, request, prefix="variable_map.")
    permission = request.text("permission")
    if (
        session is None
        or permission not in ("read", "write")
        or (request.text("resource"), request.text("name")) != ("topic", EXCHANGE)
        or not request.text("vhost", "") == attached.config.vhost == request.text("variable_map.vhost", "")
    ):
        return deny(request.path)
    action = Action.SUBSCRIBE if permission == "read" else Action.PUBLISH
    asked = mqtt_topic(request.text("routing_key"), action)
    if asked is None or unsayable_level(session.grant) is not None:
        attached.service.denied(session, action.value, request.text("routing_key"), _NOT_SAID)
        return deny(request.path)
    if action is Action.PUBLISH:  # neither QoS nor retain flag is told: allowed is what is so for all of them
        return _verdict(
            all(
                attached.decide(session.client_id, action, asked, qos=MAX_QOS, retain=flag).allowed
                for flag in (False, True)
            )
        )
    decision = attached.decide(session.client_id, action, asked, qos=MAX_QOS)
    if decision.allowed and decision.qos < MAX_QOS:  # it grants what the client asks for, up to 1
        lower = Decision(allowed=False, reason=Reason.QOS_TOO_HIGH, rule=decision.rule)
        attached.service.denied(session, action.value, asked, lower)
        return deny(request.path)
    return _verdict(decision.allowed)


def mqtt_topic(routing_key: str, action: Action) -> str | None:
    """Return the topic or filter that a routing key stands for, or None where it stands for none.

    In a binding a whole level `*` is `+`; in a published key it is a literal that RabbitMQ could not tell from one. A
    `*` within a level is never MQTT's, and a shared subscription would be taken for a filter that begins in `$share`.
    """
    levels = routing_key.split(".")
    if action is Action.SUBSCRIBE:
        levels = ["+" if level == "*" else level for level in levels]
    found = "/".join(levels)
    if "*" in found or levels[0] == "$share":
        return None
    return found


def unsayable_level(grant: Grant) -> str | None:
    """Return a level of the grant's rules that no routing key can spell, or None.

    An allow rule with one would reach nothing, but a deny rule would deny nothing. Of sets only those in deny rules
    matter: a member that cannot be spelled is not reached.
    """
    for rule in grant.rules:
        for level in rule.filter.levels:
            if isinstance(level, str):
                if not _sayable(level):
                    return level
            elif rule.effect is Effect.DENY:
                for key in grant.sets[level].keys:
                    if not _sayable(key):
                        return key
    return None


def queues(client_id: str) -> tuple[str, str, str]:
    """Return the names of the queues that the MQTT plugin keeps for a client id."""
    return (
        f"mqtt-subscription-{client_id}qos0",
        f"mqtt-subscription-{client_id}qos1",
        f"mqtt-will-{client_id}",  # delayed wills, from RabbitMQ 3.13 on
    )


def _who(attached: Attached, request: HookRequest, *, prefix: str = "") -> tuple[Session | None, Kick | None]:
    """Return the session, or the kick, that asks: the client id finds it, and the user name must be its own."""
    username, client_id = request.text("username", ""), request.text(f"{prefix}client_id", "")
    if prefix and request.text(f"{prefix}username", "") != username:
        return None, None
    management = _management(attached)
    if management is not None and username == management.user:
        return None, management.kicking.get(client_id)
    session = attached.session(client_id)
    if session is None or not isinstance(session.connection, HookConnection):
        return None, None
    if session.connection.username != username:
        attached.service.denied(session, "login", "another user name", _NOT_SAID)  # it may be of another tenant
        return None, None
    return session, None


def _manager_logs_in(management: RabbitManagement, password: str, client_id: str) -> Response:
    # With our backend alone RabbitMQ asks us about its own management too. The name is kept for it, and over MQTT it
    # is good for the client ids that are being ended just now.
    right = bool(management.password) and hmac.compare_digest(password.encode(), management.password.encode())
    if not right:
        return _verdict(False)
    if not client_id:
        return PlainTextResponse(f"allow {ADMINISTRATOR}")
    return _verdict(client_id in management.kicking)


def _manager_deletes(attached: Attached, request: HookRequest, kind: str, name: str, permission: str) -> bool:
    management = _management(attached)
    return (
        management is not None
        and request.text("username", "") == management.user
        and "client_id" not in request.fields
        and (kind, permission) == ("queue", "configure")
        and name in management.deleting
    )


def _management(attached: Attached) -> RabbitManagement | None:
    return attached.management if isinstance(attached.management, RabbitManagement) else None


def _refused(attached: Attached, request: ConnectRequest, reason: Reason, detail: str) -> Response:
    attached.service.refuse(Refusal(reason=reason, detail=detail), request=request, peer="")
    return deny("user")


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def _sayable(level: str) -> bool:
    return "." not in level and "*" not in level


def _verdict(allowed: bool) -> Response:  # an answer, not a switch
    return _ALLOW if allowed else _DENY


def _make_management(config: AttachedConfig) -> Management | None:
    return RabbitManagement(config) if config.management_url else None


ADAPTER = Adapter(
    kind="rabbitmq",
    routes={
        "user": Hook(handler=user),
        "vhost": Hook(handler=vhost),
        "resource": Hook(handler=resource),
        "topic": Hook(handler=topic),
    },
    deny=deny,
    swap="kick",  # each connection keeps its last twelve permissions for as long as it lasts
    management=_make_management,
    asks_in_turn=True,  # by Erlang's httpc: two connections, and what is asked meanwhile queues on them
)
