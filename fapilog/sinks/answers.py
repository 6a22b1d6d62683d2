"""
What a server's answer means for the events of a request: the part that all servers have in common.

Source: RFC 9110 for `Retry-After`. What each server means is said in `sinks/loki_answers.py` and `sinks/otlp_answers.py`.

Invariants:

1. No text of an answer comes out uncleaned or unbounded.
"""

from __future__ import annotations

import enum
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from fapilog.redaction import redaction

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SHOWN = 200  # characters of an answer's text


class Fate(enum.Enum):
    """What becomes of the events of a request."""

    STORED = enum.auto()
    REFUSED = enum.auto()  # some or all of them, for good
    TOO_MUCH = enum.auto()  # at once: in parts, perhaps
    AGAIN = enum.auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """
    Args:
        fate: Of the events.
        refused: How many are refused.
        reason: For the operator; clean and bounded.
        retry_after: Seconds that the server asks to wait, if it does.
    """

    fate: Fate
    refused: int = 0
    reason: str = ""
    retry_after: float | None = None


def reason_of(status: int, text: str) -> str:
    """Return for the operator what a server has answered."""
    return f"answer {status}: {shown(text)}".rstrip(": ")


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a `Retry-After`, in seconds or as a date; None for none, for the past and for what is neither."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", value):
        return float(value)
    wanted, now = _moment(value), _moment(headers.get("date", ""))  # by the server's own clock, if it says its time
    if wanted is None:
        return None
    seconds = wanted - (time.time() if now is None else now)
    return seconds if seconds >= 0 else None


def _moment(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def shown(text: str) -> str:
    """Return a text of others in one clean line, cut where it is long."""
    clean = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 4 * MAX_SHOWN]).split())
    clean = redaction.current.text(clean)
    return clean if len(clean) <= MAX_SHOWN else f"{clean[:MAX_SHOWN]}..."
