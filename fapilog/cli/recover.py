"""``fapilog recover``: deliver now what dead processes left in their journals."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from fapilog import bootstrap
from fapilog._internal import remains, rundir
from fapilog._internal.aside import asides
from fapilog._internal.filelock import FileLock
from fapilog._internal.journal import journals
from fapilog._internal.native import close_fd
from fapilog.coordinator import coordinator
from fapilog.errors import ConfigurationError
from fapilog.sinks.file import FileSink

if TYPE_CHECKING:
    from pathlib import Path

    from fapilog._internal.remains import Remains


def into_sinks(run_dir: Path) -> None:
    """
    Deliver what is in *run_dir* to the sinks that the environment names, as the next process of the service would.

    Raises:
        ConfigurationError: The environment is not that of the service.
    """
    before = _left(run_dir)
    if before:
        recovered = _as_a_process_of(run_dir, {(left.owner.service, left.owner.targets) for _, left in before})
        typer.echo(f"{recovered} events recovered from {_counted(len(before))} in {run_dir}")
    else:
        typer.echo(f"nothing to recover in {run_dir}")
    rest = len(_left(run_dir))
    if rest:
        raise ConfigurationError(f"{_counted(rest)} in {run_dir} could not be recovered now; fapilog says on stderr why")


def _as_a_process_of(run_dir: Path, owners: set[tuple[str, str]]) -> int:
    """Be a process of the service for a moment, which delivers what others left; return how many events that were."""
    bootstrap.configure_logging(run_dir=str(run_dir), capture_stdlib=False)
    spec = coordinator.spec
    assert spec is not None
    for service, targets in sorted(owners):
        if service != spec.settings.service:
            raise ConfigurationError(
                f"there are journals of service {service!r} in {run_dir}: set FAPILOG_SERVICE to that, or use --to"
            )
        if targets != spec.digest:
            wrong = f"the sinks of the journals in {run_dir} are not those that the environment names"
            raise ConfigurationError(f"{wrong}: set the FAPILOG_* variables of the service, and its directory, or use --to")
    coordinator.start()
    bootstrap.flush()
    bootstrap.shutdown_logging()
    queue = coordinator.state.queue
    return queue.of_dead.recovered if queue is not None else 0


def into_directory(run_dir: Path, folder: Path) -> None:
    """Write what is in *run_dir*, and in what was moved aside there, into files in *folder*, one for each worker."""
    sink = FileSink(str(folder).replace("{", "{{").replace("}", "}}") + "/{service}.{worker}.jsonl")
    total = 0
    for name, _ in _left(run_dir, aside=True):
        lock = FileLock.take(str(run_dir / name))
        left = None if lock is None else _read(run_dir, name)  # what it said before may have changed until it was locked
        if lock is None or left is None:  # somebody takes care of it at this moment, or has done so
            continue
        lines = left.after(min(left.cursors.values(), default=0))
        count = sink.put_back(left.owner.identity, lines, left.owner.started) or 0
        typer.echo(f"{name}: {count} events of worker {left.owner.worker}, process {left.owner.pid}")
        total += count
        lock.release()
    typer.echo(f"{total} events recovered into {folder}")


def _left(run_dir: Path, *, aside: bool = False) -> list[tuple[str, Remains]]:
    """Return the journals in *run_dir* that no process holds, by name, and what is in them."""
    found = []
    for name in [*journals(run_dir), *(asides(run_dir) if aside else ())]:
        lock = None
        try:
            left = _read(run_dir, name)
            lock = FileLock.take(str(run_dir / name))
        except FileNotFoundError:
            continue
        if lock is not None:
            lock.leave()
            found += [(name, left)] if left is not None else []
    return found


def _read(run_dir: Path, name: str) -> Remains | None:
    fd = rundir.open_file(run_dir, name, os.O_RDONLY)
    try:
        return remains.read(fd)
    finally:
        close_fd(fd)


def _counted(number: int) -> str:
    return "1 journal" if number == 1 else f"{number} journals"
