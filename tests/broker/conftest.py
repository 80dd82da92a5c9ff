"""Fixtures of the gate's tests."""

from tests.broker.gate_rig import rig, upstream

__all__ = ["rig", "upstream"]
