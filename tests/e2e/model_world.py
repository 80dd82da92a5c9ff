"""The state that the model test expects: things, tokens, sessions, messages, and who may receive what.

It knows nothing of the product but its documentation. Messages are told apart by their payloads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.e2e.model_rules import Level, Rights, matches


def _rule(effect: str, action: str, topic: str, **more: Any) -> dict[str, Any]:
    return {"effect": effect, "action": action, "topic": topic, **more}


OWN = "{tenant}/{ground}/{thing}"
DEFINITION_RULES = [
    [_rule("allow", "publish", f"{OWN}/#"), _rule("allow", "subscribe", f"{OWN}/#")],
    [
        _rule("allow", "publish", f"{OWN}/#"),
        _rule("allow", "subscribe", f"{OWN}/#"),
        _rule("allow", "subscribe", "{tenant}/{ground}/+/state"),
        _rule("deny", "publish", f"{OWN}/event"),
    ],
    [
        _rule("allow", "publish", f"{OWN}/#", qos_max=1, retain=False),
        _rule("allow", "publish", f"{OWN}/state", retain=True),
        _rule("allow", "subscribe", "{tenant}/{ground}/#", qos_max=1),
        _rule("deny", "subscribe", "{tenant}/{ground}/+/event"),
    ],
]
ROLE_RULES = [
    [],
    [_rule("allow", "subscribe", "{tenant}/{ground}/{member}/state")],
    [_rule("allow", "subscribe", "{tenant}/#"), _rule("deny", "subscribe", "{tenant}/+/a/#")],
    [_rule("allow", "publish", "{tenant}/{ground}/{member}/command"), _rule("deny", "publish", f"{OWN}/state")],
]
EDGE_RULES = [
    *DEFINITION_RULES[0],
    _rule("allow", "publish", "{tenant}/{ground}/{module}/#"),
    _rule("allow", "subscribe", "{tenant}/{ground}/{module}/#"),
]
GROUND_RULES = {
    "read": [_rule("allow", "subscribe", "{tenant}/{ground}/#")],
    "write": [_rule("allow", "publish", "{tenant}/{ground}/+/command/#")],
}
GROUND_RULES["read_write"] = GROUND_RULES["read"] + GROUND_RULES["write"]


@dataclass(eq=False)
class Thing:
    tenant: str
    key: str
    definition: str
    ground: str
    registered_by: str = ""
    seat: bool = False
    blocked: bool = False
    modules: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Token:
    tenant: str
    kind: str  # app, device, ground
    name: str
    id: str
    secrets: list[str]  # living ones, the newest at the end
    ground: str = ""
    thing: str = ""
    access: str = ""
    role: bool = False
    license: bool = False
    registers: bool = False
    dead: bool = False


@dataclass(eq=False)
class Session:
    """One session upstream, from its first CONNECT to its end; what comes after a wipe is another one."""

    tenant: str
    principal: str
    client_id: str
    token: Token
    thing: str
    clean: bool
    filters: dict[str, int] = field(default_factory=dict)
    lapsed: set[str] = field(default_factory=set)  # not covered since somebody left a set: perhaps still subscribed
    queue: list[tuple[Message, bool]] = field(default_factory=list)  # and whether it must arrive
    player: Any = None  # its open connection
    will: tuple[str, bytes, int, bool] | None = None

    @property
    def name(self) -> tuple[str, str, str]:
        return self.tenant, self.principal, self.client_id


@dataclass(eq=False)
class Message:
    topic: str
    payload: bytes
    qos: int
    allowed: set[Session] = field(default_factory=set)  # may receive it


class World:
    def __init__(self) -> None:
        self.suspended: set[str] = set()
        self.definition: dict[str, int] = {}  # tenant: which of DEFINITION_RULES
        self.role: dict[str, int] = {}
        self.seats = 3
        self.things: dict[tuple[str, str], Thing] = {}
        self.retired: set[tuple[str, str]] = set()
        self.tokens: list[Token] = []
        self.sessions: dict[tuple[str, str, str], Session] = {}
        self.retained: dict[str, Message] = {}
        self.messages: dict[bytes, Message] = {}

    def used(self, tenant: str) -> int:
        return sum(thing.seat for thing in self.things.values() if thing.tenant == tenant)

    def members(self, tenant: str, ground: str) -> frozenset[str]:
        found = {thing.key for thing in self.things.values() if (thing.tenant, thing.ground) == (tenant, ground)}
        return frozenset(found)

    def modules(self, gateway: Thing) -> frozenset[str]:
        """Nobody speaks for a blocked one."""
        return frozenset(key for key in gateway.modules if not self.things[gateway.tenant, key].blocked)

    def live(self) -> list[Session]:
        return [session for session in self.sessions.values() if session.player is not None]

    def admitted_thing(self, token: Token, secret: str, key: str) -> Thing | None | str:
        """Return the thing that speaks, perhaps one that is to be made; None for a ground token; or why refused."""
        if token.dead or secret not in token.secrets:
            return "the token ended"
        if token.tenant in self.suspended:
            return "the tenant is suspended"
        if token.kind == "ground":
            return None
        thing = self.things.get((token.tenant, key))
        if thing is None:
            if not token.registers or (token.tenant, key) in self.retired:
                return "no such thing"
            if token.license and self.used(token.tenant) >= self.seats:
                return "no seat is free"
            return Thing(token.tenant, key, "dev", token.ground or "default", token.id, token.license)
        if thing.blocked:
            return "the thing is blocked"
        if token.kind == "device" and token.thing != key:
            return "another thing's token"
        if token.kind == "app" and thing.registered_by != token.id and token.ground not in ("", thing.ground):
            return "out of scope"
        return thing

    def rights(self, token: Token, thing: Thing | None, *, anybody: bool = False) -> Rights:
        """Return what the token may do for the thing; `anybody`: if everybody were in every set."""
        ground = token.ground if thing is None else thing.ground
        members = self.members(token.tenant, ground)
        if thing is None:
            rules = GROUND_RULES[token.access]
        else:
            members |= {thing.key}
            rules = EDGE_RULES if thing.definition == "edge" else DEFINITION_RULES[self.definition[token.tenant]]
        if token.role:
            rules = [*rules, *ROLE_RULES[self.role[token.tenant]]]
        names: dict[str, Level] = {
            "tenant": token.tenant,
            "ground": ground,
            "thing": thing.key if thing else "",
            "member": "+" if anybody else members,
            "module": "+" if anybody else self.modules(thing) if thing else frozenset(),
        }
        return Rights(rules, names)

    def rights_of(self, session: Session, *, anybody: bool = False) -> Rights:
        thing = self.things[session.tenant, session.thing] if session.thing else None
        return self.rights(session.token, thing, anybody=anybody)

    def changed(self) -> None:
        """Take filters that are not covered any more from everybody who is connected."""
        for session in self.live():
            self._drop_uncovered(session)

    def _drop_uncovered(self, session: Session) -> None:
        """Take the filters that no rule covers; what only left a set may be received again when it is back."""
        rights, widest = self.rights_of(session), self.rights_of(session, anybody=True)
        session.lapsed |= {f for f, qos in session.filters.items() if rights.subscribes(f, qos) == 0x80}
        session.lapsed = {f for f in session.lapsed if widest.subscribes(f, 0) != 0x80}
        session.filters = {f: qos for f, qos in session.filters.items() if rights.subscribes(f, qos) != 0x80}

    def route(self, message: Message, *, retain: bool, not_live: Session | None = None) -> list[Session]:
        """Let a permitted message pass; return who must get it now. `not_live` is between two connections."""
        self.messages[message.payload] = message
        if retain:
            self.retained.pop(message.topic, None)
            if message.payload:
                self.retained[message.topic] = message
        must = []
        for session in self.sessions.values():
            best = [qos for f, qos in session.filters.items() if matches(message.topic, f.split("/"))]
            if not best and not any(matches(message.topic, f.split("/")) for f in session.lapsed):
                continue
            if session.player is None or session is not_live:
                certain = session is not not_live and message.qos > 0 and max(best, default=0) > 0
                session.queue.append((message, certain))
            elif self.rights_of(session).receives(message.topic):
                message.allowed.add(session)
                if best:
                    must.append(session)
        return must if message.payload else []

    def resume(self, session: Session) -> list[Message]:
        """Its connection is open again: return what must arrive of its queue."""
        self._drop_uncovered(session)
        rights = self.rights_of(session)
        must = []
        for message, certain in session.queue:
            if rights.receives(message.topic):
                message.allowed.add(session)
                if certain:
                    must.append(message)
        session.queue = []
        return must

    def found(self, session: Session, filter_: str) -> list[Message]:
        """Return what must arrive of the retained messages after that filter was granted."""
        rights = self.rights_of(session)
        found = [m for t, m in self.retained.items() if matches(t, filter_.split("/")) and rights.receives(t)]
        for message in found:
            message.allowed.add(session)
        return found

    def clear_below(self, place: str) -> None:
        self.retained = {t: m for t, m in self.retained.items() if t != place and not t.startswith(place + "/")}
