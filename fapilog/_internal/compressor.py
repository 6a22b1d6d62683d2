"""
Compresses files in the background, slowly.

Invariants:

1. At every moment a file's content is there whole: as it was, or compressed under its final name, which it gets by a rename after
   everything is on the disk. In between there may be both; after a kill there, `Family.tidy()` removes the older form at the next
   start, and `Compressor.tidy()`, at the end of a process, waits for that moment to pass.
2. What waits for this thread is nobody else: it is a daemon of the lowest priority that sleeps as long as it works, and a stop
   ends it after the piece it is at.
3. Each try has a temporary file of its own, so that two processes at one file, of which one has just let go of it, never meet.
   None is made after `tidy()`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fapilog._internal.native import SimpleQueue, nap, new_lock, start_thread
from fapilog._internal.notes import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from io import BufferedWriter, FileIO

PIECE_BYTES = 256 << 10
LONGEST_NAP_S = 0.1
_GZIP_FORM = 16 + zlib.MAX_WBITS
_LOWEST_PRIORITY = 19


@dataclass(frozen=True, slots=True)
class Compression:
    """
    What is to be done for one file.

    Args:
        path: Of the file.
        passing: Where its compressed form is made; nobody else's.
        finish: Puts that in the place of the file.
    """

    path: str
    passing: str
    finish: Callable[[], None]


class Compressor:
    """
    A thread that is there from the first file on.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Compression | None] = SimpleQueue()
        self._started = False
        self._stopped = False
        self._passing = ""
        self._making = new_lock()

    def add(self, jobs: Iterable[Compression]) -> None:
        """Compress, some time later; one thread at a time."""
        for job in jobs:
            self._jobs.put(job)
            if not self._started:
                try:
                    start_thread(self._run, self._name)
                except RuntimeError:  # the interpreter is ending (3.12): the next process of this file does it
                    return
                self._started = True

    def stop(self) -> None:
        """Let the thread end after the piece it is at; what is left is done after the next start."""
        self._stopped = True
        self._jobs.put(None)

    def tidy(self) -> None:
        """After `stop()`: remove what is half made, which the thread may not live to do, and let it finish what is whole."""
        with self._making:
            if self._passing:
                _remove(self._passing)

    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere the priority belongs to the process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        while (job := self._jobs.get()) is not None and not self._stopped:
            try:
                self._compress(job)
            except FileNotFoundError:  # retention, or another process, was here first
                continue
            except OSError as error:
                note(f"compress {self._name}", f"{job.path} was not compressed: {error.strerror}")

    def _compress(self, job: Compression) -> None:
        with open(job.path, "rb", buffering=0) as source:
            mode = os.fstat(source.fileno()).st_mode & 0o775
            with self._making:
                if self._stopped:
                    return
                self._passing = job.passing
                fd = os.open(job.passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with open(fd, "wb") as target:
                    read = self._copy(source, target)
                    target.flush()
                    os.fchmod(fd, mode)
                    os.fsync(fd)
                with self._making:  # so that whoever tidies up, and ends the process, leaves one form of the file and not both
                    if self._stopped or os.fstat(source.fileno()).st_size != read:
                        os.unlink(job.passing)
                    else:
                        job.finish()
            except OSError:
                _remove(job.passing)
                raise

    def _copy(self, source: FileIO, target: BufferedWriter) -> int:
        """Copy all of *source*, compressed, unless stopped; return how many bytes were read."""
        packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP_FORM)
        read = 0
        while not self._stopped:
            began = time.monotonic()
            piece = source.read(PIECE_BYTES)
            if not piece:
                break
            read += len(piece)
            target.write(packer.compress(piece))
            nap(min(LONGEST_NAP_S, time.monotonic() - began))
        target.write(packer.flush())
        return read


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
