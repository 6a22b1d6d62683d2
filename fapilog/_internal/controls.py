"""
Levels that somebody has asked all processes of a service for, from outside and for a while.

Invariants:

1. A control holds until its time is over by the clock that runs evenly or by the wall clock, whichever is first: neither a
   reboot nor a clock that is set back keeps it for ever.
2. Writers take turns by a lock that the kernel drops with them; what is read is whole (`sealed`) and checked.
3. A newer control for the same logger and worker takes the place of an older one; at most `MAX_CONTROLS` are kept.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from fapilog._internal import board, rundir, sealed
from fapilog._internal.native import close_fd
from fapilog._internal.records import Count, Moment, Text  # noqa: TC001 - pydantic reads the annotations
from fapilog.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

MAX_CONTROLS, MAX_LOGGER_BYTES = 24, 256  # so that they fit into a block
FOREVER = 1e11  # seconds
Level = Annotated[int, Field(ge=0, le=1000, strict=True)]


@dataclass(frozen=True, slots=True)
class Control:
    """
    A level that is asked for.

    Args:
        level: As a number of the standard library.
        logger: Whose; empty for the default level.
        worker: The slot that is meant; *None* for all.
        until: On the wall clock, in seconds since the epoch.
        until_even: The same on the monotonic clock, which all processes of a machine share.
    """

    level: Level
    logger: Text = ""
    worker: Count | None = None
    until: Moment = FOREVER
    until_even: Moment = FOREVER

    def holds(self) -> bool:
        """Whether its time is not over."""
        return time.time() < self.until and time.monotonic() < self.until_even


_ADAPTER = TypeAdapter(Control)


def parse(text: bytes) -> list[Control]:
    """Return the controls that *text* has, those whose time is over left out; none if it is not whole."""
    try:
        found = orjson.loads(text or b"[]")
    except orjson.JSONDecodeError:
        return []
    controls = (_control(each) for each in (found if isinstance(found, list) else ()))
    return [control for control in controls if control is not None and control.holds()]


def _control(found: object) -> Control | None:
    """Return what is asked for by one entry; another one that is not understood takes nothing from it."""
    try:
        return _ADAPTER.validate_python(found)
    except (ValidationError, RecursionError):
        return None


def asked_for(run_dir: Path) -> list[Control]:
    """
    Return what the processes of *run_dir* are asked for now.

    Raises:
        OSError: The directory may not be read.
    """
    try:
        fd = rundir.open_file(run_dir, board.NAME, os.O_RDONLY)
    except FileNotFoundError:
        return []
    try:
        return parse(sealed.read_block(fd, board.CONTROLS)[0])
    finally:
        close_fd(fd)


def ask(run_dir: Path, level: int, *, logger: str = "", worker: int | None = None, seconds: float | None = None) -> None:
    """
    Ask all processes that meet in *run_dir*, or the one in slot *worker*, for a level, for so many seconds or until `withdraw()`.

    Raises:
        ConfigurationError: The name of the logger is longer than `MAX_LOGGER_BYTES`, or cannot be shown.
        OSError: The directory is not ours, or there is no room.
    """
    if len(logger.encode("utf-8", "replace")) > MAX_LOGGER_BYTES or not logger.isprintable():
        raise ConfigurationError(f"the name of a logger must be printable and have at most {MAX_LOGGER_BYTES} bytes")
    until = FOREVER if seconds is None else min(FOREVER, time.time() + seconds)
    even = FOREVER if seconds is None else min(FOREVER, time.monotonic() + seconds)
    _change(run_dir, logger, worker, [Control(level, logger, worker, until, even)])


def withdraw(run_dir: Path, *, logger: str = "", worker: int | None = None) -> None:
    """
    Take back what was asked for with the same *logger* and *worker*.

    Raises:
        OSError: The directory is not ours, or there is no room.
    """
    _change(run_dir, logger, worker, [])


def _change(run_dir: Path, logger: str, worker: int | None, instead: list[Control]) -> None:
    with rundir.alone(run_dir, "controls.lock"):
        fd = board.open_board(run_dir)
        try:
            text, _ = sealed.read_block(fd, board.CONTROLS)
            others = [each for each in parse(text) if (each.logger, each.worker) != (logger, worker)]
            sealed.write_block(fd, board.CONTROLS, orjson.dumps([*others, *instead][-MAX_CONTROLS:]))
        finally:
            close_fd(fd)
