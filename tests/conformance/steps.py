"""The language of the cases: small frozen records of what somebody does, and of what must be seen.

Names. `T` and `U` as a level of a topic stand for the tenant of the case and another one. Things `A` and `B` are in
ground `g1`, `C` in `g2`, `S` may publish and subscribe everything of the tenant, `Z` is `U`'s; each has a device token
of its name. `GR`, `GW` are ground tokens of `g1` to read and to write. A client is called as its token unless said
otherwise, and so is its client id. Only who is mentioned is made.

Expectations are words: `accepted`, `refused`, `granted 1`, `denied`, `open`, `closed`, payloads. An observation may say
more than was expected (`denied 0x87`); None expects nothing. A label names each observation, so that a difference can
speak of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Rules = tuple[dict[str, Any], ...]


def allow(action: str, topic: str, **conditions: Any) -> dict[str, Any]:
    return {"effect": "allow", "action": action, "topic": topic, **conditions}


def deny(action: str, topic: str) -> dict[str, Any]:
    return {"effect": "deny", "action": action, "topic": topic}


# Every definition may also read this topic: the marker that comes last proves what did not come before it.
END = "T/end"
END_RULE = allow("subscribe", "{tenant}/end")
OWN: Rules = (allow("publish", "{tenant}/{ground}/{thing}/#"), allow("subscribe", "{tenant}/{ground}/{thing}/#"))


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: str = "will"
    qos: int = 1
    retain: bool = False
    delay_s: int = 0


# --- what clients do ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a client connects. `secret` names the token (by default as the client), `wrong` spoils it."""

    secret: str = ""
    thing: str = ""  # user name; by default the token's thing
    client_id: str | None = None  # by default the client's name; "" sends none
    clean: bool = True
    expiry_s: int = 0  # MQTT 5 only: session expiry
    will: Will | None = None
    wrong: bool = False


@dataclass(frozen=True, slots=True)
class Connect:
    client: str
    expect: str | None = "accepted"
    options: Options = Options()

    @property
    def label(self) -> str:
        return f"CONNECT {self.client}"


@dataclass(frozen=True, slots=True)
class Again:
    """Connect as before if the broker has closed the connection meanwhile; nothing otherwise."""

    client: str
    label: str = ""
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class Subscribe:
    client: str
    filter: str
    qos: int = 1
    expect: str | None = "granted"

    @property
    def label(self) -> str:
        return f"SUBSCRIBE {self.client} {self.filter}"


@dataclass(frozen=True, slots=True)
class SubscribeAll:
    """One SUBSCRIBE of several filters at QoS 1; seen are the verdicts in order."""

    client: str
    filters: tuple[str, ...]
    expect: str | None

    @property
    def label(self) -> str:
        return f"SUBSCRIBE {self.client} {' '.join(self.filters)}"


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    client: str
    filter: str
    label: str = ""
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish and wait for the end of the handshake: `acked`, `denied 0x87`, `closed`; `sent` at QoS 0."""

    client: str
    topic: str
    payload: str
    qos: int = 1
    retain: bool = False
    expect: str | None = None
    alias: int = 0  # MQTT 5 only

    @property
    def label(self) -> str:
        return f"PUBLISH {self.client} {self.payload}"


@dataclass(frozen=True, slots=True)
class Receives:
    """What the client got until now, in order, as words; the marker makes sure that nothing more was under way.

    `S` publishes the marker, which the client must have asked for; a client that is closed got what it got.
    """

    client: str
    payloads: str
    retained: bool = False  # tell retained ones apart: `old(r)`
    mark: str = END

    @property
    def label(self) -> str:
        return f"{self.client} receives"

    @property
    def expect(self) -> str:
        return self.payloads or "nothing"


@dataclass(frozen=True, slots=True)
class Is:
    """Whether the broker keeps the connection (`open`) or has closed it (`closed`, in MQTT 5 with its reason)."""

    client: str
    expect: str
    after_swap: bool = False  # a changed grant comes before: where that kicks, wait for it

    @property
    def label(self) -> str:
        return f"{self.client} is"


@dataclass(frozen=True, slots=True)
class Settle:
    """Wait until a change has reached the broker, be it by ending the connection; `Again` or `Connect` follows."""

    client: str
    label: str = ""
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class SessionPresent:
    """The flag of the CONNACK; MQTT 3.1 has none, nothing is seen there."""

    client: str
    expect: str  # yes, no

    @property
    def label(self) -> str:
        return f"{self.client} session present"


@dataclass(frozen=True, slots=True)
class Cut:
    """Lose the network, and wait until the service knows."""

    client: str
    label: str = ""
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class Disconnect:
    client: str
    label: str = ""
    expect: str | None = None


# --- what operators do -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetRules:
    """Change the rules of the things' definition."""

    rules: Rules
    label: str = ""
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class Move:
    thing: str
    ground: str
    label: str = ""
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class Revoke:
    secret: str
    label: str = ""
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class Regenerate:
    """New secret of an app token; the old one is then called `old NAME`."""

    secret: str
    overlap_s: int = 0
    label: str = ""
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A further token: `kind` is app, device or ground; `fields` are the body's.

    It expires `expires_s` from now or half a second sooner or later.
    """

    name: str
    kind: str
    of: str = ""  # thing or ground
    expires_s: float | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """PATCH a thing, or the tenant (`T`)."""

    what: str
    fields: dict[str, Any]
    label: str = ""
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """DELETE below the tenant's path; `{A}` in it is the first live session of thing A."""

    path: str
    label: str = ""
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class Make:
    """POST below the tenant's path."""

    path: str
    body: dict[str, Any]
    label: str = ""
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """Whether a thing exists, and in which ground: `g1`, or `no`."""

    thing: str
    expect: str

    @property
    def label(self) -> str:
        return f"thing {self.thing}"


@dataclass(frozen=True, slots=True)
class Wait:
    """Let the clock pass what a case set before: an expiry, the end of an overlap."""

    seconds: float
    label: str = ""
    expect: str | None = None


Step = (
    Connect
    | Again
    | Subscribe
    | SubscribeAll
    | Unsubscribe
    | Publish
    | Receives
    | Is
    | Settle
    | SessionPresent
    | Cut
    | Disconnect
    | SetRules
    | Move
    | Revoke
    | Regenerate
    | Token
    | Change
    | Delete
    | Make
    | Exists
    | Wait
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row. `claim` says in a sentence what every broker should do."""

    name: str
    claim: str
    steps: tuple[Step, ...]
    rules: Rules = OWN
    bind: str = "never"  # bind_client_id of the definition
    modules: bool = False  # `A` is a gateway
    levels: tuple[int, ...] = (3, 4, 5)

    @property
    def waits_s(self) -> float:
        """How long the case waits by itself: for what it lets expire, and where it says so."""
        waits = 0.0
        for step in self.steps:
            match step:
                case Wait():
                    waits += step.seconds
                case Token():
                    waits += step.expires_s or 0
                case Regenerate():
                    waits += step.overlap_s
        return waits
