"""
Into the files of a dead process, what is in none of them: the other half of the file sink's promise.

Invariants:

1. Every line that is given stands in the files once at the end, however often this is done and wherever it was cut off before:
   what is there already is looked for in the written file, the rotated ones and those that somebody else has renamed, and after
   writing it is looked for again.
2. Nothing is written into the middle of a line: a file that ends in half a line gets its newline first.
3. Where files are rotated, nobody rotates or compresses them meanwhile, if their lock is free.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fapilog._internal.filelock import FileLock
from fapilog._internal.native import close_fd
from fapilog._internal.owner import owners_rights
from fapilog.sinks.family import Family, parsed
from fapilog.sinks.home import numbered
from fapilog.sinks.written import ends_torn, open_below

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fapilog.identity import Identity

BLOCK_BYTES = 1 << 20
MOST_FAMILIES = 256
TRIES = 5
SLACK_S = 5.0
STEP_S = 90_000.0  # by which the clock may be set back between the first line of a process and its last write
LONGEST_LINE = 64 << 20
OLDER_BYTES = 64 << 20
MOST_DIGITS = 19
BEGINS = b'{"timestamp":"'


def put_back(path: str, identity: Identity, lines: Mapping[int, bytes], since: float, *, locked: bool) -> int | None:
    """
    Append those of *lines*, by seq, of the dead process *identity* that are in no file of the family of *path*.

    Args:
        path: What that process's template named.
        identity: Whose lines they are.
        lines: All of its lines from a certain seq on that are known.
        since: When it began to write, in seconds since the epoch.
        locked: Whether the files are rotated, so that they have a lock.

    Returns:
        How many were missing; None where *path* is no regular file, in which nothing can be looked for.

    Raises:
        OSError: A file cannot be read or written; to be tried again later.
    """
    if not lines:
        return 0
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
    lock = FileLock.take(Family(path).lock) if locked else None
    try:
        missing: Mapping[int, bytes] = {}
        total = 0
        for attempt in range(TRIES):
            there, home = _looked_for(path, identity, min(lines), since)
            missing = {seq: line for seq, line in lines.items() if seq not in there}
            total = total if attempt else len(missing)
            if not missing:
                return total
            _append(home, list(missing.values()))
        raise OSError(f"{len(missing)} lines were not there after they had been written")
    finally:
        if lock is not None:
            lock.release()


class _Wanted:
    """
    What is looked for: lines of one process, from the seq *first* on, written later than *since*.

    The search ends at an earlier line of the process, or else where there is nothing but older lines of others for longer than
    what was put back for the dead at one time.
    """

    def __init__(self, identity: Identity, first: int, since: float) -> None:
        self.first = first
        self.ends = identity.ends()
        self._since = datetime.fromtimestamp(max(0.0, since - SLACK_S), UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
        self._older_bytes = 0
        self._began = since - STEP_S

    def seq_in(self, line: bytes) -> int:
        """Return the seq of *line* if it is one of the process, or else 0."""
        at = line.rfind(self.ends)
        digits = line[at + len(self.ends) : -1]
        # What stands behind half a line of another process can be read by nobody.
        if at >= 0 and digits.isdigit() and len(digits) <= MOST_DIGITS and line.endswith(b"}") and parsed(line):
            self._older_bytes = 0
            return int(digits)
        self._pass(line, 0, len(line))
        return 0

    def has_none_in(self, text: bytes) -> bool:
        """Whether there is nothing of the process in *text*, whole lines but for the first and the last."""
        if self.ends in text:
            return False
        self._pass(text, text.find(b"\n") + 1, len(text))
        return True

    def _pass(self, text: bytes, at: int, size: int) -> None:
        """Take note of *size* bytes that are not the process's, after the time in the line that begins in *text* at *at*."""
        begin = at + len(BEGINS)
        older = text.startswith(BEGINS, at) and text[begin : begin + len(self._since)] < self._since
        self._older_bytes = self._older_bytes + size if older else 0

    def is_older(self, path: str) -> bool:
        """Whether *path*, a rotated file, was written to its end long before the process began."""
        return os.stat(path).st_mtime < self._began

    def is_hopeless(self) -> bool:
        """Whether the search has come to where there will be nothing."""
        return self._older_bytes > OLDER_BYTES


def _looked_for(path: str, identity: Identity, first: int, since: float) -> tuple[set[int], str]:
    """Return the seqs that are in the files, and the path of the family that has them, or else *path*."""
    found: set[int] = set()
    home = path
    for number in range(1, MOST_FAMILIES):
        family = Family(numbered(path, number))
        files = _files_of(family)
        if not any(files) and number > 1:
            break
        there: set[int] = set()
        for _ in range(TRIES):  # where somebody else rotates meanwhile, a file may have come between
            for each in files:
                there |= set(_seqs_in(each, _Wanted(identity, first, since)))
            before, files = files, _files_of(family)
            if files == before:
                break
        home = family.path if there else home
        found |= there
    return found, home


def _files_of(family: Family) -> list[list[str]]:
    """
    Return its files, oldest first, and each that somebody else may have renamed.

    The written one may be missing: a process was killed between the renames of a rotation.
    """
    try:
        return [family.paths(), *([path] for path in family.renamed())]
    except FileNotFoundError:  # there is no directory yet
        return []


def _seqs_in(files: list[str], wanted: _Wanted) -> Iterator[int]:
    for path in reversed(files):
        if wanted.is_older(path) or wanted.is_hopeless():
            return
        if path.endswith(".gz"):
            try:
                seqs = list(filter(None, map(wanted.seq_in, _compressed_lines(path, wanted))))
            except (zlib.error, EOFError, gzip.BadGzipFile):  # nobody could read what is in it, now or later
                seqs = []
            yield from (seq for seq in seqs if seq >= wanted.first)
            if any(seq < wanted.first for seq in seqs):
                return
            continue
        for line in _backwards(path, wanted):
            seq = wanted.seq_in(line)
            if 0 < seq < wanted.first or wanted.is_hopeless():
                return
            if seq:
                yield seq


def _backwards(path: str, wanted: _Wanted) -> Iterator[bytes]:
    """Return whole lines of *path*, the last one first, without their newlines; not all of those that are not wanted."""
    rest = b""
    for block in _plain_blocks(path):
        text = block + rest
        if wanted.has_none_in(text):
            if wanted.is_hopeless():
                return
            rest = text.partition(b"\n")[0]
            continue
        first, *others = text.split(b"\n")
        if others:
            yield from reversed(others[:-1] if not rest and not others[-1] else others)
        rest = first
    if rest:
        yield rest


def _compressed_lines(path: str, wanted: _Wanted) -> Iterator[bytes]:
    """Return whole lines of a compressed file, the first one first; not all of those that are not wanted."""
    rest = b""
    with owners_rights(), gzip.open(path) as file:
        while block := file.read(BLOCK_BYTES):
            text = rest + block
            whole, _, rest = text.rpartition(b"\n")
            if not wanted.has_none_in(text):
                yield from whole.split(b"\n")
            if len(rest) > LONGEST_LINE:
                rest = b""


def _plain_blocks(path: str) -> Iterator[bytes]:
    with owners_rights():
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        at = os.fstat(fd).st_size
        while at > 0:
            size = min(BLOCK_BYTES, at)
            at -= size
            yield os.pread(fd, size, at)
    finally:
        close_fd(fd)


def _append(path: str, lines: list[bytes]) -> None:
    fd = open_below(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK)
    try:
        torn = ends_torn(path, fd)
        data = memoryview((b"\n" if torn else b"") + b"".join(lines))
        while data:
            data = data[os.write(fd, data) :]
    finally:
        close_fd(fd)
