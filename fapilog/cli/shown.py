"""Numbers as people read and write them. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from fapilog.sinks.terminal import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fapilog.results import WorkerStatistics

THOUSAND, KIB = 1000, 1024
_DURATION = re.compile(r"(?:([0-9]{1,6})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")
BARS, PLAIN_BARS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"


def count(number: float) -> str:
    """Return a number in five characters or less: ``999``, ``12.3k``, ``4.5M``."""
    for unit in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.0f}{unit}" if not unit or number >= 99.95 else f"{number:.1f}{unit}"
        number /= THOUSAND
    return f"{number:.0f}T"


def size(number: float) -> str:
    """Return a number of bytes: ``512 B``, ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < KIB:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 99.95 else f"{number:.1f} {unit}"
        number /= KIB
    return f"{number:.0f} TiB"


def short_size(number: float) -> str:
    """Return a number of bytes in five characters: ``512B``, ``1.5K``."""
    return size(number).replace(" ", "").replace("iB", "")


def duration(seconds: float) -> str:
    """Return a duration in two units at most: ``5s``, ``3m20s``, ``2d4h``."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, length)
        if number or (unit == "s" and not parts):
            parts.append(f"{number}{unit}")
        elif parts:
            break
    return "".join(parts[:2])


def seconds_of(text: str) -> float | None:
    """Return the seconds of ``90s``, ``10m`` or ``1d12h``; *None* if *text* is no such duration."""
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        return None
    return float(sum(int(part or 0) * length for part, length in zip(found.groups(), (86400, 3600, 60, 1), strict=True)))


def reasons(counts: Mapping[str, int], between: str = ", ") -> str:
    """Return ``queue_full 12, sampled 3``, the largest first."""
    return between.join(
        f"{clean(reason)} {count(number)}" for reason, number in sorted(counts.items(), key=lambda pair: -pair[1]) if number
    )


def state(worker: WorkerStatistics) -> str:
    """Return whether a worker lives, or how it has ended."""
    return "live" if worker.alive else "closed" if worker.closed else "died"


def summed(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums by key."""
    total: dict[str, int] = {}
    for each in counters:
        for key, number in each.items():
            total[key] = total.get(key, 0) + number
    return total


def dropped(worker: WorkerStatistics) -> dict[str, int]:
    """Return what a worker has refused and its sinks have dropped, by reason; each event once, as the sink that dropped most."""
    by_sink = [sink.dropped for sink in worker.sinks.values()]
    most = {reason: max(each.get(reason, 0) for each in by_sink) for each in by_sink for reason in each}
    return summed([worker.refused, most])


def sparkline(values: Sequence[float], width: int, bars: str = BARS) -> str:
    """Return the last *width* values as bars, the highest of them full."""
    shown = values[-width:]
    top = max(shown, default=0) or 1
    return "".join(bars[min(len(bars) - 1, round(value / top * (len(bars) - 1)))] for value in shown).rjust(width)


def fitting(text: str, width: int) -> str:
    """Return *text*, or its beginning up to the end of a word with dots behind it, in *width* columns."""
    if cell_len(text) <= width:
        return text
    beginning = set_cell_size(text, max(0, width - 3))
    return (beginning.rpartition(" ")[0] or beginning).rstrip(" ,;") + "..."[: max(0, width)]


def padded(text: str, width: int, *, left: bool) -> str:
    """Return *text* in exactly *width* columns, or as it is if it is longer."""
    space = " " * (width - cell_len(text))
    return text + space if left else space + text
