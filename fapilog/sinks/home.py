"""
Where a process writes: the file its template names, or the next free one where another live process has that.

Invariants:

1. With rotation, a file is written by the process that holds its lock alone. Two that want one file at once (two containers on
   one volume, equal worker numbers) get two: ``app.1.jsonl`` and ``app.1.2.jsonl``.
2. Without rotation nothing is locked: several processes may append to one file, whole lines at a time.
3. Only a regular file is rotated: no FIFO, no device, nothing below ``/dev`` or ``/proc``, and no link, whose target may be any
   of those.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from fapilog._internal.filelock import FileLock
from fapilog._internal.notes import note
from fapilog.errors import ConfigurationError
from fapilog.sinks.family import Family
from fapilog.sinks.rotation import RotationPolicy, Rotator

if TYPE_CHECKING:
    from fapilog.identity import Identity

MOST_OWNERS = 256
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_NO_RIGHTS = {errno.EACCES, errno.EPERM, errno.EROFS}


class Home:
    """
    The place of one sink's file in one process. For one thread at a time.

    Args:
        policy: Of the rotation.

    Attributes:
        wanted: The path of the template.
        rotator: Of the file, while it is locked.
    """

    def __init__(self, policy: RotationPolicy) -> None:
        self.wanted = ""
        self.rotator: Rotator | None = None
        self._policy = policy
        self._identity: Identity | None = None
        self._lock: FileLock | None = None

    def settle(self, path: str, identity: Identity) -> None:
        """Say which file is wanted, and whose lines are written; no I/O."""
        if (path, identity) != (self.wanted, self._identity):
            self.wanted, self._identity = path, identity
            self.rotator = None

    def check(self) -> None:
        """
        Try whether the wanted file can be written and, if that is asked for, rotated.

        Raises:
            ConfigurationError: Naming the path.
        """
        path = Path(self.wanted)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"FAPILOG_FILE_PATH: cannot make the directory of {path}: {error.strerror}"
            raise ConfigurationError(message) from error
        needed = [path] if path.exists() else [path.parent]
        needed += [path.parent] if self._policy.rotates else []
        for each in needed:
            if not os.access(each, os.W_OK) or path.is_dir():
                message = f"FAPILOG_FILE_PATH: {each} cannot be written; FAPILOG_FILE_STRICT asks for that at set-up"
                raise ConfigurationError(message)

    def claim(self) -> str:
        """
        Return the path to write to, taking its lock if the file is to be rotated and this process does not hold it yet.

        Raises:
            OSError: It cannot be found out whether somebody else has it.
        """
        if not self._policy.rotates or not _can_rotate(self.wanted):
            return self.wanted
        if self.rotator is not None and self._lock is not None and self._lock.holds():
            return self.rotator.family.path
        assert self._identity is not None
        self.release()
        try:
            family = self._free_family()
        except OSError as error:
            if error.errno not in _NO_LOCKS | _NO_RIGHTS:
                raise
            note(f"lock {self.wanted}", f"{self.wanted} cannot be locked ({error.strerror}), so it is not rotated")
            return self.wanted
        self.rotator = Rotator(self._policy, family, self._identity)
        return family.path

    def release(self) -> None:
        """Let others have the file; idempotent."""
        lock, self._lock, self.rotator = self._lock, None, None
        if lock is not None:
            lock.release()

    def _free_family(self) -> Family:
        for number in range(1, MOST_OWNERS + 1):
            family = Family(numbered(self.wanted, number))
            self._lock = FileLock.take(family.lock)
            if self._lock is not None:
                if number > 1:
                    note(f"taken {self.wanted}", f"{self.wanted} belongs to another process; this one writes to {family.path}")
                return family
        raise OSError(errno.EBUSY, f"it and {MOST_OWNERS - 1} more belong to other processes")


def numbered(path: str, number: int) -> str:
    """Return the path that the process number *number* of those that want *path* at once writes to."""
    if number == 1:
        return path
    stem, extension = os.path.splitext(path)
    return f"{stem}.{number}{extension}"


def _can_rotate(path: str) -> bool:
    if path.startswith(("/dev/", "/proc/")) and not path.startswith("/dev/shm/"):  # noqa: S108 - a file system like any other
        return False
    try:
        state = os.lstat(path)
    except OSError:
        return True
    if stat.S_ISLNK(state.st_mode):
        note(f"link {path}", f"{path} is a link, so it is not rotated")
    return stat.S_ISREG(state.st_mode)
