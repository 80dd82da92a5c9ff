"""Cases about what a grant lets pass: publishing, subscribing, retained messages, sets, walls."""

from __future__ import annotations

from tests.conformance.steps import (
    END,
    OWN,
    Again,
    Case,
    Change,
    Connect,
    Delete,
    Is,
    Make,
    Move,
    Options,
    Publish,
    Receives,
    Rules,
    SetRules,
    Settle,
    Step,
    Subscribe,
    SubscribeAll,
    Wait,
    allow,
    deny,
)

WATCHED: tuple[Step, ...] = (Connect("S"), Subscribe("S", "T/#"), Connect("A"))
GROUND_SUB = allow("subscribe", "{tenant}/{ground}/#")
PUB_OWN = allow("publish", "{tenant}/{ground}/{thing}/#")
NO_SECRET = deny("subscribe", "{tenant}/{ground}/+/secret/#")


def listens(client: str, *filters: str, qos: int = 1, expect: str = "granted") -> tuple[Step, ...]:
    """Subscribe to filters, each by itself, and to the marker."""
    return (*(Subscribe(client, f, qos, expect) for f in filters), Subscribe(client, END, qos))


PUBLISHING = (
    Case(
        name="publish: allowed",
        claim="A publish that a rule allows reaches whoever may read it, at every QoS.",
        steps=(
            *WATCHED,
            Publish("A", "T/g1/A/x", "zero", qos=0),
            Publish("A", "T/g1/A/x", "one", qos=1, expect="acked"),
            Publish("A", "T/g1/A/x", "two", qos=2, expect="acked"),
            Receives("S", "zero one two"),
        ),
    ),
    Case(
        name="publish: no rule",
        claim="A publish that no rule allows reaches nobody.",
        steps=(*WATCHED, Publish("A", "T/g1/B/x", "no", qos=1), Receives("S", "")),
    ),
    Case(
        name="publish: no rule, QoS 2",
        claim="A publish at QoS 2 that no rule allows reaches nobody.",
        steps=(*WATCHED, Publish("A", "T/g1/B/x", "no", qos=2), Receives("S", "")),
    ),
    Case(
        name="publish: denied, connection goes on",
        claim="A denied publish does not end the connection, and what follows it is judged by itself.",
        steps=(
            *WATCHED,
            Publish("A", "T/g1/B/x", "no"),
            Is("A", "open"),
            Publish("A", "T/g1/A/x", "yes", expect="acked"),
            Receives("S", "yes"),
        ),
    ),
    Case(
        name="publish: deny inside allow",
        claim="A deny beats every allow that is wider than it.",
        rules=(deny("publish", "{tenant}/{ground}/{thing}/secret/#"), *OWN),
        steps=(
            *WATCHED,
            Publish("A", "T/g1/A/open", "yes"),
            Publish("A", "T/g1/A/secret/x", "no"),
            Again("A"),
            Publish("A", "T/g1/A/secret", "no"),
            Receives("S", "yes"),
        ),
    ),
    Case(
        name="publish: allow inside deny",
        claim="The order of rules does not matter: an allow inside a deny allows nothing.",
        rules=(
            allow("publish", "{tenant}/{ground}/{thing}/a/b"),
            deny("publish", "{tenant}/{ground}/{thing}/a/#"),
            allow("publish", "{tenant}/{ground}/{thing}/#"),
        ),
        steps=(
            *WATCHED,
            Publish("A", "T/g1/A/b", "yes"),
            Publish("A", "T/g1/A/a/b", "no"),
            Receives("S", "yes"),
        ),
    ),
    Case(
        name="publish: qos_max",
        claim="A publish above the rule's `qos_max` is not covered by the rule.",
        rules=(allow("publish", "{tenant}/{ground}/{thing}/#", qos_max=0),),
        steps=(
            *WATCHED,
            Publish("A", "T/g1/A/x", "no", qos=1),
            Again("A"),
            Publish("A", "T/g1/A/x", "yes", qos=0),
            Receives("S", "yes"),
        ),
    ),
    Case(
        name="publish: retain false",
        claim="A rule of `retain: false` allows no retained publish.",
        rules=(allow("publish", "{tenant}/{ground}/{thing}/#", retain=False),),
        steps=(
            *WATCHED,
            Publish("A", "T/g1/A/x", "yes"),
            Publish("A", "T/g1/A/x", "no", retain=True),
            Receives("S", "yes"),
        ),
    ),
    Case(
        name="publish: retain true",
        claim="A rule of `retain: true` allows retained publishes only.",
        rules=(allow("publish", "{tenant}/{ground}/{thing}/#", retain=True),),
        steps=(
            *WATCHED,
            Publish("A", "T/g1/A/x", "yes", retain=True),
            Publish("A", "T/g1/A/x", "no"),
            Receives("S", "yes"),
        ),
    ),
    Case(
        name="publish: retained is kept",
        claim="A permitted retained publish is given to whoever subscribes later.",
        steps=(
            Connect("A"),
            Publish("A", "T/g1/A/x", "kept", retain=True),
            Connect("S"),
            *listens("S", "T/g1/A/x"),
            Receives("S", "old(kept)", retained=True),
        ),
    ),
    Case(
        name="publish: retained for a wildcard",
        claim="A retained message is given to a later subscription with a wildcard as well.",
        steps=(
            Connect("A"),
            Publish("A", "T/g1/A/x", "kept", retain=True),
            Connect("S"),
            *listens("S", "T/g1/A/#"),
            Receives("S", "old(kept)", retained=True),
        ),
    ),
    Case(
        name="publish: `$` topics",
        claim="A publish to a `$` topic is denied.",
        rules=(allow("publish", "{tenant}/#"),),
        steps=(
            *WATCHED,
            Publish("A", "$SYS/T/x", "no", qos=0),
            Again("A"),
            Publish("A", "T/x", "yes"),
            Receives("S", "yes"),
        ),
    ),
)


def _contained(granted: str, covered: str, wider: str) -> Case:
    """One grant, what it covers, and what it does not; after each refusal a connection that goes on or is a new one."""
    asked: list[Step] = [Subscribe("A", f"T/{filter_}") for filter_ in covered.split()]
    for filter_ in wider.split():
        asked += [Subscribe("A", f"T/{filter_}", 1, "denied"), Again("A")]
    return Case(
        name=f"containment: {granted}",
        claim=f"A grant of `{granted}` covers {covered}, and neither of {wider}.",
        rules=(allow("subscribe", f"{{tenant}}/{granted}"),),
        steps=(Connect("A"), *asked),
    )


CONTAINMENT = (
    _contained("a/#", "a/+ a/b/# a a/b/c a/#", "+/b # +/# b/#"),
    _contained("a/+", "a/b a/+", "a/# a/b/c a a/+/#"),
    _contained("+", "b +", "# +/# +/+ a/#"),
    _contained("a/+/c", "a/b/c a/+/c", "a/b/+ a/# a/+/# a/+/+"),
    _contained("a/+/c/#", "a/+/c a/+/c/d/# a/b/c/+", "a/# a/+/# a/+/+/#"),
)

SUBSCRIBING = (
    Case(
        name="subscribe: denied, connection goes on",
        claim="A denied SUBSCRIBE is answered, does not end the connection, and leaves what was granted.",
        steps=(
            Connect("S"),
            Connect("A"),
            *listens("A", "T/g1/A/#"),
            Subscribe("A", "T/g1/B/x", 1, "denied"),
            Is("A", "open"),
            Publish("S", "T/g1/A/x", "yes"),
            Receives("A", "yes"),
        ),
    ),
    Case(
        name="subscribe: # for all tenants",
        claim="Nobody but a platform role subscribes to `#`.",
        rules=(allow("subscribe", "{tenant}/#"),),
        steps=(Connect("A"), Subscribe("A", "#", 1, "denied"), Again("A"), Subscribe("A", "+/#", 1, "denied")),
    ),
    Case(
        name="subscribe: two rules cover nothing wider",
        claim="Grants on `a/b` and `a/c` together do not make `a/+`.",
        rules=(allow("subscribe", "{tenant}/a/b"), allow("subscribe", "{tenant}/a/c")),
        steps=(
            Connect("A"),
            Subscribe("A", "T/a/b"),
            Subscribe("A", "T/a/c"),
            Subscribe("A", "T/a/+", 1, "denied"),
        ),
    ),
    Case(
        name="subscribe: several filters",
        claim="One SUBSCRIBE gets a verdict for each of its filters, in order.",
        steps=(
            *WATCHED,
            SubscribeAll(
                "A", ("T/g1/A/x", "T/g1/B/x", END, "T/g1/A/#", "#"), "granted, denied, granted, granted, denied"
            ),
        ),
    ),
    Case(
        name="subscribe: several filters, the good ones live",
        claim="What a SUBSCRIBE with a denied filter was granted is delivered, what it was denied is not.",
        steps=(
            Connect("S"),
            Connect("A"),
            SubscribeAll("A", ("T/g1/B/x", "T/g1/A/x", END), None),
            Again("A"),
            SubscribeAll("A", ("T/g1/A/x", END), None),
            Publish("S", "T/g1/B/x", "no"),
            Publish("S", "T/g1/A/x", "yes"),
            Receives("A", "yes"),
        ),
    ),
    Case(
        name="subscribe: qos_max",
        claim="A subscription above the rule's `qos_max` is granted at it.",
        rules=(allow("subscribe", "{tenant}/{ground}/{thing}/#", qos_max=0),),
        steps=(Connect("A"), Subscribe("A", "T/g1/A/#", 1, "granted 0")),
    ),
    Case(
        name="subscribe: publish rights are none",
        claim="Who may publish to a topic may not subscribe to it for that.",
        rules=(PUB_OWN,),
        steps=(Connect("A"), Subscribe("A", "T/g1/A/x", 1, "denied")),
    ),
    Case(
        name="subscribe: `$SYS`",
        claim="The broker's own topics are no tenant's.",
        rules=(allow("subscribe", "{tenant}/#"),),
        steps=(Connect("A"), Subscribe("A", "$SYS/#", 1, "denied")),
    ),
    Case(
        name="shared: covered",
        claim="A shared subscription is granted where its inner filter is.",
        steps=(
            Connect("S"),
            Connect("A"),
            *listens("A", "$share/g/T/g1/A/#"),
            Publish("S", "T/g1/A/x", "yes"),
            Receives("A", "yes"),
        ),
    ),
    Case(
        name="shared: wider than the grant",
        claim="A shared subscription whose inner filter is not covered is refused.",
        steps=(Connect("A"), Subscribe("A", "$share/g/T/g1/#", 1, "denied")),
    ),
    Case(
        name="shared: all topics",
        claim="A group's name does not make `#` of another tenant's topics.",
        steps=(Connect("A"), Subscribe("A", "$share/T/#", 1, "denied")),
    ),
    Case(
        name="deny overlaps: accepted and narrowed",
        claim="A deny inside a subscription narrows what is delivered.",
        rules=(GROUND_SUB, NO_SECRET),
        steps=(
            Connect("S"),
            Connect("A"),
            *listens("A", "T/g1/#"),
            Publish("S", "T/g1/B/secret/x", "no"),
            Publish("S", "T/g1/B/open", "yes"),
            Receives("A", "yes"),
        ),
    ),
    Case(
        name="deny covers",
        claim="A subscription that a deny covers is refused, also where an allow covers it too.",
        rules=(GROUND_SUB, NO_SECRET),
        steps=(Connect("A"), Subscribe("A", "T/g1/B/secret/x", 1, "denied")),
    ),
    Case(
        name="deny overlaps: never delivered",
        claim="What a deny names is delivered to nobody, live or retained, whatever was asked.",
        rules=(GROUND_SUB, NO_SECRET),
        steps=(
            Connect("S"),
            Publish("S", "T/g1/B/secret/x", "retained", retain=True),
            Connect("A"),
            SubscribeAll("A", ("T/g1/#",), None),
            Again("A"),
            *listens("A"),
            Publish("S", "T/g1/B/secret/x", "live"),
            Receives("A", ""),
        ),
    ),
)

MEMBERS: Rules = (allow("subscribe", "{tenant}/device/{member}/state"),)
MODULES: Rules = (
    allow("publish", "{tenant}/{ground}/{module}/state/#"),
    allow("subscribe", "{tenant}/{ground}/{module}/command/#"),
)

SETS = (
    Case(
        name="{member}: one of them",
        claim="A set level covers each of its members, and nobody else.",
        rules=MEMBERS,
        steps=(
            Connect("A"),
            Subscribe("A", "T/device/A/state"),
            Subscribe("A", "T/device/stranger/state", 1, "denied"),
        ),
    ),
    Case(
        name="{member}: + in its place",
        claim="A subscription that is wider in its set levels only is accepted, and filtered by membership.",
        rules=MEMBERS,
        steps=(
            Connect("S"),
            Make("/things", {"key": "B", "thing_definition": "dev", "ground": "g2"}),
            Connect("A"),
            *listens("A", "T/device/+/state"),
            Publish("S", "T/device/A/state", "own"),
            Publish("S", "T/device/B/state", "stranger"),
            Receives("A", "own"),
            Move("B", "g1"),
            Settle("A"),
            Publish("S", "T/device/B/state", "joined"),
            Receives("A", "joined"),
            Move("B", "g2"),
            Settle("A"),
            Publish("S", "T/device/B/state", "left"),
            Receives("A", ""),
        ),
    ),
    Case(
        name="{member}: who leaves",
        claim="What a thing publishes after it left the ground is not delivered to those who may see its members.",
        rules=MEMBERS,
        steps=(
            Connect("S"),
            Make("/things", {"key": "B", "thing_definition": "dev", "ground": "g1"}),
            Connect("A"),
            *listens("A", "T/device/B/state"),
            Publish("S", "T/device/B/state", "member"),
            Receives("A", "member"),
            Move("B", "g2"),
            Settle("A"),
            Again("A"),
            *listens("A"),
            Publish("S", "T/device/B/state", "left"),
            Receives("A", ""),
        ),
    ),
    Case(
        name="{module}: published for it",
        claim="A gateway publishes for a module from the moment of its binding until it is unbound.",
        rules=MODULES,
        modules=True,
        steps=(
            *WATCHED,
            Publish("A", "T/g1/m/state/x", "before"),
            Again("A"),
            Make("/things/A/modules", {"key": "m", "thing_definition": "module"}),
            Settle("A"),
            Again("A"),
            Publish("A", "T/g1/m/state/x", "bound"),
            Delete("/things/A/modules/m"),
            Settle("A"),
            Again("A"),
            Publish("A", "T/g1/m/state/x", "unbound"),
            Receives("S", "bound"),
        ),
    ),
    Case(
        name="{module}: commands to it",
        claim="A gateway subscribes for its modules, and for no other.",
        rules=MODULES,
        modules=True,
        steps=(
            Make("/things/A/modules", {"key": "m", "thing_definition": "module"}),
            Connect("S"),
            Connect("A"),
            *listens("A", "T/g1/m/command/#"),
            Subscribe("A", "T/g1/n/command/#", 1, "denied"),
            Again("A"),
            *listens("A", "T/g1/m/command/#"),
            Publish("S", "T/g1/m/command/go", "go"),
            Receives("A", "go"),
        ),
    ),
)

WALLS = (
    Case(
        name="tenants: publish",
        claim="Nothing that is published in a tenant reaches another, nor can be published into it.",
        steps=(
            *WATCHED,
            Connect("Z"),
            Subscribe("Z", "U/#"),
            Publish("Z", "T/g1/A/x", "in"),
            Publish("A", "U/g1/A/x", "out"),
            Again("A"),
            Publish("A", "T/g1/A/x", "own"),
            Receives("S", "own"),
        ),
    ),
    Case(
        name="tenants: subscribe",
        claim="A tenant's things subscribe to nothing of another, by no wildcard.",
        steps=(
            Connect("Z"),
            Subscribe("Z", "T/g1/A/x", 1, "denied"),
            Again("Z"),
            Subscribe("Z", "+/g1/A/x", 1, "denied"),
            Again("Z"),
            Subscribe("Z", "#", 1, "denied"),
            Again("Z"),
            Subscribe("Z", "U/g1/#"),
        ),
    ),
    Case(
        name="tenants: shared groups of one name",
        claim="Groups of one name in two tenants are two groups: nothing of one goes to a member of the other.",
        steps=(
            Connect("Z"),
            SubscribeAll("Z", ("$share/g/U/#",), None),
            Connect("S"),
            SubscribeAll("S", ("$share/g/T/#",), None),
            Again("S"),
            Subscribe("S", "T/#"),
            *(Publish("S", "T/g1/A/x", f"m{n}") for n in range(2)),
            Receives("Z", ""),
        ),
    ),
    Case(
        name="ground token: read",
        claim="A ground token with read access reads its ground, no other, and publishes nothing.",
        steps=(
            Connect("S"),
            Connect("GR"),
            *(Subscribe("GR", "T/g1/#"), Subscribe("GR", "T/g2/#", 1, "denied")),
            Again("GR"),
            Connect("A"),
            Publish("GR", "T/g1/A/command/x", "no"),
            Again("GR"),
            Subscribe("GR", "T/g1/#"),
            Publish("A", "T/g1/A/x", "seen"),
            Publish("S", "T/g2/C/x", "unseen"),
            Receives("GR", "seen", mark="T/g1/end"),
        ),
    ),
    Case(
        name="ground token: write",
        claim="A ground token with write access sends commands into its ground, and reads nothing.",
        steps=(
            Connect("S"),
            Subscribe("S", "T/#"),
            Connect("GW"),
            Publish("GW", "T/g1/A/command/go", "go"),
            Publish("GW", "T/g2/C/command/go", "no"),
            Again("GW"),
            Publish("GW", "T/g1/A/state", "no"),
            Again("GW"),
            Subscribe("GW", "T/g1/#", 1, "denied"),
            Receives("S", "go"),
        ),
    ),
    Case(
        name="ground token: several clients",
        claim="One ground token serves several clients, each with its own session.",
        steps=(
            Connect("S"),
            Connect("GR"),
            Connect("second", options=Options(secret="GR")),
            Subscribe("GR", "T/g1/#"),
            Subscribe("second", "T/g1/#"),
            Publish("S", "T/g1/A/x", "both"),
            Receives("GR", "both", mark="T/g1/end"),
            Receives("second", "both", mark="T/g1/end"),
        ),
    ),
)

DELIVERY = (
    Case(
        name="changed rule: connection goes on",
        claim="A changed rule does not end the connection.",
        steps=(Connect("A"), SetRules((PUB_OWN,)), Is("A", "open", after_swap=True)),
    ),
    Case(
        name="changed rule: live",
        claim="A right that ends, ends for subscriptions that were made under it.",
        steps=(
            Connect("S"),
            Connect("A"),
            *listens("A", "T/g1/A/#"),
            Publish("S", "T/g1/A/x", "before"),
            Receives("A", "before"),
            SetRules((PUB_OWN,)),
            Settle("A"),
            Again("A"),
            *listens("A"),
            Publish("S", "T/g1/A/x", "after"),
            Receives("A", ""),
        ),
    ),
    Case(
        name="changed rule: retained",
        claim="A right that ended gives no retained message of its time.",
        steps=(
            Connect("S"),
            Publish("S", "T/g1/A/x", "retained", retain=True),
            Connect("A"),
            SetRules((PUB_OWN,)),
            Settle("A"),
            Again("A"),
            Subscribe("A", "T/g1/A/#", 1, "denied"),
            Again("A"),
            *listens("A"),
            Receives("A", ""),
        ),
    ),
    Case(
        name="changed rule: publishing",
        claim="A right to publish that is taken ends with the answer of the API, one that is given begins with it.",
        steps=(
            *WATCHED,
            Publish("A", "T/g1/A/x", "before"),
            SetRules((allow("publish", "{tenant}/{ground}/{thing}/new"),)),
            Settle("A"),
            Again("A"),
            Publish("A", "T/g1/A/x", "taken"),
            Again("A"),
            Publish("A", "T/g1/A/new", "given"),
            Receives("S", "before given"),
        ),
    ),
    Case(
        name="moved: connection goes on",
        claim="A move does not end the connection.",
        steps=(Connect("A"), Move("A", "g2"), Is("A", "open", after_swap=True)),
    ),
    Case(
        name="moved: publishing",
        claim="A thing that is moved publishes in its new place at once, and no more in the old one.",
        steps=(
            *WATCHED,
            Move("A", "g2"),
            Settle("A"),
            Again("A"),
            Publish("A", "T/g1/A/x", "old"),
            Again("A"),
            Publish("A", "T/g2/A/x", "new"),
            Receives("S", "new"),
        ),
    ),
    Case(
        name="moved: deliveries",
        claim="A thing that is moved gets nothing of its old place any more.",
        steps=(
            Connect("S"),
            Connect("A"),
            *listens("A", "T/g1/A/#"),
            Move("A", "g2"),
            Settle("A"),
            Again("A"),
            *listens("A", "T/g2/A/#"),
            Publish("S", "T/g1/A/x", "old"),
            Publish("S", "T/g2/A/x", "new"),
            Receives("A", "new"),
        ),
    ),
    Case(
        name="moved: retained",
        claim="A thing that is moved is given nothing that is retained in its old place.",
        steps=(
            Connect("S"),
            Publish("S", "T/g1/A/x", "old", retain=True),
            Publish("S", "T/g2/A/x", "new", retain=True),
            Connect("A"),
            Move("A", "g2"),
            Settle("A"),
            Again("A"),
            Subscribe("A", "T/g1/A/x", 1, "denied"),
            Again("A"),
            *listens("A", "T/g2/A/x"),
            Receives("A", "old(new)", retained=True),
        ),
    ),
    Case(
        name="moved: a ground token's view",
        claim="Who reads a ground sees what moves into it, and no longer what left.",
        steps=(
            Connect("GR"),
            Subscribe("GR", "T/g1/#"),
            Connect("C"),
            Publish("C", "T/g2/C/x", "unseen"),
            Move("C", "g1"),
            Settle("C"),
            Again("C"),
            Publish("C", "T/g1/C/x", "seen"),
            Receives("GR", "seen", mark="T/g1/end"),
        ),
    ),
    Case(
        name="blocked: retained of its place",
        claim="What a blocked thing retained is cleared; what another retained stays.",
        steps=(
            Connect("A"),
            Connect("B"),
            Publish("A", "T/g1/A/x", "A's", retain=True),
            Publish("B", "T/g1/B/x", "B's", retain=True),
            Change("A", {"state": "blocked"}),
            Is("A", "closed"),
            Wait(0.5),  # cleared by a connection of its own, in the background
            Connect("S"),
            *listens("S", "T/g1/A/x", "T/g1/B/x"),
            Receives("S", "old(B's)", retained=True),
        ),
    ),
)

RULE_CASES = (*PUBLISHING, *CONTAINMENT, *SUBSCRIBING, *SETS, *WALLS, *DELIVERY)
