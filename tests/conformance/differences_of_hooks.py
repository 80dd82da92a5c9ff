"""The differences of the brokers that ask by hooks: what their hooks are not asked, and what cannot be told to them."""

from __future__ import annotations

from tests.conformance.difference import Difference, Seen

# A client id is one session at a broker: the second principal is refused (promise 6).
HELD = {
    "same client id: the other": {
        "CONNECT B": "refused",
        "SUBSCRIBE B T/g1/B/#": "closed",
        "SUBSCRIBE B T/end": "closed",
        "B receives": "nothing",
    }
}
HELD_CLOSED = {
    "same client id: the other": {**HELD["same client id: the other"], "SUBSCRIBE B T/g1/B/#": "denied closed"}
}
RETAINED_STAYS = {"blocked: retained of its place": {"S receives": "old(A's) old(B's)"}}
NO_NARROWING: dict[str, Seen] = {
    "deny overlaps: accepted and narrowed": {"SUBSCRIBE A T/g1/#": "denied", "A receives": "nothing"},
    "{member}: + in its place": {
        "SUBSCRIBE A T/device/+/state": "denied",
        "A receives": "nothing",
        "A receives (2)": "nothing",
    },
}
WILL_NOT_SHOWN: dict[str, Seen] = {
    "will: denied at CONNECT": {"CONNECT A": "accepted"},
    "registered: refused leaves nothing": {"CONNECT new": "accepted", "thing new": "g1"},
}
ONE_CODE = {"refused: the code tells which": {"CONNECT A": "refused not authorized"}}
NO_EMPTY_ID = {"client id: empty": {"CONNECT A": "refused"}}
KICKED_BY_CHANGE: dict[str, Seen] = {
    "changed rule: connection goes on": {"A is": "closed"},
    "moved: connection goes on": {"A is": "closed"},
}
WILL_ON_KICK: dict[str, Seen] = {
    f"will: {case}": {"S receives": "will"} for case in ("revoke", "block", "delete", "denied when it fires")
}
STAYS_OPEN: dict[str, Seen] = {  # at a broker that can be told nothing
    **{
        f"ends: {case}": {"A is": "open"}
        for case in ("revoke", "block", "delete", "suspend", "kick", "expiry", "another's goes on")
    },
    "ends: regenerate": {"new is": "open"},
    "ends: regenerate with overlap": {"new is (2)": "open", "older is": "open"},
    "ends: a ground token's clients": {"GR is": "open", "second is": "open"},
    **{f"will: {case}": {"A is": "open"} for case in ("revoke", "block", "delete")},
    "refused: revoked token": {"A is": "open"},
    "5.0: revoked": {"A is": "open"},
    "5.0: expired": {"A is": "open"},
}
DENIED_PUBLISH_ENDS = {
    "publish: denied, connection goes on": {"A is": "closed", "PUBLISH A yes": "closed", "S receives": "nothing"}
}

RABBITMQ = (
    Difference(
        broker="RabbitMQ",
        says="A denied PUBLISH or SUBSCRIBE ends the connection",
        sentence="A denied publish or subscription ends the connection.",
        cells={
            **DENIED_PUBLISH_ENDS,
            "subscribe: denied, connection goes on": {"A is": "closed", "A receives": "nothing"},
            "subscribe: several filters": {"SUBSCRIBE A T/g1/A/x T/g1/B/x T/end T/g1/A/# #": "closed"},
        },
    ),
    Difference(
        broker="RabbitMQ",
        says="QoS and retain flag are not told",
        sentence="QoS and the retain flag are not told: a rule with `qos_max` or `retain` allows nothing.",
        cells={
            "publish: qos_max": {"S receives": "nothing"},
            "publish: retain false": {"S receives": "nothing"},
            "publish: retain true": {"S receives": "nothing"},
            "subscribe: qos_max": {"SUBSCRIBE A T/g1/A/#": "denied closed"},
        },
    ),
    Difference(
        broker="RabbitMQ",
        says="a wildcard subscription gets none",
        sentence="A subscription with a wildcard gets no retained messages.",
        cells={"publish: retained for a wildcard": {"S receives": "nothing"}},
    ),
    Difference(
        broker="RabbitMQ",
        says="no shared subscriptions",
        sentence="A shared subscription is refused, whatever the grant says.",
        cells={
            "shared: covered": {
                "SUBSCRIBE A $share/g/T/g1/A/#": "denied closed",
                "SUBSCRIBE A T/end": "closed",
                "A receives": "nothing",
            }
        },
    ),
    Difference(
        broker="RabbitMQ",
        says="Deliveries are not judged",
        sentence="Deliveries are not judged: a filter that a deny overlaps or that is wider in a set level is refused.",
        cells={
            "deny overlaps: accepted and narrowed": {
                "SUBSCRIBE A T/g1/#": "denied closed",
                "SUBSCRIBE A T/end": "closed",
                "A receives": "nothing",
            },
            "{member}: + in its place": {
                "SUBSCRIBE A T/device/+/state": "denied closed",
                "SUBSCRIBE A T/end": "closed",
                "A receives": "nothing",
                "A receives (2)": "nothing",
            },
        },
    ),
    Difference(
        broker="RabbitMQ",
        says="when rules change so that something held is no longer right, the connection ends",
        sentence="A changed grant ends the connection.",
        cells=KICKED_BY_CHANGE,
    ),
    Difference(
        broker="RabbitMQ",
        says="Retained messages below a blocked or deleted thing's place stay",
        sentence="What a blocked or deleted thing retained stays.",
        cells=RETAINED_STAYS,
    ),
    Difference(
        broker="RabbitMQ",
        says="Every refusal at CONNECT has the code 4",
        sentence="Every refusal at CONNECT has the code 4.",
        cells={"refused: the code tells which": {"CONNECT A (2)": "refused bad credentials"}},
    ),
    Difference(
        broker="RabbitMQ",
        says="A will is checked when it is sent, not at CONNECT",
        sentence="The will is judged when it is sent, not at CONNECT.",
        cells=WILL_NOT_SHOWN,
    ),
    Difference(
        broker="RabbitMQ",
        says="its will is never sent, also where the gate would send it",
        sentence="No will is sent when the connection is taken over, kicked or expires.",
        cells={
            "take-over: the will": {"S receives": "nothing"},
            "will: expiry": {"S receives": "nothing"},
            "will: kick": {"S receives": "nothing"},
        },
    ),
    Difference(
        broker="RabbitMQ",
        says="One principal at a time has a client id",
        sentence="A client id belongs to its first principal: another is refused.",
        cells=HELD_CLOSED,
    ),
)

AEDES = (
    Difference(
        broker="Aedes",
        says="No shared subscriptions",
        sentence="A shared subscription is refused, whatever the grant says.",
        cells={"shared: covered": {"SUBSCRIBE A $share/g/T/g1/A/#": "denied", "A receives": "nothing"}},
    ),
    Difference(
        broker="Aedes",
        says="Retained messages below a blocked or deleted thing's place stay",
        sentence="What a blocked or deleted thing retained stays.",
        cells=RETAINED_STAYS,
    ),
    Difference(
        broker="Aedes",
        says="One principal at a time has a client id",
        sentence="A client id belongs to its first principal: another is refused.",
        cells=HELD_CLOSED,
    ),
)

EMQX = (
    Difference(
        broker="EMQX",
        says="Deliveries are not judged",
        sentence="Deliveries are not judged: a filter that a deny overlaps or that is wider in a set level is refused.",
        cells=NO_NARROWING,
    ),
    Difference(
        broker="EMQX",
        says="A SUBSCRIBE above a rule's `qos_max` is refused",
        sentence="A subscription above `qos_max` is refused, not granted at it.",
        cells={"subscribe: qos_max": {"SUBSCRIBE A T/g1/A/#": "denied"}},
    ),
    Difference(
        broker="EMQX",
        says="when rules change so that something the connection was told is no longer right, it ends",
        sentence="A changed grant ends the connection.",
        cells=KICKED_BY_CHANGE,
    ),
    Difference(
        broker="EMQX",
        says="sends it when authsvc ends a session",
        sentence="A will is sent after revoke, block, delete and a changed rule, by the old list.",
        cells={
            **WILL_ON_KICK,
            "5.0: will delay, revoke": {"S receives": "will"},
            "5.0: will delay, block": {"S receives": "will"},
        },
    ),
    Difference(
        broker="EMQX",
        says="A will is judged when it is sent and not at CONNECT",
        sentence="The will is judged when it is sent, not at CONNECT.",
        cells=WILL_NOT_SHOWN,
    ),
    Difference(
        broker="EMQX",
        says="Retained messages below a blocked or deleted thing's place stay",
        sentence="What a blocked or deleted thing retained stays.",
        cells=RETAINED_STAYS,
    ),
    Difference(
        broker="EMQX",
        says="Every refusal at CONNECT says not authorized",
        sentence="Every refusal at CONNECT says not authorized (5, 0x87).",
        cells=ONE_CODE,
    ),
    Difference(
        broker="EMQX",
        says="expiry ends a connection with 0x87",
        sentence="Expiry ends the connection with 0x87, and up to a second early.",
        cells={"5.0: expired": {"A is": "closed 0x87"}},
    ),
    Difference(
        broker="EMQX",
        says="a client id belongs to one principal",
        sentence="A client id belongs to its first principal: another is refused. An empty one is refused.",
        cells={**HELD, **NO_EMPTY_ID},
    ),
)

VERNEMQ = (
    Difference(
        broker="VerneMQ",
        says="Deliveries are not judged",
        sentence="Deliveries are not judged: a filter that a deny overlaps or that is wider in a set level is refused.",
        cells=NO_NARROWING,
    ),
    Difference(
        broker="VerneMQ",
        says="when the rules of subscribing change so that something held is no longer right, the session ends",
        sentence="A grant whose subscriptions change ends the connection.",
        cells=KICKED_BY_CHANGE,
    ),
    Difference(
        broker="VerneMQ",
        says="it is sent when authsvc ends a session",
        sentence="A will is sent after revoke, block, delete and a changed rule: it is judged once.",
        cells=WILL_ON_KICK,
    ),
    Difference(
        broker="VerneMQ",
        says="but only after the thing is registered",
        sentence="A forbidden will refuses after the thing is registered and the old connection ended.",
        cells={"registered: refused leaves nothing": {"thing new": "g1"}},
    ),
    Difference(
        broker="VerneMQ",
        says="A denied PUBLISH closes the connection of an MQTT 3.1.1 client",
        sentence="A denied publish ends a connection of MQTT 3.1.1.",
        levels=(4,),
        cells=DENIED_PUBLISH_ENDS,
    ),
    Difference(
        broker="VerneMQ",
        says="Retained messages below a blocked or deleted thing's place stay",
        sentence="What a blocked or deleted thing retained stays.",
        cells=RETAINED_STAYS,
    ),
    Difference(
        broker="VerneMQ",
        says="Every refusal at CONNECT says not authorized",
        sentence="Every refusal at CONNECT says not authorized (5, 0x87).",
        cells=ONE_CODE,
    ),
    Difference(
        broker="VerneMQ",
        says="expiry ends a connection with 0x98",
        sentence="Expiry ends the connection with 0x98, and up to a second early.",
        cells={"5.0: expired": {"A is": "closed 0x98"}},
    ),
    Difference(
        broker="VerneMQ",
        says="One principal at a time has a client id",
        sentence="A client id belongs to its first principal: another is refused. An empty one is refused.",
        cells={**HELD, **NO_EMPTY_ID},
    ),
)

NANOMQ = (
    Difference(
        broker="NanoMQ",
        says="A connection cannot be ended",
        sentence="No connection can be ended: after revoke it publishes and subscribes nothing, but goes on receiving.",
        cells={
            **STAYS_OPEN,
            **{f"will: {case}": {"A is": "open", "S receives": "nothing"} for case in ("expiry", "kick")},
            "queue: after revoke": {"A session present": "yes", "A receives": "queued"},
            "queue: after revoke while connected": {"A is": "open", "A session present": "yes"},
            "blocked: retained of its place": {"A is": "open", "S receives": "old(A's) old(B's)"},
        },
    ),
    Difference(
        broker="NanoMQ",
        says="Deliveries are not judged",
        sentence="Deliveries are not judged: what was subscribed or queued is delivered whatever the grant says later.",
        cells={
            **NO_NARROWING,
            "{member}: who leaves": {"A receives (2)": "left"},
            "changed rule: live": {"A receives (2)": "after"},
            "moved: deliveries": {"A receives": "old new"},
            "queue: after a changed rule": {"A receives": "queued"},
            "queue: after a move": {"A receives": "queued"},
        },
    ),
    Difference(
        broker="NanoMQ",
        says="A CONNECT that is refused ends the connection of the same client id",
        sentence="A refused CONNECT with somebody's client id ends his connection: NanoMQ closes it before it asks.",
        cells={
            "refused: nothing happens to the holder": {"A is": "closed", "A receives": "nothing"},
            "same client id: the holder": {"A is": "closed", "A receives": "nothing"},
        },
    ),
    Difference(
        broker="NanoMQ",
        says="A denied PUBLISH ends the connection",
        sentence="A denied publish ends the connection.",
        cells={
            **DENIED_PUBLISH_ENDS,
            "5.0: denied publish": {
                "PUBLISH A one": "closed",
                "PUBLISH A two": "closed",
                "PUBLISH A yes": "closed",
                "S receives": "nothing",
            },
            "5.0: alias of a denied publish": {
                **{f"PUBLISH A {what}": "closed" for what in ("no", "no (2)", "first", "second")},
                "S receives": "nothing",
            },
        },
    ),
    Difference(
        broker="NanoMQ",
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
        broker="NanoMQ",
        says="a denied filter all of its SUBSCRIBE",
        sentence="One denied filter denies all of its SUBSCRIBE, with 0x80 also in MQTT 5.0.",
        cells={
            "subscribe: several filters": {
                "SUBSCRIBE A T/g1/A/x T/g1/B/x T/end T/g1/A/# #": "denied, denied, denied, denied, denied"
            },
            "5.0: denied subscription": {"SUBSCRIBE A T/g1/B/x": "denied 0x80"},
        },
    ),
    Difference(
        broker="NanoMQ",
        says="A will is not shown at CONNECT",
        sentence="The will is judged when it is sent, not at CONNECT.",
        cells=WILL_NOT_SHOWN,
    ),
    Difference(
        broker="NanoMQ",
        says="every refusal at CONNECT says not authorized",
        sentence="Every refusal at CONNECT says not authorized (5, 0x87).",
        cells=ONE_CODE,
    ),
    Difference(
        broker="NanoMQ",
        says="One principal at a time has a client id",
        sentence="A client id belongs to its first principal: another is refused. An empty one is refused.",
        cells={**HELD, **NO_EMPTY_ID},
    ),
)

OF_HOOKS: tuple[Difference, ...] = (*RABBITMQ, *AEDES, *EMQX, *VERNEMQ, *NANOMQ)
