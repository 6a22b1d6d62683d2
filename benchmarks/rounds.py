"""
Rounds of measurements, each in a fresh interpreter, contenders interleaved: whatever else the machine does meets all of them.

Ratios are taken round by round and the median of them is reported: never absolute times of different moments.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Result = dict[str, Any]
    #: What was measured, by contender: one result a round.
    Rounds = dict[str, list[Result]]

LIMIT = 300.0
PACKAGES = (
    "structlog", "orjson", "loguru", "picologging", "concurrent-log-handler", "opentelemetry-sdk",
    "gunicorn", "fastapi", "uvicorn",
)  # fmt: skip


def environment() -> dict[str, str]:
    """Return the environment without settings of fapilog's."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("FAPILOG_", "OTEL_"))}


@contextlib.contextmanager
def directory(base: Path) -> Iterator[Path]:
    """Give a directory in *base* that is gone afterwards."""
    made = Path(tempfile.mkdtemp(dir=base))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _command(name: str, mode: str, calls: int, place: Path) -> list[str]:
    place.mkdir(exist_ok=True)
    return [sys.executable, "-m", "benchmarks.measure", name, mode, str(calls), str(place)]


def measured(name: str, mode: str, calls: int, base: Path) -> Result:
    """
    Measure once, in a process of its own.

    Raises:
        BenchError: It failed.
    """
    with directory(base) as place:
        command = _command(name, mode, calls, place / "files")
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment(), check=False)
    return _result(f"{name}, {mode}", done.returncode, done.stdout, done.stderr)


def _result(what: str, code: int, output: str, errors: str) -> Result:
    if code:
        raise BenchError(f"{what}: exit code {code}\n{errors.strip()}")
    found: Result = json.loads(output.splitlines()[-1])
    return found


def together(name: str, processes: int, calls: int, base: Path) -> Result:
    """
    Measure so many processes that log at once, each to a file of its own, as workers of one service; return their common rate.

    Raises:
        BenchError: One failed.
    """
    with directory(base) as place, contextlib.ExitStack() as stack:
        running = []
        for number in range(processes):
            command = _command(name, "together", calls // processes, place / str(number))
            pipe = subprocess.PIPE
            child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment())
            running.append(stack.enter_context(child))
            stack.callback(child.kill)
        for child in running:
            assert child.stdout is not None
            child.stdout.readline()
        for child in running:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        outcomes = [(child.communicate(timeout=LIMIT), child.returncode) for child in running]
    found = [_result(f"{name}, {processes} processes", code, output, errors) for (output, errors), code in outcomes]
    took = (max(each["end"] for each in found) - min(each["start"] for each in found)) / 1e9
    lost = sum(each["lost"] for each in found)
    return {"rate": calls // processes * processes / took, "lost": lost, "peak_mib": sum(each["peak_mib"] for each in found)}


def interleaved(names: Sequence[str], what: str, rounds: int, measure: Callable[[str], Result]) -> Rounds:
    """Measure each of *names* in each round, every second round in the opposite order; *what* is said of it meanwhile."""
    out: Rounds = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            progress(f"{what}, round {number + 1}/{rounds}: {name or 'nothing'}")
            out[name].append(measure(name))
    return out


def rounds_of(names: Sequence[str], mode: str, calls: int | dict[str, int], rounds: int, base: Path) -> Rounds:
    """Measure each of *names* as *mode* says, `interleaved()`; *calls* may differ by name."""
    return interleaved(
        names, mode, rounds, lambda name: measured(name, mode, calls if isinstance(calls, int) else calls[name], base)
    )


def ratios(found: Rounds, subject: str, baseline: str, key: str) -> list[float]:
    """Return subject / baseline, round by round."""
    return [a[key] / b[key] for a, b in zip(found[subject], found[baseline], strict=True)]


def progress(text: str) -> None:
    """Show what is being measured, if somebody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def base_directory() -> Iterator[Path]:
    """Give a directory below ``$TMPDIR``, or the current one without it."""
    with tempfile.TemporaryDirectory(prefix=".fapilog-bench-", dir=os.environ.get("TMPDIR") or ".") as name:
        yield Path(name).resolve()


def load() -> float:
    """Return the load of this machine over the last minute."""
    return round(os.getloadavg()[0], 2)


def machine(base: Path) -> Result:
    """Return where and with what this runs."""
    proc = (Path("/proc/cpuinfo"), Path("/proc/mounts"))
    cpuinfo, mounts = (path.read_text().splitlines() if path.exists() else [] for path in proc)
    models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    mounted = [row for row in map(str.split, mounts) if base.is_relative_to(row[1])]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": cores,
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "file_system": max(mounted, key=lambda row: len(row[1]))[2] if mounted else "unknown",
        "load_before": load(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
