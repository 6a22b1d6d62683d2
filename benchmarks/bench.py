"""What an accepted log call costs beside structlog + orjson writing the same fields to a file.

Run as ``python -m benchmarks.bench``; README.md beside this file says how to read the table.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

QUEUE_SIZE, WARMUP, TIMEOUT = 65_536, 2_000, 30.0
PACED_RATE, PACED_CALLS = 20_000, 30_000
BASELINE, SUBJECT, FLOOR = "structlog+orjson", "fapilog file", "noop"
BOOKS = ("logged", "written", "refused", "dropped")
MARK = b'"event":"order placed"'
FIELDS: dict[str, Any] = {
    "user": "u-1842", "order": 918273, "amount": 129.95, "currency": "EUR", "items": [1, 2, 3], "paid": True,
    "coupon": None, "path": "/api/orders", "ip": "203.0.113.7", "ua": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20",
}  # fmt: skip
Result = dict[str, Any]
Rounds = dict[str, dict[str, list[Result]]]  # mode -> contender -> one result a round


class BenchError(Exception):
    """The run is void: an event was lost, a line is wrong, or a contender failed."""


@dataclass
class Session:
    """One contender, set up in this process: its logger and how to close its books."""

    log: Any
    settle: Callable[[], None]  # returns when all that was logged is in the file
    close: Callable[[], None]  # the same, and ends the contender
    losses: Callable[[], Result]
    source: str = ""


def open_structlog(directory: Path) -> Session:
    """structlog as its performance guide recommends, one write and flush an event."""
    import orjson
    import structlog

    file = open(directory / "bench.jsonl", "ab")  # noqa: SIM115 - closed by Session.close
    p = structlog.processors
    stamp, render = p.TimeStamper(fmt="iso", utc=True), p.JSONRenderer(serializer=orjson.dumps)
    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[structlog.contextvars.merge_contextvars, p.add_log_level, p.format_exc_info, stamp, render],
        logger_factory=structlog.BytesLoggerFactory(file),
    )
    return Session(structlog.get_logger().bind(), file.flush, file.close, lambda: {"refused": 0, "dropped": 0})


def open_fapilog(directory: Path) -> Session:
    """fapilog with the file sink, a queue of 65,536 and the policy that drops nothing."""
    import fapilog

    fapilog.configure_logging(
        sinks=["file"], file_path=str(directory / "bench.jsonl"), run_dir=str(directory / "run"), service="bench",
        queue_size=QUEUE_SIZE, queue_overflow="block", queue_block_timeout=5.0,
    )  # fmt: skip

    def complete(result: Any) -> None:
        if not result.complete:
            raise BenchError(f"not everything was delivered after {TIMEOUT:g} s: {result}")

    def losses() -> Result:
        seen = fapilog.statistics()
        dropped = sum(sum(sink.dropped.values()) for sink in seen.sinks.values())
        return {"refused": sum(seen.refused.values()), "dropped": dropped, "queue_peak": seen.queue_peak}

    flush, shutdown = fapilog.flush, fapilog.shutdown_logging
    log, source = fapilog.get_logger("bench"), f"{fapilog.__version__} ({fapilog.__file__})"
    return Session(log, lambda: complete(flush(TIMEOUT)), lambda: complete(shutdown(TIMEOUT)), losses, source)


def noop(event: str, **fields: Any) -> None:
    """The floor: the price of a Python call that takes these keywords and does nothing."""


CONTENDERS: dict[str, Callable[[Path], Session]] = {
    BASELINE: open_structlog,
    SUBJECT: open_fapilog,
    FLOOR: lambda _directory: Session(SimpleNamespace(info=noop), lambda: None, lambda: None, dict),
}


# The loops are compiled from one text, as timeit does, so that each has the same call in it.
CALL = 'log.{level}("order placed", ' + ", ".join(f"{k}={v!r}" for k, v in FIELDS.items()) + ")"
TIGHT = f"""
def loop(log, calls):
    for _ in range(calls):
        {CALL}
"""
# One sample a call, from the moment it was due. With an interval (ns) the wait spins, as a busy application would:
# a stall makes the calls that fell due meanwhile late, and their samples say so.
TIMED = f"""
def loop(log, samples, interval, clock):
    due = clock()
    for index in range(len(samples)):
        if interval:
            due += interval
            while clock() < due:
                pass
        else:
            due = clock()
        {CALL}
        samples[index] = clock() - due
"""


def compiled(text: str, level: str = "info") -> Callable[..., None]:
    """The loop of this text, calling the method of this level."""
    names: dict[str, Callable[..., None]] = {}
    exec(text.replace("{level}", level), {}, names)
    return names["loop"]


info_loop, debug_loop, timed_loop = compiled(TIGHT), compiled(TIGHT, "debug"), compiled(TIMED)


def throughput(session: Session, calls: int, loop: Callable[[Any, int], None] = info_loop) -> Result:
    """Mean of the producer's loop, and end to end until the contender is closed."""
    cpu, start = time.process_time_ns(), time.perf_counter_ns()
    loop(session.log, calls)
    produced = time.perf_counter_ns()
    session.close()
    end, used = time.perf_counter_ns(), time.process_time_ns() - cpu
    return {"mean": (produced - start) / calls, "rate": calls / (end - start) * 1e9, "cpu": used / calls}


def latency(session: Session, calls: int, interval: int = 0) -> Result:
    """Percentiles of single calls."""
    samples = array("q", bytes(8 * calls))
    timed_loop(session.log, samples, interval, time.perf_counter_ns)
    session.close()
    ordered = sorted(samples)
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}
    picked: Result = {k: ordered[min(calls - 1, int(calls * s))] for k, s in shares.items()}
    return picked | {"max": ordered[-1]}


MODES: dict[str, Callable[[Session, int], Result]] = {
    "throughput": throughput, "disabled": partial(throughput, loop=debug_loop),
    "latency": latency, "paced": partial(latency, interval=1_000_000_000 // PACED_RATE),
}  # fmt: skip


def run_round(contender: str, mode: str, calls: int, directory: Path) -> Result:
    """Set up, warm up, measure, then check every line and every counter."""
    session = CONTENDERS[contender](directory)
    info_loop(session.log, WARMUP)
    timed_loop(session.log, array("q", bytes(8 * WARMUP)), 0, time.perf_counter_ns)
    session.settle()
    gc.collect()
    result = MODES[mode](session, calls)
    if contender == FLOOR:
        return result
    expected = 2 * WARMUP + (0 if mode == "disabled" else calls)
    books = check_file(directory, expected) | session.losses() | {"source": session.source}
    if books["refused"] or books["dropped"]:
        raise BenchError(f"{contender}, {mode}: events were lost: {books}")
    return result | books


def check_file(directory: Path, expected: int) -> Result:
    """Count the lines of the event; the last one must hold the ten fields with their values."""
    contents = (path.read_bytes() for path in directory.glob("bench*.jsonl*"))
    lines = [line for content in contents for line in content.splitlines() if MARK in line]
    if len(lines) != expected:
        raise BenchError(f"{expected} events logged, {len(lines)} in the file")
    last = json.loads(lines[-1])
    if {key: last.get(key, "missing") for key in FIELDS} != FIELDS:
        raise BenchError(f"fields differ from what was logged: {last}")
    return {"logged": expected, "written": len(lines), "line_bytes": len(lines[-1]) + 1}


def spawn_round(contender: str, mode: str, calls: int, base: Path) -> Result:
    """Run one round in a fresh interpreter, free of FAPILOG_* settings of the caller's."""
    directory = Path(tempfile.mkdtemp(dir=base))
    options = ["--contender", contender, "--mode", mode, "--calls", str(calls), "--directory", str(directory)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("FAPILOG_")}
    try:
        command = [sys.executable, "-m", "benchmarks.bench", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=env, check=False)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if done.returncode:
        raise BenchError(f"{contender}, {mode}: exit {done.returncode}\n{done.stderr.strip()}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_all(rounds: int, calls: int, base: Path) -> Rounds:
    """All rounds, contenders interleaved; every second round in the opposite order."""
    out: Rounds = {mode: {} for mode in MODES}
    sizes = {"paced": min(calls, PACED_CALLS), "disabled": 3 * calls}
    for number, mode in itertools.product(range(rounds), MODES):
        names = [BASELINE, SUBJECT, *([FLOOR] if mode in ("throughput", "latency") else [])]
        for name in names if number % 2 == 0 else names[::-1]:
            if sys.stderr.isatty():
                print(f"\rround {number + 1}/{rounds} {mode:<10}", end="\r", file=sys.stderr)
            out[mode].setdefault(name, []).append(spawn_round(name, mode, sizes.get(mode, calls), base))
    return out


def ratios(results: Rounds, mode: str, key: str) -> list[float]:
    """fapilog / structlog, round by round."""
    return [a[key] / b[key] for a, b in zip(results[mode][SUBJECT], results[mode][BASELINE], strict=True)]


def machine(base: Path) -> Result:
    """Where and with what this ran."""
    proc = (Path("/proc/cpuinfo"), Path("/proc/mounts"))
    cpuinfo, mounts = (path.read_text().splitlines() if path.exists() else [] for path in proc)
    models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    mounted = [row for row in map(str.split, mounts) if base.is_relative_to(row[1])]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": models[0] if models else platform.machine(), "cores": cores,
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "file_system": max(mounted, key=lambda row: len(row[1]))[2] if mounted else "unknown",
        "directory": str(base.parent), "load_before": os.getloadavg()[0],
        "structlog": version("structlog"), "orjson": version("orjson"),
    }  # fmt: skip


def table(results: Rounds, mode: str, columns: Mapping[str, tuple[str, float, int]]) -> list[str]:
    """A row a contender (medians; max is the largest of all), losses in the same row."""
    heads = "".join(f"{c[0]:>11}" for c in columns.values())
    lines = [" " * 20 + heads + "".join(f"{name:>10}" for name in BOOKS)]
    for name, rounds in results[mode].items():
        row = f"  {name:<18}"
        for key, (_, unit, digits) in columns.items():
            known = [r[key] for r in rounds if key in r]
            middle = (max(known) if key == "max" else median(known)) if known else float("nan")
            row += f"{middle / unit:>11,.{digits}f}"
        for key in BOOKS:
            row += f"{sum(r[key] for r in rounds):>10}" if key in rounds[0] else f"{'-':>10}"
        lines.append(row.replace("nan", "  -"))
    shares = ("-" if key == "max" else f"{median(ratios(results, mode, key)):.2f} x" for key in columns)
    return [*lines, f"  {'ratio':<18}" + "".join(f"{share:>11}" for share in shares)]


def doubts(results: Rounds, load: float) -> str:
    """How far to trust the numbers, in a sentence."""
    head = ratios(results, "throughput", "mean")
    own = sorted(r["mean"] for r in results["throughput"][BASELINE])
    spread = (own[-1 - len(own) // 4] - own[len(own) // 4]) / median(own)
    trust = "quiet enough" if spread < 0.1 else "noisy: run it again"
    return (
        f"doubts: over {len(head)} rounds the headline ran from {min(head):.2f} to {max(head):.2f}, the middle half of "
        f"structlog's own means spans {spread:.0%} ({trust}), load before was {load:.2f}; tails are the scheduler's too"
    )


def report(results: Rounds, about: Result, headline: float) -> str:
    """The whole report in plain text."""
    percentiles = {k: (k, 1e3, 2) for k in ("p50", "p99", "p99.9", "p99.99", "max")}
    whole = {"rate": ("events/s", 1, 0), "cpu": ("CPU us", 1e3, 2), "line_bytes": ("bytes", 1, 0)}
    ours = results["throughput"][SUBJECT]
    parts = (
        ("accepted call, back to back: mean, us", "throughput", {"mean": ("mean", 1e3, 2)}),
        ("accepted call, back to back: single calls, us (with the timer)", "latency", percentiles),
        (f"accepted call, {PACED_RATE:,}/s: us from when it was due", "paced", percentiles),
        ("end to end: first call to last line in the file", "throughput", whole),
        ("disabled call (DEBUG at INFO), ns", "disabled", {"mean": ("mean", 1, 0)}),
    )
    peak = max(result["queue_peak"] for result in ours)
    lines = [
        "{cpu}, {cores} cores, {system}, {python}".format_map(about),
        "structlog {structlog}, orjson {orjson}, fapilog {fapilog}".format_map(about),
        "files on {file_system} below {directory}, no fsync".format_map(about),
        f"10 fields, medians of {len(ours)} interleaved rounds; queue {QUEUE_SIZE}, block; queue peak {peak}",
    ]
    for title, mode, columns in parts:
        lines += ["", title, *table(results, mode, columns)]
    p50 = median(ratios(results, "latency", "p50"))
    lines += ["", f"headline: an accepted call costs {headline:.2f} x structlog + orjson (p50: {p50:.2f} x)"]
    return "\n".join([*lines, doubts(results, about["load_before"])])


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line; the hidden options are the parent's own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each measurement [7]")
    parser.add_argument("--calls", type=int, default=100_000, help="calls a round [100000]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round here")
    parser.add_argument("--check", type=float, metavar="RATIO", help="exit 1 if it costs more")
    for name, kind in (("--contender", str), ("--mode", str), ("--directory", Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.rounds < 1 or args.calls < 1000:
        parser.error("at least 1 round and 1000 calls")
    return args


def main(argv: list[str] | None = None) -> int:
    """Exit code 0; 1 if --check fails; 2 if the run is void."""
    args = parse(argv)
    try:
        if args.contender:
            print(json.dumps(run_round(args.contender, args.mode, args.calls, args.directory)))
            return 0
        with tempfile.TemporaryDirectory(prefix=".fapilog-bench-", dir=os.environ.get("TMPDIR") or ".") as name:
            about = machine(Path(name).resolve())
            results = run_all(args.rounds, args.calls, Path(name).resolve())
    except (BenchError, subprocess.TimeoutExpired) as error:
        print(f"bench: void: {error}", file=sys.stderr)
        return 2
    headline = median(ratios(results, "throughput", "mean"))
    about["fapilog"] = results["throughput"][SUBJECT][0]["source"]
    print(report(results, about, headline))
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "headline": headline, "rounds": results}, indent=1) + "\n")
    if args.check is not None and headline > args.check:
        print(f"bench: {headline:.3f} x is above the limit of {args.check:g} x", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
