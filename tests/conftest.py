"""What all tests share: nothing is skipped where `AUTHSVC_NO_SKIP` is set, as it is in CI.

`AUTHSVC_TEST_LOOP=uvloop` runs them on the event loop of the product; the default is that of the standard library.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop

# A shell starts what it puts in the background with Ctrl-C ignored, and so would be every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

if os.environ.get("AUTHSVC_TEST_LOOP") == "uvloop":

    def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
        """Return what makes the loops of all tests."""
        return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _log_levels_restored() -> Iterator[None]:
    """What one test sets of the process's loggers is not there for the next, whichever that is."""
    before = {logger: logger.level for logger in _loggers()}
    yield
    for logger in _loggers():
        level = before.get(logger, logging.NOTSET)
        if logger.level != level:
            logger.setLevel(level)


def _loggers() -> list[logging.Logger]:
    named = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in named if isinstance(logger, logging.Logger))]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run that skipped a test for a missing component has proved nothing about it: fail."""
    if not os.environ.get("AUTHSVC_NO_SKIP") or exitstatus != pytest.ExitCode.OK:
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        for report in skipped:
            print(f"skipped, but must run here: {report.nodeid}")
