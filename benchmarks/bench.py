"""
fapilog beside its peers in one run: ``python -m benchmarks.bench [--quick]``, `make bench`.

Writes ``.bench/results.json`` (every round) and ``.bench/results.md``, and prints the latter. README.md beside this file says how
to read it; ``python -m benchmarks.docs`` puts it into the documentation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import web
from benchmarks.budgets import HANGING, HEALTHY
from benchmarks.contenders import BASELINE, FLOOR, JOURNALED, PEERS, SUBJECT, absent
from benchmarks.errors import BenchError
from benchmarks.report import as_markdown
from benchmarks.rounds import base_directory, load, machine, measured, progress, rounds_of, together

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(".bench")
FAST = (BASELINE, SUBJECT, JOURNALED, "fapilog stdout", "fapilog Loki", FLOOR)
PROCESSES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int = 5
    calls: int = 100_000
    slow_calls: int = 20_000
    together: int = 40_000
    requests: int = 4_800
    processes: Sequence[int] = PROCESSES


QUICK = Size(rounds=1, calls=2_000, slow_calls=1_000, together=1_000, requests=160, processes=(1, 2))


def run(base: Path, size: Size) -> dict[str, Any]:
    """
    Measure everything; return it.

    Raises:
        BenchError: The run is void.
    """
    began = time.monotonic()
    peers = [name for name in PEERS if not absent(name)]
    files = [BASELINE, SUBJECT, JOURNALED, *peers]
    sizes = dict.fromkeys(FAST, size.calls) | dict.fromkeys(peers, size.slow_calls)
    few = max(1, size.rounds * 3 // 5)
    found: dict[str, Any] = {"machine": machine(base), "absent": {name: absent(name) for name in PEERS if absent(name)}}
    found["throughput"] = rounds_of(list(sizes), "throughput", sizes, size.rounds, base)
    found["latency"] = rounds_of([*files, FLOOR], "latency", sizes, few, base)
    found["paced"] = rounds_of(files, "paced", size.slow_calls, few, base)
    found["disabled"] = rounds_of([BASELINE, SUBJECT], "disabled", 3 * size.calls, few, base)
    found["hanging"] = rounds_of([HEALTHY, HANGING], "paced", size.slow_calls, few, base)
    found["outage"] = measured(HANGING, "outage", 4 * size.calls, base)
    found["together"] = _together(files, size, base)
    for endpoint in (web.BARE, web.ORDERS):
        found[endpoint] = web.rounds_of([web.NOTHING, *files], endpoint, size.requests, few, base)
    found["seconds"] = round(time.monotonic() - began)
    found["machine"]["load_after"] = load()
    return found


def _together(names: Sequence[str], size: Size, base: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        for processes in size.processes:
            progress(f"{processes} processes: {name}")
            found.setdefault(name, {})[str(processes)] = together(name, processes, size.together, base)
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code: 2 if the run is void."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a glance at everything, with figures that mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIRECTORY", help="where results go [.bench]")
    options = parser.parse_args(argv)
    try:
        with base_directory() as base:
            found = run(base, QUICK if options.quick else Size())
    except (BenchError, subprocess.SubprocessError) as error:
        print(f"bench: void: {error}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    text = as_markdown(found)
    (options.out / "results.md").write_text(text)
    progress("")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
