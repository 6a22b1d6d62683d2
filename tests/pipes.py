"""A pipe that several processes write to, its reader, and what the tests ask of the lines."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent
LIMIT_S = 60


class SharedPipe:
    """
    Reads a pipe on a thread of its own until the last writer is gone.

    Args:
        folder: Of the writers.
        chunk: How much it reads at once.
        pause: How long it rests after each, in seconds: a slow reader.
        ends: To read and to write, where it is no pipe.
    """

    def __init__(self, folder: Path, chunk: int = 1 << 16, pause: float = 0.0, ends: tuple[int, int] | None = None) -> None:
        self.read_end, self.write_end = ends or os.pipe()
        self.data = bytearray()
        self.reading = threading.Event()
        self.reading.set()
        self.programs: list[subprocess.Popen[bytes]] = []
        self._chunk, self._pause = chunk, pause
        self._thread = threading.Thread(target=self._read, daemon=True)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FAPILOG_")}
        self.env = {**clean, "PYTHONPATH": str(ROOT), "FAPILOG_RUN_DIR": str(folder / "run")}
        self._folder = folder

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs:
            with contextlib.suppress(ProcessLookupError):
                program.kill()
            program.wait(LIMIT_S)
        self.reading.set()
        self.done()
        self._thread.join(LIMIT_S)
        os.close(self.read_end)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # what a terminal says when nobody has it open any more
            while self.reading.wait(LIMIT_S) and (chunk := os.read(self.read_end, self._chunk)):
                self.data += chunk
                time.sleep(self._pause)

    def start(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program that writes to the pipe."""
        options = {"stdout": self.write_end, "env": self.env, "cwd": self._folder, **options}
        program = subprocess.Popen([sys.executable, "-X", "faulthandler", *command], **options)
        self.programs.append(program)
        return program

    def writer(self, name: str, count: int, sizes: str, kind: str = "plain", **options: Any) -> subprocess.Popen[bytes]:
        """Start `tests.programs.shared_pipe`."""
        return self.start("-m", "tests.programs.shared_pipe", name, str(count), sizes, kind, **options)

    def done(self) -> None:
        """Say that no more writers are to come."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def wait(self) -> None:
        """Wait until all writers have ended well and everything has been read."""
        self.done()
        assert [program.wait(LIMIT_S) for program in self.programs] == [0] * len(self.programs)
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()

    def parsed(self) -> tuple[list[dict[str, Any]], list[bytes]]:
        """Return the events, and the lines that are none."""
        events, others = [], []
        *lines, rest = bytes(self.data).split(b"\n")
        for line in lines + ([rest] if rest else []):
            try:
                events.append(json.loads(line))
            except ValueError:
                others.append(line)
        return events, others


def pads(events: list[dict[str, Any]]) -> Counter[tuple[str, int]]:
    """Return how often each event of `tests.programs.shared_pipe` is there."""
    return Counter((event["name"], event["n"]) for event in events if event["event"] == "pad")


def once_each(count: int, *names: str) -> Counter[tuple[str, int]]:
    """Return what `pads()` returns for *count* events of each name."""
    return Counter((name, n) for name in names for n in range(count))


def until(condition: Any, what: str, seconds: float = LIMIT_S) -> None:
    """Wait until *condition* returns something true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not in {seconds} s: {what}"
        time.sleep(0.005)
