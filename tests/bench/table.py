"""One row of the performance table: what, against what, both figures, their ratio, and the goal for the ratio."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`ratio` is how many times better we are (or a share of the other's rate); `goal` its lower bound.

    With `at_most` the ratio must not exceed the goal. `unit` is ``s`` (seconds, lower is better), ``/s`` or ``B``.
    """

    what: str
    against: str
    ours: float
    theirs: float
    ratio: float
    goal: float
    unit: str
    at_most: bool = False
    note: str = ""

    @property
    def reached(self) -> bool:
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    def markdown(self) -> str:
        bound = "at most" if self.at_most else "at least"
        verdict = "yes" if self.reached else "**no**"
        return (
            f"| {self.what} | {_figure(self.ours, self.unit)} | {self.against} | {_figure(self.theirs, self.unit)} "
            f"| {self.ratio:.2f} | {bound} {self.goal:g} | {verdict} |"
        )


def _figure(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1e6:,.2f} µs" if value < 1e-2 else f"{value * 1e3:,.1f} ms"
    if unit == "B":
        return f"{value / 1024:,.1f} KiB"
    return f"{value:,.0f}{unit}"


HEAD = "| what | ours | against | theirs | ratio | goal | reached |\n|---|---|---|---|---|---|---|"
