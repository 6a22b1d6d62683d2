"""
The stream sink: stdout or stderr, JSON lines or the console form.

Invariants, beside those of `sinks/base.py`, `sinks/flow.py` and `sinks/turns.py`:

1. It writes to the descriptor, past Python's buffers, on its own daemon thread: a full pipe stops that thread and nothing else,
   and so does another process that has the turn and does not end it.
2. It never changes the mode of the descriptor, which it shares with the rest of the program.
3. Every write to a pipe or socket takes the stream's turn. A regular file needs none, where every writer appends; nor does a
   terminal, whose driver keeps one write in one piece: there a stopped job must not hold up the others.
4. A stream that is closed gives way to the one the program was started with. What will never be read any more is refused, not
   tried again: it would hold up the drain.
5. A stream without a descriptor (a test's `StringIO`) gets text through its own `write()`, in what its encoding has.
6. What goes to a terminal has no raw control character: in the console form it is shown as an escape, in JSON it is one. Anywhere
   else a JSON line is written as it is, in UTF-8.
7. Whether the console form has colours and a column for the worker is asked before each write: a stream may be exchanged, and a
   process may fork.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from fapilog._internal import kin
from fapilog._internal.executor import SinkExecutor
from fapilog._internal.native import came
from fapilog._internal.notes import note
from fapilog._internal.rundir import meeting_place
from fapilog.errors import SinkRejected, SinkUnavailable
from fapilog.sinks.base import Appender
from fapilog.sinks.console import shown
from fapilog.sinks.flow import ATOMIC, Batch, Outlet, is_gone, pour
from fapilog.sinks.sources import source_line
from fapilog.sinks.terminal import json_for_terminal, json_in_ascii, wants_colours
from fapilog.sinks.turns import Patience, Turn, key_of, place_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fapilog.identity import Identity
    from fapilog.sinks.turns import Place
    from fapilog.typing import Event


class StreamSink:
    """
    Writes to stdout or stderr.

    Args:
        name: ``stdout`` or ``stderr``; also the name of the sink.
        form: ``json``, ``console``, or ``auto``: console on a terminal, JSON elsewhere.
        run_dir: Where the processes meet that share the stream; by default a directory of the user's, for all services.

    The console form is coloured as `terminal.wants_colours()` says, and names the worker where several processes of the program,
    or of its service, may write to the same terminal.
    """

    lock_free = True
    retries_until_full = True

    def __init__(self, name: str = "stdout", *, form: str = "auto", run_dir: Path | None = None) -> None:
        self.name = name
        self._form = form
        self._run_dir = run_dir
        self._place: Place | None = None
        self._appender = Appender()
        self._appends = False
        self._batch: Batch | None = None
        self._executor: SinkExecutor | None = None
        self._beside_others = False

    def fresh(self) -> StreamSink:
        """Return a sink of the same settings and no state, for another process or another opening."""
        return StreamSink(self.name, form=self._form, run_dir=self._run_dir)

    def bind(self, identity: Identity) -> None:
        """Note whether another process holds the first worker number; without a run directory the number is the pid."""
        self._beside_others = identity.worker not in {1, identity.pid}

    def prepare(self) -> None:
        """Start the sink's thread, while that is still allowed; see `FileSink.prepare()`."""
        if self._executor is None:
            self._executor = SinkExecutor(f"fapilog-{self.name}")
        self._executor.start()

    async def open(self, identity: Identity) -> None:
        """Get the sink's own thread ready."""
        del identity
        self.prepare()
        self._appender.give_up()
        self._batch = None

    async def write(self, events: Sequence[Event]) -> None:
        """Write *events* with one write."""
        await self.write_lines([event.line for event in events])

    async def write_lines(self, lines: Sequence[bytes]) -> None:
        """
        Write *lines* with one write.

        Raises:
            SinkUnavailable: Not now.
            SinkRejected: What the stream leads to is gone; the number of lines that it did not take to their end.
        """
        patience = Patience()
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._write, lines, patience)
        except asyncio.CancelledError:
            patience.cancel()
            raise
        except (OSError, ValueError) as error:
            message = f"{self.name}: {error}"
            raise SinkUnavailable(message) from error

    async def close(self) -> None:
        """End the sink's thread; the stream itself is not ours to close."""
        self.retire()

    def retire(self) -> None:
        """End the sink's thread, also of a sink that was never opened."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()

    def write_now(self, lines: Sequence[bytes], patience: float = 0.0) -> None:
        """
        Write *lines* from the calling thread; wait *patience* seconds at most for the turn and for room in a pipe.

        Raises:
            SinkUnavailable: It cannot be done now.
        """
        try:
            stream = self._stream()
            fd = _descriptor_of(stream)
            formed = self._formed(lines, stream, fd)
            if fd is None:
                stream.write(b"".join(formed).decode("utf-8"))
            elif stat.S_ISREG((state := os.fstat(fd)).st_mode):
                if self._appends and not came(lambda: not self._appends, patience):
                    raise SinkUnavailable("a write is still in progress")
                self._appender.write_now(fd, formed)
            else:
                self._in_turn(fd, state, Batch(lines, formed), Patience(patience), ATOMIC)
        except (OSError, ValueError) as error:
            raise SinkUnavailable(str(error)) from error

    def _write(self, lines: Sequence[bytes], patience: Patience) -> None:
        """Write on the sink's own thread."""
        batch = self._batch
        if batch is None or batch.lines != lines:  # another one: the rest of a batch that has expired is forgotten
            self._appender.give_up()
            batch = self._batch = None
        try:
            stream = self._stream()
            fd = _descriptor_of(stream)
            if batch is None:
                batch = self._batch = Batch(lines, self._formed(lines, stream, fd))
            if fd is None:
                stream.write(batch.data.decode("utf-8"))
            else:
                self._write_to(fd, batch, patience)
        except _Gone as error:
            raise SinkRejected(len(lines), f"{self.name}: {error}") from error
        self._batch = None

    def _write_to(self, fd: int, batch: Batch, patience: Patience) -> None:
        try:
            state = os.fstat(fd)
            if stat.S_ISREG(state.st_mode):
                self._append(fd, batch.data)
            else:
                self._in_turn(fd, state, batch, patience)
        except OSError as error:
            if is_gone(fd, error):
                raise SinkRejected(len(batch.lines) - batch.whole(), f"{self.name}: {error}") from error
            batch.step_back()
            raise

    def _append(self, fd: int, data: bytes) -> None:
        """Append to a regular file; `write_now()` sees that this is not over, also where nobody waits for it any more."""
        self._appends = True
        try:
            self._appender.begin([data])
            self._appender.write(fd, 1)
        finally:
            self._appends = False

    def _in_turn(self, fd: int, state: os.stat_result, batch: Batch, patience: Patience, most: int = sys.maxsize) -> None:
        if self._place is None:
            self._place = place_in(meeting_place(self._run_dir))
        turn = Turn(self._place, key_of(state), shared=not stat.S_ISCHR(state.st_mode))
        try:
            try:
                if not turn.take(patience):
                    message = "another process or thread is writing to it"
                    raise SinkUnavailable(message)
                pour(Outlet(fd, most, pipe=stat.S_ISFIFO(state.st_mode)), batch, turn, patience)
            finally:
                turn.end()
        finally:
            turn.end()  # once more, in case an exception of a signal handler came before the first

    def _stream(self) -> Any:
        """Return the stream, or in place of a closed one that with which the program was started."""
        stream = getattr(sys, self.name)
        if stream is not None and not _is_closed(stream):
            return stream
        first = getattr(sys, f"__{self.name}__")
        if stream is None or first is None or _is_closed(first):
            raise _Gone(f"sys.{self.name} is {'None' if stream is None else 'closed'}")
        note(f"closed {self.name}", f"sys.{self.name} is closed: going on with sys.__{self.name}__")
        return first

    def _formed(self, lines: Sequence[bytes], stream: Any, fd: int | None) -> Sequence[bytes]:
        isatty = getattr(stream, "isatty", None)
        terminal = isatty is not None and bool(isatty())
        if self._form == "json" or (self._form == "auto" and not terminal):
            if fd is not None and not terminal:
                return lines
            encoding = _encoding_of(stream)
            return [json_in_ascii(json_for_terminal(line) if terminal else line, encoding) for line in lines]
        encoding = _encoding_of(stream)
        colours = wants_colours(os.environ, terminal=terminal)
        worker = self._beside_others or kin.several()
        texts = [shown(line, colours=colours, worker=worker, source=source_line) for line in lines]
        encoded = [text.encode(encoding, "backslashreplace") for text in texts]
        return encoded if fd is not None else [line.decode(encoding).encode("utf-8") for line in encoded]


class _Gone(OSError):
    """What the sink's name stands for is not there any more."""


def _is_closed(stream: Any) -> bool:
    return getattr(stream, "closed", False) is True


def _descriptor_of(stream: Any) -> int | None:
    """Return the descriptor of *stream*; None where it has none and takes text."""
    try:
        return int(stream.fileno())
    except (AttributeError, io.UnsupportedOperation):
        return None


def _encoding_of(stream: Any) -> str:
    """Return the encoding of *stream* if lines can be written in it, else UTF-8."""
    try:
        name = codecs.lookup(stream.encoding).name
        return name if "\n".encode(name) == b"\n" else "utf-8"
    except (AttributeError, LookupError, TypeError):
        return "utf-8"
