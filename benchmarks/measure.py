"""
One measurement of one contender, in this process: ``python -m benchmarks.measure NAME MODE CALLS DIRECTORY`` prints it as JSON.

Every event must be where it goes when the clock stops: the lines of the file are counted, and of fapilog's none may be missing.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from array import array
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import BALANCED, CONTENDERS, FLOOR
from benchmarks.errors import BenchError
from benchmarks.event import tight_loop, timed_loop, written

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.contenders.session import Session

    Result = dict[str, Any]

WARMUP, PACED_RATE = 2_000, 10_000
SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}
MIB = 1 << 20


def throughput(session: Session, calls: int, level: str = "info", *, gated: bool = False) -> Result:
    """Mean of the caller's loop in nanoseconds; events a second, and CPU of all threads, until all is where it goes."""
    loop = tight_loop(session.call, session.names, level)
    if gated:  # several processes begin at once
        print("ready", flush=True)
        sys.stdin.readline()
    cpu, start = time.process_time_ns(), time.monotonic_ns()
    loop(session.log, calls)
    produced = time.monotonic_ns()
    session.close()
    end, used = time.monotonic_ns(), time.process_time_ns() - cpu
    rate = calls / (end - start) * 1e9
    return {"mean": (produced - start) / calls, "rate": rate, "cpu": used / calls, "start": start, "end": end}


def latency(session: Session, calls: int, interval: int = 0) -> Result:
    """Percentiles of single calls, in nanoseconds."""
    samples = array("q", bytes(8 * calls))
    timed_loop(session.call, session.names)(session.log, samples, interval, time.perf_counter_ns)
    session.close()
    ordered = sorted(samples)
    picked = {name: ordered[min(calls - 1, int(calls * share))] for name, share in SHARES.items()}
    return {**picked, "max": ordered[-1]}


def outage(session: Session, calls: int) -> Result:
    """How many bytes of memory it takes more while a sink hangs, after two thirds of the calls and at the end."""
    loop = tight_loop(session.call, session.names)
    before, grown = resident_bytes(), []
    for _ in range(3):
        loop(session.log, calls // 3)
        time.sleep(0.5)  # for the sink that works to take what waits
        grown.append(resident_bytes() - before)
    session.close()
    return {"grown_bytes": grown[-1], "later_bytes": grown[-1] - grown[-2]}


def peak_mib() -> float:
    """Return the most that this process has held; not what `ru_maxrss` says, which begins with that of the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        return float(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def resident_bytes() -> int:
    """Return how much memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


MODES: dict[str, Callable[[Session, int], Result]] = {
    "throughput": throughput,
    "together": partial(throughput, gated=True),
    "disabled": partial(throughput, level="debug"),
    "latency": latency,
    "paced": partial(latency, interval=1_000_000_000 // PACED_RATE),
    "outage": outage,
}


def measured(name: str, mode: str, calls: int, directory: Path) -> Result:
    """
    Set up, warm up, measure, then count every line.

    Raises:
        BenchError: fapilog lost an event, or a line is wrong.
    """
    session = CONTENDERS[name](directory)
    tight_loop(session.call, session.names)(session.log, WARMUP)
    session.settle()
    gc.collect()
    result = MODES[mode](session, calls)
    result |= {"peak_mib": peak_mib()}
    if name == FLOOR:
        return result
    expected = WARMUP + (0 if mode == "disabled" else calls)
    found, line_bytes = written(directory)
    books = session.books()
    lost = expected - found or books.get("refused", 0) or books.get("dropped", 0)
    if name in BALANCED and mode != "outage" and lost:
        raise BenchError(f"{name}, {mode}: {expected} events logged, {found} in the file; {books}")
    return result | {"logged": expected, "lost": expected - found, "line_bytes": line_bytes, "source": session.source} | books


if __name__ == "__main__":
    name, mode, calls, directory = sys.argv[1:]
    try:
        found = measured(name, mode, int(calls), Path(directory))
    except BenchError as error:
        sys.exit(f"bench: {error}")
    print(json.dumps(found), flush=True)
