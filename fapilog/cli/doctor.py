"""
``fapilog doctor``: what is wrong with the set-up of a service, in plain words, and what to change.

Invariants:

1. It starts no hub, takes no worker number and leaves no file behind; one line goes to Loki and to a Collector, where those are
   sinks, unless that is forbidden.
2. The user's program is imported by a child process, within a time limit; see `fapilog.cli.probe.child`.
3. Each check is a function that is given a `Case` and yields findings; one that fails itself is a finding, and the others go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fapilog.cli.checks import clock, distribution, loki, otlp, places, program, servers, sharing, values
from fapilog.cli.checks.case import case_of
from fapilog.cli.checks.finding import Finding, several
from fapilog.cli.probe.child import Asked, look
from fapilog.cli.probe.importing import parsed
from fapilog.errors import ConfigurationError
from fapilog.redaction import Redactor
from fapilog.settings import load_settings
from fapilog.sinks.terminal import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fapilog.cli.checks.case import Case

    Check = Callable[[Case], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    distribution.check_distribution,
    values.check_settings,
    values.check_levels,
    clock.check_clock,
    program.check_app,
    program.check_set_up_twice,
    program.check_structlog,
    program.check_loggers,
    servers.check_gunicorn,
    servers.check_hooks,
    servers.check_times,
    servers.check_access,
    servers.check_heartbeat,
    servers.check_uvicorn,
    sharing.check_files,
    sharing.check_queues,
    sharing.check_threads,
    places.check_user,
    places.check_files,
    places.check_run_dir,
    places.check_room,
    loki.check_loki,
    otlp.check_otlp,
)
PLAIN_WIDTH = 120  # columns, where there is no terminal that says its own
_redactor = Redactor()  # whatever `FAPILOG_REDACT` says: an exception of the program's may have a password in it
_COLOURS = {"error": "bold red", "warning": "yellow", "ok": "green"}


def doctor(asked: Asked, *, service: str, run_dir: Path | None, push: bool, as_json: bool) -> int:
    """
    Examine, print the findings, and return the exit code.

    Args:
        asked: What to look at.
        service: Instead of `FAPILOG_SERVICE`; empty for that.
        run_dir: Instead of `FAPILOG_RUN_DIR`.
        push: Whether a line may be sent to a server.
        as_json: Whether to print one JSON document.

    Raises:
        ConfigurationError: An argument cannot be used.
    """
    check_arguments(asked, service)
    environ = dict(os.environ)
    if service:
        environ["FAPILOG_SERVICE"] = service
    if run_dir is not None:
        environ["FAPILOG_RUN_DIR"] = str(run_dir.absolute())
    findings = examined(case_of(look(asked, environ), push=push))
    with contextlib.suppress(BrokenPipeError):
        if as_json:
            print(json.dumps(as_document(findings), indent=2))
        else:
            _show(findings)
        sys.stdout.flush()
        return exit_code(findings)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on: nothing to complain about, at exit neither
    return exit_code(findings)


def check_arguments(asked: Asked, service: str) -> None:
    """
    Look whether what was asked makes sense.

    Raises:
        ConfigurationError: It does not.
    """
    if asked.app:
        parsed(asked.app)
    path = asked.config.removeprefix("file:")
    if asked.config and not asked.config.startswith("python:") and not Path(path).is_file():
        hint = f"; the module is -c python:{path}" if "/" not in path and path.startswith("fapilog.") else ""
        raise ConfigurationError(f"--config {asked.config}: there is no such file{hint}")
    if service:
        load_settings({"service": service}, {})


def examined(case: Case, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Return what *checks* have to say about *case*."""
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check(case)
        except Exception as problem:
            name = check.__name__.removeprefix("check_")
            found = f"This check has failed: {type(problem).__name__}: {problem}"
            findings.append(Finding("warning", name, found, "Report it, with this line."))
    return [replace(each, found=_redactor.text(each.found)) for each in findings]


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 if there is an error, else 0."""
    return int(any(each.severity == "error" for each in findings))


def as_document(findings: Sequence[Finding]) -> dict[str, object]:
    """Return what is printed as JSON."""
    counts = {f"{name}s": sum(each.severity == name for each in findings) for name in ("error", "warning")}
    return {"healthy": not counts["errors"], **counts, "findings": [asdict(each) for each in findings]}


def _show(findings: Sequence[Finding]) -> None:
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(_table(findings))
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))
    print(f"\n{verdict(findings)}")


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("what is so, and -> what to change", overflow="fold")
    order = ("error", "warning", "ok")
    for each in sorted(findings, key=lambda finding: order.index(finding.severity)):
        text = clean(each.found) + (f"\n-> {clean(each.change)}" if each.change else "")
        table.add_row(Text(each.severity, _COLOURS[each.severity]), each.check, Text(text))
    return table


def verdict(findings: Sequence[Finding]) -> str:
    """Return the last line."""
    errors, warnings = (sum(each.severity == name for each in findings) for name in ("error", "warning"))
    if not errors and not warnings:
        return "nothing is wrong"
    return (
        f"{several(errors, 'error')}, {several(warnings, 'warning')}" if errors else f"no error, {several(warnings, 'warning')}"
    )
