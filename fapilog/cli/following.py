"""
What is written to log files from now on, through rotation, new files and deletions.

Invariants:

1. Every whole line that is written to a followed file after it was found comes out once, in the order of its file; of a file that
   was found later, every line.
2. A file is known by its inode, not by its name. One that was rotated is read on for `LATE_S`: whoever wrote to it may do so for
   a moment. One that was rotated twice between two looks is found under its new name; if it is compressed by then, its beginning
   says whether it is one that is known.
3. Half a line waits for its end. When its file ends it is given up, and counted as no event.
4. Whatever a file system says is noted, and tried again at the next look; nothing of that ends the follower. That a file was
   renamed or compressed between the look at its directory and its opening is no fault, and not noted.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fapilog._internal.logfiles import LONGEST, DamagedError, files_in, folders_of, lines_of, opened
from fapilog._internal.native import close_fd
from fapilog.cli.merging import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fapilog._internal.logfiles import LogFile
    from fapilog.cli.merging import Entry
    from fapilog.cli.picking import Wanted

LOOK_S = 0.5
LATE_S = 10.0
BLOCK = 256 << 10
ALIKE_BYTES = 4096
KNOWN_BYTES = 64  # at the end of what was read: with the seq of a line, and so no other


class Source:
    """
    A file that is read on.

    Args:
        fd: Its descriptor, which is closed with it.
        offset: Where to begin.

    Attributes:
        until: When to give it up (monotonic clock); 0 while it has the name that is written to.
    """

    def __init__(self, fd: int, offset: int = 0) -> None:
        state = os.fstat(fd)
        self.inode = (state.st_dev, state.st_ino)
        self.until = 0.0
        self._fd = fd
        self._offset = offset
        self._last = os.pread(fd, min(offset, KNOWN_BYTES), max(0, offset - KNOWN_BYTES))
        self._changed_ns = 0
        self._rest: list[bytes] = []
        self._rest_bytes = 0

    def lines(self) -> Iterator[list[bytes]]:
        """Yield the whole lines that were written since the last time."""
        state = os.fstat(self._fd)
        if (
            state.st_mtime_ns != self._changed_ns
            and os.pread(self._fd, len(self._last), self._offset - len(self._last)) != self._last
        ):
            self._offset, self._rest, self._rest_bytes = 0, [], 0  # it was emptied in place
        self._changed_ns = state.st_mtime_ns
        while data := os.pread(self._fd, BLOCK, self._offset):
            self._offset += len(data)
            self._last = data[-KNOWN_BYTES:]
            first, *others = data.split(b"\n")
            self._rest.append(first)
            self._rest_bytes += len(first)
            if self._rest_bytes > LONGEST:
                self._rest = [b"{"]
            if others:
                last = others.pop()
                whole = [b"".join(self._rest), *others]
                self._rest, self._rest_bytes = [last], len(last)
                yield whole

    def begins_like(self, data: bytes) -> bool:
        """Whether it begins as *data* does, as far as one can see."""
        first = os.pread(self._fd, ALIKE_BYTES, 0).rstrip(b"\n")
        return first != b"" and data.startswith(first)

    def close(self) -> list[bytes]:
        """Let go of it; return what stands behind its last whole line."""
        close_fd(self._fd)
        return [b"".join(self._rest)]


class Series:
    """
    A file that is written to, and those that were rotated from it.

    Args:
        wanted: Whether what a line says is wanted.
    """

    def __init__(self, wanted: Wanted | None) -> None:
        self.reading = Reading(wanted)
        self._sources: list[Source] = []
        self._seen: set[str] = set()
        self._entries: list[Entry] = []

    def begin(self, files: Sequence[LogFile]) -> list[LogFile]:
        """Take the whole lines of *files*, all of the series, as read; return what these are."""
        whole = []
        for file in files:
            if file.stamp:
                self._seen.add(file.stamp)
                whole.append(file)
            elif (fd := _opened_again(file)) >= 0:
                size = _whole_lines(fd, file.size)
                self._sources.append(Source(fd, size))
                whole.append(replace(file, size=size))
        return whole

    def look(self, files: Sequence[LogFile], now: float) -> None:
        """Compare with *files*, what there is of the series at one moment: oldest first, the written one last."""
        present = {file.inode for file in files if not file.stamp}
        for source in self._sources:
            if not source.until and source.inode not in present:
                source.until = now + LATE_S
        for file in files:
            if file.stamp not in self._seen and (self._is_known(file) or self._add(file, now)) and file.stamp:
                self._seen.add(file.stamp)

    def _is_known(self, file: LogFile) -> bool:
        if file.path == file.plain:
            return any(source.inode == file.inode for source in self._sources)
        begins = b"\n".join(next(lines_of(file, _nothing), []))
        return any(source.until and source.begins_like(begins) for source in self._sources)

    def _add(self, file: LogFile, now: float) -> bool:
        """Whether it could be taken; else it has another name by now, under which the next look finds it."""
        if file.path == file.plain and (fd := _opened_again(file)) >= 0:
            source = Source(fd)
            source.until = now + LATE_S if file.stamp else 0.0
            self._sources.append(source)
        elif file.stamp:  # compressed, if only since it was found
            self._seen.add(file.stamp)  # before: of one that is damaged, what can be read must not come again at each look
            self._entries += self._read()
            for lines in lines_of(file, _nothing):
                self._entries += self.reading.entries(lines)
        else:
            return False
        return True

    def _read(self) -> list[Entry]:
        return [entry for source in self._sources for lines in source.lines() for entry in self.reading.entries(lines)]

    def news(self, now: float) -> list[Entry]:
        """Return what has come since the last time."""
        found, self._entries = [*self._entries, *self._read()], []
        for source in [source for source in self._sources if source.until and now > source.until]:
            self._sources.remove(source)
            found += self.reading.entries(source.close())
        return found


class Follower:
    """
    Follows all log files that *paths* name or that are in the directories among them, now or later.

    Args:
        paths: Files and directories; they need not be there yet.
        wanted: Whether what a line says is wanted.
        failed: Is told, once for each file, what cannot be read.
    """

    def __init__(self, paths: Sequence[str], wanted: Wanted | None, failed: Callable[[str], object]) -> None:
        self._paths = paths
        self._wanted = wanted
        self._failed = failed
        self._told: set[str] = set()
        self._look_at = 0.0
        self.series: dict[str, Series] = {}

    @property
    def bad(self) -> int:
        """How many lines were no events."""
        return sum(series.reading.bad for series in self.series.values())

    def begin(self) -> dict[str, list[LogFile]]:
        """Take what is there as read; return it, by series."""
        found = {path: self._try(path, self._of(path).begin, files) or [] for path, files in self._found().items()}
        for path in self._paths:
            if not os.path.exists(path):
                self._failed(f"{path}: is not there yet")
        return found

    def news(self) -> list[list[Entry]]:
        """Return what has come since the last time, series by series."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            files: list[LogFile]
            for path, files in ({path: [] for path in self.series} | self._found()).items():
                self._try(path, self._of(path).look, files, now)
        return [self._try(path, series.news, now) or [] for path, series in self.series.items()]

    def _of(self, path: str) -> Series:
        return self.series.setdefault(path, Series(self._wanted))

    def _try(self, path: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except (OSError, DamagedError) as error:
            self._fail(path, getattr(error, "strerror", None) or str(error))

    def _fail(self, path: str, reason: str) -> None:
        if path not in self._told:
            self._told.add(path)
            self._failed(f"{path}: {reason}")

    def _found(self) -> dict[str, list[LogFile]]:
        """Return the files that are there, by series, in their order."""

        def failed(error: OSError) -> None:
            self._fail(str(error.filename), error.strerror or str(error))

        found: dict[str, list[LogFile]] = {}
        for path in self._paths:
            places = [(folder, "") for folder in folders_of(path, failed)] if os.path.isdir(path) else [os.path.split(path)]
            for folder, name in places:
                for file in sorted(self._try(folder, files_in, folder, name, failed) or [], key=lambda file: file.order):
                    found.setdefault(file.series, []).append(file)
        return found


def _nothing(_size: int) -> None:
    pass


def _opened_again(file: LogFile) -> int:
    """Return a descriptor of *file* of its own; -1 if its path leads to another one by now, or to none."""
    if file.held is not None:
        return os.dup(file.held.fd)
    try:
        fd = opened(file.path)
    except FileNotFoundError:
        return -1
    state = os.fstat(fd)
    if (state.st_dev, state.st_ino) == file.inode:
        return fd
    close_fd(fd)
    return -1


def _whole_lines(fd: int, size: int) -> int:
    """Return how many of the first *size* bytes are whole lines."""
    while size > 0:
        begin = max(0, size - BLOCK)
        end = os.pread(fd, size - begin, begin).rfind(b"\n")
        if end >= 0:
            return begin + end + 1
        size = begin
    return 0


def last_of(file: LogFile, count: int, wanted: Wanted | None) -> list[Entry]:
    """Return the last *count* events of *file*, which is not compressed, that are wanted; read from its end."""
    fd = _opened_again(file)
    if fd < 0:
        return []
    try:
        size = BLOCK
        while True:
            begin = max(0, file.size - size)
            lines = os.pread(fd, file.size - begin, begin).split(b"\n")
            found = Reading(wanted).entries(lines[1:] if begin else lines)
            if len(found) >= count or not begin or size > LONGEST:
                return found[-count:]
            size *= 4
    finally:
        close_fd(fd)
