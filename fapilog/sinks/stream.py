"""
The stream sink: stdout or stderr, JSON lines or the console form.

Invariants, beside those of `sinks/base.py`:

1. It writes to the descriptor, past Python's buffers, on its own daemon thread: a full pipe stops that thread and nothing else.
2. It never changes the mode of the descriptor, which it shares with the rest of the program.
3. A stream without a descriptor (a test's `StringIO`) gets text through its own `write()`.
4. What goes to a terminal has no raw control character: in the console form it is shown as an escape, in JSON it is one. Anywhere
   else a JSON line is written as it is.
5. Whether the console form has colours and a column for the worker is asked before each write: a stream may be exchanged, and a
   process may fork.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, Any

from fapilog._internal import kin
from fapilog._internal.executor import SinkExecutor
from fapilog.errors import SinkUnavailable
from fapilog.sinks.base import LineWriter, write_or_unavailable
from fapilog.sinks.console import shown
from fapilog.sinks.sources import source_line
from fapilog.sinks.terminal import json_for_terminal, wants_colours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.identity import Identity
    from fapilog.typing import Event


class StreamSink:
    """
    Writes to stdout or stderr.

    Args:
        name: ``stdout`` or ``stderr``; also the name of the sink.
        form: ``json``, ``console``, or ``auto``: console on a terminal, JSON elsewhere.

    The console form is coloured as `terminal.wants_colours()` says, and names the worker where several processes of the program,
    or of its service, may write to the same terminal.
    """

    reads_lines = True
    lock_free = True
    retries_until_full = True

    def __init__(self, name: str = "stdout", *, form: str = "auto") -> None:
        self.name = name
        self._form = form
        self._writer = LineWriter()
        self._executor: SinkExecutor | None = None
        self._beside_others = False

    def fresh(self) -> StreamSink:
        """Return a sink of the same settings and no state, for another process or another opening."""
        return StreamSink(self.name, form=self._form)

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
        self._writer.give_up()

    async def write(self, events: Sequence[Event]) -> None:
        """Write *events* with one write."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._write, events)
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
        Write *lines* from the calling thread; wait *patience* seconds at most for room in a pipe.

        Raises:
            SinkUnavailable: It cannot be done now.
        """
        try:
            fd = self._descriptor()
            lines = self._formed(lines, fd)
            if fd is None:
                self._write_text(lines)
                return
            if stat.S_ISREG(os.fstat(fd).st_mode):
                write_or_unavailable(self._writer, fd, lines)
            else:
                self._write_in_pieces(fd, b"".join(lines), patience)
        except (OSError, ValueError) as error:
            raise SinkUnavailable(str(error)) from error

    def _write_in_pieces(self, fd: int, data: bytes, patience: float) -> None:
        """Write to a pipe or terminal no more at once than it has room for: `os.write` of more would wait for its reader."""
        if self._writer.busy:
            message = "a write is still in progress"
            raise SinkUnavailable(message)
        rest = memoryview(self._writer.mended(data))
        while rest:
            if not select.select([], [fd], [], patience)[1]:
                message = "nobody reads it"
                raise SinkUnavailable(message)
            written = os.write(fd, rest[: select.PIPE_BUF])
            self._writer.torn = rest[written - 1 : written].tobytes() != b"\n"
            rest = rest[written:]

    def _write(self, events: Sequence[Event]) -> None:
        fd = self._descriptor()
        lines = self._formed([event.line for event in events], fd)
        if fd is None:
            self._write_text(lines)
        else:
            self._writer.write(lines, lambda data: os.write(fd, data))

    def _write_text(self, lines: Sequence[bytes]) -> None:
        self._stream().write(b"".join(lines).decode("utf-8"))

    def _stream(self) -> Any:
        stream = getattr(sys, self.name)
        if stream is None:
            message = f"sys.{self.name} is None"
            raise OSError(message)
        return stream

    def _descriptor(self) -> int | None:
        """Return the stream's descriptor; None where it has none and takes text."""
        try:
            return int(self._stream().fileno())
        except (AttributeError, io.UnsupportedOperation):
            return None

    def _formed(self, lines: Sequence[bytes], fd: int | None) -> Sequence[bytes]:
        stream = getattr(sys, self.name)
        isatty = getattr(stream, "isatty", None)
        terminal = isatty is not None and bool(isatty())
        if self._form == "json" or (self._form == "auto" and not terminal):
            return [json_for_terminal(line) for line in lines] if terminal else lines
        colours = wants_colours(os.environ, terminal=terminal)
        worker = self._beside_others or kin.several()
        encoding = "utf-8" if fd is None else _encoding_of(stream)
        texts = [shown(line, colours=colours, worker=worker, source=source_line) for line in lines]
        return [text.encode(encoding, "backslashreplace") for text in texts]


def _encoding_of(stream: Any) -> str:
    """Return the encoding of *stream* if lines can be written in it, else UTF-8."""
    try:
        name = codecs.lookup(stream.encoding).name
        return name if "\n".encode(name) == b"\n" else "utf-8"
    except (AttributeError, LookupError, TypeError):
        return "utf-8"
