"""
The levels of the standard library's loggers, so that records which `FAPILOG_LEVEL` wants are made at all.

Invariants:

1. No logger's level is ever above what it is without us. A root level other than WARNING, the default, is the user's word.
2. A level that we set has a mark that remembers the one before (`_Level`), and is put back from it. One that anybody sets later
   has no mark: it stays, and is what we start from.
3. The root's level is lowered only while no other handler would get more lines by that. A rule that names a logger is the user's
   word for that logger, and lowers its level in any case.
4. While levels change, no record that both the old and the new ones let through is lost.

Nothing here runs at a log call: the standard library compares the levels itself.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from fapilog.stdlib import HubHandler

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Level(int):
    """
    A level that we set on a logger.

    Attributes:
        natural: The one that was there before.
    """

    natural: int

    @classmethod
    def over(cls, current: int, wanted: int) -> Self:
        """Return *wanted*, to be set in place of *current*."""
        made = cls(wanted)
        made.natural = _natural(current)
        return made


def _natural(level: int) -> int:
    return level.natural if isinstance(level, _Level) else level


def follow(rules: dict[str, int]) -> None:
    """
    Set the levels that *rules* need and put back those that they do not; any thread.

    Args:
        rules: Levels by logger name, ``""`` for the root; empty puts everything back.
    """
    wanted = _wanted(rules)
    for logger, level in wanted.items():  # first, so that what is open before and after is open in between
        if not (isinstance(logger.level, _Level) and logger.level == level):
            logger.setLevel(_Level.over(logger.level, level))
    for logger in _loggers():
        if isinstance(logger.level, _Level) and logger not in wanted:
            logger.setLevel(_natural(logger.level))


def _wanted(rules: dict[str, int]) -> dict[logging.Logger, int]:
    """Return the loggers whose level has to be ours, from the root down, so that a rule sees what those above it have opened."""
    wanted: dict[logging.Logger, int] = {}
    for name, rule in sorted(rules.items()):
        logger = logging.getLogger(name or None)
        level = natural = _effective(logger, {})
        if name or (natural == logging.WARNING and not _others_would_get_more()):
            level = min(natural, max(rule, 1))  # 0 would mean: ask the parent
        if _effective(logger, wanted) != level:
            wanted[logger] = level
    return wanted


def _effective(logger: logging.Logger | None, wanted: dict[logging.Logger, int]) -> int:
    """Return the effective level of *logger* if ours were those of *wanted* only."""
    while logger is not None:
        level = wanted.get(logger) or _natural(logger.level)
        if level:
            return level
        logger = logger.parent
    return logging.NOTSET


def _others_would_get_more() -> bool:
    """Whether a handler not ours is on the root, or on a logger that has its level from there."""
    for logger in _loggers():
        others = [each for each in logger.handlers if not isinstance(each, HubHandler | logging.NullHandler)]
        if any(each.level < logging.WARNING for each in others) and _has_the_roots_level(logger):
            return True
    return False


def _has_the_roots_level(logger: logging.Logger | None) -> bool:
    while logger is not None and logger is not logging.root:
        if _natural(logger.level):
            return False
        logger = logger.parent
    return True


def _loggers() -> Iterator[logging.Logger]:
    yield logging.root
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger
