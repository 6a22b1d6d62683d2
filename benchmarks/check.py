"""
Whether the budgets hold: ``python -m benchmarks.check [--strict] [--rounds N]``, `make bench-check`.

Exit code 0 if all do, within a tenth of the bound unless --strict; 1 if one does not; 2 if the run is void.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from copy import deepcopy
from typing import TYPE_CHECKING

from benchmarks.budgets import GROUPS
from benchmarks.contenders import CONTENDERS, absent
from benchmarks.errors import BenchError
from benchmarks.rounds import base_directory, machine, progress

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.budgets import Budget

TOLERANCE, ATTEMPTS = 0.1, 3


def check(base: Path, tolerance: float, rounds: int = 0) -> list[Budget]:
    """Measure every group, again where a budget does not hold; return all budgets."""
    checked: list[Budget] = []
    for measure, (usual, known) in GROUPS.items():
        budgets = deepcopy(known)
        for name, budget in budgets.items():
            budget.reason = absent(name) if name in CONTENDERS else ""
        for _ in range(ATTEMPTS):
            for name, values in measure(rounds or usual, base).items():
                budgets[name].values += values
            if all(budget.held(tolerance) for budget in budgets.values()):
                break
        for budget in budgets.values():
            progress("")
            print(line_of(budget, tolerance), flush=True)
        checked += budgets.values()
    return checked


def line_of(budget: Budget, tolerance: float) -> str:
    """Return what there is to say of a budget."""
    sign = "<=" if budget.most else ">="
    if budget.reason:
        return f"  not measured  {budget.what}: {budget.reason}"
    verdict = "held" if budget.held() else "held with tolerance" if budget.held(tolerance) else "MISSED"
    spread = f"{min(budget.values):.2f} to {max(budget.values):.2f} in {len(budget.values)} rounds"
    return f"  {verdict:<20}{budget.value:6.2f} {sign} {budget.bound:<6g} {budget.what} ({spread})"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__)
    parser.add_argument("--strict", action="store_true", help="no tolerance")
    parser.add_argument("--rounds", type=int, default=0, help="of each measurement")
    options = parser.parse_args(argv)
    tolerance = 0.0 if options.strict else TOLERANCE
    try:
        with base_directory() as base:
            about = machine(base)
            print("{cpu}, {cores} cores, {system}, {python}, load {load_before}".format_map(about))
            budgets = check(base, tolerance, options.rounds)
    except (BenchError, subprocess.SubprocessError) as error:
        print(f"bench-check: void: {error}", file=sys.stderr)
        return 2
    missed = [budget for budget in budgets if not budget.held(tolerance)]
    for budget in missed:
        print(f"bench-check: missed: {budget.what}: {budget.value:.3f}, the bound is {budget.bound:g}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
