"""
The crash-safe ring of one process: what its log calls have put down, for whoever finds the process dead.

The file ``journal-1.BOOT.N`` in the run directory (1 is the version of this format, N counts the hubs of a life) has three parts:

========== ========================================================================================================
0          32 bytes that begin with `MAGIC`; a half as in `sealed.seal()`: whose journal this is (`Owner`), never changed
`LIVE_AT`  64-bit words in the byte order of the machine, written in place: see `Words`
`RING_AT`  the ring: encoded lines one behind the other; where the next one does not fit, it begins anew
========== ========================================================================================================

A line is a record: it begins with its time, ends with its process's identity and its seq, and nothing that is a part of a line
or made of two is JSON and has both. So the log call pays for no header and no checksum.

Invariants:

1. When a log call returns, its line stands in the ring or is counted `unprotected`. Between the queue's `append` and the write
   there is a moment in which a kill loses the event: its call has not returned.
2. No line stands over one that is newer: position and copy belong to one call of `mmap.write()`, which the GIL makes one step
   for other threads, signal handlers and finalisers. Of those that find the end of the ring, one begins anew: who counts the
   lap (a test and a store without a call between).
3. Nothing is dropped, and nobody waits: a line is overwritten when the ring comes round, delivered or not.
4. A cursor is moved after what it passes has met its fate, and after the books that say which (`settle()`): a kill in between
   makes a line be looked for again, never be forgotten.
5. Two processes never use one journal: it is locked as long as its process lives. A forked child lets go of the lock at once, and
   does not write: it gets a queue of its own. The mapping has a descriptor of its own that no lock hangs on.
6. The file is allocated whole before it is mapped: a full file system is an error at set-up, never a SIGBUS in a log call.

What is not promised: anything after a loss of power or a crash of the machine; a file that somebody of the same user cuts while
it is mapped.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from fapilog._internal import rundir
from fapilog._internal.accounting import DROPS, REFUSALS, DropWindow, Reason, SinkBooks
from fapilog._internal.filelock import FileLock
from fapilog._internal.native import close_fd
from fapilog._internal.sealed import seal, unseal
from fapilog.identity import Identity, seq_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


MAGIC = b"fapilog journal 1\n".ljust(32, b"\0")
NAME = re.compile(r"journal-1\.([0-9a-f]{1,64})\.([0-9]{1,9})")
HEAD_BYTES = 16_384
LIVE_AT = HEAD_BYTES
LIVE_BYTES = 16_384
RING_AT = LIVE_AT + LIVE_BYTES
WORD = 8
MAX_SINKS = 32
MOST_LEFT, MOST_OF_SLOT = 32, 2  # see `crowded()`
MOST_STRUCK = 256  # ranges
NEVER = 1 << 63  # above all seqs
OF_QUEUE = (*REFUSALS, Reason.DROP_OLDEST)
OF_SINK = tuple(reason for reason in DROPS if reason is not Reason.DROP_OLDEST)
_WINDOW = struct.Struct("=6Q")


class Words:
    """
    Where what stands in the words of a journal.

    ``MARK`` says which of two marks counts: a seq, how many of the events up to it were accepted, and how many of these
    `drop_oldest` had thrown out, as of the last time that the worker took events. A window is a `DropWindow`: count, announced,
    first and last seq, first and last time. What `drop_oldest` throws out between two times of the worker's, or two events of
    the hub's own, is a range of seqs that holds nothing else but refusals: the first and the last of the latest ranges are in
    ``STRUCK``.
    """

    MARK = 0
    LAPS = 1  # how often the ring has begun anew
    MARKS = 2  # two triples
    BEGUN = 8  # the seq of the line for which it has begun anew at last
    BEFORE = 9  # the same of the lap before
    TOLD = 10  # whether somebody has told of the death, and of what was lost
    WINDOWS = 16
    STRUCK = 64
    SINKS = STRUCK + 2 * MOST_STRUCK
    SINK = 2 + 6 * len(OF_SINK)
    CURSOR = 0  # of a sink: the seq up to which every event has met its fate there
    PUT = 1  # of a sink: how many of the events up to there were accepted

    @classmethod
    def of_queue(cls, reason: Reason) -> int:
        """Return where the window of *reason* begins."""
        return cls.WINDOWS + 6 * OF_QUEUE.index(reason)

    @classmethod
    def of_sink(cls, index: int) -> int:
        """Return where the words of the sink number *index* begin."""
        return cls.SINKS + cls.SINK * index


assert (Words.of_sink(MAX_SINKS)) * WORD <= LIVE_BYTES


@dataclass(frozen=True, slots=True)
class Owner:
    """
    Whose journal it is, as its head says.

    Args:
        service: Of its lines, as the next ones.
        env: Of its lines.
        host: Of its lines.
        worker: Of its lines.
        pid: Of its lines.
        boot: Of its lines.
        sinks: The names of its sinks, in the order of their cursors.
        targets: A digest of where they write.
        ring_bytes: The size of the ring.
        started: When it was made, in seconds since the epoch.
    """

    service: Annotated[str, Field(max_length=4096)]
    env: Annotated[str, Field(max_length=4096)]
    host: Annotated[str, Field(max_length=256, pattern=r"^[^/\x00]*$")]
    worker: Annotated[int, Field(ge=0, lt=1 << 31)]
    pid: Annotated[int, Field(ge=0, lt=1 << 31)]
    boot: Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
    sinks: Annotated[list[str], Field(max_length=MAX_SINKS)]
    targets: Annotated[str, Field(max_length=64)]
    ring_bytes: Annotated[int, Field(ge=0, lt=1 << 40)]
    started: Annotated[float, Field(ge=0, lt=1e11)]

    @property
    def identity(self) -> Identity:
        """Whose lines stand in the ring."""
        return Identity(self.service, self.env, self.host, self.worker, self.pid, self.boot)


_OWNER = TypeAdapter(Owner)


def owner_in(head: bytes) -> Owner | None:
    """Return whose journal begins with *head*, if it is one of this version."""
    half = unseal(0, head[len(MAGIC) : HEAD_BYTES]) if head.startswith(MAGIC) else None
    if half is None:
        return None
    try:
        return _OWNER.validate_json(half[1])
    except (ValidationError, RecursionError):
        return None


def owner_of(run_dir: Path, name: str) -> Owner | None:
    """Return whose journal *name* is, if it is one of this version and can be read."""
    try:
        fd = rundir.open_file(run_dir, name, os.O_RDONLY)
    except OSError:
        return None
    try:
        return owner_in(os.pread(fd, HEAD_BYTES, 0))
    finally:
        close_fd(fd)


def journals(run_dir: Path) -> list[str]:
    """Return the names of the journals in *run_dir*, held or not."""
    try:
        return sorted(filter(NAME.fullmatch, os.listdir(run_dir)))
    except OSError:
        return []


def crowded(run_dir: Path) -> bool:
    """
    Whether *run_dir* holds more journals than are kept for sinks that take nothing: `MOST_LEFT`, and `MOST_OF_SLOT` for each
    worker that there has been at once, or else a restart of many workers during an outage would give up what they left.
    """
    try:
        names = os.listdir(run_dir)
    except OSError:
        return False
    left, slots = sum(map(bool, map(NAME.fullmatch, names))), sum(name.startswith("slot-") for name in names)
    return left > MOST_LEFT + MOST_OF_SLOT * slots


def has_journal(run_dir: Path, boot: str) -> bool:
    """Whether there is a journal of the life *boot* in *run_dir*."""
    return any(name.startswith(f"journal-1.{boot}.") for name in journals(run_dir))


class Journal:
    """
    The journal of a hub; see the module. Made by `Journal.make()`.

    `append()` and `keep()` may be called from any thread, signal handler or finaliser; the rest on the worker's thread.

    Attributes:
        write: What puts a line into the ring where it goes on, or raises `ValueError`: see `append()`.
        words: See `Words`.
        range_at: Where among the words the range is that what `drop_oldest` throws out now belongs to.
        laps: How often the ring has begun anew.
        unprotected: How many lines were not written, because none of them fits or the journal has been closed.
    """

    __slots__ = ("_lock", "_map", "_seek", "_size", "laps", "owner", "path", "range_at", "unprotected", "words", "write")

    def __init__(self, path: Path, lock: FileLock, mapped: mmap.mmap, owner: Owner) -> None:
        self.path = path
        self.owner = owner
        self._lock: FileLock | None = lock
        self._map = mapped
        self._size = owner.ring_bytes
        self.words = memoryview(mapped)[LIVE_AT:RING_AT].cast("Q")
        self.range_at = Words.STRUCK
        self.laps = self.unprotected = 0
        self._seek = mapped.seek
        self.write = mapped.write
        mapped.seek(RING_AT)

    @classmethod
    def make(cls, run_dir: Path, identity: Identity, sinks: Sequence[str], targets: str, ring_bytes: int) -> Journal:
        """
        Make the journal of the process that *identity* describes, in the run directory that it has its slot in.

        Raises:
            OSError: It cannot be made, or there is no room for all of it.
            ValueError: There are too many sinks, or a name is too long, so that nobody could read it back.
        """
        owner = Owner(**identity.fields(), sinks=list(sinks), targets=targets, ring_bytes=ring_bytes, started=time.time())  # type: ignore[arg-type]
        head = MAGIC + seal(0, 1, orjson.dumps(_OWNER.dump_python(owner)))
        if len(sinks) > MAX_SINKS or len(head) > HEAD_BYTES:
            raise ValueError(f"{len(sinks)} sinks; a journal has room for {MAX_SINKS} with short names")
        if owner_in(head) is None:
            raise ValueError("the service, the environment or the host has a name that a journal cannot have")
        for number in range(1 << 20):
            path = run_dir / f"journal-1.{identity.boot}.{number}"
            lock = None if os.path.lexists(path) else FileLock.take(str(path))
            if lock is not None:
                break
        else:
            raise OSError("no name is free")
        try:
            return cls(path, lock, _mapped(run_dir, path.name, head, RING_AT + ring_bytes), owner)
        except BaseException:
            lock.release()
            raise

    def append(self, line: bytes) -> None:
        """Put *line* into the ring."""
        while True:
            lap = self.laps
            try:
                self.write(line)
            except ValueError:
                if len(line) > self._size:
                    self.unprotected += 1
                    return
                seq = seq_of(line)
                # Atomic: who counts the lap begins it, and nobody who found the old end does so once more.
                if self.laps == lap:
                    self.words[Words.BEFORE] = self.words[Words.BEGUN]
                    self.words[Words.BEGUN] = seq
                    self.laps = self.words[Words.LAPS] = lap + 1
                    self._seek(RING_AT)
            else:
                return

    def keep(self, at: int, window: DropWindow) -> None:
        """
        Put down what *window* says at the word *at*.

        Its state is read here, with no call between reading and writing: of two that come at once the later one has all of it.
        """
        into, at = _WINDOW.pack_into, LIVE_AT + at * WORD
        into(self._map, at, window.count, window.announced, window.first_seq, window.last_seq, window.first_ns, window.last_ns)

    def mark(self, seq: int, accepted: int, oldest: int) -> None:
        """Put down that of the events up to *seq* so many were *accepted*, and of these so many thrown out as the *oldest*."""
        words = self.words
        other = 1 - words[Words.MARK] % 2
        at = Words.MARKS + 3 * other
        words[at], words[at + 1], words[at + 2] = seq, accepted, oldest
        words[Words.MARK] = other

    def begin_range(self, seq: int = NEVER) -> None:
        """
        Let an event that is thrown out next belong to a new range, unless the present one is empty or goes on behind *seq*.

        Any thread: once the range was looked at, nothing here lets another one run before the new one is in its place.
        """
        words, at = self.words, self.range_at
        if words[at] and words[at + 1] < seq:
            at += 2
            if at == Words.SINKS:
                at = Words.STRUCK
            words[at] = words[at + 1] = 0
            self.range_at = at

    def settle(self, index: int, books: SinkBooks, seq: int, put: int) -> None:
        """Put down that in the sink number *index* the *put* events up to *seq* have met their fate, and its *books*."""
        at = Words.of_sink(index)
        for number, reason in enumerate(OF_SINK):
            window = books.dropped[reason]
            if window.count:
                self.keep(at + 2 + 6 * number, window)
        self.words[at + Words.PUT] = put
        self.words[at + Words.CURSOR] = seq

    @property
    def head(self) -> int:
        """How many bytes of the ring were used so far, all laps together; about."""
        return self.laps * self._size + self._map.tell() - RING_AT

    def content(self) -> bytes:
        """Return what the file holds."""
        return self._map[:]

    def close(self, *, done: bool) -> None:
        """
        Let go of the file: *done* removes it, or else whoever finds it takes care of what it holds.

        The mapping stays as long as anybody has it, be it a log call that looked for the journal a moment ago.
        """
        lock, self._lock = self._lock, None
        if lock is not None:
            (lock.release if done else lock.leave)()


def _mapped(run_dir: Path, name: str, head: bytes, size: int) -> mmap.mmap:
    """Return a mapping of the whole of a new journal, which has a descriptor of its own, without the lock."""
    fd = rundir.open_file(run_dir, name, os.O_RDWR)
    try:
        rundir.make_room(fd, size)
        os.pwrite(fd, head, 0)
        return mmap.mmap(fd, size)
    finally:
        close_fd(fd)
