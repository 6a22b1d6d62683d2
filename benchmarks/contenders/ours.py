"""fapilog, with a queue of 65,536 events and the policy that drops nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.session import Session
from benchmarks.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import fapilog

QUEUE_SIZE, TIMEOUT = 65_536, 60.0


class Taking:
    """A sink that takes everything at once, or hangs for ever at the first batch."""

    def __init__(self, *, hangs: bool) -> None:
        self.name = "other"
        self._hangs = hangs

    async def open(self, _identity: fapilog.Identity) -> None:
        """Needs nothing."""

    async def write(self, _events: Sequence[fapilog.Event]) -> None:
        """Never used: there is `write_lines()`."""

    async def write_lines(self, _lines: Sequence[bytes]) -> None:
        """Take them, or never come back."""
        while self._hangs:
            time.sleep(3600)

    async def close(self) -> None:
        """Has nothing to close."""


def _opened(directory: Path, sinks: list[Any], *, whole: bool = True, after: Callable[[], object] = bool, **more: Any) -> Session:
    import fapilog  # here: a peer's memory has none of it

    fapilog.configure_logging(
        sinks=sinks, file_path=str(directory / "bench.{worker}.jsonl"), run_dir=str(directory.parent / "run"), service="bench",
        queue_size=QUEUE_SIZE, queue_overflow="block", queue_block_timeout=30.0, **{"journal": "off", **more},
    )  # fmt: skip

    def complete(result: fapilog.FlushResult) -> None:
        if whole and not result.complete:
            raise BenchError(f"not everything was delivered after {TIMEOUT:g} s: {result}")

    def close() -> None:
        complete(fapilog.shutdown_logging(TIMEOUT if whole else 0.5))
        after()

    def books() -> dict[str, Any]:
        seen = fapilog.statistics()
        dropped = {name: sum(sink.dropped.values()) for name, sink in seen.sinks.items()}
        return {"refused": sum(seen.refused.values()), "dropped": sum(dropped.values()), "queue_peak": seen.queue_peak}

    source = f"{fapilog.__version__} ({fapilog.__file__})"
    settle = (lambda: complete(fapilog.flush(TIMEOUT))) if whole else (lambda: time.sleep(1.0))
    return Session(fapilog.get_logger("bench"), close, settle, books=books, source=source)


def open_file(directory: Path) -> Session:
    """One file, no journal."""
    return _opened(directory, ["file"])


def open_journaled(directory: Path) -> Session:
    """One file, with the journal."""
    return _opened(directory, ["file"], journal="on")


def open_stdout(directory: Path) -> Session:
    """Standard output, which is a pipe into a file."""
    with (directory / "bench.jsonl").open("wb") as file:
        reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
    assert reader.stdin is not None
    kept = os.dup(1)
    os.dup2(reader.stdin.fileno(), 1)
    reader.stdin.close()

    def end() -> None:
        os.dup2(kept, 1)
        reader.wait(TIMEOUT)

    return _opened(directory, ["stdout"], format="json", after=end)


def open_loki(directory: Path) -> Session:
    """A stand-in for Loki in a process of its own, which writes the entries that it gets to a file."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.contenders.loki_standin", str(directory / "bench.jsonl")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    assert server.stdin is not None
    url = server.stdout.readline().strip()

    def end() -> None:
        server.communicate(timeout=TIMEOUT)  # closes its stdin, which is its end

    return _opened(directory, ["loki"], loki_url=url, after=end)


def open_beside_a_sink(directory: Path) -> Session:
    """A file, and a sink that takes everything."""
    return _opened(directory, ["file", Taking(hangs=False)])


def open_beside_one_that_hangs(directory: Path) -> Session:
    """A file, and a sink that hangs from the first batch on."""
    return _opened(directory, ["file", Taking(hangs=True)], whole=False)
