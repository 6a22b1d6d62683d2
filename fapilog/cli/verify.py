"""``fapilog verify``: the proof that log files hold all events, or what they do not hold."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fapilog._internal.audit import Books
from fapilog._internal.findings import findings
from fapilog._internal.logfiles import DamagedError, find, lines_of
from fapilog.cli.shown import fitting
from fapilog.errors import ConfigurationError
from fapilog.sinks.terminal import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fapilog._internal.findings import Findings, LifeFindings
    from fapilog._internal.logfiles import LogFile

PLAIN_WIDTH = 160  # columns, where there is no terminal that says its own
WIDE = 112
WORST = 3
_NUMBERS = ("lines", "first_seq", "last_seq", "missing", "announced", "unexplained", "duplicates", "torn", "recovered", "trimmed")
_TITLES = {"first_seq": "first", "last_seq": "last", "duplicates": "doubled"}
_ALWAYS = frozenset(("lines", "last_seq", "missing", "unexplained"))


def verify(paths: Sequence[Path], sink: str, *, strict: bool, as_json: bool) -> int:
    """
    Print what the log files at *paths* hold and what they miss; return the exit code.

    Args:
        paths: Files and directories.
        sink: The name of the sink that wrote them.
        strict: Whether a life without an end is a reason to fail.
        as_json: Whether to print one JSON document.

    Raises:
        ConfigurationError: There is nothing to verify.
        OSError: Something may not be read.
    """
    found = audited(find([os.fspath(path) for path in paths]), sink)
    with contextlib.suppress(BrokenPipeError):
        if as_json:
            print(json.dumps(as_document(found), indent=2))
        else:
            console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, markup=False, emoji=False)
            if found.lives:
                with console.capture() as captured:
                    console.print(as_table(found, console.width))
                print(captured.get())
            for line in (*remarks(found), verdict(found)):
                print(clean(line))
        sys.stdout.flush()
        return exit_code(found, strict=strict)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on: nothing to complain about, at exit neither
    return exit_code(found, strict=strict)


def exit_code(found: Findings, *, strict: bool) -> int:
    """Return 1 if events are missing without an explanation, or there twice, or could not all be read; else 0."""
    wrong = found.unexplained or found.duplicates or found.missing_files or found.damaged_files or (strict and found.open)
    return 1 if wrong else 0


def audited(files: Sequence[LogFile], sink: str) -> Findings:
    """
    Return what *files* come to.

    Raises:
        ConfigurationError: There is no line of fapilog in them.
        OSError: One may not be read.
    """
    books = Books(sink)
    damaged: dict[str, str] = {}
    with _progress(sum(file.size for file in files)) as bar:
        for file in files:
            books.begin(file.series)
            try:
                for lines in lines_of(file, bar):
                    books.feed(lines)
            except DamagedError as error:
                damaged[file.path] = str(error)
    if not damaged and not books.lives and not any(series.headers for series in books.series.values()):
        raise ConfigurationError(f"there is no line of fapilog in {files[0].path}" + (" and the others" if files[1:] else ""))
    read = {os.path.abspath(file.plain) for file in files}
    return findings(books, read, damaged, lambda path: os.path.exists(path) or os.path.exists(f"{path}.gz"))


class _Bar:
    """Counts bytes up on a progress bar, seldom enough to cost nothing."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total)

    def __call__(self, size: int) -> None:
        self._progress.advance(self._task, size)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[_Bar]:
    console = Console(stderr=True)
    columns = (TextColumn("verifying"), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        yield _Bar(progress, total)


def as_document(found: Findings) -> dict[str, object]:
    """Return what is printed as JSON: the names of the dataclasses' fields, the books first."""
    return asdict(found)


def as_table(found: Findings, width: int) -> Table:
    """Return a table of the lives; where *width* is small, without columns that say nothing."""
    wide = width >= WIDE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1 if wide else 0, 0, 0))
    numbers = [name for name in _NUMBERS if wide or name in _ALWAYS or (name != "first_seq" and getattr(found, name))]
    places = [name for name in ("service", "host") if wide or len({getattr(life, name) for life in found.lives}) > 1]
    for name in (*places, "worker", "boot", "state"):
        table.add_column(name, justify="right" if name == "worker" else "left", overflow="fold")
    for name in numbers:
        table.add_column(_TITLES.get(name, name), justify="right", no_wrap=True)
    for life in found.lives:
        table.add_row(
            *(clean(getattr(life, name)) for name in places),
            "?" if life.worker is None else str(life.worker),
            clean(life.boot if wide else life.boot[:8]),
            life.state,
            *(_number(getattr(life, name)) for name in numbers),
        )
    if len(found.lives) > 1:
        table.add_section()
        sums = (_number(getattr(found, name)) if hasattr(found, name) else "" for name in numbers)
        table.add_row(*("" for _ in places), "all", "", "", *sums)
    return table


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def remarks(found: Findings) -> Iterator[str]:
    """Yield what else there is to say, and an empty line behind it."""
    for path in found.missing_files:
        yield f"missing file: {path}, which the next one names; retention did not remove it"
    for path in found.unread_files:
        yield f"not read: {path}, which the next one names; give it, too"
    for path, reason in found.damaged_files.items():
        yield f"damaged file: {path}: {reason}; what could not be read is missing"
    if found.torn:
        yield f"torn: {_many(found.torn, 'line')}, of which there is only a part"
    if found.foreign:
        yield f"foreign: {_many(found.foreign, 'line')}, not of fapilog, passed over"
    if found.missing_files or found.unread_files or found.damaged_files or found.torn or found.foreign:
        yield ""


def verdict(found: Findings) -> str:
    """Return it in one sentence."""
    said = [
        _many(len(found.lives), "life", "lives"),
        _many(found.lines, "line"),
        f"{found.unexplained:,} unexplained",
        f"{found.duplicates:,} doubled",
    ]
    said += [f"{_many(len(found.missing_files), 'file')} missing"] if found.missing_files else []
    said += [f"{_many(len(found.damaged_files), 'file')} damaged"] if found.damaged_files else []
    said += [f"{found.open:,} open"] if found.open else []
    text = ", ".join(said)
    if found.balanced:
        return f"balanced: {text}"
    if not exit_code(found, strict=False) and not found.lives:
        return f"nothing to balance: {text}"
    if not exit_code(found, strict=False):
        return f"not balanced yet, for lack of an end: {text}; nothing else is wrong"
    wrong = sorted((life for life in found.lives if life.unexplained or life.duplicates), key=_wrong, reverse=True)
    told = [_named(life) for life in wrong[:WORST]]
    told += [f"{len(wrong) - WORST:,} more lives"] if len(wrong) > WORST else []
    return "; ".join([f"NOT balanced: {text}", *told])


def _wrong(life: LifeFindings) -> int:
    return life.unexplained + life.duplicates


def _named(life: LifeFindings) -> str:
    who = f"worker {'?' if life.worker is None else life.worker} of {fitting(clean(life.service), 40) or '?'}, boot {life.boot}"
    seqs = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in life.unexplained_at[:WORST])
    more = ", ..." if len(life.unexplained_at) > WORST else ""
    what = [f"{life.unexplained:,} unexplained (seq {seqs}{more})"] if life.unexplained else []
    what += [f"{life.duplicates:,} doubled"] if life.duplicates else []
    return f"{who}: {', '.join(what)}" + ("" if life.lines else ", and no line of it at all")


def _many(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"
