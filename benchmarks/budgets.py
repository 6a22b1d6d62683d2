"""
The budgets of a log call, and what each is measured by.

A group is measured in one run, its contenders in interleaved rounds; each of its budgets gets one value a round, and holds if the
median of these does. A budget that does not hold is measured again, with the same bound: all rounds count, the first ones too.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import web
from benchmarks.contenders import BASELINE, JOURNALED, LOGURU_QUEUE, OTEL, STDLIB, SUBJECT, absent
from benchmarks.rounds import environment, measured, ratios, rounds_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    #: For each budget of a group, by name, one value a round.
    Values = dict[str, list[float]]

CALLS, SLOW_CALLS, PACED_CALLS, OUTAGE_CALLS, REQUESTS = 100_000, 20_000, 20_000, 450_000, 3_200
HEALTHY, HANGING = "fapilog beside a sink", "fapilog beside a sink that hangs"
MIB = 1 << 20
OUTAGE_BYTES = (16 + 2 * 32 + 20) * MIB  # the queue, the backlogs of two sinks, and what is on top
FLAT_BYTES = 4 * MIB
UNWANTED = ("httpx", "fastapi", "prometheus_client", "typer")


@dataclass
class Budget:
    """
    What was promised.

    Args:
        what: In words.
        bound: The value that it may not miss.
        most: Whether it is the greatest that may be; else the least.
        values: Those that were measured, one a round.
        reason: Why it could not be measured.
    """

    what: str
    bound: float
    most: bool = True
    values: list[float] = field(default_factory=list)
    reason: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return median(self.values)

    def held(self, tolerance: float = 0.0) -> bool:
        """Whether it holds, with so much of the bound allowed on top."""
        if self.reason:
            return True
        return self.value <= self.bound * (1 + tolerance) if self.most else self.value >= self.bound * (1 - tolerance)


def calls(rounds: int, base: Path) -> Values:
    """What calls cost, and events a second until all are in the file."""
    slow = [name for name in (STDLIB, OTEL, LOGURU_QUEUE) if not absent(name)]
    sizes = dict.fromkeys((BASELINE, SUBJECT, JOURNALED), 2 * CALLS) | dict.fromkeys(slow, SLOW_CALLS)
    found = rounds_of(list(sizes), "throughput", sizes, rounds, base)
    values = {
        "call": ratios(found, SUBJECT, BASELINE, "mean"), "call, journal": ratios(found, JOURNALED, BASELINE, "mean"),
        "rate": ratios(found, SUBJECT, BASELINE, "rate"), "rate, journal": ratios(found, JOURNALED, BASELINE, "rate"),
    }  # fmt: skip
    return values | {name: ratios(found, JOURNALED, name, "rate") for name in slow}


def disabled(rounds: int, base: Path) -> Values:
    """What a call below the level costs."""
    found = rounds_of([BASELINE, SUBJECT], "disabled", 3 * CALLS, rounds, base)
    return {"disabled": ratios(found, SUBJECT, BASELINE, "mean")}


def hanging(rounds: int, base: Path) -> Values:
    """What the slowest calls cost while a sink hangs."""
    found = rounds_of([HEALTHY, HANGING], "paced", PACED_CALLS, rounds, base)
    return {"hanging": ratios(found, HANGING, HEALTHY, "p99.9")}


def served(rounds: int, base: Path) -> Values:
    """Requests a second."""
    found = web.in_turns([web.NOTHING, SUBJECT], web.ORDERS, REQUESTS, rounds, base)
    return {"served": ratios(found, SUBJECT, web.NOTHING, "rate")}


def memory(_rounds: int, base: Path) -> Values:
    """What memory an outage takes, once: it is no matter of chance."""
    found = measured(HANGING, "outage", OUTAGE_CALLS, base)
    return {"memory": [found["grown_bytes"] / MIB], "flat": [found["later_bytes"] / MIB]}


def imports(_rounds: int, _base: Path) -> Values:
    """How many packages `import fapilog` loads that it should not, and modules of rich beyond what structlog itself loads."""
    code = (
        "import sys, structlog; before = set(sys.modules); import fapilog; new = set(sys.modules) - before; "
        f"print(sum(name in sys.modules for name in {UNWANTED!r}) + sum(name.partition('.')[0] == 'rich' for name in new))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    return {"import": [float(done.stdout)]}


GROUPS: dict[Callable[[int, Path], Values], tuple[int, dict[str, Budget]]] = {
    calls: (
        5,
        {
            "call": Budget("accepted call, file, beside structlog + orjson", 0.50),
            "call, journal": Budget("the same with the journal", 0.58),
            "rate": Budget("events a second to a file, beside structlog + orjson", 1.9, most=False),
            "rate, journal": Budget("the same with the journal", 1.65, most=False),
            STDLIB: Budget("the same, beside the standard library's FileHandler with JSON", 4.0, most=False),
            OTEL: Budget("the same, beside OpenTelemetry's batch processor", 12.0, most=False),
            LOGURU_QUEUE: Budget("the same, beside loguru with enqueue", 20.0, most=False),
        },
    ),
    disabled: (5, {"disabled": Budget("disabled call, beside structlog's own", 1.2)}),
    hanging: (5, {"hanging": Budget("p99.9 of the call while a sink hangs, beside a healthy sink", 1.5)}),
    served: (
        5,
        {
            "served": Budget(
                "requests a second of a millisecond, under Gunicorn, with 5 events each, beside none", 0.95, most=False
            )
        },
    ),
    memory: (
        1,
        {
            "memory": Budget("MiB that an outage takes", OUTAGE_BYTES / MIB),
            "flat": Budget("MiB more in the last third of it", FLAT_BYTES / MIB),
        },
    ),
    imports: (1, {"import": Budget(f"of {', '.join(UNWANTED)}, and of rich beyond structlog, loaded by `import fapilog`", 0)}),
}
