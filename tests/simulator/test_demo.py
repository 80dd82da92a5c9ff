"""The demonstration's own parts; that it runs from a clean clone is looked at end to end elsewhere."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.demo import free
from tests.live_service import clean_environment


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    """Somebody listens on the port that was wanted: another is chosen, and that is told."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = taken.getsockname()[1]
        port, as_wanted = free("127.0.0.1", wanted)
    assert port != wanted
    assert not as_wanted
    assert free("127.0.0.1", wanted) == (wanted, True)


def test_it_goes_on_until_a_signal_and_its_last_line_works(tmp_path: Path) -> None:
    """The mosquitto_pub line that is printed publishes as it stands; SIGTERM ends demonstration and service."""
    with subprocess.Popen(
        [sys.executable, "-m", "simulator.demo", "--data", str(tmp_path / "var")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(),
    ) as demo:
        try:
            output = _until(demo, "the service goes on until Ctrl-C")
            assert "all 26 expectations met" in output
            assert re.search(r"connection closed \d+\.\d ms after the DELETE was sent", output)
            assert "asdev_" not in output.partition("Go on")[0]
            line = output[output.index("mosquitto_pub") :].partition("\n\n")[0]
            if shutil.which("mosquitto_pub") is None:
                pytest.skip("mosquitto_pub is not installed")
            published = subprocess.run(["sh", "-c", line], capture_output=True, timeout=20, check=False)
            assert published.returncode == 0, published.stderr
        finally:
            demo.send_signal(signal.SIGTERM)
        assert "service ended with status 0" in demo.stdout.read()
        assert demo.wait(15) == 0


def _until(demo: subprocess.Popen[str], text: str) -> str:
    seen = ""
    for line in demo.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(seen)
