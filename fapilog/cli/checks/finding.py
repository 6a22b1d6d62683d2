"""A finding: what a check has to say, in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "ok"]


@dataclass(frozen=True, slots=True)
class Finding:
    """
    What one check has found.

    Args:
        severity: ``error`` is wrong and has to be changed; ``warning`` is wrong under conditions that the text names, or costs
            something; ``ok`` was looked at and is right.
        check: The name of the check.
        found: What is so, and what comes of it.
        change: What to change; empty where nothing has to be.
    """

    severity: Severity
    check: str
    found: str
    change: str = ""


def error(check: str, found: str, change: str) -> Finding:
    """Return what has to be changed."""
    return Finding("error", check, found, change)


def warning(check: str, found: str, change: str) -> Finding:
    """Return what may have to be changed."""
    return Finding("warning", check, found, change)


def fine(check: str, found: str) -> Finding:
    """Return what is right."""
    return Finding("ok", check, found)


def several(number: int, one: str, many: str = "") -> str:
    """Return ``1 worker``, ``4 workers``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: tuple[str, ...] | list[str], most: int = 4) -> str:
    """Return the first few of *names*, and how many more there are."""
    more = len(names) - most
    return ", ".join([*names[:most], *([f"{more} more"] if more > 0 else [])])
