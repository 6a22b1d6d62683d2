"""Worker slots and the run directory; and whose files a root process makes when its workers run as another user."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

import fapilog
from tests._support import NOT_MEASURED, only_matrix, rest_in_matrix
from tests.programs.running import lives, only_life, start
from tests.programs.told import by_role, finished, numbered, said, ticks
from tests.servers.harness import OUR_CONF, Gunicorn, check_files

PROCESSES = 30
NOBODY = 65534
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on another user's rights")


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)


def test_many_processes_take_slots_at_once(tmp_path):
    """They get the numbers from 1 on, each once."""
    run_dir = tmp_path / "run"

    with start(tmp_path, "slots", "at_once", str(run_dir), str(PROCESSES)) as program:
        program.said('"slot"', PROCESSES)
        (tmp_path / "go").touch()
        finished(program)

        assert sorted(entry["number"] for entry in said(program, "slot")) == list(range(1, PROCESSES + 1))


def test_lock_files_are_removed_by_somebody(tmp_path):
    """A slot whose file is gone can be taken anew, in a new file; releasing gives a number back."""
    with start(tmp_path, "slots", "one_after_another", str(tmp_path / "run")) as program:
        finished(program)

        (entry,) = said(program, "numbers")
        assert entry["numbers"] == [1, 1, 2, 1]
        assert entry["again"] == 1


@pytest.mark.parametrize("company", rest_in_matrix(2, ["alone", "with all descriptors", "in a shell", "with a preexec_fn"]))
def test_a_process_is_killed_while_a_program_that_it_started_lives_on(tmp_path, company):
    """Its slot is free at once."""
    with start(tmp_path, "slots", "holder", company, options=()) as program:
        program.said("ready")
        program.signal(signal.SIGKILL)
        assert program.ended() == -signal.SIGKILL
        with start(tmp_path, "slots", "holder", "alone") as successor:
            successor.said("ready")

            assert [entry["worker"] for entry in said(program, "ready") + said(successor, "ready")] == [1, 1]


def test_a_run_directory_that_a_group_may_write_to(tmp_path):
    """Each process says so once and has its pid for a number; everything else works."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o770)

    with start(tmp_path, "forks", "deep") as program:
        assert program.ended() == 0
        program.nothing_left()

        found = by_role(lives(tmp_path))
        assert all(life.worker == life.pid for life in found.values())
        assert ticks(found["parent"]) == numbered("parent", 60)
        notes = program.stderr.splitlines()
        assert len(notes) == len(found) == 3
        assert all(str(tmp_path / "run") in note and "pid" in note for note in notes)
        assert list((tmp_path / "run").iterdir()) == []


# Another user.


@pytest.fixture
def folder():
    """A directory that everybody may enter, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="fapilog-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def opened_up(folder: Path) -> str:
    """Return shell commands that let everybody reach the interpreter, for a mount namespace."""
    needed = [
        Path(os.path.realpath(sys.executable)),
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(fapilog.__file__),
        Path(__file__),
    ]
    shut: dict[Path, set[Path]] = {}
    for path in needed:
        for parent, child in zip(path.parents, [path, *path.parents], strict=False):
            if not parent.stat().st_mode & stat.S_IXOTH:
                shut.setdefault(parent, set()).add(child)
    commands = []
    for parent, children in sorted(shut.items(), reverse=True):  # the inner ones first: the outer ones take them along
        stages = [(folder / f"stage{number}", child) for number, child in enumerate(children)]
        for stage, child in stages:
            stage.mkdir(exist_ok=True)
            commands.append(f"mount --rbind {shlex.quote(str(child))} {stage}")
        commands.append(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(parent))}")
        commands += [
            f"mkdir {shlex.quote(str(child))}\nmount --move {stage} {shlex.quote(str(child))}" for stage, child in stages
        ]
    return "\n".join(commands)


def interpreter(folder: Path, name: str, drop: str) -> str:
    """Return this interpreter, in a mount namespace of its own: everybody can reach it, and /dev/shm is empty."""
    path = folder / name
    path.write_text(
        f"""#!/bin/sh
exec unshare --mount --propagation private sh -ec '
{opened_up(folder)}
mount -t tmpfs -o mode=1777 none /dev/shm
exec {drop} "$0" "$@"' {shlex.quote(sys.executable)} "$@"
"""
    )
    path.chmod(0o755)
    return str(path)


DROP = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"


@pytest.fixture
def as_root(folder, monkeypatch):
    """Programs are started by root, in a namespace where user 65534 too can import what they need."""
    as_nobody = interpreter(folder, "as-nobody", DROP)
    try:
        command = [as_nobody, "-c", "import fapilog, fastapi, gunicorn.app.wsgiapp"]
        tried = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        pytest.skip(f"no mount namespace: {error}")
    if tried.returncode:
        pytest.skip(f"user {NOBODY} cannot reach this interpreter: {tried.stderr.strip()[-300:]}")
    monkeypatch.setattr(sys, "executable", interpreter(folder, "as-root", ""))


@pytest.fixture
def as_nobody(folder, as_root, monkeypatch):
    """Programs are started as user 65534."""
    monkeypatch.setattr(sys, "executable", str(folder / "as-nobody"))


def made(path: Path, *, uid: int = 0, mode: int = 0o755) -> Path:
    path.mkdir()
    path.chmod(mode)
    os.chown(path, uid, uid)
    return path


def absent(run: Path) -> None:
    assert not run.exists()


def roots_own(run: Path) -> None:
    made(run, mode=0o755)


def closed_by_root(run: Path) -> None:
    made(run, mode=0o700)


def not_writable(run: Path) -> None:
    made(run, uid=NOBODY, mode=0o500)


@pytest.mark.matrix
@ROOT
@pytest.mark.usefixtures("as_nobody")
@pytest.mark.parametrize("prepare", [absent, roots_own, closed_by_root, not_writable])
def test_a_run_directory_that_this_user_cannot_use(folder, prepare):
    """One line on stderr names it; the worker's number is its pid, and logging works."""
    run_dir = made(folder / "roots") / "run"
    prepare(run_dir)
    logs = made(folder / "logs", uid=NOBODY)
    env = {"FAPILOG_FILE_PATH": str(logs / "{service}.{worker}.jsonl"), "FAPILOG_RUN_DIR": str(run_dir)}

    with start(folder, "forks", "one_after_another", **env) as program:
        assert program.ended() == 0
        program.nothing_left()

        found = by_role(lives(logs))
        assert sorted(found) == ["child 0", "child 1", "child 2", "parent"]
        assert all(life.worker == life.pid for life in found.values())
        assert all(ticks(life) == numbered(role, 10) for role, life in found.items())
        notes = program.stderr.splitlines()
        assert len(notes) == 4
        assert all(str(run_dir) in note and "pid" in note for note in notes)


@NOT_MEASURED
@ROOT
@pytest.mark.usefixtures("as_nobody")
def test_the_default_run_directory_of_another_user(folder):
    """It carries that user's id in its name, and only he may enter it."""
    logs = made(folder / "logs", uid=NOBODY)

    with start(folder, "owners", "user", FAPILOG_FILE_PATH=str(logs / "app.{worker}.jsonl"), FAPILOG_RUN_DIR="") as program:
        finished(program)

        (user,) = said(program, "user")
        assert (user["worker"], user["uid"], user["mode"]) == (1, NOBODY, 0o700)
        assert Path(user["run_dir"]).parent.name == f"fapilog-{NOBODY}"
        assert ticks(only_life(logs).whole()) == numbered("user", 100)


# A root process that works for another user.


@ROOT
def test_the_rights_of_another_user_are_taken_on(folder):
    """Inside all of them are his, groups too; afterwards, also after an error, they are what they were."""
    with start(folder, "owners", "restored") as program:
        finished(program)

        root = {"uids": [0, 0, 0], "gids": [0, 0, 0], "groups": [4, 24]}
        for at in ("before", "unasked", "after", "oneself"):
            (entry,) = said(program, at)
            assert {name: entry[name] for name in root} == root
        (inside,) = said(program, "inside")
        assert (inside["uids"], inside["gids"], inside["groups"]) == ([0, NOBODY, 0], [0, NOBODY, 0], [NOBODY])


@ROOT
def test_the_rights_of_another_user_cannot_be_taken_on(folder):
    """That is an error, and what was taken on already is given back."""
    with start(folder, "owners", "refused") as program:
        finished(program)

        assert said(program, "inside") == []
        (after,) = said(program, "after")
        assert (after["uids"], after["gids"], after["groups"]) == ([0, 0, 0], [0, 0, 0], [4, 24])


@ROOT
def test_there_is_no_other_user(folder):
    """Root for root changes nothing."""
    with start(folder, "owners", "root_for_root") as program:
        finished(program)

        (inside,) = said(program, "inside")
        assert inside["uids"] == inside["gids"] == [0, 0, 0]


@ROOT
def test_directories_for_another_user(folder):
    """They belong to him, wherever they are made; what was there stays as it was."""
    made(folder / "open", mode=0o777)
    made(folder / "roots")

    with start(folder, "owners", "directories") as program:
        finished(program)

        assert said(program, "slot")[0]["number"] == 1
        for name in ("open/a", "open/a/b", "roots/a"):
            assert owner_and_mode(folder / name)[:2] == (NOBODY, NOBODY)
        for name in ("roots/a/b", "roots/run"):
            assert owner_and_mode(folder / name) == (NOBODY, NOBODY, 0o700)
        assert owner_and_mode(folder / "roots/run/slot-1.lock")[:2] == (NOBODY, NOBODY)
        assert owner_and_mode(folder / "open") == (0, 0, 0o777)
        assert owner_and_mode(folder / "roots") == (0, 0, 0o755)


@ROOT
@pytest.mark.parametrize("way", ["master", "master_reopens", "child_of_a_master"])
def test_the_files_of_a_root_master(folder, way):
    """They and their directory belong to the workers' user, the file of another child to root; all events are there."""
    made(folder / "roots")
    logs = folder / "roots" / "logs"
    env = {"FAPILOG_FILE_PATH": str(logs / "{service}.{worker}.jsonl"), "FAPILOG_RUN_DIR": str(folder / "roots" / "run")}

    with start(folder, "owners", way, **env) as program:
        assert program.ended() == 0

        for path in (logs, logs / "app.0.jsonl", folder / "roots" / "run", folder / "roots" / "run" / "slot-0.lock"):
            assert owner_and_mode(path)[:2] == (NOBODY, NOBODY)
        if way == "master":
            (after,) = said(program, "after")
            assert after["uids"] == after["gids"] == [0, 0, 0]
            assert ticks(only_life(logs).whole()) == numbered("master", 3)
        elif way == "master_reopens":
            assert owner_and_mode(logs / "moved")[:2] == (NOBODY, NOBODY)
            assert [len(path.read_bytes().splitlines()) for path in (logs / "moved", logs / "app.0.jsonl")] == [3, 4]
        else:
            child = next(path for path in logs.iterdir() if path.name != "app.0.jsonl")
            assert owner_and_mode(child)[:2] == (0, 0)
            assert child.read_bytes().count(b'"child"') == 3


def a_link_to_a_file(logs: Path, secret: Path) -> None:
    made(logs, uid=NOBODY)
    (logs / "app.0.jsonl").symlink_to(secret / "file")


def a_link_to_a_missing_file(logs: Path, secret: Path) -> None:
    made(logs, uid=NOBODY)
    (logs / "app.0.jsonl").symlink_to(secret / "new")


def a_link_to_a_directory(logs: Path, secret: Path) -> None:
    logs.symlink_to(secret)


def a_link_above_the_directory(logs: Path, secret: Path) -> None:
    made(logs.parent / "users", uid=NOBODY)
    (logs.parent / "users" / "link").symlink_to(secret)


@ROOT
@pytest.mark.parametrize("mode", [0o700, only_matrix(0o755)], ids=["closed", "readable"])
@pytest.mark.parametrize(
    ("trap", "logs"),
    rest_in_matrix(
        2,
        [
            (a_link_to_a_file, "logs"),
            (a_link_above_the_directory, "users/link/logs"),
            (a_link_to_a_missing_file, "logs"),
            (a_link_to_a_directory, "logs"),
        ],
    ),
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_that_user_has_prepared_a_link_to_what_is_roots(folder, trap, logs, mode):
    """Root does not follow it: nothing is written or made there, and the events are counted as not delivered."""
    secret = made(folder / "secret", mode=mode)
    (secret / "file").write_text("root's\n")
    (secret / "file").chmod(0o600)
    home = made(folder / "home", uid=NOBODY)
    trap(home / "logs", secret)

    with start(folder, "owners", "master", FAPILOG_FILE_PATH=str(home / logs / "{service}.{worker}.jsonl")) as program:
        assert program.ended() == 0

        assert [path.name for path in secret.iterdir()] == ["file"]
        assert (secret / "file").read_text() == "root's\n"
        (books,) = said(program, "books")
        assert sum(books["dropped"].values()) == books["logged"] == 3
        assert program.stderr.count("took no event") == 1


@ROOT
@pytest.mark.parametrize("mode", [0o700, 0o755], ids=["closed", "readable"])
def test_that_user_has_prepared_a_link_above_the_run_directory(folder, mode):
    """Root makes nothing behind it: one line on stderr, the master has its pid for a number, and its events are there."""
    secret = made(folder / "secret", mode=mode)
    home = made(folder / "home", uid=NOBODY)
    (home / "link").symlink_to(secret)
    run_dir = home / "link" / "run"

    with start(
        folder, "owners", "master", FAPILOG_RUN_DIR=str(run_dir), FAPILOG_FILE_PATH=str(home / "app.{worker}.jsonl")
    ) as program:
        assert program.ended() == 0

        assert list(secret.iterdir()) == []
        (note,) = program.stderr.splitlines()
        assert str(run_dir) in note
        life = only_life(home)
        assert life.worker == life.pid
        assert ticks(life.whole()) == numbered("master", 3)


@pytest.mark.matrix
@ROOT
@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("preload", [False, True], ids=["no-preload", "preload"])
@pytest.mark.parametrize("run_dir", ["default", "chosen"])
def test_a_root_gunicorn_whose_workers_run_as_another_user(folder, run_dir, preload):
    """All files and the one run directory belong to that user, and no event is lost, also where only root may make them."""
    roots = made(folder / "roots")
    logs = roots / "logs"
    chosen = str(roots / "run") if run_dir == "chosen" else ""
    user = ["--user", str(NOBODY), "--group", str(NOBODY)]

    with ExitStack() as stack:
        server = stack.enter_context(
            Gunicorn(
                folder,
                *OUR_CONF,
                *user,
                app="wsgi",
                workers=2,
                preload=preload,
                FAPILOG_RUN_DIR=chosen,
                FAPILOG_FILE_PATH=str(logs / "{service}.{worker}.jsonl"),
                FAPILOG_TEST_SETUP="plain",
                FAPILOG_TEST_LOG_AT_IMPORT="1" if preload else "",
            )
        )
        load = server.wait_for_workers()
        if run_dir == "default":
            shm = Path(f"/proc/{server.pid}/root/dev/shm")
            (above,) = shm.glob("fapilog*")
            assert above.name == f"fapilog-{NOBODY}"
            (run,) = above.iterdir()
        else:
            run = above = roots / "run"
        assert owner_and_mode(above) == owner_and_mode(run) == (NOBODY, NOBODY, 0o700)
        names = {path.name for path in run.iterdir() if not path.name.startswith("journal-1.")}
        assert names == {"board-1", "board.lock", *(f"slot-{n}.lock" for n in range(3))}
        load.send(200)
        code = server.stop()
        load.close()

        assert code == 0
        assert "Traceback" not in server.stderr
        workers = check_files(logs, load)
        master = next(life for life in lives(logs) if life.worker == 0)
        assert master.whole().pid == server.pid
        assert len(master.named("imported")) == preload
        assert len(workers) == 2
        assert sorted(path.name for path in logs.iterdir()) == ["app.0.jsonl", "app.1.jsonl", "app.2.jsonl"]
        assert {owner_and_mode(path)[:2] for path in [logs, *logs.iterdir()]} == {(NOBODY, NOBODY)}
