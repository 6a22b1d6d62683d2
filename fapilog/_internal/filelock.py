"""
Whose a file is: a lock file beside it, held by one process at a time.

Invariants:

1. Two live processes never hold one lock: after locking (`flock`), the descriptor's inode is compared with that of the path, so
   that a lock on a file somebody removed counts for nothing.
2. A lock is free as soon as its holder is gone, however it went: the kernel drops it with the last descriptor. A child that
   inherited the descriptor closes it (`close_inherited()`, in the coordinator's at-fork hook), or a dead parent would live on.
3. Only the holder removes the lock file, and before it lets go: whoever has the old file open finds out by invariant 1.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from fapilog._internal.native import close_fd
from fapilog._internal.owner import close_if, file_of, make_directory, owners_rights

_TRIES = 100
_held: dict[int, tuple[int, int]] = {}  # descriptor: device and inode; plain numbers, for the at-fork hook


class FileLock:
    """
    A lock that this process holds, until `release()` or until nothing refers to it any more.

    Args:
        path: Of the lock file.
        fd: The descriptor that holds it.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._pid = os.getpid()
        self._file = _held[fd] = file_of(os.fstat(fd))

    @classmethod
    def take(cls, path: str) -> FileLock | None:
        """
        Take the lock at *path*, making the file and its directory; None when another process holds it. Never waits for it.

        Raises:
            OSError: The file cannot be made, or its file system has no locks.
        """
        for _ in range(_TRIES):
            fd = _open(path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if file_of(os.fstat(fd)) == file_of(os.stat(path, follow_symlinks=False)):
                    return cls(path, fd)
            except BlockingIOError:
                close_fd(fd)
                return None
            except FileNotFoundError:
                pass
            except BaseException:
                close_fd(fd)
                raise
            close_fd(fd)
        return None

    def holds(self) -> bool:
        """Whether the lock is held by this process and is what others find at its path."""
        if self._fd < 0 or self._pid != os.getpid() or _held.get(self._fd) != self._file:
            return False
        try:
            return file_of(os.stat(self.path, follow_symlinks=False)) == self._file
        except OSError:
            return False

    def release(self) -> None:
        """Remove the lock file and let go; idempotent. Without effect on a parent's lock."""
        if self.holds():
            with contextlib.suppress(OSError), owners_rights():
                os.unlink(self.path)
        self._let_go()

    def leave(self) -> None:
        """Let go, and let the file stay; idempotent. Without effect on a parent's lock."""
        self._let_go()

    def _let_go(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0 and self._pid == os.getpid() and _held.get(fd) == self._file:
            del _held[fd]
            close_if(fd, self._file)

    def __del__(self) -> None:
        self._let_go()


def close_inherited() -> None:
    """Close the descriptors of the parent's locks, which only the parent's own then hold; in a forked child."""
    for fd, file in list(_held.items()):
        close_if(fd, file)
    _held.clear()


def _open(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with owners_rights():
            return os.open(path, flags, 0o600)
    except FileNotFoundError:
        make_directory(Path(path).parent)
        with owners_rights():
            return os.open(path, flags, 0o600)
