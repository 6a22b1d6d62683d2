"""
Where an accepted log call's time goes, in nanoseconds: ``python -m benchmarks.where``.

Each part is called by itself, beside an empty loop that is subtracted; what is left between the parts and the whole is the
interpreter's way from one to the other, and caches that a loop of one part keeps warm.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import orjson

import fapilog
from benchmarks.event import FIELDS, NAME, tight_loop
from fapilog._internal.flat import encode_flat
from fapilog._internal.line_queue import LineQueue

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CALLS, ROUNDS = 20_000, 15
INFO = 20


def cost(call: str, names: dict[str, Any], after: Callable[[], object] = bool) -> float:
    """Return what the text of a call costs, in nanoseconds: the median of rounds."""
    loop, empty = tight_loop(call, names), tight_loop("pass", {})
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        loop(names.get("log"), CALLS)
        middle = time.perf_counter_ns()
        empty(None, CALLS)
        found.append((2 * middle - start - time.perf_counter_ns()) / CALLS)
        after()
    return median(found)


def nothing(_event: str, **_fields: Any) -> None:
    """Take what a log call takes."""


def parts() -> dict[str, float]:
    """Return the cost of each part, by what it does."""
    keywords = ", ".join(f"{key}={value!r}" for key, value in FIELDS.items())
    queue = LineQueue(CALLS + 1, max_bytes=1 << 30)
    head = encode_flat("info", "bench", NAME, dict(FIELDS), 1 << 18)
    assert head
    copying = cost("copy(fields)", {"copy": dict, "fields": FIELDS})
    return {
        "passing ten keywords to a Python function": cost(f'log("{NAME}", {keywords})', {"log": nothing}),
        "making the line's head: type and size of each value, time, orjson": cost(
            f'encode("info", "bench", "{NAME}", copy(fields), 262144)', {"encode": encode_flat, "copy": dict, "fields": FIELDS}
        )
        - copying,
        "- of that, orjson itself": cost("dumps(fields)", {"dumps": orjson.dumps, "fields": FIELDS}),
        "- of that, the clock": cost("now()", {"now": time.time_ns}),
        "taking a seq, the identity, the queue": cost(
            f"accept({INFO}, head)", {"accept": queue.accept, "head": head}, after=queue.take
        ),
    }


def whole(folder: Path, journal: str) -> float:
    """Return what the call costs, with its worker at work."""
    fapilog.configure_logging(
        sinks=["file"], file_path=str(folder / "where.jsonl"), run_dir=str(folder / "run"), queue_size=65_536, journal=journal,
        queue_overflow="block", queue_block_timeout=30.0,
    )  # fmt: skip
    keywords = ", ".join(f"{key}={value!r}" for key, value in FIELDS.items())
    found = cost(f'log.info("{NAME}", {keywords})', {"log": fapilog.get_logger("bench")}, after=fapilog.flush)
    fapilog.shutdown_logging()
    return found


def disabled() -> float:
    """Return what a call below the level costs."""
    keywords = ", ".join(f"{key}={value!r}" for key, value in FIELDS.items())
    return cost(f'log.debug("{NAME}", {keywords})', {"log": fapilog.get_logger("bench")})


def main() -> None:
    """Print a Markdown table."""
    with tempfile.TemporaryDirectory(prefix=".fapilog-where-") as name:
        folder = Path(name)
        plain = whole(folder, "off")
        journaled = whole(folder, "on")
        rows = parts() | {
            "an accepted call, whole": plain,
            "- what the copy into the journal adds": journaled - plain,
            "a disabled call, whole": disabled(),
        }
    print("| part | ns |\n|---|---:|")
    for what, cost_ns in rows.items():
        print(f"| {what} | {cost_ns:,.0f} |")


if __name__ == "__main__":
    main()
