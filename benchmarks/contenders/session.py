"""What a contender is while it is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.event import AS_KEYWORDS

if TYPE_CHECKING:
    from collections.abc import Callable


def nothing() -> None:
    """Do nothing."""


@dataclass
class Session:
    """
    A contender that is set up in this process.

    Args:
        log: Its logger.
        close: Returns when all that was logged is where it goes, and ends the contender.
        settle: Returns when all that was logged so far is where it goes, as far as the contender can say.
        call: How the event is logged.
        names: What the call needs beside ``log``.
        books: What it says itself of the events it refused and dropped; empty for one that says nothing.
        source: Version and place of what is measured.
    """

    log: Any
    close: Callable[[], object]
    settle: Callable[[], object] = nothing
    call: str = AS_KEYWORDS
    names: dict[str, Any] = field(default_factory=dict)
    books: Callable[[], dict[str, Any]] = field(default=dict)
    source: str = ""
