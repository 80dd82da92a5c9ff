"""Coverage-guided fuzzing of the wire: `python -m tests.fuzz.fuzz_wire SECONDS [CORPUS_DIR]` (needs the extra `fuzz`).

Exits 0 when nothing was found; a finding is printed with its bytes, which then belong into `wire_cases.py`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["broker", "tests.fuzz.invariants"]):
    from tests.fuzz.invariants import check_all

from tests.broker.wire_cases import HOSTILE, VALID


def run_one(data: bytes) -> None:
    if data:
        check_all(data[1:], step=1 + data[0] % 16)


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    corpus = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp(prefix="fuzz-wire-"))
    corpus.mkdir(parents=True, exist_ok=True)
    packets = [case.packet for case in (*VALID, *HOSTILE)]
    for number, packet in enumerate((*packets, b"".join(case.packet for case in VALID))):
        (corpus / f"seed-{number:03}").write_bytes(bytes((number % 16,)) + packet)
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-max_len=5000", "-timeout=10", "-rss_limit_mb=2048"]
        + ["-verbosity=0", "-print_final_stats=1"]
        + [f"-artifact_prefix={corpus}/", str(corpus)],
        run_one,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
