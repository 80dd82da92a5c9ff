"""amqtt as the gate runs it, started and stopped around a test."""

from __future__ import annotations

import pytest

from broker.embedded import AmqttUpstream


@pytest.fixture
async def upstream():
    running = AmqttUpstream()
    await running.start()
    yield running
    await running.stop()
