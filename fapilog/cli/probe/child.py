"""
Looks at the user's program from a child process, whatever that does.

Invariants:

1. Nothing of the program runs in this process.
2. It takes no longer than the limit, and a moment or two: what still runs then is killed, with all that it has started.
3. Nothing of ours is left behind, and no bytecode of the program's either: what the child writes goes into files without names.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from pydantic import ValidationError

from fapilog.cli.probe.sight import SIGHT, Failure, Sight
from fapilog.cli.probe.watching import place

if TYPE_CHECKING:
    from collections.abc import Mapping

MOMENT = 3.0  # seconds beyond the limit: for the child to say where it hangs, for its children to end
STEP = 0.01
_START = (
    "import json, sys; asked = json.loads(sys.argv[1]); sys.path[:] = asked['path']; "
    "from fapilog.cli.probe.main import main; main(asked)"
)
_FRAME = re.compile(r'  File "(.*)", line ([0-9]+) in ')


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What to look at.

    Args:
        app: An import string, or empty.
        config: What Gunicorn gets as ``-c``, or empty.
        limit: Seconds that it may take.
    """

    app: str = ""
    config: str = ""
    limit: float = 30.0


def look(asked: Asked, environ: Mapping[str, str]) -> Sight:
    """Return what a child process in this directory sees with this environment."""
    with _nameless() as report, _nameless() as stacks, _nameless() as errors:
        told = {
            "app": asked.app,
            "config": asked.config,
            "limit": asked.limit,
            "path": sys.path,
            "report": report.fileno(),
            "stacks": stacks.fileno(),
        }
        process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-P", "-c", _START, json.dumps(told)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**environ, "PYTHONDONTWRITEBYTECODE": "1"},
            pass_fds=(report.fileno(), stacks.fileno()),
            start_new_session=True,
        )
        hangs = False
        try:
            process.wait(asked.limit + MOMENT)
        except subprocess.TimeoutExpired:
            hangs = True
            process.kill()
        code = process.wait()
        _end_group(process.pid)
        try:
            sight = SIGHT.validate_json(_content(report))
        except ValidationError:
            sight = Sight()
        if sight.stage == "done":
            return sight
        # Whatever its exit code is: faulthandler writes that the time is up, then looks at frames that may change under it, and a
        # busy program sometimes dies of that look (https://github.com/python/cpython/issues/140815).
        stacks_then = _content(stacks).decode(errors="replace")
        if hangs or stacks_then:
            return _without_the_rest(sight, Failure("hang", "", _place_in(stacks_then)))
        return _without_the_rest(sight, _end(code, _content(errors).decode(errors="replace")))


def _end_group(group: int) -> None:
    """
    End what the child has left behind.

    It is asked first: the resource tracker of `multiprocessing` removes what has a name when its program is gone.
    """
    end = time.monotonic() + MOMENT
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < end:
            os.killpg(group, 0)
            time.sleep(STEP)
        os.killpg(group, signal.SIGKILL)


def _nameless() -> IO[bytes]:
    """Return a file without a name; in memory, where that can be, for there may be passwords in it."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("fapilog-doctor"), "w+b")
    return tempfile.TemporaryFile()


def _content(file: IO[bytes]) -> bytes:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def _end(code: int, errors: str) -> Failure:
    """Return how the process has ended, by its exit code and what it has written last."""
    if code < 0:
        names = {member.value: member.name for member in signal.Signals}
        return Failure("signal", names.get(-code, f"signal {-code}"))
    last = [line for line in errors.splitlines() if line.strip()][-1:]
    return Failure("exit", " ".join([f"exit code {code}", *last]))


def _without_the_rest(sight: Sight, failure: Failure) -> Sight:
    """Return what was seen until then, with the reason why there is not more."""
    return replace(sight, server_failure=failure) if sight.stage == "server" else replace(sight, app_failure=failure)


def _place_in(stacks: str) -> str:
    """Return where the main thread hangs, of what faulthandler has written: the last thread there, its innermost frame first."""
    places = [place(path, int(line)) for path, line in _FRAME.findall(stacks.rpartition("most recent call first")[2])]
    users = (each for each in places if not os.path.isabs(each) and "site-packages" not in each and not each.startswith("<"))
    return next(users, (places or [""])[0])
