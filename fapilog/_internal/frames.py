"""The call stack of this thread: to a hook that is handed nothing, who is calling says it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


def frames() -> Iterator[FrameType]:
    """Return the frames above the function that calls this, the nearest first, whoever goes through them."""
    return _from(sys._getframe(1).f_back)  # noqa: SLF001 - as the standard library's logging does


def _from(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def module_of(frame: FrameType) -> str:
    """Return the name of the module whose code *frame* runs."""
    return str(frame.f_globals.get("__name__", ""))
