"""
The file that is written to, and what others do to it meanwhile.

Invariants:

1. It is looked after at most once in `LOOK_EVERY_S` seconds, by whoever is about to write, so the file system is asked little.
   Whether it was removed, so that what is written to it would be lost, is asked of the descriptor at most every `GLANCE_EVERY_S`.
2. A file that was renamed, removed or replaced is told from one that was emptied in place: the first is opened anew, the second
   written on from its new end, where `O_APPEND` puts the next line.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import time
from pathlib import Path
from typing import Any

from fapilog._internal.native import close_fd, nap
from fapilog._internal.owner import make_directory, owners_rights

MODE = 0o644
LOOK_EVERY_S = 1.0
GLANCE_EVERY_S = 0.001
PAUSES_S = (0.0, 0.001, 0.004)
NOW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK


class WrittenFile:
    """
    A file open for appending.

    Args:
        file: What closes it.
        fd: Its descriptor.
        path: Where it was found.
    """

    def __init__(self, file: Any, fd: int, path: str) -> None:
        self.file = file
        self.fd = fd
        self.path = path
        self._look_at = time.monotonic() + LOOK_EVERY_S
        self._glance_at = 0.0
        self._seen = 0

    def is_due(self) -> bool:
        """Whether the file has to be looked after before the next write: it was removed, or `LOOK_EVERY_S` have passed."""
        now = time.monotonic()
        if now < self._glance_at:
            return False
        self._glance_at = now + GLANCE_EVERY_S
        if now < self._look_at and self.has_a_name():
            return False
        self._look_at = now + LOOK_EVERY_S
        return True

    def look_soon(self) -> None:
        """Look after it before the next write."""
        self._look_at = self._glance_at = 0.0

    def is_elsewhere(self) -> bool:
        """Whether its path leads to another file by now, or a regular file's to none; a pipe may do without a name."""
        try:
            with owners_rights():
                there = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return stat.S_ISREG(os.fstat(self.fd).st_mode)
        except OSError:  # nothing is known
            return False
        return not os.path.samestat(there, os.fstat(self.fd))

    def was_emptied(self) -> bool:
        """Whether it is shorter than when it was last looked at."""
        before, self._seen = self._seen, os.fstat(self.fd).st_size
        return self._seen < before

    def has_a_name(self) -> bool:
        """Whether it can be found at some path, if it is a regular file."""
        state = os.fstat(self.fd)
        return state.st_nlink > 0 or not stat.S_ISREG(state.st_mode)


class QuietFile(io.FileIO):
    """A file that closes itself without a warning when the last writer lets go of it."""

    def __del__(self) -> None:
        self.close()


def open_below(name: str, flags: int) -> int:
    """Open *name*, making its directory if it is missing."""
    try:
        return _open_as_owner(name, flags)
    except FileNotFoundError:
        make_directory(Path(name).parent)
        return _open_as_owner(name, flags)


def _open_as_owner(name: str, flags: int) -> int:
    with owners_rights():
        return os.open(name, flags | os.O_CLOEXEC, MODE)


def ends_torn(path: str, fd: int) -> bool | None:
    """
    Return whether the file ends in half a line, left by a life before this one; None where that cannot be known.

    A write of another thread's that is under way may show in part: one that goes on is waited for.
    """
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode):
        return None
    if not state.st_size:
        return False
    try:
        with owners_rights():
            reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # write-only for us: the next line goes to the end as it is
        return False
    try:
        for pause in PAUSES_S:
            nap(pause)
            if os.pread(reader, 1, max(0, os.fstat(fd).st_size - 1)) in (b"", b"\n"):
                return False
        return True
    finally:
        with contextlib.suppress(OSError):
            close_fd(reader)
