"""
Keeps a program that is only looked at from leaving traces: no hub, no lines, no files of its log handlers.

For a process of its own that ends with the look: nothing here can be taken back.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import IO, Any

from fapilog._internal.native import close_fd
from fapilog._internal.route import route
from fapilog.coordinator import coordinator
from fapilog.sinks.file import FileSink


def quieten() -> None:
    """Let the program set up what it wants, and let nothing come out of it."""
    # The one place that all starts of a hub come through, in a forked child too.
    setattr(coordinator, "_claim_and_start", _nothing)  # noqa: B010 - a method of this one object
    route.accept = _taken  # or they would wait, in ever more memory
    setattr(FileSink, "check", _nothing)  # noqa: B010 - `FAPILOG_FILE_STRICT` would make the directories
    setattr(logging.Logger, "callHandlers", _nothing)  # noqa: B010 - also what a handler would send somewhere
    setattr(logging.FileHandler, "_open", _open_nothing)  # noqa: B010


def _nothing(*_: object) -> None:
    pass


def _taken(_levelno: int, _head: bytes) -> bool:
    return True


def _open_nothing(handler: logging.FileHandler) -> IO[Any]:
    """
    Return a stream that leads nowhere, if the file of *handler* could be opened for writing.

    Raises:
        OSError: It could not, which would end the program's import, too.
    """
    path = Path(handler.baseFilename)
    if path.is_file():
        close_fd(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK))
    elif not path.exists() and not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), handler.baseFilename)
    elif not path.exists() and not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), handler.baseFilename)
    return open(os.devnull, "w", encoding="utf-8")
