"""``fapilog level``: what levels all processes of a service are asked for."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import orjson

from fapilog._internal import controls
from fapilog.cli.shown import duration, seconds_of
from fapilog.errors import ConfigurationError
from fapilog.settings import level_number
from fapilog.typing import LEVELS

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = {number: name.upper() for name, number in LEVELS.items()}
FAR = 1e10  # seconds since the epoch: no such time was asked for


def check(name: str, for_: str, *, show: bool, reset: bool, as_json: bool) -> None:
    """
    Raises:
        ConfigurationError: The arguments do not say one thing.
    """
    if (bool(name) + show + reset) != 1:
        raise ConfigurationError("give a level, such as `fapilog level DEBUG --for 10m`, or --show, or --reset")
    if for_ and not name:
        raise ConfigurationError("--for goes with a level")
    if as_json and not show:
        raise ConfigurationError("--json goes with --show")
    if name:
        level_number(name)
        seconds_in(for_)


def seconds_in(text: str) -> float | None:
    """
    Return the seconds of ``90s``, ``10m`` or ``1h30m``; *None* for an empty text.

    Raises:
        ConfigurationError: It is no duration, or none at all.
    """
    seconds = seconds_of(text)
    if text and not seconds:
        raise ConfigurationError(f"--for {text}: must be a duration such as 30s, 10m or 1h30m")
    return seconds


def ask(run_dir: Path, name: str, logger: str, worker: int | None, for_: str) -> None:
    """Ask for a level, and say so."""
    number, seconds = level_number(name), seconds_in(for_)
    controls.ask(run_dir, number, logger=logger, worker=worker, seconds=seconds)
    until = "until `fapilog level --reset`" if seconds is None else f"for {duration(seconds)}"
    print(f"{_who(logger, worker)}: {_named(number)} {until}")


def reset(run_dir: Path, logger: str, worker: int | None) -> None:
    """Take back what was asked for: of *logger* and *worker* if they are given, else all of it."""
    asked = _meant(run_dir, logger, worker)
    for each in asked:
        controls.withdraw(run_dir, logger=each.logger, worker=each.worker)
        print(f"{_who(each.logger, each.worker)}: {_named(each.level)} is taken back")
    if not asked:
        print("nothing was asked for")


def show(run_dir: Path, logger: str, worker: int | None, *, as_json: bool) -> None:
    """Print what is asked for now: of *logger* and *worker* if they are given, else all of it."""
    asked = _meant(run_dir, logger, worker)
    if as_json:
        sys.stdout.buffer.write(orjson.dumps([_as_dict(each) for each in asked], option=orjson.OPT_INDENT_2) + b"\n")
        return
    for each in asked:
        print(described(each))
    if not asked and (logger or worker is not None):
        print(f"nothing is asked for of {_who(logger, worker)}")
    elif not asked:
        print("nothing is asked for: every process logs as it was set up")


def _meant(run_dir: Path, logger: str, worker: int | None) -> list[controls.Control]:
    asked = controls.asked_for(run_dir)
    return [each for each in asked if (not logger or each.logger == logger) and (worker is None or each.worker == worker)]


def described(control: controls.Control) -> str:
    """Return what is asked for, in words."""
    left = "until `fapilog level --reset`" if control.until > FAR else f"for another {duration(control.until - time.time())}"
    return f"{_who(control.logger, control.worker)}: {_named(control.level)} {left}"


def _as_dict(control: controls.Control) -> dict[str, object]:
    until = None if control.until > FAR else control.until
    return {"level": _named(control.level), "logger": control.logger, "worker": control.worker, "until": until}


def _named(number: int) -> str:
    return _NAMES.get(number, str(number))


def _who(logger: str, worker: int | None) -> str:
    return f"{logger or 'default level'}, {'all workers' if worker is None else f'worker {worker}'}"
