"""The table: every case of the suite, in the order of the matrix's rows."""

from __future__ import annotations

from tests.conformance.steps import Case
from tests.conformance.table_mqtt5 import MQTT5_CASES
from tests.conformance.table_rules import RULE_CASES
from tests.conformance.table_sessions import SESSION_CASES

CASES: tuple[Case, ...] = (*RULE_CASES, *SESSION_CASES, *MQTT5_CASES)
