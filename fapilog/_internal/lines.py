"""What can be read off an encoded line without decoding it: its level."""

from __future__ import annotations

from fapilog.typing import LEVELS

LEVEL_AT = len('{"timestamp":"2026-11-25T10:00:00.000000Z","level":"')
INFO = LEVELS["info"]
NO_LEVEL = 0  # of a line that somebody has put together himself
_LEVEL_OF = {ord(name[0]): level for name, level in LEVELS.items()}  # the first letters differ


def level_in(line: bytes) -> int:
    """Return the number of the level of *line*, or `NO_LEVEL`."""
    return _LEVEL_OF.get(line[LEVEL_AT], NO_LEVEL) if len(line) > LEVEL_AT else NO_LEVEL
