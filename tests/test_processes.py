"""Fork, spawn and strangers: every process has its own number, its own file and exactly its own events."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from fapilog._internal import rundir
from tests._support import FORKED, only_matrix, ran_well, rest_in_matrix, run_script
from tests.programs.running import FULL, LIMIT_S, lives, lives_in, only_life, start
from tests.programs.told import by_role, drain_fifo, finished, numbered, said, ticks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")


@pytest.mark.parametrize("where", ["queue", "backlog"])
def test_fork_while_100_events_wait_for_a_file_that_hangs(tmp_path, where):
    """After its release the parent's file holds the parent's 100 events, the child's own file the child's; none is twice."""
    fifo = tmp_path / "app.1.jsonl"
    os.mkfifo(fifo)

    with start(tmp_path, "forks", "stalled", where, FAPILOG_DRAIN_TIMEOUT="30") as program:
        program.said("child gone")
        data = drain_fifo(fifo, program)
        finished(program)
        fifo.unlink()

        (parent,) = lives_in(data, fifo)
        child = only_life(tmp_path)
        assert ticks(parent.whole()) == numbered("parent", 100)
        assert ticks(child.whole()) == numbered("child", 10)
        assert (parent.worker, child.worker) == (1, 2)
        assert parent.pid == program.pid != child.pid
        assert parent.lines[0]["boot"] != child.lines[0]["boot"]


def test_fork_while_a_sink_of_the_users_own_is_inside_its_write(tmp_path):
    """The parent's 100 events and the child's own are each written once, by the process that logged them."""
    with start(tmp_path, "forks", "gated", FAPILOG_DRAIN_TIMEOUT="30") as program:
        finished(program)

        found = by_role(lives(tmp_path))
        assert ticks(found["parent"]) == numbered("parent", 100)
        assert ticks(found["child"]) == numbered("child", 10)
        assert (found["parent"].worker, found["child"].worker) == (1, 2)


def test_fork_from_a_thread(tmp_path):
    """The child logs and drains as any process does; the parent goes on in its own file."""
    with start(tmp_path, "forks", "from_a_thread") as program:
        finished(program)

        found = by_role(lives(tmp_path))
        assert ticks(found["parent"]) == numbered("parent", 100)
        assert ticks(found["child"]) == numbered("child", 20)
        assert said(program, "child") == [{"at": "child", "complete": True}]


def test_fork_in_a_fork(tmp_path):
    """Three generations have three workers, pids and boots, and each its own events."""
    with start(tmp_path, "forks", "deep") as program:
        finished(program)

        found = by_role(lives(tmp_path))
        assert {role: life.worker for role, life in found.items()} == {"parent": 1, "child": 2, "grandchild": 3}
        assert ticks(found["parent"]) == numbered("parent", 60)
        assert ticks(found["child"]) == numbered("child", 60)
        assert ticks(found["grandchild"]) == numbered("grandchild", 30)


def test_children_come_one_after_another(tmp_path):
    """Each takes over the number, and so the file, of the one before it."""
    with start(tmp_path, "forks", "one_after_another") as program:
        finished(program)

        found = by_role(lives(tmp_path))
        assert {role: life.worker for role, life in found.items()} == {"parent": 1, "child 0": 2, "child 1": 2, "child 2": 2}
        assert all(ticks(life) == numbered(role, 10) for role, life in found.items())


def test_fork_while_threads_log(tmp_path):
    """No child inherits a lock that is held or an event that waits; all events of all processes arrive once."""
    children = 60 if FULL else 20

    with start(
        tmp_path,
        "forks",
        "while_threads_log",
        str(children),
        FAPILOG_QUEUE_OVERFLOW="block",
        FAPILOG_QUEUE_BLOCK_TIMEOUT="30",
        FAPILOG_QUEUE_SIZE="10000",
    ) as program:
        finished(program)

        found = lives(tmp_path)
        assert len(found) == children + 1
        (parent,) = (life for life in found if life.worker == 1)
        (threads,) = said(program, "threads")
        expected = Counter((f"thread {index}", n) for index, count in enumerate(threads["counts"]) for n in range(count))
        assert ticks(parent.whole()) == expected
        roles = by_role([life for life in found if life is not parent])
        assert sorted(roles) == sorted(f"child {number}" for number in range(children))
        assert all(ticks(life) == numbered(role, 20) for role, life in roles.items())
        assert {life.worker for life in roles.values()} == {2}


def test_imports_after_set_up(tmp_path):
    """There are none: a child forked while a thread of the parent imports a module would never get that module whole."""
    with start(tmp_path, "forks", "imports") as program:
        assert program.ended() == 0

        (entry,) = said(program, "imported")
        assert entry["names"] == []


@pytest.mark.parametrize(("way", "code"), [("_exit", 0), ("exit", 0), ("SIGTERM", -signal.SIGTERM)])
def test_a_forked_child_ends_without_logging(tmp_path, way, code):
    """It ends as it would without us, and neither takes nor repeats any of its parent's events."""
    with start(tmp_path, "forks", "unlogged_child", way) as program:
        finished(program)

        assert said(program, "code") == [{"at": "code", "code": code}]
        assert ticks(only_life(tmp_path).whole()) == numbered("parent", 100)


@pytest.mark.parametrize("child", ["warm", "cold"])
def test_a_parent_is_killed_and_its_forked_child_lives_on(tmp_path, child):
    """The parent's number is free at once for the next process; the child keeps, or takes later, another one."""
    with start(tmp_path, "forks", "orphan", child) as program:
        program.said("child ready")
        (ready,) = said(program, "child ready")
        program.signal(signal.SIGKILL)
        assert program.ended() == -signal.SIGKILL
        with start(tmp_path, "forks", "wait_to_be_told") as successor:
            successor.said("ready")
            assert said(successor, "ready") == [{"at": "ready", "worker": 1}]
            os.kill(ready["pid"], 0)
            (tmp_path / "go").touch()
            finished(successor)
            program.nothing_left()

        found = {life.pid: life for life in lives(tmp_path)}
        assert {pid: life.worker for pid, life in found.items()} == {program.pid: 1, successor.pid: 1, ready["pid"]: 2}
        assert ticks(found[program.pid]) == numbered("parent", 10)
        assert ticks(found[successor.pid].whole()) == numbered("process", 10)
        first = 0 if child == "warm" else 10
        assert ticks(found[ready["pid"]].whole()) == Counter(("child", n) for n in range(first, 20))


@FORKED
def test_children_of_multiprocessing(tmp_path, method):
    """They log without any set-up of their own, and all their events are there when they have ended."""
    with start(tmp_path, "forks", "with_multiprocessing", method) as program:
        finished(program)

        found = by_role(lives(tmp_path))
        assert sorted(found) == ["child 0", "child 1", "child 2", "parent"]
        assert ticks(found.pop("parent")) == numbered("parent", 100)
        assert all(ticks(life) == numbered(role, 50) for role, life in found.items())


@pytest.mark.parametrize("method", ["fork", only_matrix("spawn")])
def test_children_of_multiprocessing_are_terminated(tmp_path, method):
    """`terminate()` ends them by SIGTERM as ever, after their events are written."""
    with start(tmp_path, "forks", "terminated", method) as program:
        finished(program)

        found = by_role(lives(tmp_path))
        assert sorted(found) == ["child 0", "child 1", "parent"]
        assert all(ticks(life) == numbered(role, 50) for role, life in found.items())


@pytest.mark.parametrize("method", rest_in_matrix(1, ["spawn", "fork", "forkserver"]))
def test_tasks_of_a_process_pool(tmp_path, method):
    """Each task's events are there once, in the file of the process that ran it."""
    with start(tmp_path, "forks", "pool", method) as program:
        finished(program)

        (pool,) = said(program, "pool")
        found = lives(tmp_path)
        assert sorted(life.whole().pid for life in found) == pool["pids"]
        total = sum((ticks(life) for life in found), Counter())
        assert total == Counter((f"task {number}", n) for number in range(20) for n in range(10))


def test_independent_processes_of_one_service(tmp_path):
    """They share nothing but the run directory, and have different numbers and files."""
    with start(tmp_path, "forks", "wait_to_be_told") as one, start(tmp_path, "forks", "wait_to_be_told") as other:
        one.said("ready")
        other.said("ready")
        (tmp_path / "go").touch()
        finished(one)
        finished(other)

        found = {life.pid: life.whole() for life in lives(tmp_path)}
        assert set(found) == {one.pid, other.pid}
        assert {life.worker for life in found.values()} == {1, 2}
        assert all(ticks(life) == numbered("process", 10) for life in found.values())


@pytest.fixture
def services() -> Iterator[tuple[str, str]]:
    """Two names of services that nobody else has; what is kept of them where all services meet is removed."""
    names = [f"{name}-{secrets.token_hex(8)}" for name in ("one", "other")]
    yield names[0], names[1]
    for name in names:
        for folder in rundir.known_run_dirs(name):
            shutil.rmtree(folder)


def test_services_of_different_names(tmp_path, services):
    """Without a run directory of their own choice they do not meet: each has a worker 1."""
    with (
        start(tmp_path, "forks", "wait_to_be_told", FAPILOG_RUN_DIR="", FAPILOG_SERVICE=services[0]) as one,
        start(tmp_path, "forks", "wait_to_be_told", FAPILOG_RUN_DIR="", FAPILOG_SERVICE=services[1]) as other,
    ):
        one.said("ready")
        other.said("ready")
        (tmp_path / "go").touch()
        finished(one)
        finished(other)

        assert [life.worker for name in services for life in lives(tmp_path, name)] == [1, 1]


def a_link(run: Path) -> None:
    (run.parent / "elsewhere").mkdir(mode=0o700)
    run.symlink_to(run.parent / "elsewhere")


def a_file(run: Path) -> None:
    run.touch()


def open_to_others(run: Path) -> None:
    run.mkdir()
    run.chmod(0o777)


def somebody_elses(run: Path) -> None:
    run.mkdir(mode=0o700)
    os.chown(run, 12345, 12345)


def with_a_link_for_a_lock(run: Path) -> None:
    run.mkdir(mode=0o700)
    (run / "slot-1.lock").symlink_to(run.parent / "victim")


@pytest.mark.parametrize(
    "prepare",
    [*rest_in_matrix(2, [a_link, with_a_link_for_a_lock, a_file, open_to_others]), pytest.param(somebody_elses, marks=ROOT)],
)
def test_a_run_directory_that_cannot_be_trusted(tmp_path, prepare):
    """It is not used, which one line on stderr says; the worker's number is its pid, and logging works."""
    prepare(tmp_path / "run")

    with start(tmp_path, "exits", "end", "100") as program:
        assert program.ended(LIMIT_S) == 0
        program.nothing_left()

        (line,) = program.stderr.splitlines()
        assert str(tmp_path / "run") in line
        assert "pid" in line
        life = only_life(tmp_path).whole()
        assert life.worker == life.pid == program.pid
        assert [event["n"] for event in life.named("tick")] == list(range(100))
        assert not (tmp_path / "victim").exists()
        assert not list(tmp_path.glob("elsewhere/*"))


def test_a_run_directory_that_cannot_be_made(tmp_path):
    """One line on stderr, the pid for a number, and logging works."""
    (tmp_path / "file").touch()

    with start(tmp_path, "exits", "end", "100", FAPILOG_RUN_DIR=str(tmp_path / "file" / "a" / "b")) as program:
        assert program.ended(LIMIT_S) == 0
        program.nothing_left()

        assert len(program.stderr.splitlines()) == 1
        life = only_life(tmp_path).whole()
        assert life.worker == program.pid
        assert [event["n"] for event in life.named("tick")] == list(range(100))


def test_fork_while_another_thread_sets_up(tmp_path: Path) -> None:
    """The fork waits for the set-up, within its bound, so that the child inherits no lock of it."""
    ran_well(
        run_script(
            """
            import os, threading, time
            import fapilog
            from fapilog.coordinator import FORK_PATIENCE, coordinator

            inside, leave = threading.Event(), threading.Event()

            def set_up(seconds):
                with coordinator.setting_up():
                    inside.set()
                    leave.wait(seconds)

            def fork():
                began = time.monotonic()
                pid = os.fork()
                if not pid:
                    fapilog.get_logger().info("child")
                    fapilog.flush(10)
                    os._exit(0)
                took = time.monotonic() - began
                assert os.waitpid(pid, 0)[1] == 0
                return took

            for seconds, least, most in ((0.1, 0.08, 0.35), (30, FORK_PATIENCE, 0.9)):
                inside.clear()
                thread = threading.Thread(target=set_up, args=(seconds,))
                thread.start()
                inside.wait()
                took = fork()
                assert least <= took < most, took
                leave.set()
                thread.join()
                leave.clear()
            with coordinator.setting_up():
                assert fork() < 0.3  # its own thread's set-up is no reason to wait
            """,
            tmp_path,
            env={
                "FAPILOG_SINKS": "file",
                "FAPILOG_FILE_PATH": str(tmp_path / "{pid}.jsonl"),
                "FAPILOG_RUN_DIR": str(tmp_path / "run"),
            },
        )
    )
    assert len(list(tmp_path.glob("*.jsonl"))) == 3


@pytest.mark.parametrize("trap", ["link", "open_to_others"])
def test_the_parent_of_the_default_run_directory_is_a_trap(tmp_path: Path, monkeypatch, trap: str) -> None:
    """Somebody prepared ``fapilog-<uid>`` in the world-writable base: it is not used, and the worker's number is its pid."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(rundir, "_base", lambda: tmp_path)
    run_dir = rundir.default_run_dir("app", ["stdout"])
    if trap == "link":
        run_dir.parent.symlink_to(elsewhere)
    else:
        run_dir.parent.mkdir()
        run_dir.parent.chmod(0o777)
    monkeypatch.setattr(rundir, "note", lambda *_: None)
    slot = rundir.take_slot(run_dir)
    assert (slot.number, slot.fd) == (os.getpid(), -1)
    assert list(elsewhere.iterdir()) == []
