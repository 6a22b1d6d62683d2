"""
The files of one log: the one that is written to, and those that were rotated away from it.

``app.1.jsonl`` is written to; ``app.1.jsonl.20261128T051729.123456Z`` is a rotated one, named for the moment of the rotation in
UTC, and ends in ``.gz`` once it is compressed. Names that begin with a dot are for the moment only.

Invariants:

1. The names of two families never meet: what follows the name of the written file is a dot, a moment and nothing else, so neither
   the files of worker 11 nor what logrotate made (``.1``, ``-20261128``) belong to worker 1.
2. Names sort in the order of the rotations, also when the clock was set back: a moment is always later than those there are.
3. Whoever calls a method that changes something holds the family's lock.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from fapilog._internal.compressor import Compression
from fapilog._internal.native import new_lock
from fapilog._internal.owner import owners_rights

_STAMP_FORM = "%Y%m%dT%H%M%S.%fZ"
_STAMP = r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z"
_BLOCK = 64 << 10
_LONGEST_LINE = 64 << 20


class Family:
    """
    The files that belong to *path*.

    Args:
        path: Of the file that is written to.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.directory, self.name = os.path.split(path)
        self._changing = new_lock()
        name = re.escape(self.name)
        self._others = re.compile(rf"{name}[.-].+")
        self._rotated = re.compile(rf"{name}\.({_STAMP})(?:\.gz)?")
        self._passing = re.compile(rf"\.{name}\.(?:new|{_STAMP}\.[0-9a-f]+\.tmp)")

    @property
    def lock(self) -> str:
        """Where the lock file is."""
        return os.path.join(self.directory, f".{self.name}.lock")

    @property
    def successor(self) -> str:
        """Where the next file is made ready before it takes the place of the written one."""
        return os.path.join(self.directory, f".{self.name}.new")

    def rotated(self, stamp: str) -> str:
        """Return the path of the file that was rotated at *stamp*, uncompressed."""
        return f"{self.path}.{stamp}"

    def compression(self, stamp: str) -> Compression:
        """Return how the file that was rotated at *stamp* is to be compressed."""
        passing = os.path.join(self.directory, f".{self.name}.{stamp}.{os.urandom(4).hex()}.tmp")
        return Compression(self.rotated(stamp), passing, functools.partial(self._compressed, stamp, passing))

    def _compressed(self, stamp: str, passing: str) -> None:
        """Put the compressed form in the place of the file, unless retention was here first; on another thread."""
        plain = self.rotated(stamp)
        with self._changing:
            if os.path.exists(plain):
                os.rename(passing, f"{plain}.gz")
                os.unlink(plain)
            else:
                os.unlink(passing)

    def stamps(self) -> list[str]:
        """Return the moments of all rotated files, oldest first."""
        found = {match[1] for match in map(self._rotated.fullmatch, self._listed()) if match}
        return sorted(filter(_moment, found))

    def paths(self) -> list[str]:
        """Return all files of the family that there are, oldest first; where both forms of one are there, the compressed one."""
        paths = [next(filter(os.path.exists, (f"{self.rotated(stamp)}.gz", self.rotated(stamp))), "") for stamp in self.stamps()]
        return [path for path in (*paths, self.path) if os.path.exists(path)]

    def renamed(self) -> list[str]:
        """Return the regular files that by their names once were the written one, and that somebody else (logrotate) renamed."""
        names = [name for name in self._listed() if self._others.fullmatch(name) and not self._rotated.fullmatch(name)]
        with owners_rights():
            return list(filter(os.path.isfile, (os.path.join(self.directory, name) for name in sorted(names))))

    def next_stamp(self, stamps: list[str], now: float) -> str:
        """Return a moment for a rotation at *now* (seconds since the epoch), later than the last of *stamps*."""
        stamp = datetime.fromtimestamp(now, UTC).strftime(_STAMP_FORM)
        if stamps and stamp <= stamps[-1]:
            last = _moment(stamps[-1])
            assert last is not None
            stamp = (last + timedelta(microseconds=1)).strftime(_STAMP_FORM)
        return stamp

    def tidy(self) -> None:
        """Remove what a process that died has left: half-made files, and the older form of a compressed one."""
        names = self._listed()
        doomed = [name for name in names if self._passing.fullmatch(name)]
        doomed += [name for name in names if self._rotated.fullmatch(name) and f"{name}.gz" in names]
        for name in doomed:
            _unlink(os.path.join(self.directory, name))

    def remove(self, stamp: str) -> None:
        """Remove the file that was rotated at *stamp*, in whatever form."""
        with self._changing:
            for path in (self.rotated(stamp), f"{self.rotated(stamp)}.gz"):
                _unlink(path)

    def _listed(self) -> set[str]:
        with owners_rights():
            return set(os.listdir(self.directory))


def _moment(stamp: str) -> datetime | None:
    """Return the moment that *stamp* means, if there is one; `strptime()` would import a module at a moment like this."""
    try:
        return datetime.fromisoformat(stamp)
    except ValueError:
        return None


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError), owners_rights():
        os.unlink(path)


def first_line(path: str) -> dict[str, Any]:
    """Return the first line of *path* or of its compressed form, parsed; empty if there is none that can be read."""
    try:
        with owners_rights(), open(path, "rb") as file:
            return parsed(file.readline(_LONGEST_LINE))
    except OSError:
        pass
    try:
        with owners_rights(), open(f"{path}.gz", "rb") as file:
            data = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(file.read(_BLOCK), _BLOCK)
            return parsed(data[: data.find(b"\n") + 1])
    except (OSError, zlib.error):
        return {}


def last_line(path: str) -> dict[str, Any]:
    """Return the last whole line of *path*, parsed; empty if there is none that can be read."""
    try:
        with owners_rights(), open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            data = b""
            while len(data) < min(size, _LONGEST_LINE):
                step = min(_BLOCK, size - len(data))
                file.seek(size - len(data) - step)
                data = file.read(step) + data
                end = data.rfind(b"\n")
                begin = data.rfind(b"\n", 0, end)
                if end >= 0 and (begin >= 0 or len(data) == size):
                    return parsed(data[begin + 1 : end])
    except OSError:
        pass
    return {}


def parsed(line: bytes) -> dict[str, Any]:
    """Return what *line* says; nothing if it is no event."""
    try:
        found = orjson.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
