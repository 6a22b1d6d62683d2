"""
What the file and the stream sinks share: appending a batch of lines to a file that may be full, or another one, meanwhile.

Invariants:

1. One `os.write` for the lines that go into one file: with `O_APPEND` on a local file system the kernel keeps them in one piece.
2. A batch that failed half-way is gone on with at the byte where it stopped, when the same lines come again; a line of which only
   a part went into a file that is not the written one any more is written anew, as a whole.
3. A line whose end could not be written is closed by a newline before another one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NEWLINE = 10


class Appender:
    """
    Remembers how far a batch has come.

    Not for two threads at once, but for `torn`, which whoever wrote last sets.

    Attributes:
        torn: Whether the file ends in half a line.
        done: How many lines of the batch are written.
        cut: How many bytes of the next line are.
    """

    def __init__(self) -> None:
        self.torn = False
        self.done = 0
        self.cut = 0
        self._batch: Sequence[bytes] = ()

    def begin(self, lines: Sequence[bytes]) -> None:
        """Take up *lines*: where an earlier try at the same ones stopped, or else from the first."""
        if self._batch and self._batch == lines:
            return
        self._batch = lines
        self.done = self.cut = 0

    def write(self, fd: int, end: int) -> None:
        """
        Append the lines of the batch before number *end* that are not written yet.

        Raises:
            OSError: From the file; call `begin()` and this again.
        """
        mended = self.torn and not self.cut
        batch = self._batch
        text = b"".join(batch if end - self.done == len(batch) else batch[self.done : end])
        data = memoryview(b"\n" + text if mended else text)[self.cut :]

        def enter(written: int) -> None:
            if written == len(data):
                self._reached(end)
            else:
                self._stopped(max(0, written - mended))

        self._put(fd, data, enter)

    def _put(self, fd: int, data: memoryview, enter: Callable[[int], None] = lambda _: None) -> None:
        """Write *data*; however that ends, say to *enter* how many bytes were written."""
        written = 0
        try:
            while written < len(data):
                written += os.write(fd, data[written:])
        finally:
            if written:
                self.torn = data[written - 1] != _NEWLINE
            enter(written)

    def _reached(self, end: int) -> None:
        self.done, self.cut = end, 0
        if end == len(self._batch):
            self._batch = ()

    def _stopped(self, count: int) -> None:
        """Enter that *count* more bytes were written than `done` and `cut` say."""
        count += self.cut
        while count >= len(self._batch[self.done]):
            count -= len(self._batch[self.done])
            self.done += 1
        self.cut = count

    def write_now(self, fd: int, lines: Sequence[bytes]) -> None:
        """
        Append *lines* beside the batch; takes no lock and keeps no state, so that a signal handler may come in between.

        Raises:
            OSError: From the file; a part may be written.
        """
        text = b"".join(lines)
        self._put(fd, memoryview(b"\n" + text if self.torn else text))

    def elsewhere(self, *, torn: bool) -> None:
        """Say that what comes next goes into another file, or an emptied one, which ends in half a line if *torn*."""
        self.cut = 0
        self.torn = torn

    def give_up(self) -> None:
        """Forget a batch that will not be tried again."""
        self._batch = ()
        self.done = self.cut = 0
