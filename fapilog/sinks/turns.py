"""
Turns: which process, and which of its threads, may write to a stream that several of them share.

A pipe keeps writes of up to `PIPE_BUF` bytes in one piece and mixes longer ones, and a lock around the long ones only would not
keep short ones out. So every write to a pipe or socket happens under a lock of the kernel's: a POSIX record lock on one byte of
`streams.lock` in the meeting place, the byte whose offset is made of the pipe's device and inode. One file does for all pipes,
and two pipes never wait for each other.

Invariants:

1. One holder per stream, of all processes and threads that meet in one directory, however they were started.
2. The lock ends with its process, whatever ends that. A forked child does not inherit it, as it would a `flock`: a child that
   outlives a parent killed in the middle of a write must not keep the others out for ever.
3. A holder that dies or gives up in the middle of a line leaves a mark, which the next one finds: the stream's key, in the slot
   of the file that belongs to it, set before a write that the kernel may cut and cleared after it.
4. `take()` with a limited patience never waits beyond it. Nothing here waits for its own thread: what runs nested in a holder
   (a signal handler, a finaliser) shares its turn, unless that stands in the middle of a line.
5. `end()` may run twice and whenever an exception may have cut `take()` short; only the holder's own `end()` ends a turn.
6. A descriptor is looked at before it is locked or written to, and never closed: a program may have closed it and opened another
   file.

POSIX locks belong to the process, hence the record of holders in memory: its `dict.setdefault()` is one step under the GIL. They
also end when the process closes *any* descriptor of the file, so there is one, and it stays.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import itertools
import math
import os
import select
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fapilog._internal.native import nap, on_own_thread, pause
from fapilog._internal.notes import note
from fapilog._internal.owner import file_of
from fapilog._internal.rundir import open_shared

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "streams.lock"
REOPEN_EVERY = 30.0
_SLOTS = 512
_MARK_BYTES = 8
_NAPS = (0.0, 0.0001, 0.0005, *[0.001] * 20)
_LONGEST_NAP = 0.01


class Patience:
    """
    How long somebody waits.

    Args:
        seconds: *math.inf* waits until `cancel()`, on a thread of its own that may block.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.endless = seconds == math.inf
        self.cancelled = False
        self._end = time.monotonic() + seconds

    def cancel(self) -> None:
        """End the wait, as soon as whoever waits can look."""
        self.cancelled = True

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return self.cancelled or time.monotonic() >= self._end

    def left(self, most: float) -> float:
        """Return how long may still be waited, in seconds; not more than *most*."""
        return 0.0 if self.cancelled else max(0.0, min(most, self._end - time.monotonic()))


class LockFile:
    """
    The open lock file; its descriptor is never closed by us, since that would end every lock of this process in it.

    Args:
        fd: Its descriptor.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._identity = file_of(os.fstat(fd))

    def usable(self) -> bool:
        """Whether the descriptor is still this file's and others can still find it."""
        state = self._state()
        return state is not None and state.st_nlink > 0

    def _state(self) -> os.stat_result | None:
        try:
            state = os.fstat(self._fd)
        except OSError:
            return None
        return state if file_of(state) == self._identity else None

    def lock(self, key: int, *, wait: bool) -> None:
        """Take the lock of a stream; raises BlockingIOError where that would mean to wait."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, key)

    def unlock(self, key: int) -> None:
        """Give the lock back; if the descriptor was closed, the lock went with it, and nobody else has one on that byte."""
        # Not looked at first: each call gives the GIL away, and others wait for this one.
        with contextlib.suppress(OSError):
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, key)

    def marked(self, key: int) -> bool:
        """Whether the stream may end in half a line."""
        try:
            return os.pread(self._fd, _MARK_BYTES, _slot(key)) == _encoded(key)
        except OSError:
            return False

    def set_mark(self, key: int, *, on: bool) -> None:
        """Set or clear the mark of a stream; a full file system goes without."""
        # Looked at again: a write may have waited for long, and by now the descriptor may be a file of the program's.
        with contextlib.suppress(OSError):
            if self._state() is not None:
                os.pwrite(self._fd, _encoded(key) if on else bytes(_MARK_BYTES), _slot(key))


class Memory:
    """Stands in for the file where there is none: keeps the marks of this process and no other process out."""

    def __init__(self) -> None:
        self._cut: set[int] = set()

    def marked(self, key: int) -> bool:
        """See `LockFile`."""
        return key in self._cut

    def set_mark(self, key: int, *, on: bool) -> None:
        """See `LockFile`."""
        (self._cut.add if on else self._cut.discard)(key)


class Place:
    """
    Where the writers of a stream meet: the lock file of one directory, and the holders of this process.

    Args:
        directory: Made if it is missing, at the first use.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / NAME
        self.memory = Memory()
        self.holders: dict[tuple[int, int], Turn] = {}  # by process, too: a forked child must not find its parent's
        self._file: LockFile | None = None
        self._open_again = 0.0

    def file(self) -> LockFile | None:
        """Return the lock file; None where there can be none."""
        file = self._file
        if file is not None and file.usable():
            return file
        if file is None and time.monotonic() < self._open_again:
            return None
        try:
            # Two threads may come here at once: both files do, for a record lock is the process's.
            file = self._file = LockFile(open_shared(self.path.parent, NAME))
        except OSError as error:
            self.complain(error)
            return None
        return file

    def complain(self, error: OSError) -> None:
        """Note that there is no lock; it is tried again later."""
        self._open_again = time.monotonic() + REOPEN_EVERY
        self._file = None
        note(
            "streams",
            f"no lock in {self.path} ({error.strerror}): on a pipe that processes share, lines of over "
            f"{select.PIPE_BUF} bytes may be mixed",
        )


class Turn:
    """
    One try for the right to write to a stream; `end()` it in any case.

    Args:
        place: Where its writers meet.
        key: Of the stream, from `key_of()`.
        shared: Whether other processes are to be kept out, too.

    Attributes:
        midline: Whether the stream ends in half a line. For the holder to keep up to date.
        who: The thread, or the green thread: two of them may wait in turn.
        file: What keeps other processes out; None where nothing does.
        ready: Whether `midline` is known.
        marked: Whether the mark of the stream is set.
    """

    def __init__(self, place: Place, key: int, *, shared: bool = True) -> None:
        self.midline = False
        self._place = place
        self._key = key
        self._shared = shared
        self.who = threading.get_ident()
        self._outer: Turn | None = None
        self.file: LockFile | None = None
        self.ready = False
        self.marked = False

    def take(self, patience: Patience) -> bool:
        """Wait for the turn; return whether it came in time. Then `midline` says whether a line must be closed first."""
        if not self._claim(patience):
            return False
        outer = self._outer
        if self._shared:
            self.file = (outer and outer.file) or self._place.file()
        if outer is not None:
            outer.file = self.file  # perhaps it had none yet; it unlocks what is locked here
        if not self._lock(patience):
            return False
        if outer is None or not outer.ready:
            self.midline = self.marked = self._marks.marked(self._key)
        self.ready = True
        return True

    def _claim(self, patience: Patience) -> bool:
        """Keep the other threads of this process out."""
        for seconds in _naps():
            holder = self._place.holders.setdefault((os.getpid(), self._key), self)
            if holder is self:
                return True
            if holder.who == self.who:
                self._outer = holder
                return not holder.midline
            if patience.over:
                return False
            _rest(seconds)
        raise AssertionError

    def _lock(self, patience: Patience) -> bool:
        """Keep the other processes out; nested in a holder, make sure that it does."""
        for seconds in _naps():
            if self.file is None:
                return True
            try:
                self.file.lock(self._key, wait=patience.endless)
            except OSError as error:
                # A deadlock is what the kernel suspects when two threads of ours hold a stream each: it counts by processes.
                if error.errno not in {errno.EAGAIN, errno.EACCES, errno.EDEADLK}:
                    self._place.complain(error)
                    self.file = None
                elif patience.over:
                    return False
                else:
                    _rest(seconds)
            else:
                return True
        raise AssertionError

    @property
    def _marks(self) -> LockFile | Memory:
        return self.file or self._place.memory

    def mark(self) -> None:
        """Say that from here on the stream may be cut in the middle of a line."""
        if not self.marked:
            self._marks.set_mark(self._key, on=True)
            self.marked = True

    def unmark(self) -> None:
        """Say that the stream ends with a whole line, if it does; whoever this one is nested in may still need the mark."""
        if self.marked and not self.midline and not (self._outer is not None and self._outer.marked):
            self._marks.set_mark(self._key, on=False)
            self.marked = False

    def end(self) -> None:
        """Let the next one have the stream."""
        slot = (os.getpid(), self._key)
        if self._place.holders.get(slot) is self:
            # The lock is given back first: the other way round it would be taken from the thread that comes next.
            if self.file is not None:
                self.file.unlock(self._key)
            self._place.holders.pop(slot, None)


_places: dict[Path, Place] = {}


def place_in(directory: Path) -> Place:
    """Return this process's `Place` for *directory*: all sinks share it."""
    return _places.setdefault(directory, Place(directory))


def key_of(state: os.stat_result) -> int:
    """Return the key of the pipe or socket that `os.fstat()` describes: the same in every process of one running kernel."""
    return _key(state.st_dev, state.st_ino)


@functools.lru_cache(maxsize=64)
def _key(device: int, inode: int) -> int:
    # Inode numbers of pipes begin anew with the kernel; a lock file may be on a disk, or on one that hosts share.
    name = b"%s:%d:%d" % (_kernel(), device, inode)
    return int.from_bytes(hashlib.blake2b(name, digest_size=7).digest()) or 1


@functools.cache
def _kernel() -> bytes:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return os.uname().nodename.encode("utf-8", "surrogateescape")


def _slot(key: int) -> int:
    return key % _SLOTS * _MARK_BYTES


def _encoded(key: int) -> bytes:
    return key.to_bytes(_MARK_BYTES)


def _naps() -> Iterator[float]:
    """Yield the seconds between two looks, without end."""
    return itertools.chain(_NAPS, itertools.repeat(_LONGEST_NAP))


def _rest(seconds: float) -> None:
    (nap if on_own_thread() else pause)(seconds)
