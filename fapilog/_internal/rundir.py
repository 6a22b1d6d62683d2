"""
The run directory, where the processes of one service meet, and the worker slots in it.

Invariants:

1. Two live processes never hold one slot: a slot is a locked file (`flock`), and after locking, the descriptor's inode is
   compared with that of the path, so that a lock on a file somebody removed counts for nothing.
2. A slot is free as soon as its holder is gone, however it went: the kernel drops the lock with the last descriptor. A child
   that inherited the descriptor closes it (in the coordinator's at-fork hook), or a dead parent would live on in it.
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
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fapilog._internal.native import close_fd, nap
from fapilog._internal.notes import note
from fapilog._internal.owner import close_if, file_of, make_directory, owners_rights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_SLOTS = 4096
MOST_READERS, MOMENT = 200, 0.0005  # that a taker of a slot waits for, and for how long (seconds)
PATIENCE = 0.5  # seconds; the first event of a process may have to wait so long
ROOM_BYTES = 64 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
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
        """Give the slot back. In a forked child: let go of the parent's, which only the parent's descriptor then holds."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            close_if(fd, self.file)


def default_run_dir(service: str, targets: Sequence[str]) -> Path:
    """Return ``<base>/fapilog-<uid>/<service>-<hash of the targets>``: one place for the processes that write to these sinks."""
    digest = hashlib.sha256("\0".join(targets).encode("utf-8", "surrogatepass")).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", service)[:64]
    with owners_rights():
        # Where it is, it stays: what its processes keep there takes room, by which the next one must not be led elsewhere.
        there = _SHM / _ours() / f"{name}-{digest}"
        return there if there.is_dir() else _base() / _ours() / there.name


def known_run_dirs(service: str = "") -> list[Path]:
    """Return the default run directories of this user that exist, of *service* or of all services, by name."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", service)[:64]
    found: list[Path] = []
    for base in dict.fromkeys((_SHM, Path(tempfile.gettempdir()))):
        with contextlib.suppress(OSError):
            found += [each for each in (base / _ours()).iterdir() if each.is_dir()]
    named = re.compile((re.escape(name) if name else ".+") + "-[0-9a-f]{12}")
    return sorted(each for each in found if named.fullmatch(each.name))


def _ours() -> str:
    return f"fapilog-{os.geteuid()}"


def meeting_place(chosen: Path | None) -> Path:
    """
    Return where processes of one user meet that share a stream, of whichever service: the *chosen* run directory, or the parent
    of the default ones.

    Unlike a run directory it does not depend on how much room there is at the moment, which two processes may see differently.
    """
    if chosen is not None:
        return chosen
    with owners_rights():
        return (_SHM if os.access(_SHM, os.W_OK) else Path(tempfile.gettempdir())) / _ours()


def open_shared(directory: Path, name: str) -> int:
    """
    Open the file *name* in *directory* for reading and writing, both made if they are missing.

    Raises:
        OSError: That cannot be, or somebody else could have prepared the directory.
    """
    with owners_rights():
        ours = directory.name == _ours()
    if not ours:
        make_directory(directory, 0o700)
    with owners_rights():
        fd = _checked(str(directory), None)
        try:
            return os.open(name, _FLAGS, 0o600, dir_fd=fd)
        finally:
            close_fd(fd)


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
                return Slot(number, fd, run_dir, file_of(os.fstat(fd)))
    finally:
        close_fd(directory)
    raise OSError(errno.EUSERS, f"all of its {MAX_SLOTS} worker slots are taken")


def take_this_slot(run_dir: Path, number: int) -> Slot | None:
    """
    Take slot *number*, unless a process holds it.

    Raises:
        OSError: The directory is not ours.
    """
    with owners_rights():
        directory = _open_directory(run_dir)
        try:
            fd = _lock(directory, f"slot-{number}.lock")
        finally:
            close_fd(directory)
    return None if fd is None else Slot(number, fd, run_dir, file_of(os.fstat(fd)))


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
        close_fd(above)


def _checked(name: str, above: int | None) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode=0o700, dir_fd=above)
    return _opened(name, above)


def _opened(name: str, above: int | None, *, root_may: bool = False) -> int:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    state = os.fstat(fd)
    ours = state.st_uid == os.geteuid() or (root_may and os.geteuid() == 0)
    if not ours or stat.S_IMODE(state.st_mode) & 0o022:
        close_fd(fd)
        raise PermissionError(1, "it belongs to somebody else or others may write to it")
    return fd


def open_file(run_dir: Path, name: str, flags: int) -> int:
    """
    Open the regular file *name* in *run_dir*, both made if *flags* have `O_CREAT`.

    Raises:
        OSError: That cannot be, or somebody else could have prepared the directory.
    """
    with owners_rights():
        making = bool(flags & os.O_CREAT)
        directory = _open_directory(run_dir) if making else _opened(str(run_dir), None, root_may=True)
        try:
            fd = os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=directory)
        finally:
            close_fd(directory)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        close_fd(fd)
        raise OSError(errno.EINVAL, "it is no regular file", name)
    return fd


def make_room(fd: int, size: int) -> None:
    """
    Give the empty file *fd* its *size* in bytes, all of them on the disk.

    Raises:
        OSError: There is no room. A size that cannot be is not even tried: until that failed, others could write nothing.
    """
    there = os.fstatvfs(fd)
    if there.f_blocks and size > there.f_bavail * there.f_frsize:  # a tmpfs without a limit says that it has no blocks
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        for at in range(0, size, 1 << 20):
            os.pwrite(fd, bytes(min(1 << 20, size - at)), at)


def is_held(run_dir: Path, number: int) -> bool:
    """Whether a process holds slot *number*; asked by a shared lock for a moment, for which `take_slot()` waits."""
    return is_locked(run_dir, f"slot-{number}.lock")


def is_locked(run_dir: Path, name: str) -> bool:
    """Whether a process holds the lock of the file *name*; asked by a shared lock for a moment."""
    try:
        fd = open_file(run_dir, name, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _unlock(fd)
    except BlockingIOError:
        return True
    finally:
        close_fd(fd)
    return False


def _unlock(fd: int) -> None:
    """Let go of the lock itself: to close *fd* would not be enough if another thread has forked meanwhile."""
    fcntl.flock(fd, fcntl.LOCK_UN)


@contextlib.contextmanager
def alone(run_dir: Path, name: str) -> Iterator[None]:
    """
    Hold the lock *name* in *run_dir*, which others hold for moments only.

    Raises:
        OSError: Somebody holds it for longer than `PATIENCE` seconds, or the directory is not ours.
    """
    fd = open_file(run_dir, name, os.O_RDWR | os.O_CREAT)
    try:
        end = time.monotonic() + PATIENCE
        while not _locked(fd):
            if time.monotonic() > end:
                raise BlockingIOError(
                    errno.EAGAIN, "another process holds the lock, and does not let go of it", str(run_dir / name)
                )
            nap(MOMENT)
        yield
        _unlock(fd)
    finally:
        close_fd(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _flock(fd: int) -> None:
    """
    Lock *fd*, unless a process holds it; a reader that asks (`is_held()`) is waited for.

    Raises:
        BlockingIOError: A process holds it.
    """
    for _ in range(MOST_READERS):
        if _locked(fd):
            return
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # raises unless readers are all there is
        _unlock(fd)
        nap(MOMENT)
    raise BlockingIOError(errno.EAGAIN, "readers hold it all the time")


def _lock(directory: int, name: str) -> int | None:
    """Return a descriptor that holds the lock of *name*, or None when another process does."""
    fd = os.open(name, _FLAGS, 0o600, dir_fd=directory)
    try:
        _flock(fd)
        if os.fstat(fd).st_ino == os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    close_fd(fd)
    return None
