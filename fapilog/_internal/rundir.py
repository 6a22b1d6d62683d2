"""
The run directory, where the processes of one service meet, and the worker slots in it.

Invariants:

1. Two live processes never hold one slot: a slot is a locked file (`flock`), and after locking, the descriptor's inode is
   compared with that of the path, so that a lock on a file somebody removed counts for nothing.
2. A slot is free as soon as its holder is gone, however it went: the kernel drops the lock with the last descriptor. A child
   that inherited the descriptor closes it (`os.close`, in the coordinator's at-fork hook), or a dead parent would live on in it.
3. The directory is ours: mode 0700, owner checked, reached without following a link, and files in it are opened by directory
   descriptor with `O_NOFOLLOW`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fapilog._internal.notes import note
from fapilog._internal.owner import make_directory, owners_rights

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SLOTS = 4096
ROOM_BYTES = 64 << 20
_SHM = Path("/dev/shm")  # noqa: S108 - a directory of ours below it, checked for owner and mode


@dataclass(slots=True)
class Slot:
    """
    A worker slot that this process holds.

    Args:
        number: From 1; 0 for a server's master.
        fd: The descriptor that holds the lock; -1 where there is no usable run directory and the number is the pid.
        run_dir: Where it was taken.
        file: Device and inode of the lock.
    """

    number: int
    fd: int
    run_dir: Path
    file: tuple[int, int] = (0, 0)

    def release(self) -> None:
        """
        Give the slot back. In a forked child: let go of the parent's, which only the parent's descriptor then holds.

        A program may have closed all descriptors and opened others: what is not the lock any more is not ours to close.
        """
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                if _same_file(fd) == self.file:
                    os.close(fd)


def default_run_dir(service: str, targets: Sequence[str]) -> Path:
    """Return ``<base>/fapilog-<uid>/<service>-<hash of the targets>``: one place for the processes that write to these sinks."""
    digest = hashlib.sha256("\0".join(targets).encode("utf-8", "surrogatepass")).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", service)[:64]
    with owners_rights():
        return _base() / _ours() / f"{name}-{digest}"


def _ours() -> str:
    return f"fapilog-{os.geteuid()}"


def _base() -> Path:
    try:
        room = os.statvfs(_SHM)
    except OSError:
        return Path(tempfile.gettempdir())
    enough = room.f_bavail * room.f_frsize >= ROOM_BYTES and os.access(_SHM, os.W_OK)
    return _SHM if enough else Path(tempfile.gettempdir())


def take_slot(run_dir: Path, first: int = 1) -> Slot:
    """
    Take the lowest free slot from *first* on.

    Never raises: without a usable directory the answer is the pid as number, and one note says why.
    """
    try:
        with owners_rights():
            chosen = run_dir.parent.name != _ours()
        if chosen:
            make_directory(run_dir, 0o700)
        with owners_rights():
            return _lowest_free(run_dir, first)
    except OSError as error:
        note("run_dir", f"run directory {run_dir} cannot be used ({error.strerror}): worker numbers are pids")
        return Slot(os.getpid(), -1, run_dir)


def _lowest_free(run_dir: Path, first: int) -> Slot:
    directory = _open_directory(run_dir)
    try:
        for number in range(first, first + MAX_SLOTS):
            fd = _lock(directory, f"slot-{number}.lock")
            if fd is not None:
                return Slot(number, fd, run_dir, _same_file(fd))
    finally:
        os.close(directory)
    raise OSError(errno.EUSERS, f"all of its {MAX_SLOTS} worker slots are taken")


def _same_file(fd: int) -> tuple[int, int]:
    state = os.fstat(fd)
    return state.st_dev, state.st_ino


def _open_directory(run_dir: Path) -> int:
    """
    Make and open the directory; refuse one that somebody else could have prepared.

    The default one lies below a directory anybody may write to, so its parent, which is ours too, is checked in the same way.
    What lies above a directory of the user's own choice is the user's affair.
    """
    parent = run_dir.parent
    if parent.name != _ours():
        return _checked(str(run_dir), None)
    above = _checked(str(parent), None)
    try:
        return _checked(run_dir.name, above)
    finally:
        os.close(above)


def _checked(name: str, above: int | None) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode=0o700, dir_fd=above)
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    state = os.fstat(fd)
    if state.st_uid != os.geteuid() or stat.S_IMODE(state.st_mode) & 0o022:
        os.close(fd)
        raise PermissionError(1, "it belongs to somebody else or others may write to it")
    return fd


def _lock(directory: int, name: str) -> int | None:
    """Return a descriptor that holds the lock of *name*, or None when another process does."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None
