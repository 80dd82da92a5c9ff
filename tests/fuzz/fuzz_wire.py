"""Coverage-guided fuzzing of the wire: `python -m tests.fuzz.fuzz_wire SECONDS [CORPUS_DIR]` (needs the extra `fuzz`).

Exits 0 when nothing was found; a finding is printed with its bytes, which then belong into a table of
`tests/broker/wire/cases*.py`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["broker", "tests.fuzz.invariants", "tests.fuzz.invariants5"]):
    from tests.fuzz.invariants import check_all
    from tests.fuzz.invariants5 import check_all5

from tests.broker.wire.cases import HOSTILE, VALID
from tests.broker.wire.cases5 import HOSTILE5, VALID5


def run_one(data: bytes) -> None:
    if data:
        check = check_all5 if data[0] & 0x10 else check_all  # the first byte says which level, and how it is cut
        check(data[1:], step=1 + data[0] % 16)


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    corpus = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp(prefix="fuzz-wire-"))
    corpus.mkdir(parents=True, exist_ok=True)
    packets = [case.packet for case in (*VALID, *HOSTILE)]
    for number, packet in enumerate((*packets, b"".join(case.packet for case in VALID))):
        (corpus / f"seed-{number:03}").write_bytes(bytes((number % 16,)) + packet)
    packets5 = [case.packet for case in (*VALID5, *HOSTILE5)]
    for number, packet in enumerate((*packets5, b"".join(case.packet for case in VALID5))):
        (corpus / f"seed5-{number:03}").write_bytes(bytes((0x10 | number % 16,)) + packet)
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-max_len=5000", "-timeout=10", "-rss_limit_mb=2048"]
        + ["-verbosity=0", "-print_final_stats=1"]
        + [f"-artifact_prefix={corpus}/", str(corpus)],
        run_one,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
