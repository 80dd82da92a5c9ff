"""The brokers of the matrix, in the order of its columns."""

from __future__ import annotations

from tests.conformance.driver import Broker, Column
from tests.conformance.gates import BehindMosquitto, Gate, Rumqttd
from tests.conformance.hooked import HOOKED

BROKERS: tuple[Broker, ...] = (
    Gate("amqtt", "amqtt.md", (3, 4)),
    BehindMosquitto("Mosquitto", "mosquitto.md", (3, 4, 5)),
    Rumqttd("rumqttd", "rumqttd.md", (3, 4, 5)),
    *HOOKED,
)
COLUMNS: tuple[Column, ...] = tuple(Column(broker, level) for broker in BROKERS for level in broker.levels)
