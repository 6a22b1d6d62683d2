"""
The directories that the service writes to: of its files, and the run directory.

Nothing is made: what can be written is tried with a file that has no name, where the file system can do that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from fapilog._internal import owner
from fapilog._internal.journal import RING_AT, journals
from fapilog._internal.native import close_fd
from fapilog._internal.rundir import ROOM_BYTES
from fapilog._internal.starting import ring_bytes
from fapilog.cli.checks.case import working_for
from fapilog.cli.checks.filesystems import kind_of
from fapilog.cli.checks.finding import Finding, error, fine, several, warning
from fapilog.cli.shown import size
from fapilog.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fapilog.cli.checks.case import Case
    from fapilog.cli.probe.sight import FileSinkSeen

FILES, RUN_DIR, ROOM, USER = "files", "run-dir", "room", "user"
SHM = Path("/dev/shm")  # noqa: S108 - looked at, not written to
_TRIED = b"\0" * 4096
_NOT_HERE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}  # from O_TMPFILE, where there is none


def check_user(case: Case) -> Iterator[Finding]:
    """Look whether this is the user that the workers run as, so that rights can be seen from here."""
    server = case.sight.server
    if server is not None and server.uid != os.geteuid() and os.geteuid() != 0:
        me, workers = user_name(os.geteuid()), user_name(server.uid)
        yield warning(USER, f"The workers run as {workers}, this as {me}: rights are looked at as {me}.", f"Run it as {workers}.")


def check_files(case: Case) -> Iterator[Finding]:
    """Look whether the file sink can write, and whether workers have files of their own."""
    for sink in case.hub.files:
        found = [*_shared_template(case, sink), *_unwritable(case, sink), *_remote_files(case, sink)]
        yield from found
        if not any(each.severity == "error" for each in found):
            yield fine(FILES, f"{sink.template} can be written.")


def _path(case: Case, sink: FileSinkSeen, worker: int) -> Path:
    fields = Identity.of_this_process(case.settings.service, case.settings.env, worker).fields()
    return Path(sink.template.format(**{name: str(value).replace("/", "_") for name, value in fields.items()}))


def _shared_template(case: Case, sink: FileSinkSeen) -> Iterator[Finding]:
    if "{worker}" in sink.template or "{pid}" in sink.template or not case.several:
        return
    how = (
        "the first one gets it, the others get names with a number (.2, .3), in the order of their starts"
        if sink.rotates
        else "a line is whole on a local disk, and the file can only be followed as a mixture"
    )
    say = error if (kind := kind_of(_path(case, sink, 1))) is not None and kind.remote and not sink.rotates else warning
    yield say(
        FILES,
        f"FAPILOG_FILE_PATH has neither {{worker}} nor {{pid}}, so all workers want the file {sink.template}: {how}.",
        "Put {worker} into it: logs/{service}.{worker}.jsonl.",
    )


def _unwritable(case: Case, sink: FileSinkSeen) -> Iterator[Finding]:
    with workers_rights(case):
        paths = {_path(case, sink, worker) for worker in range(max(1, min(case.workers or 1, 64)) + 1)}
        for folder in sorted({path.parent for path in paths}):
            if reason := unwritable(folder):
                yield error(FILES, f"The sink {sink.name} cannot write into {folder}: {reason}.", _rights(case))
                return
        for path in sorted(paths):
            if reason := _unwritable_file(path):
                yield error(FILES, f"The sink {sink.name} cannot write to {path}: {reason}.", _rights(case))


def _rights(case: Case) -> str:
    return f"Let {_workers_user(case)} write there (chown, a volume that is not read-only), or set another FAPILOG_FILE_PATH."


def _remote_files(case: Case, sink: FileSinkSeen) -> Iterator[Finding]:
    kind = kind_of(_path(case, sink, 1))
    if kind is not None and kind.remote and "{host}" not in sink.template:
        yield warning(
            FILES,
            f"{sink.template} is on a network file system ({kind.name} at {kind.mounted}): machines that have it write to "
            "the same files, and their appends may mix.",
            "Put {host} into FAPILOG_FILE_PATH, or write to a local disk.",
        )


def check_run_dir(case: Case) -> Iterator[Finding]:
    """Look whether processes can meet in the run directory: a place of this user's alone, on a local file system."""
    with workers_rights(case):
        found = [*_not_alone(case.run_dir), *_unwritable_run_dir(case), *_remote_run_dir(case.run_dir)]
    yield from found or [fine(RUN_DIR, f"{case.run_dir} can be used.")]


_WITHOUT = "worker numbers are pids, there is no journal, and the commands see nothing"


def _not_alone(place: Path) -> Iterator[Finding]:
    own_parent = place.parent.name == f"fapilog-{os.geteuid()}"
    for folder in (place, *([place.parent] if own_parent else [])):
        try:
            state = os.lstat(folder)
        except OSError:
            continue
        change = f"Remove it, or set FAPILOG_RUN_DIR to a directory that only {user_name(os.geteuid())} may write to (chmod 700)."
        if not stat.S_ISDIR(state.st_mode):
            yield error(RUN_DIR, f"{folder} is no directory: {_WITHOUT}.", change)
        elif state.st_uid != os.geteuid():
            yield error(
                RUN_DIR, f"{folder} belongs to {user_name(state.st_uid)}, not to {user_name(os.geteuid())}: {_WITHOUT}.", change
            )
        elif state.st_mode & 0o022:
            mode = f"{stat.S_IMODE(state.st_mode):04o}"
            yield error(RUN_DIR, f"Others may write to {folder} (mode {mode}): {_WITHOUT}.", change)


def _unwritable_run_dir(case: Case) -> Iterator[Finding]:
    if reason := unwritable(case.run_dir):
        change = f"Let {_workers_user(case)} write there, or set FAPILOG_RUN_DIR to another directory."
        yield error(RUN_DIR, f"The run directory {case.run_dir} cannot be written: {reason}; {_WITHOUT}.", change)


def _remote_run_dir(place: Path) -> Iterator[Finding]:
    kind = kind_of(place)
    if kind is not None and kind.remote:
        yield error(
            RUN_DIR,
            f"The run directory {place} is on a network file system ({kind.name} at {kind.mounted}): its locks and mapped files "
            "do not hold there, so worker numbers may be given twice, and a process may die of SIGBUS.",
            "Set FAPILOG_RUN_DIR to a local directory, /dev/shm or a local volume.",
        )


def check_room(case: Case) -> Iterator[Finding]:
    """Look whether the journals of all workers have room in the run directory."""
    if case.settings.journal == "off":
        return
    each = RING_AT + ring_bytes(case.settings)
    workers = case.workers or 1
    with workers_rights(case):
        there = _there(case.run_dir)
        state = os.statvfs(there)
        free = state.f_bavail * state.f_frsize + _taken(case.run_dir)
    place = kind_of(there)
    where = place.mounted if place is not None else str(there)
    fits = free // each
    what = f"{where} has room for {several(fits, 'journal')} of {size(each)}"
    if fits < workers:
        found = f"{what}, and {several(workers, 'worker')} need one each: what the others log is lost when they are killed."
        yield error(ROOM, found, _more_room(where, 2 * workers * each))
    elif fits < 2 * workers:
        found = f"{what}: during a reload there are old and new workers, {2 * workers} in all."
        yield warning(ROOM, found, _more_room(where, 2 * workers * each))
    else:
        yield fine(ROOM, f"{what}{f', enough for {workers} workers and a reload' if case.workers else ''}.")
    if not case.settings.run_dir and SHM.is_dir() and not case.run_dir.is_relative_to(SHM):
        found = f"{SHM} has less than {size(ROOM_BYTES)} left, so the run directory is {case.run_dir}, on {where}."
        yield warning(
            ROOM, found, f"Enlarge {SHM} (docker run --shm-size=256m), or set FAPILOG_RUN_DIR to a directory on a local volume."
        )


def _more_room(where: str, needed: int) -> str:
    enlarge = (
        f"Enlarge it to {size(needed)} or more (docker run --shm-size)" if where == str(SHM) else f"Free {size(needed)} there"
    )
    return f"{enlarge}, or set FAPILOG_JOURNAL_BYTES lower, or FAPILOG_RUN_DIR to a directory on a local volume."


def _taken(run_dir: Path) -> int:
    """Return the bytes of journals that are there already: of processes that run now, or of dead ones, which go."""
    total = 0
    for name in journals(run_dir):
        with contextlib.suppress(OSError):
            total += os.lstat(run_dir / name).st_size
    return total


@contextlib.contextmanager
def workers_rights(case: Case) -> Iterator[None]:
    """Have the rights of the user that the workers run as, where root asks."""
    with working_for(case.sight.server), owner.owners_rights():
        yield


def unwritable(folder: Path) -> str:
    """Return why no file can be made in *folder*, or it cannot be made itself; empty if it can."""
    there = _there(folder)
    if not there.is_dir():
        return f"{there} is no directory"
    try:
        fd = os.open(there, getattr(os, "O_TMPFILE", os.O_DIRECTORY) | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, _TRIED)
        finally:
            close_fd(fd)
    except OSError as problem:
        if problem.errno not in _NOT_HERE:
            return _reason(there, problem)
        if not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            return _reason(there, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    return ""


def _there(folder: Path) -> Path:
    """Return *folder*, or what there is of it."""
    return next(each for each in (folder, *folder.parents) if os.path.lexists(each) or each == each.parent)


def _reason(there: Path, problem: OSError) -> str:
    text = (problem.strerror or str(problem)).lower()
    if problem.errno not in {errno.EACCES, errno.EPERM}:
        return f"{there}: {text}"
    state = os.stat(there)
    mode = f"{stat.S_IMODE(state.st_mode):04o}"
    return f"{there} belongs to {user_name(state.st_uid)}, mode {mode}, and {user_name(os.geteuid())} may not write to it"


def _unwritable_file(path: Path) -> str:
    try:
        if not path.exists():
            return ""
        if path.is_dir():
            return "it is a directory"
        if path.is_file():
            close_fd(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as problem:
        return _reason(path, problem)
    return ""


def user_name(uid: int) -> str:
    """Return a user as people know it."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _workers_user(case: Case) -> str:
    return user_name(case.sight.server.uid if case.sight.server is not None and os.geteuid() == 0 else os.geteuid())
