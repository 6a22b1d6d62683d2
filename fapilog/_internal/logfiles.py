"""
Finding log files and reading their lines, also while somebody writes to them and rotates them.

Invariants:

1. Only regular files are opened and read: no FIFO, no device. Each file is read once, however many names lead to it.
2. Of a file no more is read than there was when it was found, and it is found again if it was renamed or compressed meanwhile: so
   what is read of a series of files is what was there at one moment. What is gone by then is said to be.
3. What is in memory is one block and one line, at most `LONGEST` bytes of that.
"""

from __future__ import annotations

import os
import re
import stat
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fapilog._internal.board import NAME as BOARD
from fapilog._internal.native import close_fd
from fapilog.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BLOCK = 1 << 20
PIECE = 64 << 10  # of a compressed file
SNIFFED = 512 << 10
LONGEST = 64 << 20
MOST_HELD = 200
MOST_LOOKS = 20
OVERLONG = b"{"  # stands for a line that is longer: the beginning of one

_ROTATED = re.compile(r"(.+)\.([0-9]{8}T[0-9]{6}\.[0-9]{6}Z)(?:\.gz)?")
_NO_LOG = re.compile(r".*(?:~|\.(?:bak|old|orig|swp|tmp|part|lock|xz|zst|bz2|zip|tar|tgz))")
_OURS = re.compile(rb'"boot":"[^"]+","seq":[0-9]+\}\r?\n|^\{"timestamp":"[^"]+","level":"info","event":"fapilog\.rotated"')
_KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
_GZIP = b"\x1f\x8b"


class _Held:
    """The descriptor of a file, closed when nobody needs it any more; of so many files at once."""

    count = 0

    def __init__(self, path: str) -> None:
        self.fd = opened(path)
        _Held.count += 1

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            close_fd(self.fd)
            _Held.count -= 1


@dataclass(frozen=True, slots=True)
class LogFile:
    """
    A file, as it was found.

    Args:
        path: Where.
        series: The path of the written file that it belongs to.
        stamp: Of the rotation; empty for the written one.
        size: In bytes.
        inode: Device and inode.
        held: What keeps it open, if it was written to: it may be rotated, compressed, and its inode another file's, any moment.
    """

    path: str
    series: str
    stamp: str
    size: int
    inode: tuple[int, int]
    held: _Held | None = None

    @property
    def order(self) -> tuple[str, bool, str]:
        """To sort by: series after series, the written file last."""
        return self.series, not self.stamp, self.stamp

    @property
    def plain(self) -> str:
        """The path that it has, or had before it was compressed."""
        return self.path.removesuffix(".gz")


class DamagedError(Exception):
    """A file cannot be read to its end; raised behind its last line that can be."""


def find(paths: Sequence[str]) -> list[LogFile]:
    """
    Return the log files that *paths* name, each once: files, and what looks like a log file below directories.

    A file that is written to stands for those that were rotated from it, too.

    Raises:
        ConfigurationError: One of *paths* is neither, is not there, or has no log file in it.
        OSError: One may not be read.
    """
    found: dict[tuple[int, int], LogFile] = {}
    for path in paths:
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigurationError(f"there is no file or directory {path}") from None
        if stat.S_ISDIR(mode):
            files = [file for folder in folders_of(path) for file in files_in(folder)]
            if not files:
                raise ConfigurationError(f"there is no log file of fapilog in {path}")
        elif stat.S_ISREG(mode):
            files = files_in(*os.path.split(path))
        else:
            raise ConfigurationError(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'no file')}, which is not read")
        for file in files:
            if file.stamp or file.inode not in found:  # a written file may have been rotated, and so be whole, by now
                found[file.inode] = file
    paths_found = {os.path.abspath(file.path) for file in found.values()}
    # Of a file and its compressed form, which are both there for a moment, the first: it is the one that may get a late line.
    files = [file for file in found.values() if file.path == file.plain or os.path.abspath(file.plain) not in paths_found]
    return sorted(files, key=lambda file: file.order)


def _refuse(error: OSError) -> None:
    raise error


def folders_of(path: str, failed: Callable[[OSError], object] = _refuse) -> Iterator[str]:
    """Yield *path* and the directories below it, but for hidden ones and run directories; *failed* hears what cannot be read."""
    for folder, folders, names in os.walk(path, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if BOARD in names:
            folders.clear()
        else:
            yield folder


def files_in(folder: str, only: str = "", failed: Callable[[OSError], object] = _refuse) -> list[LogFile]:
    """
    Return the log files in *folder*, or *only* one and those that were rotated from it, as they are at one moment.

    *failed* is told of those that cannot be read, which are left out.

    Raises:
        OSError: *folder* may not be read.
    """
    names = _listed(folder, only)
    for _ in range(MOST_LOOKS):
        chosen = [name for name in names if name == only or _rotated_from(name) == only] if only else names
        files = []
        for name in chosen:
            try:
                file = _found(folder, name, named=name == only)
            except OSError as error:
                failed(error)
            else:
                files += [file] if file else []
        before, names = names, _listed(folder, only)
        if names == before:  # else a file may have been rotated or compressed, and seen under neither name
            break
    return files


def _listed(folder: str, only: str) -> list[str]:
    """Return the names in *folder* that may be logs: those that are written to first, so that no rotation comes in between."""
    names = [name for name in os.listdir(folder or ".") if name == only or not name.startswith(".")]
    return sorted(names, key=lambda name: (_rotated_from(name) != "", name))


def _rotated_from(name: str) -> str:
    match = _ROTATED.fullmatch(name)
    return match[1] if match else ""


def _found(folder: str, name: str, *, named: bool) -> LogFile | None:
    """Return the file *name* if it is a log file, or was *named* as one."""
    path = os.path.join(folder, name)
    held = None
    try:
        state = os.stat(path)
        match = _ROTATED.fullmatch(name)
        likely = named or match or name.endswith((".jsonl", ".jsonl.gz"))
        if not stat.S_ISREG(state.st_mode) or not (likely or _is_ours(path)) or (_NO_LOG.fullmatch(name) and not named):
            return None
        if not match and _Held.count < MOST_HELD:
            held = _Held(path)
            state = os.fstat(held.fd)
    except FileNotFoundError:  # rotated, compressed or removed at this moment; or a link that leads nowhere
        return None
    series = os.path.join(os.path.abspath(folder), match[1] if match else name)
    return LogFile(path, series, match[2] if match else "", state.st_size, (state.st_dev, state.st_ino), held)


def _is_ours(path: str) -> bool:
    """Whether a file begins like a log of ours, as far as may be seen."""
    try:
        fd = opened(path)
    except OSError:
        return False
    try:
        data = os.read(fd, SNIFFED)
    finally:
        close_fd(fd)
    if data.startswith(_GZIP):
        try:
            data = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data, SNIFFED)
        except zlib.error:
            return False
    return _OURS.search(data) is not None


def opened(path: str) -> int:
    """Return a descriptor of *path* to read from, which waits for nobody if it is a FIFO after all."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def lines_of(file: LogFile, advance: Callable[[int], object], block_bytes: int = 0) -> Iterator[list[bytes]]:
    """
    Yield the lines of *file*, without their ends, some at a time.

    Args:
        file: To be read.
        advance: Called with the number of bytes that were read.
        block_bytes: How much to read at once; 0 for `BLOCK`.

    Raises:
        DamagedError: It is compressed, and not whole; or it is gone.
        OSError: It may not be read.
    """
    fd = _found_again(file)
    if fd < 0:
        raise DamagedError("it was gone before it could be read")
    try:
        if os.pread(fd, 2, 0) == _GZIP:
            blocks = _unzipped(fd, advance, block_bytes or BLOCK)
        elif file.path.endswith(".gz"):
            raise DamagedError("it is no gzip file")
        else:
            blocks = _plain(fd, file.size, advance, block_bytes or BLOCK)
        yield from _split(blocks)
    finally:
        close_fd(fd)


def _found_again(file: LogFile) -> int:
    """Return a descriptor of *file*, wherever it is by now; -1 if it is gone."""
    if file.held is not None:
        os.lseek(file.held.fd, 0, os.SEEK_SET)
        return os.dup(file.held.fd)
    for path in _candidates(file):
        try:
            fd = opened(path)
        except FileNotFoundError:
            continue
        state = os.fstat(fd)
        if stat.S_ISREG(state.st_mode) and ((state.st_dev, state.st_ino) == file.inode or path == f"{file.path}.gz"):
            return fd
        close_fd(fd)
    return -1


def _candidates(file: LogFile) -> Iterator[str]:
    """Yield where *file* may be, the likeliest place first; at last its compressed form."""
    yield file.path
    folder = os.path.dirname(file.path)
    for name in os.listdir(folder or "."):
        if _rotated_from(name) == os.path.basename(file.path):
            yield os.path.join(folder, name)
    yield f"{file.path}.gz"


def _plain(fd: int, size: int, advance: Callable[[int], object], most: int) -> Iterator[bytes]:
    while size > 0 and (block := os.read(fd, min(size, most))):
        size -= len(block)
        yield block
        advance(len(block))


def _unzipped(fd: int, advance: Callable[[int], object], most: int) -> Iterator[bytes]:
    """Yield the content of all members of a gzip file, whatever it would grow to, block by block."""
    member = zlib.decompressobj(16 + zlib.MAX_WBITS)
    while data := os.read(fd, min(most, PIECE)):
        advance(len(data))
        while data:
            if member.eof:
                data = data.lstrip(b"\0")  # padding
                if not data:
                    break
                member = zlib.decompressobj(16 + zlib.MAX_WBITS)
            try:
                block = member.decompress(data, most)
            except zlib.error as error:
                raise DamagedError(f"its gzip form is damaged: {error}") from None
            if block:
                yield block
            data = member.unused_data if member.eof else member.unconsumed_tail
    if rest := member.flush():
        yield rest
    if not member.eof:
        raise DamagedError("its gzip form breaks off")


def _split(blocks: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines of *blocks*; also what stands behind the last of them, if there is anything, or before damage."""
    parts: list[bytes] = []
    length = 0
    damage = None
    try:
        for block in blocks:
            lines = block.split(b"\n")
            length += len(lines[0])
            if length > LONGEST:
                parts, lines[0] = [], OVERLONG
            if len(lines) == 1:
                parts.append(lines[0])
                continue
            lines[0] = b"".join((*parts, lines[0]))
            last = lines.pop()
            parts, length = [last], len(last)
            yield lines
    except DamagedError as error:
        damage = error
    if rest := b"".join(parts):
        yield [rest]
    if damage is not None:
        raise damage
