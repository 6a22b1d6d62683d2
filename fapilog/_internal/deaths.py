"""
How processes died: notes that a parent leaves for whoever finds the row of its dead child on the board.

Invariants:

1. A note is named by the boot id of the life that it is about, so it can be about no other; it is used once and removed.
2. A note is there whole or not at all: it is written beside its place and renamed.
3. No path is made from what stands in a file: a boot id is hexadecimal, or there is no note.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from fapilog._internal import rundir
from fapilog._internal.native import close_fd
from fapilog._internal.owner import owners_rights
from fapilog._internal.records import Moment  # noqa: TC001 - pydantic reads the annotations

if TYPE_CHECKING:
    from pathlib import Path

MAX_NOTE_BYTES = 4096
UNKNOWN = "unknown"
_BOOT = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True, slots=True)
class Death:
    """
    How a process ended that did not close its hub.

    Args:
        signal: The name of the signal that ended it, such as ``SIGKILL``.
        exit_code: The code it left with, if no signal ended it.
        at: When that was noticed, in seconds since the epoch; 0 where nobody did.
    """

    signal: Annotated[str, Field(max_length=32)] | None = None
    exit_code: Annotated[int, Field(ge=-1, le=1 << 31)] | None = None
    at: Moment = 0.0

    @property
    def cause(self) -> str:
        """The signal's name, ``exit`` or ``unknown``: few enough to be a label."""
        return self.signal or (UNKNOWN if self.exit_code is None else "exit")


_ADAPTER = TypeAdapter(Death)


def death_of(status: int, at: float) -> Death:
    """Return the death that *status*, as of `os.waitpid()`, tells of."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return Death(signal=signal.Signals(number).name, at=at)
        except ValueError:
            return Death(signal=f"SIG{number}", at=at)
    return Death(exit_code=os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else None, at=at)


def leave_note(run_dir: Path, boot: str, death: Death) -> None:
    """
    Leave a note about the life *boot*.

    Raises:
        OSError: There is no room for it, or the directory is not ours.
    """
    name = _name(boot)
    if name is None:
        return
    fd = rundir.open_file(run_dir, name + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(fd, orjson.dumps(death))
    finally:
        close_fd(fd)
    with owners_rights():
        os.replace(run_dir / (name + ".new"), run_dir / name)


def take_note(run_dir: Path, boot: str) -> Death:
    """Return what the note about the life *boot* says, and remove it; without one, a death of which nothing is known."""
    name = _name(boot)
    if name is None:
        return Death()
    try:
        fd = rundir.open_file(run_dir, name, os.O_RDONLY)
        try:
            text = os.read(fd, MAX_NOTE_BYTES)
        finally:
            close_fd(fd)
        with owners_rights():
            os.unlink(run_dir / name)
        return _ADAPTER.validate_json(text)
    except (OSError, ValidationError, RecursionError):
        return Death()


def _name(boot: str) -> str | None:
    return f"died-{boot}" if _BOOT.fullmatch(boot) else None
