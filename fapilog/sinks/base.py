"""
What the built-in sinks share: writing whole lines to a descriptor.

Invariants:

1. One `os.write` per batch of whole lines: with `O_APPEND` on a local file system the kernel keeps it in one piece, so several
   processes may share a file.
2. A short write is continued by the attempt that began it, at its byte, and by nobody else.
3. A line whose end could not be written is closed by a newline before the next one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fapilog.errors import SinkUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


_NEWLINE = 10


class LineWriter:
    """
    Writes batches of lines through *write* and remembers where a short one stopped.

    Not for two threads at once: a sink calls it on its own thread, and `write_now()` only while `busy` is false.
    """

    def __init__(self) -> None:
        self.busy = False
        self._rest: memoryview | None = None
        self.torn = False

    def write(self, lines: Sequence[bytes], write: Callable[[memoryview], int]) -> None:
        """
        Write *lines*, or what is left of them after an earlier call that failed half-way.

        Raises:
            OSError: From *write*; call again with the same lines.
        """
        if self._rest is None:
            self._rest = memoryview(self.mended(b"".join(lines)))
        rest = self._rest
        self.busy = True
        try:
            while rest:
                written = write(rest)
                self.torn = rest[written - 1] != _NEWLINE if written else self.torn
                rest = rest[written:]
                self._rest = rest
        finally:
            self.busy = False
        self._rest = None

    def give_up(self) -> None:
        """Forget the rest of a batch that will not be tried again."""
        self._rest = None

    def mended(self, data: bytes) -> bytes:
        """Return *data* with a newline before it where the last line that was written has no end."""
        return b"\n" + data if self.torn else data


def write_or_unavailable(writer: LineWriter, fd: int, lines: Sequence[bytes]) -> None:
    """
    Write *lines* to *fd* from the calling thread, for `write_now()`.

    Takes no lock and keeps no state, so that a signal handler may come in between. Only a short write, which a full disk may
    cause, takes more than one `os.write`.

    Raises:
        SinkUnavailable: A write is in progress on the sink's own thread, or the descriptor does not take them.
    """
    if writer.busy:
        message = "a write is still in progress"
        raise SinkUnavailable(message)
    data = memoryview(writer.mended(b"".join(lines)))
    written = 0
    try:
        while written < len(data):
            written += os.write(fd, data[written:])
    except OSError as error:
        raise SinkUnavailable(str(error)) from error
    finally:
        writer.torn = data[written - 1] != _NEWLINE if written else writer.torn
