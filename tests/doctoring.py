"""A program in a folder, looked at as `fapilog doctor` does, and what single checks say of it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fapilog.cli.checks.case import case_of
from fapilog.cli.probe.child import Asked, look
from fapilog.cli.probe.sight import SIGHT, ServerSeen, Sight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from fapilog.cli.checks.case import Case
    from fapilog.cli.checks.finding import Finding

SERVER = ServerSeen(
    "gunicorn.conf.py", 4, False, 30.0, 30.0, 0, "sync", None, None, os.geteuid(), os.getegid(), "x.Logger", True, {}
)
_NOT_OURS = ("FAPILOG_", "GUNICORN_", "UVICORN_", "WEB_CONCURRENCY", "PYTEST_")


def write(folder: Path, **modules: str) -> Path:
    """Write modules, by name without ``.py``; ``conf`` is gunicorn.conf.py."""
    for name, text in modules.items():
        (folder / ("gunicorn.conf.py" if name == "conf" else f"{name}.py")).write_text(textwrap.dedent(text))
    return folder


def environment(folder: Path, **environ: str) -> dict[str, str]:
    """Return an environment without inherited settings, with a run directory of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)}
    return {**clean, "FAPILOG_RUN_DIR": str(folder / "run"), **environ}


def seen(folder: Path, app: str = "", config: str = "", *, limit: float = 40.0, **environ: Any) -> Case:
    """Look at the program in *folder*."""
    with contextlib.chdir(folder):
        return case_of(look(Asked(app, config, limit), environment(folder, **environ)))


READ = """
import os, sys
from fapilog.cli.probe.server import read
from fapilog.cli.probe.sight import SIGHT, Failure, Sight
for name in sys.argv[1:]:
    found = read(f"{name}.py", "")
    told = {"server_failure": found} if isinstance(found, Failure) else {"server": found[0]}
    sight = Sight("done", os.getcwd(), **told)
    sys.stdout.buffer.write(SIGHT.dump_json(sight) + b"\\n")
os._exit((sys.stdout.flush(), 0)[1])
"""


def configured(folder: Path, confs: Mapping[str, str]) -> dict[str, Case]:
    """Let one process read all these configurations of Gunicorn's, which is quicker than one for each."""
    names = {f"conf{number}": name for number, name in enumerate(confs)}
    write(folder, **{short: confs[name] for short, name in names.items()})
    done = subprocess.run(
        [sys.executable, "-c", READ, *names], cwd=folder, env=environment(folder), capture_output=True, timeout=60, check=True
    )
    sights = [SIGHT.validate_json(line) for line in done.stdout.splitlines()]
    return {name: case_of(replace(sight, environ=environment(folder))) for name, sight in zip(confs, sights, strict=True)}


def made_up(folder: Path, *, push: bool = True, environ: dict[str, str] | None = None, **sight: Any) -> Case:
    """Return a case without any child process."""
    told = {"FAPILOG_RUN_DIR": str(folder / "run"), **(environ or {})}
    return case_of(Sight(**{"stage": "done", "directory": str(folder), "environ": told, **sight}), push=push)


def told(check: Callable[[Case], Iterator[Finding]], case: Case) -> dict[str, str]:
    """Return what *check* says of *case*, severity: text; it says one thing of each severity at the most."""
    findings = list(check(case))
    by_severity: dict[str, str] = {finding.severity: f"{finding.found} -> {finding.change}" for finding in findings}
    assert len(by_severity) == len(findings), findings
    for finding in findings:
        assert finding.found.endswith((".", "}", '"')), finding.found
        assert bool(finding.change) == (finding.severity != "ok"), finding
    return by_severity


def traces(folder: Path) -> set[str]:
    """Return the names of all that is in *folder*."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
