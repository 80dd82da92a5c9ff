"""Cases about who is let in, what ends a connection, and what becomes of its session, its queue and its will."""

from __future__ import annotations

from tests.conformance.steps import (
    Case,
    Change,
    Connect,
    Cut,
    Delete,
    Disconnect,
    Exists,
    Is,
    Make,
    Move,
    Options,
    Publish,
    Receives,
    Regenerate,
    Revoke,
    SessionPresent,
    SetRules,
    Settle,
    Step,
    Subscribe,
    Token,
    Wait,
    Will,
    allow,
)
from tests.conformance.table_rules import PUB_OWN, listens

KEPT = Options(clean=False)
WILL = Options(will=Will("T/g1/A/will"))
FLEET = Token("fleet", "app")


def fleet(**options: object) -> Options:
    return Options(secret="fleet", **options)  # type: ignore[arg-type]


def _watches(*steps: Step) -> tuple[Step, ...]:
    return (Connect("S"), Subscribe("S", "T/#"), *steps)


IDENTITY = (
    Case(
        name="refused: the code tells which",
        claim="A refusal says bad credentials (4, 0x86) for the token, not authorized (5, 0x87) for what it may not.",
        steps=(
            Connect("A", "refused bad credentials", Options(wrong=True)),
            Change("A", {"state": "blocked"}),
            Connect("A", "refused not authorized"),
        ),
    ),
    Case(
        name="refused: unknown token",
        claim="A token that nobody made is refused.",
        steps=(Connect("A", "refused", Options(wrong=True)),),
    ),
    Case(
        name="refused: expired token",
        claim="An expired token is refused.",
        steps=(
            Token("brief", "device", "A", expires_s=1.7),
            Wait(2.3),
            Connect("A", "refused", Options(secret="brief")),
        ),
    ),
    Case(
        name="refused: revoked token",
        claim="A revoked token is refused.",
        steps=(Connect("A"), Revoke("A"), Is("A", "closed"), Connect("A", "refused")),
    ),
    Case(
        name="refused: another thing's name",
        claim="A device token speaks for no other thing.",
        steps=(Connect("B", "refused", Options(thing="A")),),
    ),
    Case(
        name="refused: blocked thing",
        claim="A blocked thing is refused, and admitted again when it is active.",
        steps=(
            Change("A", {"state": "blocked"}),
            Connect("A", "refused"),
            Change("A", {"state": "active"}),
            Connect("A"),
        ),
    ),
    Case(
        name="refused: suspended tenant",
        claim="Nobody of a suspended tenant is admitted; all are again when it is active.",
        steps=(
            Change("T", {"state": "suspended"}),
            Connect("A", "refused"),
            Change("T", {"state": "active"}),
            Connect("A"),
        ),
    ),
    Case(
        name="refused: nothing happens to the holder",
        claim="Wrong credentials with somebody's client id change nothing for him, clean session or not.",
        steps=(
            Connect("S"),
            Connect("A"),
            *listens("A", "T/g1/A/#"),
            Connect("thief", "refused", Options(secret="A", client_id="A", wrong=True)),
            Connect("thief", "refused", Options(secret="A", client_id="A", wrong=True, clean=False)),
            Is("A", "open"),
            Publish("S", "T/g1/A/x", "still"),
            Receives("A", "still"),
        ),
    ),
    Case(
        name="refused: nothing happens to the holder's queue",
        claim="Wrong credentials with the client id of a session at rest end neither it nor its queue.",
        steps=(
            Connect("S"),
            Connect("A", options=KEPT),
            *listens("A", "T/g1/A/#"),
            Cut("A"),
            Publish("S", "T/g1/A/x", "queued"),
            Connect("thief", "refused", Options(secret="A", client_id="A", wrong=True)),
            Connect("thief", "refused", Options(secret="A", client_id="A", wrong=True, clean=False)),
            Connect("A", options=KEPT),
            SessionPresent("A", "yes"),
            Receives("A", "queued"),
        ),
    ),
    Case(
        name="registered: first connection",
        claim="The first connection by an app token makes the thing, with the token's ground and definition.",
        steps=(
            FLEET,
            *_watches(Connect("new", options=fleet(thing="new"))),
            Exists("new", "g1"),
            Publish("new", "T/g1/new/x", "own"),
            Receives("S", "own"),
        ),
    ),
    Case(
        name="registered: refused leaves nothing",
        claim="A first connection that is refused for its will registers nothing.",
        steps=(
            FLEET,
            Connect("new", "refused", fleet(thing="new", will=Will("T/g2/else"))),
            Exists("new", "no"),
        ),
    ),
    Case(
        name="registered: licence",
        claim="A licence of one seat admits one thing; a freed seat admits the next.",
        steps=(
            Make("/licenses", {"key": "one", "seats": 1}),
            Token("fleet", "app", fields={"license": "one"}),
            Connect("first", options=fleet(thing="first")),
            Connect("second", "refused", fleet(thing="second")),
            Exists("second", "no"),
            Delete("/things/first"),
            Connect("second", "accepted", fleet(thing="second")),
        ),
    ),
    Case(
        name="registered: unsafe key",
        claim="No thing has a name that would be more than one level of a topic.",
        steps=(
            FLEET,
            *(Connect(f"bad{n}", "refused", fleet(thing=key)) for n, key in enumerate(("a/b", "+", "#", "a\x01b"))),
        ),
    ),
    Case(
        name="client id: bound at the first connection",
        claim="Another client id than the bound one is refused until an operator resets the binding.",
        bind="app_token",
        steps=(
            FLEET,
            Connect("new", options=fleet(thing="new")),
            Disconnect("new"),
            Connect("other", "refused", fleet(thing="new")),
            Delete("/things/new/client-id"),
            Connect("other", "accepted", fleet(thing="new")),
        ),
    ),
    Case(
        name="client id: no way into a topic",
        claim="Where rules speak of the client id, one that would be a wildcard or several levels is refused.",
        rules=(allow("publish", "{tenant}/{client}/#"),),
        steps=(
            *(Connect("A", "refused", Options(client_id=bad)) for bad in ("+", "#", "/x")),
            Connect("A", options=Options(client_id="A")),
        ),
    ),
    Case(
        name="client id: empty",
        claim="An empty client id with clean session is given a fresh one.",
        levels=(4, 5),  # MQTT 3.1 knows no empty ones
        steps=(Connect("A", options=Options(client_id="")),),
    ),
)

TAKING_OVER = (
    Case(
        name="take-over: the same principal",
        claim="The same principal takes its session over: the old connection ends, the new one works.",
        steps=(
            Connect("S"),
            Connect("A"),
            *listens("A", "T/g1/A/#"),
            Connect("again", options=Options(secret="A", client_id="A")),
            Is("A", "closed"),
            *listens("again", "T/g1/A/#"),
            Publish("S", "T/g1/A/x", "new"),
            Receives("again", "new"),
        ),
    ),
    Case(
        name="take-over: the will",
        claim="The will of a connection that is taken over is sent.",
        steps=_watches(
            Connect("A", options=WILL),
            Connect("again", options=Options(secret="A", client_id="A")),
            Is("A", "closed"),
            Receives("S", "will"),
        ),
    ),
    Case(
        name="take-over: the session",
        claim="A persistent session, with what it subscribed, goes to the connection that takes it over.",
        steps=(
            Connect("S"),
            Connect("A", options=KEPT),
            *listens("A", "T/g1/A/#"),
            Connect("again", options=Options(secret="A", client_id="A", clean=False)),
            Is("A", "closed"),
            SessionPresent("again", "yes"),
            Publish("S", "T/g1/A/x", "kept"),
            Receives("again", "kept"),
        ),
    ),
    Case(
        name="same client id: the holder",
        claim="Another principal with the same client id changes nothing for the holder.",
        steps=(
            Connect("S"),
            Connect("A", options=Options(client_id="same")),
            *listens("A", "T/g1/A/#"),
            Connect("B", None, Options(client_id="same")),
            Is("A", "open"),
            Publish("S", "T/g1/A/x", "still"),
            Receives("A", "still"),
        ),
    ),
    Case(
        name="same client id: the other",
        claim="Two principals may use one client id, as two sessions.",
        steps=(
            Connect("S"),
            Connect("A", options=Options(client_id="same")),
            Connect("B", "accepted", Options(client_id="same")),
            *listens("B", "T/g1/B/#"),
            Publish("S", "T/g1/B/x", "own"),
            Receives("B", "own"),
        ),
    ),
    Case(
        name="same client id: a session at rest",
        claim="A client id is no way to the queue that another principal left under it.",
        steps=(
            Connect("S"),
            Connect("A", options=Options(client_id="same", clean=False)),
            *listens("A", "T/g1/A/#"),
            Cut("A"),
            Publish("S", "T/g1/A/x", "queued"),
            Connect("B", None, Options(client_id="same", clean=False)),
            Receives("B", ""),
            Connect("A", "accepted", Options(client_id="same", clean=False)),
            Receives("A", "queued"),
        ),
    ),
)

KEEPING = (
    Case(
        name="session: kept and its queue",
        claim="A persistent session survives the loss of its connection, with what came meanwhile.",
        steps=(
            Connect("S"),
            Connect("A", options=KEPT),
            SessionPresent("A", "no"),
            *listens("A", "T/g1/A/#"),
            Cut("A"),
            Publish("S", "T/g1/A/x", "queued"),
            Connect("A", options=KEPT),
            SessionPresent("A", "yes"),
            Publish("S", "T/g1/A/x", "live"),
            Receives("A", "queued live"),
        ),
    ),
    Case(
        name="session: clean wipes",
        claim="A CONNECT with clean session ends the persistent one and its queue.",
        steps=(
            Connect("S"),
            Connect("A", options=KEPT),
            *listens("A", "T/g1/A/#"),
            Disconnect("A"),
            Publish("S", "T/g1/A/x", "queued"),
            Connect("A"),
            SessionPresent("A", "no"),
            Disconnect("A"),
            Connect("A", options=KEPT),
            SessionPresent("A", "no"),
            *listens("A"),
            Receives("A", ""),
        ),
    ),
    Case(
        name="queue: after a changed rule",
        claim="What was queued under a right that ended is not delivered.",
        steps=(
            Connect("S"),
            Connect("A", options=KEPT),
            *listens("A", "T/g1/A/#"),
            Cut("A"),
            Publish("S", "T/g1/A/x", "queued"),
            SetRules((PUB_OWN,)),
            Settle("A"),
            Connect("A", options=KEPT),
            *listens("A"),
            Receives("A", ""),
        ),
    ),
    Case(
        name="queue: after a move",
        claim="What was queued in a place that the thing has left is not delivered.",
        steps=(
            Connect("S"),
            Connect("A", options=KEPT),
            *listens("A", "T/g1/A/#"),
            Cut("A"),
            Publish("S", "T/g1/A/x", "queued"),
            Move("A", "g2"),
            Settle("A"),
            Connect("A", options=KEPT),
            *listens("A"),
            Receives("A", ""),
        ),
    ),
    Case(
        name="queue: after revoke",
        claim="Revoking the token of a session at rest ends it and its queue; the thing's next token finds nothing.",
        steps=(
            Connect("S"),
            Connect("A", options=KEPT),
            *listens("A", "T/g1/A/#"),
            Cut("A"),
            Publish("S", "T/g1/A/x", "queued"),
            Token("next", "device", "A"),
            Revoke("A"),
            Settle("A"),
            Connect("A", "accepted", Options(secret="next", clean=False)),
            SessionPresent("A", "no"),
            *listens("A"),
            Receives("A", ""),
        ),
    ),
    Case(
        name="queue: after revoke while connected",
        claim="Revoking the token of a live persistent session ends it, its subscriptions and its queue.",
        steps=(
            Connect("S"),
            Connect("A", options=KEPT),
            *listens("A", "T/g1/A/#"),
            Token("next", "device", "A"),
            Revoke("A"),
            Is("A", "closed"),
            Settle("A"),
            Publish("S", "T/g1/A/x", "late"),
            Connect("A", "accepted", Options(secret="next", clean=False)),
            SessionPresent("A", "no"),
            *listens("A"),
            Receives("A", ""),
        ),
    ),
)

ENDS = (
    *(
        Case(
            name=f"ends: {name}",
            claim=f"{what} ends the live connection.",
            steps=(*(steps[:-1]), Connect("A"), steps[-1], Is("A", "closed")),
        )
        for name, what, steps in (
            ("revoke", "Revoking the token", (Revoke("A"),)),
            ("block", "Blocking the thing", (Change("A", {"state": "blocked"}),)),
            ("delete", "Deleting the thing", (Delete("/things/A"),)),
            ("suspend", "Suspending the tenant", (Change("T", {"state": "suspended"}),)),
            ("kick", "An operator's kick", (Delete("/sessions/{A}"),)),
        )
    ),
    Case(
        name="ends: regenerate",
        claim="Regenerating a token without overlap ends what rests on the old secret; the new one is admitted.",
        steps=(
            FLEET,
            Connect("new", options=fleet(thing="new")),
            Regenerate("fleet"),
            Is("new", "closed"),
            Connect("new", "refused", Options(secret="old fleet", thing="new")),
            Connect("new", "accepted", fleet(thing="new")),
        ),
    ),
    Case(
        name="ends: regenerate with overlap",
        claim="With an overlap both secrets are good until it ends; then the old one's connections end.",
        steps=(
            FLEET,
            Connect("new", options=fleet(thing="new")),
            Regenerate("fleet", overlap_s=2),
            Is("new", "open"),
            Connect("more", "accepted", fleet(thing="more")),
            Connect("older", "accepted", Options(secret="old fleet", thing="older")),
            Is("new", "closed"),
            Is("older", "closed"),
            Is("more", "open"),
            Connect("new", "refused", Options(secret="old fleet", thing="new")),
        ),
    ),
    Case(
        name="ends: expiry",
        claim="A connection ends when its token expires, and the token is refused from then on.",
        steps=(
            Token("brief", "device", "A", expires_s=2.7),
            Connect("A", options=Options(secret="brief")),
            Is("A", "closed"),
            Wait(1),  # where whole seconds are counted, it ended up to one before
            Connect("A", "refused", Options(secret="brief")),
        ),
    ),
    Case(
        name="ends: another's goes on",
        claim="Revoking one token ends no connection that rests on another, of the same thing or not.",
        steps=(
            Token("other", "device", "A"),
            Connect("A"),
            Connect("other"),
            Connect("B"),
            Revoke("A"),
            Is("A", "closed"),
            Is("other", "open"),
            Is("B", "open"),
        ),
    ),
    Case(
        name="ends: a ground token's clients",
        claim="Revoking a ground token ends all its clients.",
        steps=(
            Connect("GR"),
            Connect("second", options=Options(secret="GR")),
            Revoke("GR"),
            Is("GR", "closed"),
            Is("second", "closed"),
        ),
    ),
)

WILLS = (
    Case(
        name="will: lost connection",
        claim="A permitted will is sent when the connection is lost.",
        steps=_watches(Connect("A", options=WILL), Cut("A"), Receives("S", "will")),
    ),
    Case(
        name="will: retained",
        claim="A retained will is kept.",
        steps=(
            Connect("A", options=Options(will=Will("T/g1/A/will", retain=True))),
            Cut("A"),
            Connect("S"),
            *listens("S", "T/g1/A/will"),
            Receives("S", "old(will)", retained=True),
        ),
    ),
    Case(
        name="will: DISCONNECT",
        claim="A DISCONNECT drops the will.",
        steps=_watches(Connect("A", options=WILL), Disconnect("A"), Receives("S", "")),
    ),
    Case(
        name="will: denied at CONNECT",
        claim="A will without the right refuses the CONNECT.",
        steps=(Connect("A", "refused", Options(will=Will("T/g1/B/will"))),),
    ),
    Case(
        name="will: never sent without the right",
        claim="A will without the right is never sent, whether its CONNECT was refused or not.",
        steps=_watches(Connect("A", None, Options(will=Will("T/g1/B/will"))), Cut("A"), Wait(0.2), Receives("S", "")),
    ),
    Case(
        name="will: denied when it fires",
        claim="A will whose right ended meanwhile is not sent.",
        steps=_watches(
            Connect("A", options=WILL),
            SetRules((allow("subscribe", "{tenant}/{ground}/{thing}/#"),)),
            Settle("A"),
            Cut("A"),
            Receives("S", ""),
        ),
    ),
    Case(
        name="will: expiry",
        claim="A permitted will is sent when the token expires.",
        steps=_watches(
            Token("brief", "device", "A", expires_s=2.7),
            Connect("A", options=Options(secret="brief", will=Will("T/g1/A/will"))),
            Is("A", "closed"),
            Wait(0.1),
            Receives("S", "will"),
        ),
    ),
    *(
        Case(
            name=f"will: {name}",
            claim=f"{what} never sends the will.",
            steps=_watches(Connect("A", options=WILL), step, Is("A", "closed"), Wait(0.1), Receives("S", "")),
        )
        for name, what, step in (
            ("revoke", "Revoking the token", Revoke("A")),
            ("block", "Blocking the thing", Change("A", {"state": "blocked"})),
            ("delete", "Deleting the thing", Delete("/things/A")),
        )
    ),
    Case(
        name="will: kick",
        claim="An operator's kick sends the will.",
        steps=_watches(
            Connect("A", options=WILL), Delete("/sessions/{A}"), Is("A", "closed"), Wait(0.1), Receives("S", "will")
        ),
    ),
)

SESSION_CASES = (*IDENTITY, *TAKING_OVER, *KEEPING, *ENDS, *WILLS)
