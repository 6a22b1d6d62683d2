"""
Writing to the file from the caller's thread: late events, synchronous mode, a server's master.

Invariants:

1. No lock that a signal handler could wait for: one thread at a time opens or rotates, by a test-and-set without a call between
   test and set, hence atomic under the GIL. Whoever finds another at it waits for the first file as long as it may, and writes to
   the one there is otherwise. The code that a signal handler has interrupted is never waited for.
2. A file is dropped, not closed: a thread that is about to write through it holds a reference, and the last one closes it. A bare
   descriptor could belong to somebody else's file by then.
3. Rotation here is two renames and an open, as quick as the write that it comes before; nothing is compressed, which would take
   a thread: the next process of the file does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fapilog._internal.native import came, thread_id
from fapilog._internal.notes import note
from fapilog.sinks.written import NOW_FLAGS, QuietFile, WrittenFile, ends_torn, open_below

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.sinks.base import Appender
    from fapilog.sinks.home import Home
    from fapilog.sinks.rotation import Rotator


class LateWriter:
    """
    Opens its file at the first write.

    Args:
        home: Where the file is.
        appender: Knows whether it ends in half a line.
    """

    def __init__(self, home: Home, appender: Appender) -> None:
        self.file: WrittenFile | None = None
        self._home = home
        self._appender = appender
        self._turner = 0

    def write(self, lines: Sequence[bytes], patience: float) -> None:
        """
        Append *lines*, any thread.

        Args:
            lines: Whole ones.
            patience: How long to wait for another thread that is opening the file, in seconds.

        Raises:
            OSError: It cannot be done now.
        """
        file = self.file
        if file is None or file.is_due() or not self._fits(file, lines):
            file = self._made_ready(lines, patience)
        self._appender.write_now(file.fd, lines)
        rotator = self._home.rotator
        if rotator is not None:
            rotator.wrote(lines[-1])

    def release(self) -> None:
        """Let go of the file; the next write opens it anew."""
        self.file = None

    def _made_ready(self, lines: Sequence[bytes], patience: float) -> WrittenFile:
        """Return the file after looking after it, or any in its place while somebody else does that."""
        me = thread_id()
        came(lambda: self.file is not None or self._turner in {0, me}, patience)
        if self._turner:
            return self.file or self._open(self._home.wanted, None)
        self._turner = me
        try:
            file = self.file
            if file is None or file.is_elsewhere():
                path = self._home.claim()
                file = self.file = self._open(path, self._home.rotator)
            return file if self._fits(file, lines) else self._turned(file)
        finally:
            self._turner = 0

    def _fits(self, file: WrittenFile, lines: Sequence[bytes]) -> bool:
        rotator = self._home.rotator
        return rotator is None or rotator.end(file.fd, lines) > 0

    def _open(self, path: str, rotator: Rotator | None) -> WrittenFile:
        fd = open_below(path, NOW_FLAGS)
        opened = WrittenFile(QuietFile(fd, "ab"), fd, path)
        if rotator is not None:
            rotator.begin(fd)
        torn = ends_torn(path, fd)
        self._appender.torn = self._appender.torn if torn is None else torn
        return opened

    def _turned(self, file: WrittenFile) -> WrittenFile:
        rotator = self._home.rotator
        assert rotator is not None
        family = rotator.family
        try:
            fd = open_below(family.successor, NOW_FLAGS)
            opened = WrittenFile(QuietFile(fd, "ab"), fd, family.path)
            if file.is_elsewhere():  # noticed before the next write
                file.look_soon()
                return file
            rotator.turn(file.fd, fd, torn=self._appender.torn)
        except OSError as error:
            rotator.postpone()
            note(f"rotate {family.name}", f"{family.path} cannot be rotated now: {error.strerror or error}")
            return file
        self._appender.torn = False
        self.file = opened
        return opened
