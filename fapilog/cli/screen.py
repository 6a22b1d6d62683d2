"""
What `fapilog top` shows, as a function of what it has seen. Pure.

Invariants:

1. No line is wider than the screen and there are no more lines than it has. What finds no room is counted (``+2``,
   ``60 workers ... not shown``); a name and its number are shown together or not at all.
2. A rate is what a worker's counter has grown by over the time between the two looks that saw it. Counters go on when a process
   is replaced, so its successor has a rate at once.
3. Nothing in it means anything to a terminal: names come from a file.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from fapilog.cli.shown import BARS, count, dropped, duration, fitting, padded, reasons, short_size, size, sparkline, state, summed
from fapilog.sinks.terminal import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fapilog.results import ServiceStatistics, SinkTotals, WorkerStatistics

WIDE = 150  # columns, from which on there is more to see
HISTORY = 60  # looks that are remembered
TREND, LONGEST_TREND = 8, 30  # columns of a sparkline
MARK = len(" +99")
MOST_SINKS, MOST_ASKED = 4, 3  # lines about them
FEWEST_ROWS = 3  # for which everything but the table gives way
RATE, SINKS, DROPS = "rate", "sinks", "drops"
NARROW_COLUMNS = ("w", "state", "ev/s", RATE, "queue", "peak", "rst", SINKS, DROPS)
WIDE_COLUMNS = (
    *("worker", "state", "pid", "up", "logged", "ev/s", RATE, "queue", "peak"),
    *("restarts", "deaths", "lost", SINKS, DROPS),
)
LEFT = frozenset(("state", RATE, "deaths", SINKS, DROPS))


@dataclass
class History:
    """
    The rates of all workers, look by look.

    Args:
        rates: Events a second, by worker.
        total: Of all workers of a look together.
    """

    rates: dict[int, deque[float]] = field(default_factory=dict)
    total: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _last: dict[int, tuple[int, float]] = field(default_factory=dict)

    def add(self, found: ServiceStatistics, now: float) -> None:
        """Take in what was seen at *now*, in seconds of any clock that runs evenly."""
        grown: list[float] = []
        for worker in found.workers:
            logged, at = self._last.get(worker.worker, (0, now))
            if now > at:
                grown.append(max(0, worker.logged - logged) / (now - at))
                self.rates.setdefault(worker.worker, deque(maxlen=HISTORY)).append(grown[-1])
            self._last[worker.worker] = (worker.logged, now)
        if grown:
            self.total.append(sum(grown))

    def rate(self, worker: int) -> float:
        """Return the last rate of a worker."""
        rates = self.rates.get(worker)
        return rates[-1] if rates else 0.0


@dataclass(frozen=True, slots=True)
class Frame:
    """
    Where the screen is shown.

    Args:
        width: Columns.
        height: Lines.
        bars: What sparklines are made of.
        clock: The time, as it shall be shown.
        hint: How to leave.
    """

    width: int
    height: int
    bars: str = BARS
    clock: str = ""
    hint: str = ""

    @property
    def wide(self) -> bool:
        """Whether there is room for more."""
        return self.width >= WIDE


@dataclass(frozen=True, slots=True)
class Row:
    """
    A line of the table.

    Args:
        cells: By column; those of `SINKS` and `DROPS` stand for themselves.
        rates: For the sparkline.
        sinks: By sink, those that are down first.
        drops: By reason, the largest first.
        style: Of the whole line.
        down: Whether a sink is down.
    """

    cells: Mapping[str, str]
    rates: Sequence[float]
    sinks: Sequence[str]
    drops: Sequence[str]
    style: str = ""
    down: bool = False


def screen(found: ServiceStatistics, history: History, frame: Frame, asked: Sequence[str] = ()) -> Text:
    """
    Return the screen, its lines separated by line ends.

    Args:
        found: What was seen last.
        history: With *found* taken in.
        frame: Where it is shown.
        asked: Levels that are asked for, in words.
    """
    head = _header(found, frame)
    about = [Text(fitting(f"asked for: {clean(each)}", frame.width), "cyan") for each in _first(asked, MOST_ASKED)]
    footer = [Text(), *_footer(found, frame.width)]
    room = frame.height - len(head) - len(about) - len(footer) - 3  # an empty line, the titles and the totals
    if room < min(FEWEST_ROWS, len(found.workers)):
        room, about, footer = frame.height - len(head) - 3, [], []
    lines = [*head, *about, Text(), *_table(found, history, frame, max(1, room)), *footer]
    return Text("\n", no_wrap=True, overflow="crop", end="").join(lines[: frame.height])


def message(text: str, frame: Frame) -> Text:
    """Return the screen where there is nothing to show but *text*."""
    line = Text(fitting("  ".join(filter(None, ["fapilog top", clean(text)])), frame.width), "bold red", no_wrap=True)
    return Text("\n", no_wrap=True, end="").join([line, Text(fitting(f"{frame.clock}  {frame.hint}".strip(), frame.width))])


def _header(found: ServiceStatistics, frame: Frame) -> list[Text]:
    """Return one line, or two where the run directory needs one of its own."""
    services = sorted({clean(worker.identity.service) for worker in found.workers})
    living = sum(worker.alive for worker in found.workers)
    left = ["fapilog top", ", ".join(services), f"{living} of {len(found.workers)} live"]
    right = [frame.clock, frame.hint]
    where = clean(str(found.run_dir))
    lines = ["  ".join(filter(None, [*left, where, *right]))]
    if cell_len(lines[0]) > frame.width:
        room = frame.width - sum(len(part) + 2 for part in (left[0], left[2], *right) if part)
        left[1] = fitting(left[1], room)
        lines = ["  ".join(filter(None, [*left, *right])), _end_of(where, frame.width)]
    return [Text(fitting(line, frame.width), style) for line, style in zip(lines, ("bold", ""), strict=False)]


def _end_of(path: str, width: int) -> str:
    """Return the last parts of a path, as many as fit."""
    while cell_len(path) > width and "/" in path.removeprefix(".../"):
        path = ".../" + path.removeprefix(".../").partition("/")[2]
    return path


def _table(found: ServiceStatistics, history: History, frame: Frame, room: int) -> list[Text]:
    """Return the titles, at most *room* lines of workers, and the totals; of more workers than that the busiest come first."""
    workers = list(found.workers)
    hidden = 0
    if len(workers) > room:
        hidden = len(workers) - (room - 1 or 1)  # the line that says so takes a place
        busiest = sorted(workers, key=lambda each: (not each.alive, -history.rate(each.worker), each.worker))
        workers = busiest[: len(workers) - hidden]
    rows = [_worker_row(worker, history, wide=frame.wide) for worker in workers]
    lines = _lines([*rows, _total_row(found, history, wide=frame.wide)], frame)
    if hidden:
        lines.insert(-1, Text(fitting(f"{hidden} workers that log less are not shown", frame.width), "dim"))
    return lines


def _worker_row(worker: WorkerStatistics, history: History, *, wide: bool) -> Row:
    queue, peak = worker.queue_depth, worker.queue_peak
    capacity = f"/{count(worker.queue_capacity or 0)}" if wide else ""
    sinks = {name: [sink] for name, sink in worker.sinks.items() if sink.up is not None}
    cells = {
        "worker": str(worker.worker),
        "state": state(worker),
        "pid": str(worker.identity.pid),
        "up": duration(worker.updated - worker.started),
        "logged": count(worker.logged),
        "ev/s": count(history.rate(worker.worker)),
        "queue": "" if queue is None else count(queue) + capacity,
        "peak": "" if peak is None else count(peak),
        "restarts": count(worker.restarts),
        "deaths": _listed(_counted(worker.deaths), 24),
        "lost": count(worker.lost),
    }
    rates = list(history.rates.get(worker.worker, ()))
    return _row(cells, rates, sinks, dropped(worker), wide=wide, style="" if worker.alive else "dim")


def _total_row(found: ServiceStatistics, history: History, *, wide: bool) -> Row:
    workers = found.workers
    sinks: dict[str, list[SinkTotals]] = {}
    for worker in workers:
        for name, sink in worker.sinks.items():
            if sink.up is not None:
                sinks.setdefault(name, []).append(sink)
    cells = {
        "worker": "all",
        "logged": count(sum(worker.logged for worker in workers)),
        "ev/s": count(history.total[-1] if history.total else 0),
        "queue": count(sum(worker.queue_depth or 0 for worker in workers)),
        "restarts": count(sum(worker.restarts for worker in workers)),
        "deaths": _listed(_counted(summed(worker.deaths for worker in workers)), 24),
        "lost": count(sum(worker.lost for worker in workers)),
    }
    return _row(cells, list(history.total), sinks, summed(map(dropped, workers)), wide=wide, style="bold")


def _row(
    cells: Mapping[str, str],
    rates: Sequence[float],
    sinks: Mapping[str, Sequence[SinkTotals]],
    drops: Mapping[str, int],
    *,
    wide: bool,
    style: str,
) -> Row:
    """Return a row whose sinks are one worker's, or those of several taken together: down if one is, backlogs added."""
    shown: list[tuple[bool, str]] = []
    for name, books in sinks.items():
        up = all(sink.up for sink in books)
        waiting = sum(sink.backlog_bytes or 0 for sink in books)
        backlog = f" {size(waiting) if wide else short_size(waiting)}" if waiting else ""
        shown.append((up, clean(name) + ("" if up else " DOWN" if wide else "!") + backlog))
    shown.sort(key=lambda pair: pair[0])
    short = {**cells, "w": cells["worker"], "rst": cells["restarts"]}
    return Row(short, rates, [text for _, text in shown], _counted(drops), style, not all(up for up, _ in shown))


def _lines(rows: Sequence[Row], frame: Frame) -> list[Text]:
    """Return the titles and *rows*: drops, sinks and sparklines share what the other columns leave."""
    names = WIDE_COLUMNS if frame.wide else NARROW_COLUMNS
    gap = "  " if frame.wide else " "
    widths = {name: max([cell_len(name), *(cell_len(row.cells.get(name, "")) for row in rows)]) for name in names}
    widths[RATE] = 0
    widths[SINKS] = max(len(SINKS), *(cell_len(_all(row.sinks)) for row in rows))
    widths[DROPS] = max(len(DROPS), *(cell_len(_all(row.drops)) for row in rows))
    left = frame.width - sum(widths.values()) - len(gap) * (len(names) - 1)  # less than nothing if not all of it fits
    widths[RATE] = min(LONGEST_TREND, max(TREND, left))
    widths[SINKS], widths[DROPS] = _divided(left + widths[SINKS] + widths[DROPS] - widths[RATE], widths, rows)
    titles = gap.join(padded(name, widths[name], left=name in LEFT) for name in names)
    return [Text(fitting(titles.rstrip(), frame.width), "bold"), *(_drawn(row, names, widths, gap, frame) for row in rows)]


def _divided(room: int, widths: Mapping[str, int], rows: Sequence[Row]) -> tuple[int, int]:
    """Return the widths of sinks and drops: room for the first sink, then for as many drops as fit, then for more sinks."""
    sinks, drops = widths[SINKS], widths[DROPS]
    if sinks + drops <= room:
        return sinks, drops
    least = max(len(SINKS), *(cell_len(row.sinks[0]) + MARK * (len(row.sinks) > 1) for row in rows if row.sinks), 0)
    drops = max(0, min(drops, room - min(sinks, least)))
    drops = max(len(DROPS), *(cell_len(_listed(row.drops, drops)) for row in rows))  # items are whole: some may be left
    return max(0, room - drops), drops


def _drawn(row: Row, names: Sequence[str], widths: Mapping[str, int], gap: str, frame: Frame) -> Text:
    line = Text(style=row.style)
    for name in names:
        text, style = row.cells.get(name, ""), ""
        if name == RATE:
            text, style = sparkline(row.rates, widths[name], frame.bars), "green"
        elif name == SINKS:
            text, style = _listed(row.sinks, widths[name]), "bold red" if row.down else ""
        elif name == DROPS:
            text, style = _listed(row.drops, widths[name]), "yellow"
        line.append(gap if line else "").append(padded(text, widths[name], left=name in LEFT), style)
    line.rstrip()
    if cell_len(line.plain) > frame.width:
        return Text(fitting(line.plain, frame.width), row.style)
    return line


def _footer(found: ServiceStatistics, width: int) -> list[Text]:
    lines = [_of_reasons("refused: ", summed(worker.refused for worker in found.workers), width)]
    names = dict.fromkeys(name for worker in found.workers for name in worker.sinks)
    for name in list(names)[:MOST_SINKS]:
        sinks = [worker.sinks[name] for worker in found.workers if name in worker.sinks]
        down = sum(sink.up is False for sink in sinks)
        parts = [f"DOWN in {down} of {len(sinks)}" if down else "", f"{count(sum(sink.delivered for sink in sinks))} delivered"]
        start = f"{fitting(clean(name), max(12, width - 60))}: " + ", ".join(filter(None, parts)) + ", dropped: "
        lines.append(_of_reasons(start, summed(sink.dropped for sink in sinks), width, "bold red" if down else ""))
    if len(names) > MOST_SINKS:
        lines.append(Text(fitting(f"{len(names) - MOST_SINKS} more sinks", width)))
    if found.damaged:
        lines.append(Text(fitting(f"{found.damaged} rows could not be read", width), "bold red"))
    return lines


def _of_reasons(start: str, counts: Mapping[str, int], width: int, style: str = "") -> Text:
    text = _listed(_counted(counts), width - cell_len(start)) or "none"
    return Text(fitting(start + text, width), style or ("" if text == "none" else "yellow"))


def _counted(counts: Mapping[str, int]) -> list[str]:
    """Return ``queue_full 12`` and so on, the largest first."""
    return [reasons({reason: counts[reason]}) for reason in sorted(counts, key=lambda each: -counts[each]) if counts[reason]]


def _all(items: Iterable[str]) -> str:
    return ", ".join(items)


def _listed(items: Sequence[str], width: int) -> str:
    """Return as many of *items* as fit in *width* columns, each of them whole, and how many did not (``+2``)."""
    for shown in range(len(items), 0, -1):
        text = _all(items[:shown]) + (f" +{len(items) - shown}" if shown < len(items) else "")
        if cell_len(text) <= width:
            return text
    return f"+{len(items)}" if items else ""


def _first(items: Sequence[str], most: int) -> list[str]:
    return list(items) if len(items) <= most else [*items[: most - 1], f"{len(items) - most + 1} more levels"]
