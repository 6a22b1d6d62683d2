"""
The board: a file in the run directory on which every process of a service shows its books.

Invariants:

1. A row is written by the process that holds the lock of its slot, one thread at a time, and read by anybody; what is read is one
   moment of that process (`sealed`).
2. Whether a process lives is what the slot lock says: a reader asks for it in a way that takes it from nobody.
3. Counters of a slot never fall, whoever holds it: its next process goes on from the totals of the last one.
4. A file that is not ours is moved aside, at most `MAX_ASIDE` of them are kept, and what does not parse is left out; both are
   said. Nothing raises into a log call, and nothing keeps a process from logging.
5. No descriptor is kept. What stands at the path is written to, whoever put it there; but where the slot's lock file is gone, the
   run directory is somebody else's by now, and is left alone.

The file has the version of its format in its name, so processes of different versions of fapilog do not meet on one board.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fapilog._internal import rundir, sealed
from fapilog._internal.native import close_fd
from fapilog._internal.notes import note
from fapilog._internal.owner import file_of, owners_rights
from fapilog._internal.records import Record, encode, parse, slimmer

if TYPE_CHECKING:
    from pathlib import Path

    from fapilog._internal.rundir import Slot

NAME = "board-1"
CONTROLS, FIRST_ROW = 1, 2  # places of blocks; the first one holds the mark of the format
MOST_BLOCKS = FIRST_ROW + rundir.MAX_SLOTS + 64
MAX_ASIDE = 4
MAKE_EVERY = 30.0  # seconds between two tries to make a board where one could not be made


class Row:
    """
    The row of a slot whose lock this process holds; see the invariants for who may call what.

    Args:
        slot: Held by this process, with a lock.

    Attributes:
        record: What stands there; *None* if that is nothing, or nothing that could be read.

    Raises:
        OSError: There is no room for it, or the run directory is not ours.
    """

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._place = FIRST_ROW + slot.number
        self._text = b""
        self._heads = b""
        self._asked = b""
        self._make_at = 0.0
        fd = open_board(slot.run_dir)
        try:
            text, unreadable = sealed.read_block(fd, self._place)
        finally:
            close_fd(fd)
        self.record: Record | None = parse(text) if text else None
        if unreadable or (text and self.record is None):
            note("board row", f"the row of worker {slot.number} on the board could not be read: its counters begin anew")

    def put(self, record: Record) -> None:
        """
        Let everybody see *record*.

        Raises:
            OSError: The board cannot be written.
            ValueError: The record is too large for it.
        """
        text = encode(record)
        if len(text) > sealed.ROOM_BYTES:
            text = encode(slimmer(record))
        self._write(text)
        self._text = text
        self.record = record

    def look(self) -> None:
        """
        See to it that what was published is what others find, and find what they ask for.

        Raises:
            OSError: The board cannot be read or written.
        """
        fd = self._opened()
        if fd < 0:
            return
        try:
            heads = sealed.heads(fd, CONTROLS)
            if heads != self._heads:
                text, unreadable = sealed.read_block(fd, CONTROLS)
                if not unreadable:
                    self._asked = text
                    self._heads = heads if sealed.heads(fd, CONTROLS) == heads else b""
            if self._text and sealed.read_block(fd, self._place)[0] != self._text:
                sealed.write_block(fd, self._place, self._text)
        finally:
            close_fd(fd)

    def asked(self) -> bytes:
        """Return what stood on the board about controls at the last `look()`; see `controls.parse()`."""
        return self._asked

    def _write(self, text: bytes) -> None:
        fd = self._opened()
        if fd < 0:
            return
        try:
            sealed.write_block(fd, self._place, text)
        finally:
            close_fd(fd)

    def _opened(self) -> int:
        """Return a descriptor of the board; -1 where the run directory is not ours any more, or a new board has to wait."""
        try:
            fd = rundir.open_file(self._slot.run_dir, NAME, os.O_RDWR)
            if os.pread(fd, len(sealed.MAGIC), 0) == sealed.MAGIC:
                return fd
            close_fd(fd)
        except FileNotFoundError:
            pass
        now = time.monotonic()
        if now < self._make_at or not self._holds():
            return -1
        self._make_at = now + MAKE_EVERY
        fd = open_board(self._slot.run_dir)
        self._make_at = 0.0
        return fd

    def _holds(self) -> bool:
        try:
            with owners_rights():
                path = self._slot.run_dir / f"slot-{self._slot.number}.lock"
                return file_of(os.stat(path, follow_symlinks=False)) == self._slot.file
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Seen:
    """
    A row as a reader finds it.

    Args:
        record: What it says.
        alive: Whether a process holds the slot.
    """

    record: Record
    alive: bool


def read_board(run_dir: Path) -> tuple[list[Seen], int]:
    """
    Return the rows of the board in *run_dir*, by slot, and how many could not be read.

    Any process and thread that may read the directory. No board is an empty one.

    Raises:
        OSError: It may not be read, or the directory is somebody else's.
    """
    try:
        fd = rundir.open_file(run_dir, NAME, os.O_RDONLY)
    except FileNotFoundError:
        return [], 0
    rows: list[Seen] = []
    damaged = 0
    try:
        for place in sealed.written_places(fd, MOST_BLOCKS):
            if place < FIRST_ROW:
                continue
            text, unreadable = sealed.read_block(fd, place)
            record = parse(text) if text else None
            if record is not None and record.worker == place - FIRST_ROW:
                rows.append(Seen(record, rundir.is_held(run_dir, record.worker)))
            elif text or unreadable:
                damaged += 1
    finally:
        close_fd(fd)
    return rows, damaged


def open_board(run_dir: Path) -> int:
    """
    Open the board of *run_dir* for reading and writing, a new one if there is none or if what is there is none of ours.

    Raises:
        OSError: That cannot be.
    """
    # One at a time: of two that find a wrong file, the second would move aside what the first has put in its place.
    with rundir.alone(run_dir, "board.lock"):
        for _ in range(2):
            fd = rundir.open_file(run_dir, NAME, os.O_RDWR | os.O_CREAT)
            try:
                if _is_board(fd):
                    return fd
                _move_aside(run_dir)
            except BaseException:
                close_fd(fd)
                raise
            close_fd(fd)
    raise FileExistsError(17, "something stands in the place of the board")


def _is_board(fd: int) -> bool:
    """Whether *fd* is a board; an empty file becomes one."""
    head = os.pread(fd, sealed.BLOCK_BYTES, 0)
    if head.startswith(sealed.MAGIC):
        return True
    if head.strip(b"\0") and not any(sealed.read_block(fd, place)[0] for place in sealed.written_places(fd, MOST_BLOCKS)):
        return False
    os.pwrite(fd, sealed.MAGIC, 0)  # empty, or ours with a few bytes changed
    return True


def _move_aside(run_dir: Path) -> None:
    names = [f"{NAME}.aside-{number}" for number in range(MAX_ASIDE)]
    with owners_rights():
        free = next((name for name in names if not os.path.lexists(run_dir / name)), names[-1])
        os.replace(run_dir / NAME, run_dir / free)
    note("board aside", f"{run_dir / NAME} is not a board of this version; it is {free} now")
