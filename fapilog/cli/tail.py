"""
``fapilog tail``: the events of all workers, from their files, in the order of time; also as they come.

Following, events wait for those of other files that are older, for `HOLD_S` at most after they were read. Whoever logs slowly may
have its events written a second after they were logged: these come when they come.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import sys
import time
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING

from fapilog._internal.logfiles import BLOCK, DamagedError, find, lines_of
from fapilog.cli.following import Follower, last_of
from fapilog.cli.forms import form_of
from fapilog.cli.merging import Reading, merged
from fapilog.cli.picking import timestamp_of, wanted
from fapilog.errors import ConfigurationError
from fapilog.settings import FapilogSettings, level_number
from fapilog.sinks.terminal import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from fapilog._internal.logfiles import LogFile
    from fapilog.cli.merging import Entry
    from fapilog.cli.picking import Wanted

POLL_S = 0.1
HOLD_S = 0.6
OLD_S = 1.2  # what is older when it is read has no older ones to wait for
HELD_BYTES = 64 << 20
LEAST_BLOCK = 16 << 10
LAST = 10
_key = itemgetter(0)


@dataclass(frozen=True, slots=True)
class Options:
    """
    What is wanted of `tail()`.

    Args:
        follow: Whether to go on with what comes.
        lines: How many of the last events to show; *None* for all, or `LAST` before those that are followed.
        since: From when on, as `timestamp_of()` takes it.
        level: The least level.
        workers: Of these only.
        where: Conditions; see `picking.condition()`.
        form: ``console``, ``json``, ``logfmt``, or ``auto``.
        fields: Those to show; all if there are none.
    """

    follow: bool = False
    lines: int | None = None
    since: str = ""
    level: str = ""
    workers: Sequence[int] = ()
    where: Sequence[str] = ()
    form: str = "auto"
    fields: Sequence[str] = ()


def tail(paths: Sequence[Path], options: Options) -> int:
    """
    Print the events of the log files at *paths*; return the exit code.

    Raises:
        ConfigurationError: An option cannot be understood, or there is nothing to read.
        OSError: Something may not be read.
    """
    since = timestamp_of(options.since) if options.since else ""
    want = wanted(level_number(options.level) if options.level else 0, options.workers, since, options.where)
    form = form_of(options.form, options.fields, os.environ, terminal=sys.stdout.isatty())
    places = [os.fspath(path) for path in paths] or [default_place()]
    out = Output(form)
    try:
        if options.follow:
            return _followed(places, options, since, want, out)
        return _printed(places, options.lines, since, want, out)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on: nothing to complain about, at exit neither
        return 0


def default_place() -> str:
    """
    Return the directory of the service's files, by its settings.

    Raises:
        ConfigurationError: They do not say it.
    """
    folder = os.path.dirname(FapilogSettings().file_path)
    if "{" in folder or not os.path.isdir(folder or "."):
        raise ConfigurationError(f"there is no directory {folder or '.'} (of FAPILOG_FILE_PATH); name files or directories")
    return folder or "."


class Output:
    """
    Standard output, in the form that is wanted.

    Args:
        form: Turns a line without its end into what is printed.
    """

    def __init__(self, form: Callable[[bytes], bytes] | None) -> None:
        self._form = form

    def put(self, entries: Iterable[Entry]) -> None:
        """Print *entries*."""
        form = self._form
        lines = [line for _, line in entries] if form is None else [form(line) for _, line in entries]
        if lines:
            sys.stdout.buffer.write(b"\n".join(lines) + b"\n")

    def flush(self) -> None:
        """Let them be seen."""
        sys.stdout.buffer.flush()

    @staticmethod
    def is_closed() -> bool:
        """Whether it is a pipe that nobody reads any more."""
        if not hasattr(select, "poll") or not stat.S_ISFIFO(os.fstat(1).st_mode):
            return False
        poll = select.poll()
        poll.register(1, 0)
        return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _note(text: str) -> None:
    print(f"fapilog: {clean(text)}", file=sys.stderr, flush=True)


def _printed(places: Sequence[str], count: int | None, since: str, want: Wanted | None, out: Output) -> int:
    series: dict[str, list[LogFile]] = {}
    for file in find(places):
        series.setdefault(file.series, []).append(file)
    readings = {path: Reading(want) for path in series}
    blocks = merged([_entries(files, readings[path], since, len(series)) for path, files in series.items()])
    if count is None:
        for entries in blocks:
            out.put(entries)
    else:
        out.put(deque((entry for entries in blocks for entry in entries), maxlen=count))
    out.flush()
    for path, reading in readings.items():
        _note_bad(path, reading.bad)
    return 0


def _note_bad(path: str, bad: int) -> None:
    if bad:
        _note(f"{path}: {'1 line is no event' if bad == 1 else f'{bad:,} lines are no events'}, or not whole")


def _entries(files: Sequence[LogFile], reading: Reading, since: str, series: int) -> Iterator[list[Entry]]:
    """Yield the events of *files*, of one of so many *series*, block by block."""
    size = max(LEAST_BLOCK, min(BLOCK, HELD_BYTES // series))
    for file in files:
        if file.stamp and _stamp(file.stamp) < since:
            continue
        try:
            for lines in lines_of(file, lambda _size: None, size):
                yield reading.entries(lines)
        except DamagedError as error:
            _note(f"{file.path}: {error}")


def _stamp(stamp: str) -> str:
    """Return the moment of a rotation as lines have it."""
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(stamp).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return "~"


def _followed(places: Sequence[str], options: Options, since: str, want: Wanted | None, out: Output) -> int:
    follower = Follower(places, want, _note)
    found = follower.begin()
    count = options.lines if options.lines is not None or since else LAST
    if since:
        streams = [_entries(files, follower.series[path].reading, since, len(found)) for path, files in found.items()]
    else:
        streams = [iter([last_of(file, count or 0, want)]) for files in found.values() for file in files if not file.stamp]
    entries = (entry for block in merged(streams) for entry in block)
    out.put(entries if count is None else deque(entries, maxlen=count))
    out.flush()
    held = Held()
    try:
        while not out.is_closed():
            bad = follower.bad
            for news in follower.news():
                held.add(news)
            out.put(held.ready())
            out.flush()
            if follower.bad > bad:
                _note_bad("what is followed", follower.bad - bad)
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        out.put(held.all())
        out.flush()
    return 0


class Held:
    """Events that wait for older ones of other files."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._arrivals: deque[tuple[float, str]] = deque()

    def add(self, entries: Sequence[Entry]) -> None:
        """Take what has come of one series, in its order."""
        if entries:
            self._entries += entries
            self._arrivals.append((time.monotonic(), max(map(_key, entries))))

    def ready(self) -> list[Entry]:
        """Return what has waited long enough, and what is older."""
        until = datetime.fromtimestamp(time.time() - OLD_S, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        while self._arrivals and self._arrivals[0][0] <= time.monotonic() - HOLD_S:
            until = max(until, self._arrivals.popleft()[1])
        self._entries.sort(key=_key)
        end = bisect_right(self._entries, until, key=_key)
        ready, self._entries = self._entries[:end], self._entries[end:]
        return ready

    def all(self) -> list[Entry]:
        """Return what waits."""
        return sorted(self._entries, key=_key)
