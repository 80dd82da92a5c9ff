"""The verdict of a run: figures and expectations, as tables for people and as JSON that `simulator report` reads."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from simulator.ledger import Ledger
from simulator.oracle import WITNESS, Expectation, delays_ms
from simulator.scenarios import Scenario
from simulator.shape import Plan

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Milliseconds from when a message was due; None where there was none to measure."""

    count: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run. `ok` is true only if it ran to its end and every expectation was met."""

    scenario: str
    title: str
    seed: int
    ran_s: float
    interrupted: bool
    planned: int
    sent: int
    unsent: int
    acknowledged: int
    delivered: int  # acknowledged reports that the witness received
    lost: int  # acknowledged reports that it did not
    repeated: int
    acknowledgement_ms: Delays
    delivery_ms: Delays
    expectations: tuple[Expectation, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        met = [expectation.ok for expectation in self.expectations]
        return bool(met) and all(met) and not self.interrupted

    def to_json(self) -> str:
        return json.dumps({"format": _FORMAT, "ok": self.ok, **asdict(self)}, indent=2, ensure_ascii=False)


class ReportInvalid(Exception):  # noqa: N818  # says what is wrong with the file
    """A file is no report of ours."""


def make(scenario: Scenario, plan: Plan, ledger: Ledger, expectations: Sequence[Expectation]) -> Report:
    """Return the report of a run."""
    reports = (*plan.reports, *plan.device_reports)
    arrived: dict[str, float] = {}
    copies = 0
    for receipt in ledger.received.get(WITNESS, ()):
        copies += receipt.id in arrived
        arrived.setdefault(receipt.id, receipt.at_s)
    acknowledged = [message.id for message in reports if message.id in ledger.acknowledged]
    delivered = sum(identity in arrived for identity in acknowledged)
    return Report(
        scenario=scenario.name,
        title=scenario.title,
        seed=plan.seed,
        ran_s=round(ledger.now_s(), 3),
        interrupted=ledger.interrupted,
        planned=len(reports),
        sent=sum(message.id in ledger.sent for message in reports),
        unsent=sum(message.id not in ledger.sent for message in reports),
        acknowledged=len(acknowledged),
        delivered=delivered,
        lost=len(acknowledged) - delivered,
        repeated=copies,
        acknowledgement_ms=_delays(delays_ms(reports, ledger.acknowledged)),
        delivery_ms=_delays(delays_ms(reports, arrived)),
        expectations=tuple(expectations),
        notes=tuple(ledger.notes),
    )


def read(path: Path) -> Report:
    """Return a report that was written by ``simulator run --report``. Raises ReportInvalid."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if value.pop("format") != _FORMAT:
            raise ReportInvalid(f"`{path}` is a report of another version")
        value.pop("ok")
        value["expectations"] = tuple(Expectation(**one) for one in value["expectations"])
        value["notes"] = tuple(value["notes"])
        for delays in ("acknowledgement_ms", "delivery_ms"):
            value[delays] = Delays(**value[delays])
        return Report(**value)
    except OSError as error:
        raise ReportInvalid(f"`{path}` cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ReportInvalid(f"`{path}` is not a report of `simulator run --report`") from None


def show(report: Report, console: Console) -> None:
    """Print the report's tables and its verdict."""
    console.print(Group(_expectations(report), Text(), _figures(report), *_remarks(report), Text(), _verdict(report)))


def _expectations(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, justify in (
        ("", "left"),
        ("who", "left"),
        ("what", "left"),
        ("expected", "right"),
        ("observed", "right"),
    ):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]  # literals of rich
    for one in report.expectations:
        mark, style = ("✓", "green") if one.ok else ("✗", "bold red")
        claim = Text(one.claim)
        if one.detail and not one.ok:
            claim.append(f"\n{one.detail}", style="red")
        table.add_row(Text(mark, style=style), Text(one.subject), claim, one.expected, Text(one.observed, style=style))
    return table


def _figures(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row(
        "reports",
        f"{report.planned} planned, {report.sent} written, {report.acknowledged} acknowledged, "
        f"{report.delivered} delivered, {report.lost} lost, {report.repeated} repeated, {report.unsent} never written",
    )
    for name, delays in (("due → acknowledged", report.acknowledgement_ms), ("due → delivered", report.delivery_ms)):
        if delays.p50 is None:
            table.add_row(name, "nothing to measure")
        else:
            table.add_row(
                name,
                f"p50 {delays.p50:.1f} ms, p95 {delays.p95:.1f} ms, p99 {delays.p99:.1f} ms, max {delays.max:.1f} ms",
            )
    table.add_row("seed", f"{report.seed}; {report.ran_s:.1f} s from the first report to the last check")
    return table


def _remarks(report: Report) -> list[RenderableType]:
    shown = [Text(f"note: {note}", style="yellow") for note in report.notes[:10]]
    if len(report.notes) > len(shown):
        shown.append(Text(f"note: and {len(report.notes) - len(shown)} more", style="yellow"))
    return list(shown)


def _verdict(report: Report) -> Text:
    failed = sum(not expectation.ok for expectation in report.expectations)
    if report.interrupted:
        return Text(
            f"interrupted: {failed} of {len(report.expectations)} expectations not met so far", style="bold yellow"
        )
    if not report.expectations:
        return Text("nothing was judged", style="bold red")
    if failed:
        return Text(f"{failed} of {len(report.expectations)} expectations differ", style="bold red")
    return Text(f"all {len(report.expectations)} expectations met", style="bold green")


def _delays(values: list[float]) -> Delays:
    if not values:
        return Delays(count=0)
    if len(values) == 1:
        (only,) = values
        return Delays(count=1, p50=only, p95=only, p99=only, max=only)
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return Delays(
        count=len(values),
        p50=round(cuts[49], 3),
        p95=round(cuts[94], 3),
        p99=round(cuts[98], 3),
        max=round(max(values), 3),
    )
