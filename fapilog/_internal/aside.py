"""
Files of the run directory that are not what their names say: moved aside, for somebody to look at.

Invariant: none is deleted, and there are never more of them than `MOST_ASIDE`; what comes then stays where it is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fapilog._internal.notes import note
from fapilog._internal.owner import owners_rights

if TYPE_CHECKING:
    from pathlib import Path

ASIDE = "aside-"
MOST_ASIDE = 16


def asides(run_dir: Path) -> list[str]:
    """Return the names of what was moved aside in *run_dir*."""
    try:
        return sorted(name for name in os.listdir(run_dir) if name.startswith(ASIDE))
    except OSError:
        return []


def put_aside(run_dir: Path, name: str) -> None:
    """Give the file *name* in *run_dir* another name, under which nobody takes it for a journal."""
    count = len(asides(run_dir))
    if count < MOST_ASIDE:
        with owners_rights():
            os.rename(run_dir / name, run_dir / (ASIDE + name))
        note(f"aside {name}", f"{run_dir / name} is no journal of this version and these sinks: moved aside ({count + 1})")
