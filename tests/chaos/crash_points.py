"""
Where a child process kills itself, and when it sets its clock: copied to a child's path as its `sitecustomize`.

``CRASH_AT`` in its environment names a point (of `CALLS`, `STORES`, `WINDOWS` or `LINES`) and says which time it is fatal.
``CRASH_MARK`` is the file that says 1 from right before: if a child died of anything else, it says 0. ``CLOCK`` is what its
clock is wrong by from the start on, in seconds; ``time.step(seconds)`` sets it. The product knows nothing of all that.
"""

from __future__ import annotations

import importlib
import itertools
import mmap
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

BEFORE, HALF, AFTER = "before", "half", "after"
LIMIT_S = 30.0


def _of_a_journal(path: Any) -> bool:
    return os.path.basename(path).startswith("journal-1.")


def _is_passing(path: Any, *_: Any) -> bool:
    return os.path.basename(path).startswith(".")


def _is_whole(path: Any, *_: Any) -> bool:
    return not _is_passing(path)


def _is_told(_fd: int, _data: bytes, at: int) -> bool:
    journal = importlib.import_module("fapilog._internal.journal")
    return at == journal.LIVE_AT + journal.Words.TOLD * journal.WORD


def _is_cursor(*arguments: Any) -> bool:
    return not _is_told(*arguments)


def _any(*_: Any) -> bool:
    return True


def _around(name: str, module: str, call: str, which: Callable[..., bool] = _any, *moments: str) -> dict[str, tuple[Any, ...]]:
    return {f"{name}-{moment}": (module, call, which, moment) for moment in moments or (BEFORE, AFTER)}


# Calls of `os` in a module of the product.
CALLS = {
    **_around("batch", "sinks.base", "write", _any, BEFORE, HALF, AFTER),
    **_around("header", "sinks.rotation", "write", _any, BEFORE, HALF, AFTER),
    "rename-before": ("sinks.rotation", "rename", _is_whole, BEFORE),
    "rename-between": ("sinks.rotation", "rename", _is_passing, BEFORE),
    "rename-after": ("sinks.rotation", "rename", _is_passing, AFTER),
    **_around("compressed", "sinks.family", "rename"),
    **_around("uncompressed", "sinks.family", "unlink", _is_whole, AFTER),
    **_around("put-back", "sinks.put_back", "write", _any, BEFORE, HALF, AFTER),
    **_around("cursor", "_internal.recovery", "pwrite", _is_cursor),
    **_around("told", "_internal.recovery", "pwrite", _is_told),
    **_around("removal", "_internal.filelock", "unlink", _of_a_journal),
    **_around("room", "_internal.rundir", "posix_fallocate"),
    **_around("head", "_internal.journal", "pwrite", _any, AFTER),
}

# Words of a journal: which ones, by what `Words` says, and when.
STORES = {
    "lap-unsaid": ("BEFORE", (0,), BEFORE),
    "lap-begun": ("BEGUN", (0,), BEFORE),
    "lap-uncounted": ("LAPS", (0,), BEFORE),
    "mark-before": ("MARKS", (0, 3), BEFORE),
    "mark-torn": ("MARKS", (1, 4), BEFORE),
    "mark-unchosen": ("MARK", (0,), BEFORE),
    "mark-after": ("MARK", (0,), AFTER),
    "struck-before": ("STRUCK", range(512), BEFORE),
    "struck-after": ("STRUCK", range(512), AFTER),
    "settle-before": ("SINKS", (1,), BEFORE),
    "settle-between": ("SINKS", (0,), BEFORE),
    "settle-after": ("SINKS", (0,), AFTER),
}

WINDOWS = {"kept-before": BEFORE, "kept-after": AFTER}
LINES = ("line-before", "line-half", "line-after", "lap-unsought", "line-overtaken", "line-taken")


class Fault:
    """What becomes of the process, and when."""

    def __init__(self, point: str, number: int, mark: str) -> None:
        self.point = point
        self._number = number
        with open(mark, "w+b") as file:
            file.write(b"0")
            file.flush()
            self._mark = mmap.mmap(file.fileno(), 1)
        self._count = itertools.count(1)

    def is_due(self) -> bool:
        """Count that the point is reached; whether this is the time."""
        return next(self._count) == self._number

    def strike(self) -> None:
        """Make the mark, and die; nothing here lets another thread run meanwhile."""
        self._mark[0] = ord("1")
        os.kill(os.getpid(), signal.SIGKILL)

    def around(self, call: Callable[..., Any], which: Callable[..., bool], moment: str) -> Callable[..., Any]:
        def fatal(*arguments: Any, **named: Any) -> Any:
            if not which(*arguments) or not self.is_due():
                return call(*arguments, **named)
            if moment == HALF:
                target, data, *rest = arguments
                call(target, data[: len(data) // 2], *rest)
            elif moment == AFTER:
                call(*arguments, **named)
            return self.strike()

        return fatal


class Instead:
    """A module in which some names mean something else."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class FatalWords:
    """The words of a journal, some of which cannot be stored in peace."""

    def __init__(self, words: memoryview, fault: Fault, places: set[int], moment: str) -> None:
        self._words = words
        self._fault = fault
        self._places = places
        self._moment = moment

    def __getitem__(self, at: int) -> int:
        return self._words[at]

    def __setitem__(self, at: int, word: int) -> None:
        due = at in self._places and self._fault.is_due()
        if due and self._moment == BEFORE:
            self._fault.strike()
        self._words[at] = word
        if due:
            self._fault.strike()


def _with_words(journal: Any, fault: Fault) -> None:
    name, offsets, moment = STORES[fault.point]
    first = getattr(importlib.import_module("fapilog._internal.journal").Words, name)
    journal.words = FatalWords(journal.words, fault, {first + offset for offset in offsets}, moment)


def _with_lines(journal: Any, fault: Fault) -> None:
    write, seek = journal.write, journal._seek
    held: list[bytes] = []
    others = threading.Event()

    def fatal(line: bytes) -> None:
        if held or not fault.is_due():
            write(line)
            if held and fault.point == "line-overtaken":
                others.set()
            return
        if fault.point == "line-overtaken":  # another thread's line comes first
            held.append(line)
            if not others.wait(LIMIT_S):
                os._exit(3)
        elif fault.point == "line-taken":  # the worker has it, and is about to write it
            held.append(line)
            _at_write_of(line, fault)
            others.wait(LIMIT_S)
            os._exit(3)
        elif fault.point != "line-before":
            write(line[: len(line) // 2] if fault.point == "line-half" else line)
        fault.strike()

    def sought(at: int) -> None:
        if fault.is_due():
            fault.strike()
        seek(at)

    if fault.point == "lap-unsought":
        journal._seek = sought
    else:
        journal.write = fatal


def _at_write_of(line: bytes, fault: Fault) -> None:
    def fatal(fd: int, data: Any) -> int:
        if line in bytes(data):
            fault.strike()
        return os.write(fd, data)

    base: Any = importlib.import_module("fapilog.sinks.base")
    base.os = Instead(os, write=fatal)


def install(point: str, number: int, mark: str) -> None:
    fault = Fault(point, number, mark)
    if point in CALLS:
        name, call, which, moment = CALLS[point]
        module: Any = importlib.import_module(f"fapilog.{name}")
        module.os = Instead(os, **{call: fault.around(getattr(os, call), which, moment)})
        return
    # What the product does here in one step for other threads must not be torn apart by the calls that are put in between.
    sys.setswitchinterval(LIMIT_S)
    journal: Any = importlib.import_module("fapilog._internal.journal").Journal
    if point in WINDOWS:
        journal.keep = fault.around(journal.keep, _any, WINDOWS[point])
        return
    arm = {**dict.fromkeys(STORES, _with_words), **dict.fromkeys(LINES, _with_lines)}[point]
    make = journal.__init__

    def armed(self: Any, *arguments: Any) -> None:
        make(self, *arguments)
        arm(self, fault)

    journal.__init__ = armed


def set_clock(wrong_by: float) -> None:
    off = [wrong_by]
    true, true_ns = time.time, time.time_ns
    time.time = lambda: true() + off[0]
    time.time_ns = lambda: true_ns() + int(off[0] * 1e9)

    def step(seconds: float) -> None:
        off[0] += seconds

    time.step = step  # type: ignore[attr-defined]


if "CLOCK" in os.environ:
    set_clock(float(os.environ["CLOCK"]))
if "CRASH_AT" in os.environ:
    _point, _number = os.environ["CRASH_AT"].split()
    install(_point, int(_number), os.environ["CRASH_MARK"])
