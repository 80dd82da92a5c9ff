"""Cases that only MQTT 5.0 has: reasons instead of silence, delayed wills, session expiry, aliases."""

from __future__ import annotations

from tests.conformance.steps import (
    Again,
    Case,
    Change,
    Connect,
    Cut,
    Disconnect,
    Is,
    Options,
    Publish,
    Receives,
    Revoke,
    SessionPresent,
    Subscribe,
    Token,
    Wait,
    Will,
)
from tests.conformance.table_rules import WATCHED, listens

FIVE = (5,)

MQTT5_CASES = (
    Case(
        name="5.0: denied publish",
        claim="A denied PUBLISH of QoS 1 or 2 is answered 0x87, and the connection goes on.",
        levels=FIVE,
        steps=(
            *WATCHED,
            Publish("A", "T/g1/B/x", "one", qos=1, expect="denied 0x87"),
            Publish("A", "T/g1/B/x", "two", qos=2, expect="denied 0x87"),
            Publish("A", "T/g1/A/x", "yes", qos=2, expect="acked"),
            Receives("S", "yes"),
        ),
    ),
    Case(
        name="5.0: denied subscription",
        claim="A denied filter is answered 0x87.",
        levels=FIVE,
        steps=(Connect("A"), Subscribe("A", "T/g1/B/x", 1, "denied 0x87")),
    ),
    Case(
        name="5.0: revoked",
        claim="Revoke ends the connection with 0x98.",
        levels=FIVE,
        steps=(Connect("A"), Revoke("A"), Is("A", "closed 0x98")),
    ),
    Case(
        name="5.0: expired",
        claim="Expiry ends the connection with 0xA0.",
        levels=FIVE,
        steps=(
            Token("brief", "device", "A", expires_s=2.7),
            Connect("A", options=Options(secret="brief")),
            Is("A", "closed 0xa0"),
        ),
    ),
    Case(
        name="5.0: taken over",
        claim="A connection that is taken over ends with 0x8E.",
        levels=FIVE,
        steps=(
            Connect("A"),
            Connect("again", options=Options(secret="A", client_id="A")),
            Is("A", "closed 0x8e"),
        ),
    ),
    Case(
        name="5.0: alias of a denied publish",
        claim="An alias that a denied publish set leads nowhere else, one that a permitted one set works.",
        levels=FIVE,
        steps=(
            *WATCHED,
            Publish("A", "T/g1/B/x", "no", alias=1, expect="denied 0x87"),
            Publish("A", "", "no", alias=1, expect="denied 0x87"),
            Publish("A", "T/g1/A/x", "first", alias=1, expect="acked"),
            Publish("A", "", "second", alias=1, expect="acked"),
            Receives("S", "first second"),
        ),
    ),
    Case(
        name="5.0: will delay",
        claim="A delayed will is sent after its delay.",
        levels=FIVE,
        steps=(
            Connect("S"),
            Subscribe("S", "T/#"),
            Connect("A", options=Options(clean=False, expiry_s=60, will=Will("T/g1/A/will", delay_s=1))),
            Cut("A"),
            Receives("S", ""),
            Wait(1.3),
            Receives("S", "will"),
        ),
    ),
    Case(
        name="5.0: will delay, back in time",
        claim="A delayed will is dropped when the session is resumed before.",
        levels=FIVE,
        steps=(
            Connect("S"),
            Subscribe("S", "T/#"),
            Connect("A", options=Options(clean=False, expiry_s=60, will=Will("T/g1/A/will", delay_s=1))),
            Cut("A"),
            Connect("A", options=Options(clean=False, expiry_s=60)),
            Wait(1.3),
            Receives("S", ""),
        ),
    ),
    *(
        Case(
            name=f"5.0: will delay, {name}",
            claim=f"A delayed will is not sent when the {what} before it is due.",
            levels=FIVE,
            steps=(
                Connect("S"),
                Subscribe("S", "T/#"),
                Connect("A", options=Options(clean=False, expiry_s=60, will=Will("T/g1/A/will", delay_s=1))),
                Cut("A"),
                step,
                Wait(1.3),
                Receives("S", ""),
            ),
        )
        for name, what, step in (
            ("revoke", "token is revoked", Revoke("A")),
            ("block", "thing is blocked", Change("A", {"state": "blocked"})),
        )
    ),
    Case(
        name="5.0: session expiry",
        claim="A session without expiry ends with its connection, also where clean start was not set.",
        levels=FIVE,
        steps=(
            Connect("S"),
            Connect("A", options=Options(clean=True, expiry_s=60)),
            *listens("A", "T/g1/A/#"),
            Disconnect("A"),
            Publish("S", "T/g1/A/x", "queued"),
            Connect("A", options=Options(clean=False, expiry_s=60)),
            SessionPresent("A", "yes"),
            Receives("A", "queued"),
        ),
    ),
    Case(
        name="5.0: shared",
        claim="A shared subscription is judged by its inner filter.",
        levels=FIVE,
        steps=(
            Connect("A"),
            Subscribe("A", "$share/g/T/g1/A/#"),
            Subscribe("A", "$share/g/T/g1/#", 1, "denied"),
            Again("A"),
        ),
    ),
)
