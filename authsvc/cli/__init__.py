"""The command line: `up` and `serve` run the service, everything else is an operator's command over HTTP.

`root` assembles the commands; each noun has its chapter (`places`, `tokens`, `things`, …). A command reads its
arguments, asks the service through `client.Api`, and hands the answer to `output`, which knows tables, ``--json``
and ``--quiet``. Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run `authsvc` with the process's arguments; does not return (exit status 0, 1 or 2)."""
    from authsvc.cli.root import run  # noqa: PLC0415  # keeps `import authsvc.cli` cheap and free of side effects

    run()
