"""The models apply answers as their brokers do, so that a wrong answer of ours would show."""

from __future__ import annotations

import pytest

from tests.conformance.driver import Hello
from tests.conformance.models.emqx import Emqx, _says
from tests.conformance.models.mini import Link, MiniBroker, ModelClient, matches
from tests.conformance.player import alike


@pytest.mark.parametrize(
    ("wanted", "asked", "let_through"),
    [
        ("t/+", "t/#", True),  # why our answers never hold such a rule
        ("+", "#", True),
        ("t/#", "t/+", True),
        ("eq t/+", "t/#", False),
        ("eq t/+", "t/+", True),
        ("#", "$SYS/x", False),
        ("t/a", "t/b", False),
    ],
)
def test_emqx_matches_a_filter_as_if_it_were_a_topic(wanted: str, asked: str, let_through: bool) -> None:
    """emqx_topic:match/2: a rule that we returned without thought would open more than it says."""
    rule = {"permission": "allow", "action": "subscribe", "topic": wanted}
    assert _says(rule, "subscribe", asked, qos=0, retain=False) is let_through


def test_an_emqx_rule_is_bound_to_its_qos_and_retain_flag() -> None:
    """emqx_authz_rule.erl, match_action/2."""
    rule = {"permission": "allow", "action": "publish", "topic": "t/#", "qos": [0, 1], "retain": False}
    assert _says(rule, "publish", "t/a", qos=1, retain=False)
    assert not _says(rule, "publish", "t/a", qos=2, retain=False)
    assert not _says(rule, "publish", "t/a", qos=1, retain=True)
    assert not _says(rule, "subscribe", "t/a", qos=1, retain=False)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "found"),
    [
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("+/b", "/b", True),
        ("#", "$SYS/a", False),
        ("$SYS/#", "$SYS/a", True),
    ],
)
def test_models_route_as_mqtt_does(topic_filter: str, topic: str, found: bool) -> None:
    """MQTT 3.1.1 4.7."""
    assert matches(topic_filter, topic) is found


class _Anybody(Emqx):
    """Lets everybody do everything, and asks nobody."""

    def __init__(self) -> None:
        self.broker = MiniBroker(self)

    async def admit(self, link: Link) -> int:
        return 0

    async def _authorized(self, link: Link, action: str, topic: str, *, qos: int, retain: bool) -> bool:
        return True


async def test_a_model_without_rules_shows_every_violation() -> None:
    """Take-over by whoever comes, queues for the next, wills for all: nothing in the model itself keeps a promise."""
    broker = _Anybody().broker
    first, second, watcher = ModelClient(broker, 4), ModelClient(broker, 4), ModelClient(broker, 4)
    await watcher.connect(Hello(client_id="w", username="", password=""))
    await watcher.subscribe([("#", 1)])
    will = ("will", "w", 1, False, 0)
    await first.connect(Hello(client_id="x", username="a", password="", clean=False, will=will))
    await first.subscribe([("t", 1)])
    await second.connect(Hello(client_id="x", username="b", password="", clean=False))
    assert first.gone
    assert second.session_present
    assert (await watcher.message(1)).topic == "will"
    await watcher.publish("t", "meant for a", qos=1, retain=False)
    assert (await second.message(1)).payload == "meant for a"
    await broker.close()


def test_an_expectation_is_never_met_by_something_vaguer() -> None:
    """`denied 0x87` is a `denied`; a `denied` is no `denied 0x87`, and one payload is not two."""
    assert alike("denied", "denied 0x87")
    assert not alike("denied 0x87", "denied")
    assert not alike("yes", "yes no")
    assert not alike("open", "closed")
