"""``python -m benchmarks.fleet [HOSTS]``: the fleet through an hour's outage; exit status 1 if what is promised does not hold."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.fleet.report import problems, requests_of, scenarios, table, wire
from benchmarks.fleet.scenario import play


def main(hosts: int) -> int:
    """Go through all scenarios, the first with *hosts*; print the tables and keep them in `.bench/fleet.md`."""
    outcomes = []
    for scenario in scenarios(hosts):
        began, cpu = time.monotonic(), time.process_time()
        outcomes.append(play(scenario))
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        print(f"{scenario.name}: {scenario.workers:,} workers, {took:.0f} s, {cpu:.0f} s of CPU", flush=True)
    fapilog, reduced, naive = outcomes[:3]
    sizes = [
        f"{count} events: {lines:,} bytes of lines, {sent:,} on the wire" for count in (1, 4, 10) for lines, sent in [wire(count)]
    ]
    shares = [
        f"requests beside naive retry: {requests_of(outcome) / requests_of(naive):.2%} ({outcome.scenario.hosts} hosts)"
        for outcome in (fapilog, reduced)
    ]
    text = "\n\n".join([table(outcomes[:4]), table(outcomes[4:8]), table(outcomes[8:]), *shares, *sizes]) + "\n"
    folder = Path(".bench")
    folder.mkdir(exist_ok=True)
    (folder / "fleet.md").write_text(text)
    print("", text, sep="\n")
    found = problems(fapilog, naive)
    print("\n".join(found) or "within all limits, in at most a tenth of the requests of naive retry")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
