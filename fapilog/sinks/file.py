"""
The file sink: every process appends to a file of its own.

Invariants, beside those of `sinks/base.py`:

1. The descriptor belongs to the process that opened it: it is opened after a fork, never inherited for use.
2. Blocking calls (`mkdir`, `open`, `write`) run on this sink's own daemon thread; a FIFO without a reader or a dead mount stops
   that thread and nothing else.
3. A file that ends in half a line, left by a process that died or ran out of disk, gets its newline before the next line.
4. `write_now()` never waits: it opens with `O_NONBLOCK` and refuses while the thread is inside a write.

While the hub drains, writes keep going through the same thread: it exists already, so nothing new must be started at
interpreter exit, and one stuck file cannot hold up the drain of the other sinks. The file is opened and closed through aiofiles;
its `write` is one call of ours on the same executor, because when the drain gives a stuck write up, only the thread inside it
knows that the bytes are still on their way (`LineWriter.busy`).
"""

from __future__ import annotations

import asyncio
import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiofiles

from fapilog._internal.executor import SinkExecutor
from fapilog._internal.owner import make_directory, owners_rights
from fapilog.errors import ConfigurationError, SinkUnavailable
from fapilog.identity import HUB_FIELDS
from fapilog.sinks.base import LineWriter, write_or_unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.identity import Identity
    from fapilog.typing import Event

MODE = 0o644
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class FileSink:
    """
    Appends JSON lines to one file per process.

    Args:
        path: A template; ``{service}``, ``{env}``, ``{host}``, ``{worker}`` and ``{pid}`` are filled in per process. A relative
            path is taken from the working directory at set-up. Missing directories are made.
        name: Of the sink.
    """

    reads_lines = True
    lock_free = True
    retries_until_full = True

    def __init__(self, path: str | os.PathLike[str] = "logs/{service}.{worker}.jsonl", *, name: str = "file") -> None:
        self.name = name
        try:
            os.fspath(path).format_map(dict.fromkeys(HUB_FIELDS[:-1], ""))
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            message = f"path: {os.fspath(path)!r} is no template of {', '.join(HUB_FIELDS[:-1])}: {error!r}"
            raise ConfigurationError(message) from error
        here = str(Path.cwd()).replace("{", "{{").replace("}", "}}")
        self.template = str(Path(here) / path)
        self.path: Path | None = None
        self._writer = LineWriter()
        self._executor: SinkExecutor | None = None
        self._file: Any = None
        self._fd = -1
        self._late: io.FileIO | None = None

    def fresh(self) -> FileSink:
        """Return a sink of the same settings and no state, for another process or another opening."""
        return FileSink(self.template, name=self.name)

    def bind(self, identity: Identity) -> None:
        """Fill in the path for the process that *identity* describes; no I/O."""
        fields = identity.fields()
        self.path = Path(self.template.format(**{name: str(fields[name]).replace("/", "_") for name in fields}))

    def prepare(self) -> None:
        """Start the sink's thread, while that is still allowed: 3.12 starts none once the main thread has ended."""
        if self._executor is None:
            self._executor = SinkExecutor(f"fapilog-{self.name}")
        self._executor.start()

    def _path(self) -> Path:
        if self.path is None:
            message = "the sink does not know its file yet"
            raise SinkUnavailable(message)
        return self.path

    def check(self, identity: Identity) -> None:
        """
        Try at set-up whether the directory can be written, for `FAPILOG_FILE_STRICT`.

        Raises:
            ConfigurationError: Naming the path.
        """
        self.bind(identity)
        path = self._path()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"FAPILOG_FILE_PATH: cannot make the directory of {path}: {error.strerror}"
            raise ConfigurationError(message) from error
        target = path if path.exists() else path.parent
        if not os.access(target, os.W_OK):
            message = f"FAPILOG_FILE_PATH: {target} cannot be written; FAPILOG_FILE_STRICT asks for that at set-up"
            raise ConfigurationError(message)

    async def open(self, identity: Identity) -> None:
        """Open the file on the sink's own thread."""
        self.prepare()
        self.bind(identity)
        self._writer.give_up()
        await self._open_file()

    async def _open_file(self) -> None:
        file = await aiofiles.open(self._path(), "ab", buffering=0, opener=_open_below, executor=self._executor)
        before, self._file, self._fd = self._file, file, file.fileno()
        if before is not None:
            await before.close()
        await asyncio.get_running_loop().run_in_executor(self._executor, self._look_at_the_end, self._fd)

    async def reopen(self) -> None:
        """
        Open the file under its name again, as after a rotation by somebody else; keep what is open if that fails.

        Between two writes only: the file may be another one then, and half a batch must not be continued in it.
        """
        self._late = None
        await self._open_file()

    async def write(self, events: Sequence[Event]) -> None:
        """Append *events* with one write."""
        lines = [event.line for event in events]
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._write, lines)
        except OSError as error:
            message = f"{self.path}: {error.strerror}"
            raise SinkUnavailable(message) from error

    def _write(self, lines: Sequence[bytes]) -> None:
        fd = self._fd
        self._writer.write(lines, lambda data: os.write(fd, data))

    async def close(self) -> None:
        """Close the file, after whatever its thread is still doing."""
        file, self._file = self._file, None
        executor, self._executor = self._executor, None
        try:
            if file is not None:
                await file.close()
        finally:
            if executor is not None:
                executor.shutdown()

    def write_now(self, lines: Sequence[bytes], patience: float = 0.0) -> None:
        """
        Append *lines* from the calling thread, without waiting; opens the file anew when it has been closed.

        Raises:
            SinkUnavailable: It cannot be done now.
        """
        late = self._late
        if late is None:
            late = self._late = self._open_late()
        write_or_unavailable(self._writer, late.fileno(), lines)

    def release(self) -> None:
        """
        Let go of what `write_now()` opened.

        The file object is dropped, not closed: a thread that is about to write through it holds a reference, and the last one
        closes it. A bare descriptor could belong to somebody else's file by then.
        """
        self._late = None

    def retire(self) -> None:
        """End the thread of a sink that was never opened."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()

    def _open_late(self) -> io.FileIO:
        try:
            fd = _open_below(str(self._path()), _FLAGS | os.O_NONBLOCK)
            self._look_at_the_end(fd)
            return _QuietFile(fd, "ab")
        except OSError as error:
            message = f"{self.path}: {error.strerror}"
            raise SinkUnavailable(message) from error

    def _look_at_the_end(self, fd: int) -> None:
        """Find out whether the file ends in half a line, left by a life before this one."""
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            return
        self._writer.torn = False
        if not state.st_size:
            return
        try:
            reader = os.open(self._path(), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # write-only for us: the next line goes to the end as it is
            return
        try:
            self._writer.torn = os.pread(reader, 1, state.st_size - 1) not in (b"", b"\n")
        finally:
            os.close(reader)


class _QuietFile(io.FileIO):
    """A file that closes itself without a warning when the last writer lets go of it."""

    def __del__(self) -> None:
        self.close()


def _open_below(name: str, flags: int) -> int:
    """Open *name*, making its directory if it is missing."""
    try:
        return _open_as_owner(name, flags)
    except FileNotFoundError:
        make_directory(Path(name).parent)
        return _open_as_owner(name, flags)


def _open_as_owner(name: str, flags: int) -> int:
    with owners_rights():
        return os.open(name, flags | os.O_CLOEXEC, MODE)
