"""Which service is meant: its run directory, from options, the environment, or because there is only one."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fapilog._internal.board import NAME
from fapilog._internal.overview import overview
from fapilog._internal.rundir import known_run_dirs
from fapilog.cli.shown import duration
from fapilog.errors import ConfigurationError

RULE = "choose with --run-dir DIRECTORY or --service NAME"


def chosen(run_dir: Path | None, service: str) -> Path:
    """
    Return the run directory that is meant.

    That is *run_dir*, or `FAPILOG_RUN_DIR`, or the one of all default ones (of *service*) that has a board; of several, the one
    that has processes.

    Raises:
        ConfigurationError: There is none, or more than one; the message lists them.
    """
    given = run_dir or (Path(os.environ["FAPILOG_RUN_DIR"]) if os.environ.get("FAPILOG_RUN_DIR") and not service else None)
    if given is not None:
        if not (given / NAME).is_file():
            raise ConfigurationError(f"there is no board in {given}: no process of fapilog has run there")
        return given
    found = [each for each in known_run_dirs(service) if (each / NAME).is_file()]
    if not found:
        whose = f"a service {service!r}" if service else "any service"
        raise ConfigurationError(f"found no run directory of {whose} of this user; {RULE}")
    lives = {each: _living(each) for each in found}
    busy = [each for each in found if lives[each]]
    if len(found) > 1 and len(busy) != 1:
        listed = "".join(f"\n  {each}  {_described(each, lives[each])}" for each in found)
        raise ConfigurationError(f"there are {len(found)} run directories; {RULE}:{listed}")
    return busy[0] if busy else found[0]


def _living(run_dir: Path) -> int:
    try:
        return sum(worker.alive for worker in overview(run_dir).workers)
    except OSError:
        return 0


def _described(run_dir: Path, living: int) -> str:
    if living:
        return "1 process lives" if living == 1 else f"{living} processes live"
    return f"nobody lives, last written {duration(time.time() - (run_dir / NAME).stat().st_mtime)} ago"
