"""
When a file is rotated, and how: what its successor says about it, and which old files go.

Invariants:

1. The successor is made ready under a passing name, its first line included, before anything is renamed. A rotation that fails
   leaves everything as it was, and one that is cut off is finished by whoever opens the file next. No line is ever moved.
2. A file of the process's own grows over the limit by one line only, a line that alone is longer; the first line of ours counts.
3. What retention removes is announced before it is removed. `trimmed` is cumulative: the files removed so far, and the last line
   of the last one. Lives follow one another in a family, so what is gone of a life that is still to be seen ends there.
4. The first line, `fapilog.rotated`, is the file's, not one of the process's events: it takes no seq.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from fapilog._internal import parsing
from fapilog._internal.backlog import fitting
from fapilog._internal.notes import note
from fapilog._internal.owner import owners_rights
from fapilog._internal.schedule import Schedule
from fapilog.errors import ConfigurationError
from fapilog.pipeline import own_head
from fapilog.sinks.family import Family, first_line, last_line, parsed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog._internal.compressor import Compression
    from fapilog.identity import Identity

AGAIN_AFTER_S = 10.0
HEADER = "fapilog.rotated"


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """
    When files are rotated and what becomes of them.

    Args:
        max_bytes: The size that a file may have; 0 for any.
        every: ``midnight``, a period such as ``1h``, or nothing.
        keep: How many rotated files stay.
        compress: ``none`` or ``gzip``.

    Raises:
        ConfigurationError: One of them is something else.
    """

    max_bytes: int = 0
    every: str = ""
    keep: int = 7
    compress: str = "none"

    def __post_init__(self) -> None:
        parsing.rotation(self.every)
        if self.max_bytes < 0 or self.keep < 0:
            raise ConfigurationError(f"max_bytes={self.max_bytes} and keep={self.keep} must not be negative")
        if self.compress not in {"none", "gzip"}:
            raise ConfigurationError(f"compress={self.compress!r} must be none or gzip")

    @property
    def rotates(self) -> bool:
        """Whether files are rotated at all."""
        return bool(self.max_bytes or self.every)


class Rotator:
    """
    Rotates the written file of one family, whose lock this process holds.

    Everything but `wrote()` is called by one thread at a time.

    Args:
        policy: What to do when.
        family: Of the file.
        identity: Of the process that writes to it.
    """

    def __init__(self, policy: RotationPolicy, family: Family, identity: Identity) -> None:
        self.family = family
        self._policy = policy
        self._identity = identity
        self._schedule = Schedule(policy.every) if policy.every else None
        self._period = (-math.inf, math.inf)
        self._stamps: list[str] = []
        self._trimmed: dict[str, Any] | None = None
        self._line: bytes | None = None
        self._bare = 0
        self._again_at = 0.0
        self._tidy = False

    def begin(self, fd: int, *, moved: bool = False) -> None:
        """
        Take up the written file, just opened as *fd*: finish what a process that died has begun; begin an empty file.

        Args:
            fd: Open for appending.
            moved: Whether somebody else has put it in the place of the one that was written to before.

        Raises:
            OSError: The first line cannot be written.
        """
        if not self._tidy:
            self.family.tidy()
            self._tidy = True
        self._stamps = self.family.stamps()
        state = os.fstat(fd)
        self._start_period(state.st_mtime if state.st_size else time.time())
        if state.st_size:
            head = first_line(self.family.path)
            is_ours = head.get("event") == HEADER
            self._trimmed = head.get("trimmed") if is_ours else self._trimmed
            self._bare = state.st_size if is_ours and len(orjson.dumps(head)) + 1 == state.st_size else 0
        elif moved:
            self._bare = _write_all(fd, self._first_line(None, self._last()))
        elif self._stamps:
            newest = self.family.rotated(self._stamps[-1])
            self._trimmed = first_line(newest).get("trimmed")
            self._bare = _write_all(fd, self._first_line(newest, last_line(newest)))
        else:
            self._bare = 0

    def to_compress(self, *, newest: bool = False) -> list[Compression]:
        """Return what is to be done for the rotated files that are to be compressed and are not; or for the *newest* alone."""
        if self._policy.compress == "none":
            return []
        stamps = self._stamps[-1:] if newest else self._stamps
        return [self.family.compression(stamp) for stamp in stamps if os.path.exists(self.family.rotated(stamp))]

    def end(self, fd: int, lines: Sequence[bytes], done: int = 0, cut: int = 0) -> int:
        """
        Return before which of *lines* the file has to be rotated; the number of lines if it takes them all.

        Args:
            fd: The written file.
            lines: A batch.
            done: How many of them are written.
            cut: How many bytes of the next one are, which must not be torn apart.
        """
        if self._again_at and time.monotonic() < self._again_at:
            return len(lines)
        size = os.fstat(fd).st_size
        is_bare = size <= self._bare
        at_least = done + 1 if cut or is_bare else done
        if self._is_over(time.time()):
            if not is_bare:
                return at_least
            self._start_period(time.time())
        room = self._policy.max_bytes - size + cut
        if not self._policy.max_bytes or sum(map(len, lines)) <= room:
            return len(lines)
        return max(at_least, fitting(lines, room, done))

    def wrote(self, line: bytes) -> None:
        """Remember the last line of the file."""
        self._line = line

    def turn(self, old: int, new: int, *, torn: bool = False) -> None:
        """
        Put the successor in the place of the written file, and remove what is too old.

        Args:
            old: The written file.
            new: The empty file at `Family.successor`.
            torn: Whether *old* ends in half a line, to be closed.

        Raises:
            OSError: It cannot be done, and *old* is the written file still.
        """
        family = self.family
        now = time.time()
        stamp = family.next_stamp(self._stamps, now)
        rotated = family.rotated(stamp)
        kept = [*self._stamps, stamp]
        doomed: list[str] = []
        if len(kept) > self._policy.keep:  # looked up again: somebody may have removed some by hand
            kept = [*family.stamps(), stamp]
            doomed = kept[: max(0, len(kept) - self._policy.keep)]
            del kept[: len(doomed)]
        last = self._last()
        trimmed = self._trimmed_with(doomed, kept, last) if doomed else self._trimmed
        _keep_rights(old, new)
        os.ftruncate(new, 0)
        bare = _write_all(new, self._first_line(rotated, last, trimmed))
        if torn:
            _write_all(old, b"\n")
        _exchange(family, rotated)
        self._stamps, self._trimmed, self._bare = kept, trimmed, bare
        self._start_period(now)
        for each in doomed:
            self._remove(each)

    def postpone(self) -> None:
        """Go on in the file as it is, for a while: it cannot be rotated now."""
        self._again_at = time.monotonic() + AGAIN_AFTER_S

    def _remove(self, stamp: str) -> None:
        try:
            self.family.remove(stamp)
        except OSError as error:  # tried again at the next rotation
            note(f"trim {self.family.name}", f"{self.family.rotated(stamp)} cannot be removed: {error.strerror}")

    def _start_period(self, at: float) -> None:
        if self._schedule is not None:
            self._period = self._schedule.period(at)

    def _is_over(self, now: float) -> bool:
        begin, end = self._period
        if now < begin:  # the clock was set back
            self._start_period(now)
            return False
        return now >= end

    def _last(self) -> dict[str, Any]:
        """Return the last line of the written file."""
        return last_line(self.family.path) if self._line is None else parsed(self._line)

    def _first_line(self, previous: str | None, last: dict[str, Any], trimmed: dict[str, Any] | None = None) -> bytes:
        said: dict[str, Any] = {
            "previous": previous and os.path.basename(previous),
            "previous_boot": last.get("boot"),
            "previous_last_seq": last.get("seq"),
        }
        trimmed = trimmed or self._trimmed
        if trimmed:
            said["trimmed"] = trimmed
        return own_head(HEADER, **said) + b"," + orjson.dumps(self._identity.fields())[1:] + b"\n"

    def _trimmed_with(self, doomed: list[str], kept: list[str], last: dict[str, Any]) -> dict[str, Any]:
        """Return what is trimmed once *doomed* are gone; *kept* stay, and *last* is the last line of the newest of all."""
        if kept:  # the first line of the file behind the gap says how the one before ended
            behind = self.family.path if len(kept) == 1 else self.family.rotated(kept[0])
            said = first_line(behind)
            ended = last_line(self.family.rotated(doomed[-1]))
            boot, seq = ended.get("boot"), ended.get("seq")
            if said.get("event") == HEADER and said.get("previous") == os.path.basename(self.family.rotated(doomed[-1])):
                boot, seq = said.get("previous_boot"), said.get("previous_last_seq")
        else:
            boot, seq = last.get("boot"), last.get("seq")
        before = (self._trimmed or {}).get("files", 0)
        return {"files": before + len(doomed), "boot": boot, "last_seq": seq}


def _write_all(fd: int, data: bytes) -> int:
    """Append *data*, all of it or, as far as that can be undone, nothing; return its size."""
    rest = data
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        if len(rest) < len(data):
            os.ftruncate(fd, os.fstat(fd).st_size - len(data) + len(rest))
        raise
    return len(data)


def _keep_rights(old: int, new: int) -> None:
    """Give a successor the mode and the owner of its predecessor, but for writing by others."""
    before, now = os.fstat(old), os.fstat(new)
    if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
        with contextlib.suppress(OSError):  # only root may give a file away
            os.fchown(new, before.st_uid, before.st_gid)
    mode = before.st_mode & 0o775
    if mode != now.st_mode & 0o777:
        with contextlib.suppress(OSError):
            os.fchmod(new, mode)


def _exchange(family: Family, rotated: str) -> None:
    with owners_rights():
        os.rename(family.path, rotated)
        try:
            os.rename(family.successor, family.path)
        except OSError:
            os.rename(rotated, family.path)
            raise
