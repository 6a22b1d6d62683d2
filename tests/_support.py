"""What several test modules need: child scripts with a hard time limit, strict reading of lines, a process put back as it was."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from fapilog._internal.gates import gates
from fapilog._internal.route import redact, route
from fapilog.testing import logging_restored

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MARGIN = 10

#: The fields of an access event, with their types.
ACCESS_FIELDS = {
    "method": str,
    "path": str,
    "query": str,
    "status": int,
    "bytes": int,
    "duration_ms": float,
    "client": str,
    "user_agent": str,
    "referer": str,
    "request_id": str,
}


#: For tests that measure what coverage.py takes part in, or ask what a process does last, where it saves what it has seen.
NOT_MEASURED = pytest.mark.skipif("COVERAGE_RUN" in os.environ, reason="coverage.py's own work would be in it")


def only_matrix(*values: object) -> Any:
    """Return *values* as a parameter of `make matrix`."""
    return pytest.param(*values, marks=pytest.mark.matrix)


def rest_in_matrix(suite: int, values: Iterable[Any]) -> list[Any]:
    """Return *values* (tuples, for several names) as parameters: the first *suite* for every run, the rest for `make matrix`."""
    given = [value if isinstance(value, tuple) else (value,) for value in values]
    return [*(pytest.param(*value) for value in given[:suite]), *(only_matrix(*value) for value in given[suite:])]


#: How `multiprocessing` starts children; for what does not depend on it much, since a spawned child imports everything anew.
FORKED = pytest.mark.parametrize("method", rest_in_matrix(2, ["fork", "forkserver", "spawn"]))


def run_script(
    code: str, cwd: Path, *, env: dict[str, str] | None = None, timeout: float = 40
) -> subprocess.CompletedProcess[str]:
    """Run *code* in a fresh process in *cwd*; one that hangs shows where its threads are and fails the test."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FAPILOG_")}
    clean["FAPILOG_RUN_DIR"] = str(cwd / "run")
    prologue = f"import faulthandler; faulthandler.dump_traceback_later({timeout}, exit=True)\n"
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", prologue + textwrap.dedent(code)],
        cwd=cwd,
        env={**clean, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout + MARGIN,
        check=False,
    )


#: For the beginning of a script: its last exit hook prints when it runs. Who is registered first is called last.
LAST_WORD = "import atexit, time; atexit.register(lambda: print(time.time()))"


def ended_within(seconds: float, result: subprocess.CompletedProcess[str]) -> None:
    """Check that a script just run, whose last statement prints the time and which has a `LAST_WORD`, took no longer to drain."""
    ended = time.time()
    began, drained = map(float, ran_well(result).split())
    assert drained - began < seconds
    assert ended - began < seconds + 1.0  # and the interpreter's own end, on a busy machine


def ran_well(result: subprocess.CompletedProcess[str]) -> str:
    """Return what the child printed; fail with its stderr if it did not end by itself with exit code 0."""
    assert result.returncode == 0, f"exit code {result.returncode}\n{result.stderr[-6000:]}\n{result.stdout[-2000:]}"
    return result.stdout


def strict(line: bytes | str) -> dict[str, Any]:
    """Parse one JSON object, refusing NaN tokens, invalid UTF-8 and names that occur twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        assert len(names) == len(set(names)), f"a name occurs twice: {names[:20]}"
        return dict(pairs)

    def refused(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    text = line.decode("utf-8") if isinstance(line, bytes) else line
    found = json.loads(text, parse_constant=refused, object_pairs_hook=unique)
    assert isinstance(found, dict)
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the events of a file, every line of which must parse and end."""
    data = path.read_bytes()
    assert data == b"" or data.endswith(b"\n"), f"torn end: {data[-100:]!r}"
    return [strict(line) for line in data.split(b"\n")[:-1]]


@contextlib.contextmanager
def process_restored():
    """
    Leave no hub, route, gate, structlog set-up, signal handler or context value behind.

    Hubs have no journal meanwhile, unless a test asks for one: by default that depends on what else has run in this process.
    """
    with mock.patch.dict(os.environ, {"FAPILOG_JOURNAL": os.environ.get("FAPILOG_JOURNAL", "off")}), logging_restored():
        yield


def warm():
    """Let log calls pass from INFO on, as if the process had been configured."""
    redact()
    gates.set(20, {})
    route.sampler = None


@contextlib.contextmanager
def caught_events():
    """Put a list in place of the queue; it gets the decoded head of each accepted event."""
    events: list[dict[str, Any]] = []

    def accept(_levelno: int, head: bytes) -> bool:
        events.append(strict(head + b"}"))
        return True

    with process_restored():
        warm()
        route.accept = accept
        yield events


def scope_of(path: str = "/p", **changes: Any) -> dict[str, Any]:
    """Return the ASGI scope of a GET request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"a=1",
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 80),
        **changes,
    }


def check_access_event(event: dict[str, Any], wanted: dict[str, Any]) -> None:
    """It has the fields of an access event, of their types, and these values."""
    assert {name: event[name] for name in wanted} == wanted
    assert set(event) == {"timestamp", "level", "event", "logger"} | set(ACCESS_FIELDS)
    assert {name: type(event[name]) for name in ACCESS_FIELDS} == ACCESS_FIELDS
