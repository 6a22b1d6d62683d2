"""``fapilog stats``: the books of all workers as tables, or as they are."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Literal

import orjson
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from fapilog._internal.overview import overview
from fapilog.cli.shown import count, duration, reasons, size, state, summed
from fapilog.sinks.terminal import clean

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from fapilog.results import ServiceStatistics, SinkTotals, WorkerStatistics

LINE = "\n"  # each reason on a line of its own: on 80 columns there is no room for more
WIDE = 112
LONGEST = {"refused": len("stack_exhausted 99.9k"), "dropped": len("retries_exhausted 99.9k")}
PLAIN_WIDTH = 160  # columns, where there is no terminal that says its own


def show(run_dir: Path, *, as_json: bool) -> None:
    """
    Print the statistics of *run_dir*.

    Raises:
        OSError: It may not be read.
    """
    found = overview(run_dir)
    if as_json:
        sys.stdout.buffer.write(as_document(found) + b"\n")
        return
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, markup=False, emoji=False)
    console.print(as_tables(found, time.time(), console.width))


def as_document(found: ServiceStatistics) -> bytes:
    """Return the statistics as JSON; keys are the names of the dataclasses' fields."""
    return orjson.dumps(found, default=str, option=orjson.OPT_INDENT_2)


def as_tables(found: ServiceStatistics, now: float, width: int = PLAIN_WIDTH) -> RenderableType:
    """Return one table of workers and one of their sinks; where *width* is small, without what is of least use."""
    parts: list[RenderableType] = [
        Text(clean(f"{found.run_dir}")),
        Text(""),
        _workers(found, now, wide=width >= WIDE),
        Text(""),
        _sinks(found, wide=width >= WIDE),
    ]
    if found.damaged:
        parts.append(Text(f"\n{found.damaged} rows could not be read"))
    return Group(*parts)


def _table(*columns: str, left: frozenset[str], wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1 if wide else 0, 0, 0))
    for name in columns:
        side: Literal["left", "right"] = "left" if name in left else "right"
        table.add_column(name, justify=side, overflow="fold", no_wrap=name not in left, min_width=LONGEST.get(name))
    return table


def _workers(found: ServiceStatistics, now: float, *, wide: bool) -> Table:
    left = frozenset(("state", "past", "refused"))
    accepted, more = (("accepted",), ("up", "peak")) if wide else ((), ())
    table = _table("worker", "state", "pid", "logged", *accepted, "queue", *more, "lost", "past", "refused", left=left, wide=wide)
    for worker in found.workers:
        up = duration(now - worker.started) if worker.alive else ""
        peak = "" if worker.queue_peak is None else count(worker.queue_peak)
        table.add_row(
            str(worker.worker),
            state(worker),
            str(worker.identity.pid),
            count(worker.logged),
            *([count(worker.accepted)] if wide else []),
            "" if worker.queue_depth is None else f"{count(worker.queue_depth)}/{count(worker.queue_capacity or 0)}",
            *((up, peak) if wide else ()),
            count(worker.lost),
            _past(worker),
            reasons(worker.refused, LINE),
        )
    refused = summed(worker.refused for worker in found.workers)
    logged, lost = (count(sum(getattr(worker, name) for worker in found.workers)) for name in ("logged", "lost"))
    taken = [count(sum(worker.accepted for worker in found.workers)) for _ in accepted]
    table.add_section()
    table.add_row("all", "", "", logged, *taken, "", *("" for _ in more), lost, "", reasons(refused, LINE))
    return table


def _past(worker: WorkerStatistics) -> str:
    """Return how often the slot has changed hands, and why: ``restarts 3``, ``SIGKILL 1``."""
    return LINE.join(
        filter(None, [f"restarts {count(worker.restarts)}" if worker.restarts else "", reasons(worker.deaths, LINE)])
    )


def _sinks(found: ServiceStatistics, *, wide: bool) -> Table:
    more = ("in flight",) if wide else ()
    left = frozenset(("sink", "state", "dropped"))
    table = _table("worker", "sink", "state", "delivered", *more, "backlog", "lost", "dropped", left=left, wide=wide)
    by_name: dict[str, list[SinkTotals]] = {}
    for worker in found.workers:
        for name, sink in worker.sinks.items():
            by_name.setdefault(name, []).append(sink)
            up = {True: "up", False: "DOWN", None: ""}[sink.up]
            table.add_row(str(worker.worker), clean(name), up, *_numbers([sink], wide=wide))
    table.add_section()
    for name, sinks in by_name.items():
        table.add_row("all", clean(name), "", *_numbers(sinks, wide=wide))
    return table


def _numbers(sinks: Sequence[SinkTotals], *, wide: bool) -> list[str]:
    """Return the sums over some sinks."""
    backlogs = [sink.backlog_bytes for sink in sinks if sink.backlog_bytes is not None]
    return [
        count(sum(sink.delivered for sink in sinks)),
        *([count(sum(sink.in_flight for sink in sinks))] if wide else []),
        size(sum(backlogs)) if backlogs else "",
        count(sum(sink.lost for sink in sinks)),
        reasons(summed(sink.dropped for sink in sinks), LINE),
    ]
