"""
Which file system a path is on.

On one that is reached over a network, or handed through from a host, `mmap` and `flock` are not what they are on a disk: a page
may be old, a lock may hold on one machine only, a mapped file may be cut by another machine, which ends the process (SIGBUS), and
an append is not one step.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
#: By their names in the kernel's list of mounts; those of FUSE that are local are the exception there.
REMOTE = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "coda", "davfs", "ncpfs"),
        *("ceph", "lustre", "gpfs", "ocfs2", "gfs2", "beegfs", "pvfs2", "orangefs", "glusterfs"),
        *("virtiofs", "vboxsf", "prl_fs", "vmhgfs", "fakeowner", "grpcfuse", "osxfs"),
    )
)
LOCAL_FUSE = frozenset(("fuseblk", "fuse.fuse-overlayfs", "fuse.lxcfs", "fuse.ntfs", "fuse.exfat", "fuse.mergerfs"))
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class FileSystem:
    """
    A mounted file system.

    Args:
        name: As the kernel has it, such as ``ext4`` or ``fuse.sshfs``.
        mounted: Where.
    """

    name: str
    mounted: str

    @property
    def remote(self) -> bool:
        """Whether it is reached over a network, or handed through from a host."""
        return self.name in REMOTE or (self.name.startswith("fuse") and self.name not in LOCAL_FUSE)


def kind_of(path: Path) -> FileSystem | None:
    """Return the file system of *path*, which need not be there yet; None where the kernel does not tell (not Linux)."""
    try:
        mounts = MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    there = os.path.realpath(path)
    best: FileSystem | None = None
    for mount in mounts:
        head, _, tail = mount.partition(" - ")
        point, kind = _unescaped(head.split(" ")[4]), tail.partition(" ")[0]
        inside = point in {"/", there} or there.startswith(f"{point}/")
        if inside and (best is None or len(point) >= len(best.mounted)):  # of two in one place, the later one lies above
            best = FileSystem(kind, point)
    return best


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
