"""The differences of Mosquitto with mosquitto-go-auth: it asks about everything, and can be told nothing."""

from __future__ import annotations

from tests.conformance.difference import Difference
from tests.conformance.differences_of_hooks import HELD, STAYS_OPEN

BROKER = "mosquitto-go-auth"

GOAUTH = (
    Difference(
        broker=BROKER,
        says="A connection cannot be ended",
        sentence="No connection can be ended: after revoke nothing passes in either direction, but it stays.",
        cells=STAYS_OPEN,
    ),
    Difference(
        broker=BROKER,
        says="what it had queued before is given to the thing's next token",
        sentence="A session outlives the revoke of its token, and what was queued before it goes to the next one.",
        cells={
            "queue: after revoke": {"A session present": "yes", "A receives": "queued"},
            "queue: after revoke while connected": {"A is": "open", "A session present": "yes"},
        },
    ),
    Difference(
        broker=BROKER,
        says="after expiry or a kick it is not sent",
        sentence="No will is sent after expiry or a kick: the connection stays, and what it does is denied.",
        cells={f"will: {case}": {"A is": "open", "S receives": "nothing"} for case in ("expiry", "kick")},
    ),
    Difference(
        broker=BROKER,
        says="Retained messages below a blocked or deleted thing's place stay",
        sentence="What a blocked or deleted thing retained stays.",
        cells={"blocked: retained of its place": {"A is": "open", "S receives": "old(A's) old(B's)"}},
    ),
    Difference(
        broker=BROKER,
        says="A will is not shown at CONNECT",
        sentence="The will is judged when it is sent, not at CONNECT.",
        cells={
            "will: denied at CONNECT": {"CONNECT A": "accepted"},
            "registered: refused leaves nothing": {"CONNECT new": "accepted", "thing new": "g1"},
        },
    ),
    Difference(
        broker=BROKER,
        says="QoS and retain flag are not told",
        sentence="QoS and the retain flag are not told: a rule with `qos_max` or `retain` allows nothing.",
        cells={
            "publish: qos_max": {"S receives": "nothing"},
            "publish: retain false": {"S receives": "nothing"},
            "publish: retain true": {"S receives": "nothing"},
            "subscribe: qos_max": {"SUBSCRIBE A T/g1/A/#": "denied"},
        },
    ),
    Difference(
        broker=BROKER,
        says="Every refusal at CONNECT says not authorized",
        sentence="Every refusal at CONNECT says not authorized (5, 0x87).",
        cells={"refused: the code tells which": {"CONNECT A": "refused not authorized"}},
    ),
    Difference(
        broker=BROKER,
        says="A user name that holds control characters closes the connection without an answer",
        sentence="A user name that holds control characters is not refused: the connection closes.",
        cells={"registered: unsafe key": {"CONNECT bad3": "closed"}},
    ),
    Difference(
        broker=BROKER,
        says="One principal at a time has a client id",
        sentence="A client id belongs to its first principal: another is refused.",
        cells=HELD,
    ),
)
