"""
Writing whole lines to what takes only so much at a time: a pipe, a socket, a terminal.

Invariants:

1. A line that was begun is ended by the attempt that began it, at its byte, while that holds the `Turn`: after a short write,
   when somebody has made the descriptor non-blocking, and over an error that passes.
2. It waits for room with poll(2), never in a loop that spins, and never changes the descriptor's mode, which others share.
3. A half line that could not be ended, by this process or one that died, is closed by a newline before the next line.
4. An attempt that failed goes on with the first line that has no end, so none is doubled.
5. Where other processes cannot be kept out, whole lines go out in writes of at most `PIPE_BUF` bytes, which the kernel keeps in
   one piece; only a longer line may be mixed with theirs.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import stat
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fapilog._internal.native import nap, room_in
from fapilog.errors import SinkUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.sinks.turns import Patience, Turn

ATOMIC = select.PIPE_BUF
LOOK_EVERY = 0.25  # whether a wait for room was cancelled, in seconds
FAILURE_NAP = 0.02
MAX_FAILURES = 100  # in a row, in the middle of a line: two seconds
_NEWLINE = 10
_NO_READER = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Batch:
    """
    Lines on their way, and how far they have come.

    Args:
        lines: As they came from the delivery.
        formed: As they are written, each with its newline.
    """

    def __init__(self, lines: Sequence[bytes], formed: Sequence[bytes]) -> None:
        self.lines = lines
        self.at = 0
        self.data = b"".join(formed)
        self._formed = formed

    def whole(self) -> int:
        """Return how many of the lines have been written to their end."""
        return bisect_right(list(itertools.accumulate(map(len, self._formed))), self.at)

    def step_back(self) -> None:
        """Begin again with the first line that has no end."""
        self.at = sum(map(len, self._formed[: self.whole()]))


@dataclass(frozen=True, slots=True)
class Outlet:
    """
    Where to write.

    Args:
        fd: Its descriptor.
        most: How many bytes at once: no more than there is always room for, unless `os.write` may block.
        pipe: Whether it keeps writes of up to `PIPE_BUF` bytes in one piece.
    """

    fd: int
    most: int
    pipe: bool


def pour(outlet: Outlet, batch: Batch, turn: Turn, patience: Patience) -> None:
    """
    Write the rest of *batch*.

    Args:
        outlet: Where to.
        batch: Its `at` is kept up to date.
        turn: Held by the caller.
        patience: Endless, on a thread that may block: then a line that was begun is ended even when it is cancelled.

    Raises:
        SinkUnavailable: There was no room in time, or it was cancelled; between two lines, if the patience was endless.
        OSError: From `os.write`.
    """
    fd, start, failures = outlet.fd, batch.at, 0
    rest = memoryview(b"\n" + batch.data[start:] if turn.midline else batch.data[start:])
    cut = len(rest) > ATOMIC or not outlet.pipe
    try:
        while rest:
            _await_room(fd, turn, patience)
            before = turn.midline
            if cut:  # midline until the opposite is known: a signal handler may raise as soon as the write has returned
                turn.mark()
                turn.midline = True
            aligned = patience.cancelled or (outlet.pipe and turn.file is None)
            try:
                written = os.write(fd, rest[: _piece(rest, outlet.most, aligned=aligned)])
            except OSError as error:
                turn.midline = before
                failures += 1
                _bear(fd, error, turn, patience, failures)
                continue
            failures = 0
            turn.midline = rest[written - 1] != _NEWLINE if written else before
            rest = rest[written:]
            batch.at = max(start, len(batch.data) - len(rest))
    finally:
        turn.unmark()


def _await_room(fd: int, turn: Turn, patience: Patience) -> None:
    ends_lines = patience.endless and turn.midline
    while True:
        if patience.cancelled and not ends_lines:
            message = "the attempt was given up"
            raise SinkUnavailable(message)
        flags = room_in(fd, LOOK_EVERY if ends_lines else patience.left(LOOK_EVERY))
        if flags & _NO_READER and not patience.endless:
            message = "nobody reads it any more"  # on a caller's thread a write might raise SIGPIPE
            raise SinkUnavailable(message)
        if flags:
            return
        if patience.over and not ends_lines:
            message = "nobody reads it"
            raise SinkUnavailable(message)


def _piece(rest: memoryview, most: int, *, aligned: bool) -> int:
    """Return how much of *rest* to write at once; *aligned*: as many whole lines as are kept in one piece, or one that is not."""
    if not aligned or len(rest) <= ATOMIC:
        return min(most, len(rest))
    lines = bytes(rest[:ATOMIC]).rfind(b"\n") + 1
    return min(most, lines or (bytes(rest).find(b"\n") + 1) or len(rest))


def _bear(fd: int, error: OSError, turn: Turn, patience: Patience, failures: int) -> None:
    """Wait a moment after an error, if the write is to be tried again here; otherwise raise it."""
    if error.errno != errno.EAGAIN and (not turn.midline or failures > MAX_FAILURES or is_gone(fd, error)):
        raise error
    if patience.over and not (patience.endless and turn.midline):
        raise error
    nap(FAILURE_NAP if patience.endless else patience.left(0.001))


def is_gone(fd: int, error: OSError) -> bool:
    """
    Whether what *fd* leads to will never take anything again.

    A pipe or socket that nobody reads will not, nor will a terminal that was hung up or a descriptor that is closed. A FIFO may
    get another reader.
    """
    if error.errno == errno.EBADF:
        return True
    try:
        mode = os.fstat(fd).st_mode
        if error.errno == errno.EIO:
            return stat.S_ISCHR(mode)
        return error.errno in {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN} and not (stat.S_ISFIFO(mode) and _has_a_name(fd))
    except OSError:
        return True


def _has_a_name(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("/")
    except OSError:
        return False
