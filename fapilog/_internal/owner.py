"""
Whose files this process makes: a server's master that runs as root makes them for the user its workers run as.

Invariants:

1. Root never opens a path that this user could bend: it takes on the user's rights for the moment, so the kernel decides.
2. Only a directory that the user may not make is made by root, in a place that the user cannot change, and given away.
3. The rights are taken on in a master that writes synchronously, for one call at a time. They belong to the process, not to a
   thread: the thread of gunicorn's control socket has them for that moment too.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from fapilog._internal.native import close_fd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_owner: tuple[int, int] | None = None


def work_for(uid: int, gid: int) -> None:
    """Make files for *uid* and *gid* from now on; without effect unless this process is root and *uid* is not."""
    global _owner
    _owner = (uid, gid) if os.geteuid() == 0 and uid != 0 else None


def work_for_oneself() -> None:
    """Make files for the user that this process runs as, as in a forked child."""
    global _owner
    _owner = None


@contextlib.contextmanager
def owners_rights() -> Iterator[None]:
    """Have the rights of the user whose files are made."""
    if _owner is None:
        yield
        return
    uid, gid = _owner
    before = os.getegid(), os.getgroups()
    try:
        os.setgroups([gid])
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[0])
        os.setgroups(before[1])


def make_directory(path: Path, mode: int = 0o777) -> None:
    """
    Make *path* and what is missing above it.

    Raises:
        OSError: It cannot be made.
    """
    try:
        with owners_rights():
            path.mkdir(mode, parents=True, exist_ok=True)
    except PermissionError:
        parts = [path, *path.parents]
        there = [part for part in parts if os.path.lexists(part)]
        if _owner is None or not all(map(_is_roots_alone, there)):
            raise
        path.mkdir(mode, parents=True, exist_ok=True)
        for part in parts[: -len(there)]:
            os.chown(part, *_owner, follow_symlinks=False)


def file_of(state: os.stat_result) -> tuple[int, int]:
    """Return what tells a file from all others while it exists: device and inode."""
    return state.st_dev, state.st_ino


def close_if(fd: int, file: tuple[int, int]) -> None:
    """Close *fd* if it is *file* still: a program may have closed all descriptors and opened others, which are not ours."""
    with contextlib.suppress(OSError):
        if file_of(os.fstat(fd)) == file:
            close_fd(fd)


def _is_roots_alone(path: Path) -> bool:
    """Whether nobody but root can bend *path*: no link, root's, and others can at most add to it."""
    state = os.lstat(path)
    writable = state.st_mode & 0o022 and not state.st_mode & stat.S_ISVTX
    return stat.S_ISDIR(state.st_mode) and state.st_uid == 0 and not writable
