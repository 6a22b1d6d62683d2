"""
The file sink: every process appends to a file of its own, and rotates it.

Invariants:

1. The descriptor belongs to the process that opened it: it is opened after a fork, never inherited for use.
2. Blocking calls (`mkdir`, `open`, `write`, `rename`) run on this sink's own daemon thread; a FIFO without a reader or a dead
   mount stops that thread and nothing else.
3. A file that ends in half a line, left by a process that died or ran out of disk, gets its newline before the next line.
4. `write_now()` waits for a write of the thread no longer than it is told, and then refuses; it opens with `O_NONBLOCK`.
5. What somebody else does to the file (rename, remove, empty) is noticed within `LOOK_EVERY_S` and at `reopen()`. A file that can
   still be found somewhere is written on when no other can be opened; one that cannot takes no more lines.

While the hub drains, writes keep going through the same thread: it exists already, so nothing new must be started at
interpreter exit, and one stuck file cannot hold up the drain of the other sinks. aiofiles opens and closes; its `write` is a call
of ours on the same executor: of a stuck write that the drain gives up, only its thread knows when the bytes are on their way.
"""

from __future__ import annotations

import asyncio
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiofiles

from fapilog._internal.compressor import Compressor
from fapilog._internal.executor import SinkExecutor
from fapilog._internal.native import came
from fapilog._internal.notes import note
from fapilog.errors import ConfigurationError, SinkUnavailable
from fapilog.identity import HUB_FIELDS
from fapilog.sinks.base import Appender
from fapilog.sinks.home import Home
from fapilog.sinks.late import LateWriter
from fapilog.sinks.put_back import put_back
from fapilog.sinks.rotation import RotationPolicy
from fapilog.sinks.written import WrittenFile, ends_torn, open_below

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fapilog.identity import Identity
    from fapilog.sinks.rotation import Rotator
    from fapilog.typing import Event


class _Step(Enum):
    """What has to be done before the rest of a batch is written."""

    NOTHING = 0
    FIND = 1  # the path leads to another file
    TURN = 2  # the file has to be rotated


class FileSink:
    """
    Appends JSON lines to one file per process.

    Args:
        path: A template; ``{service}``, ``{env}``, ``{host}``, ``{worker}`` and ``{pid}`` are filled in per process. A relative
            path is taken from the working directory at set-up. Missing directories are made.
        name: Of the sink.
        max_bytes: The size at which the file is rotated; 0 for never.
        rotate_every: When it is: ``midnight``, a period such as ``30s``, ``15m``, ``1h``, ``1d``, or nothing for never.
        keep: How many rotated files stay.
        compress: Of rotated files: ``none`` or ``gzip``.

    Raises:
        ConfigurationError: One of them is something else.
    """

    lock_free = True
    retries_until_full = True
    batch_bytes = 4 << 20  # after a write its thread waits for the GIL, 5 ms in a flood: with less it would fall behind

    def __init__(
        self,
        path: str | os.PathLike[str] = "logs/{service}.{worker}.jsonl",
        *,
        name: str = "file",
        max_bytes: int = 0,
        rotate_every: str = "",
        keep: int = 7,
        compress: str = "none",
    ) -> None:
        self.name = name
        try:
            os.fspath(path).format_map(dict.fromkeys(HUB_FIELDS[:-1], ""))
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            message = f"path: {os.fspath(path)!r} is no template of {', '.join(HUB_FIELDS[:-1])}: {error!r}"
            raise ConfigurationError(message) from error
        here = str(Path.cwd()).replace("{", "{{").replace("}", "}}")
        self.template = str(Path(here) / path)
        self.target = self.template
        self.policy = RotationPolicy(max_bytes, rotate_every, keep, compress)
        self.path: Path | None = None
        self._home = Home(self.policy)
        self._appender = Appender()
        self._compressor = Compressor(f"fapilog-{name}-gzip")
        self._executor: SinkExecutor | None = None
        self._file: WrittenFile | None = None
        self._late = LateWriter(self._home, self._appender)
        self._opened = False
        self._engaged = False

    def fresh(self) -> FileSink:
        """Return a sink of the same settings and no state, for another process or another opening."""
        policy = self.policy
        return FileSink(
            self.template,
            name=self.name,
            max_bytes=policy.max_bytes,
            rotate_every=policy.every,
            keep=policy.keep,
            compress=policy.compress,
        )

    def bind(self, identity: Identity) -> None:
        """Fill in the path for the process that *identity* describes; no I/O."""
        self.path = Path(self._path_of(identity))
        self._home.settle(str(self.path), identity)

    def _path_of(self, identity: Identity) -> str:
        fields = identity.fields()
        return str(Path(self.template.format(**{name: str(fields[name]).replace("/", "_") for name in fields})))

    def prepare(self) -> None:
        """Start the sink's thread, while that is still allowed: 3.12 starts none once the main thread has ended."""
        if self._executor is None:
            self._executor = SinkExecutor(f"fapilog-{self.name}")
        self._executor.start()

    def check(self, identity: Identity) -> None:
        """
        Try at set-up whether the file can be written, for `FAPILOG_FILE_STRICT`.

        Raises:
            ConfigurationError: Naming the path.
        """
        self.bind(identity)
        self._home.check()

    async def open(self, identity: Identity) -> None:
        """
        Open the file on the sink's own thread.

        Raises:
            SinkUnavailable: It cannot be opened now.
        """
        self.prepare()
        self.bind(identity)
        self._opened = True
        self._compressor = Compressor(f"fapilog-{self.name}-gzip")
        self._appender.give_up()
        await self._open_or_unavailable()

    async def reopen(self) -> None:
        """
        Open the file under its name again, as after a rotation by somebody else; keep what is open if that fails.

        Raises:
            SinkUnavailable: It cannot be opened now.
        """
        self._late.release()
        await self._open_or_unavailable()

    async def _open_or_unavailable(self) -> None:
        try:
            await self._open_file()
        except OSError as error:
            raise self._unavailable(error) from error

    async def write(self, events: Sequence[Event]) -> None:
        """Append *events*; see `write_lines()`."""
        await self.write_lines([event.line for event in events])

    async def write_lines(self, lines: Sequence[bytes]) -> None:
        """
        Append *lines*, with one write for each file they go into.

        Raises:
            SinkUnavailable: The file does not take them now; what is written of them is known when they come again.
        """
        try:
            while (step := await self._on_thread(self._advance, lines)) is not _Step.NOTHING:
                await (self._turn() if step is _Step.TURN else self._find())
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> SinkUnavailable:
        return SinkUnavailable(f"{self.path}: {error.strerror or error}")

    async def _on_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._engage, call, *arguments)

    def _engage(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call on the sink's thread; `write_now()` sees that this is not over, also where nobody waits for it any more."""
        self._engaged = True
        try:
            return call(*arguments)
        finally:
            self._engaged = False

    async def _open_file(self) -> None:
        path = await self._on_thread(self._home.claim)
        file = await aiofiles.open(path, "ab", buffering=0, opener=open_below, executor=self._executor)
        opened = WrittenFile(file, file.fileno(), path)
        try:
            await self._on_thread(self._take_up, opened, self._file)
        except BaseException:
            await file.close()
            raise
        await self._replace(opened)

    async def _replace(self, opened: WrittenFile) -> None:
        before, self._file, self.path = self._file, opened, Path(opened.path)
        if before is not None:
            await before.file.close()

    def _take_up(self, opened: WrittenFile, before: WrittenFile | None) -> None:
        """Get to know a file that was just opened, after *before*."""
        moved = before is not None and not os.path.samestat(os.fstat(before.fd), os.fstat(opened.fd))
        rotator = self._home.rotator
        if rotator is not None:
            rotator.begin(opened.fd, moved=moved)
            self._compressor.add(rotator.to_compress())
        if before is None or moved:
            torn = ends_torn(opened.path, opened.fd)
            self._appender.elsewhere(torn=self._appender.torn if torn is None else torn)

    def _advance(self, lines: Sequence[bytes]) -> _Step:
        """Write what the open file takes of *lines*."""
        file, appender, rotator = self._file, self._appender, self._home.rotator
        assert file is not None
        if file.is_due():
            if file.is_elsewhere():
                return _Step.FIND
            self._mind_emptying(file)
        appender.begin(lines)
        end = len(lines) if rotator is None else rotator.end(file.fd, lines, appender.done, appender.cut)
        if end > appender.done:
            appender.write(file.fd, end)
            if rotator is not None:
                rotator.wrote(lines[end - 1])
        return _Step.NOTHING if end == len(lines) else _Step.TURN

    def _mind_emptying(self, file: WrittenFile) -> None:
        if file.was_emptied():
            self._appender.elsewhere(torn=bool(ends_torn(file.path, file.fd)))
            if self._home.rotator is not None:
                self._home.rotator.begin(file.fd, moved=True)

    async def _find(self) -> None:
        """Open what the path leads to now; if that fails, go on in a file that can still be found somewhere."""
        try:
            await self._open_file()
        except OSError as error:
            assert self._file is not None
            if not await self._on_thread(self._file.has_a_name):
                self._file.look_soon()
                raise
            note(f"find {self.name}", f"{self.path} was moved, and no new one can be opened: {error.strerror or error}")

    async def _turn(self) -> None:
        """Rotate; if that fails, go on in the file as it is."""
        rotator = self._home.rotator
        if rotator is None:  # given up meanwhile
            return
        family = rotator.family
        try:
            file = await aiofiles.open(family.successor, "ab", buffering=0, opener=open_below, executor=self._executor)
            opened = WrittenFile(file, file.fileno(), family.path)
            try:
                turned = await self._on_thread(self._exchange, rotator, self._file, opened)
            except BaseException:
                await file.close()
                raise
            await (self._replace(opened) if turned else file.close())
        except OSError as error:
            rotator.postpone()
            note(f"rotate {self.name}", f"{family.path} cannot be rotated now: {error.strerror or error}")

    def _exchange(self, rotator: Rotator, before: WrittenFile, opened: WrittenFile) -> bool:
        """Put *opened* in the place of *before*; return False where somebody else has done something like that."""
        if before.is_elsewhere():
            before.look_soon()
            return False
        rotator.turn(before.fd, opened.fd, torn=self._appender.torn)
        self._appender.elsewhere(torn=False)
        self._compressor.add(rotator.to_compress(newest=True))
        return True

    async def close(self) -> None:
        """Close the file, after whatever its thread is still doing."""
        file, self._file = self._file, None
        self._compressor.stop()  # as soon as possible, also if the sink's thread is stuck
        try:
            if file is not None:
                await file.file.close()
            if self._executor is not None:
                await self._on_thread(self._let_go)
            self._opened = False
        finally:
            self._end_thread()

    def _let_go(self) -> None:
        """Let others have the files; not before the written one is closed, nor if its thread is stuck."""
        self._compressor.tidy()
        self._home.release()

    def retire(self) -> None:
        """End the thread of a sink that could not be opened."""
        self._opened = False
        self._end_thread()

    def _end_thread(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()

    def write_now(self, lines: Sequence[bytes], patience: float = 0.0) -> None:
        """
        Append *lines* from the calling thread; opens the file anew when it has been closed, and rotates it, but compresses none.

        Args:
            lines: Whole ones.
            patience: How long to wait for another thread that is at the file, in seconds.

        Raises:
            SinkUnavailable: It cannot be done now.
        """
        if self._engaged and not came(lambda: not self._engaged, patience):
            raise SinkUnavailable("a write is still in progress")
        try:
            self._late.write(lines, patience)
        except OSError as error:
            raise self._unavailable(error) from error

    def put_back(self, identity: Identity, lines: Mapping[int, bytes], since: float) -> int | None:
        """Append those of *lines*, by seq, of the dead process *identity* that are in none of its files."""
        return put_back(self._path_of(identity), identity, lines, since, locked=self.policy.rotates)

    def release(self) -> None:
        """Let go of what `write_now()` opened; any thread."""
        self._late.release()
        if not self._opened:
            self._home.release()
