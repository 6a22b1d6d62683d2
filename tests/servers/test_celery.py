"""
Real Celery workers with a broker in a directory: every ending, what becomes of each event, and Celery's own logs.

What was logged is known from the tasks themselves: after each call that has returned they write a line into a file of their own.

With such a broker Celery forks the successors of its children on a thread, and they are to be killed with their parent, which for
the kernel is that thread. It ends at the beginning of a warm shutdown, so successors may be killed then, without fapilog too.
"""

from __future__ import annotations

import os
import signal
import sysconfig
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests._support import ran_well, read_lines, run_script
from tests.programs.running import Life, Running, environment, lives, living, wait_until
from tests.servers.harness import HERE, check_turns

adapter = pytest.importorskip("fapilog.servers.celery", reason="needs celery: pip install celery")

if TYPE_CHECKING:
    from collections.abc import Iterable

STEPS = 5  # as in celery_app.py
APP = HERE / "celery_app.py"
CELERY = str(Path(sysconfig.get_path("scripts")) / "celery")  # it executes itself anew on SIGHUP, which `-m` would not survive
SHUTDOWN_S = 40.0  # Celery's own warm shutdown takes five seconds with this broker


def settings_for(folder: Path, **settings: str) -> dict[str, str]:
    broker = folder / "broker"
    for each in (broker, folder / "broker.control"):
        each.mkdir(exist_ok=True)
    env = environment(folder, **{"FAPILOG_QUEUE_SIZE": "20000", **settings})
    env.setdefault("TEST_BROKER", str(broker))
    env.setdefault("TEST_TOLD", str(folder / "told"))
    env["PYTHONPATH"] += os.pathsep + str(HERE)
    return env


def send(folder: Path, *what: object) -> None:
    """Put tasks into the broker: names, each with the first number and the one after the last."""
    with Running([str(APP), *map(str, what)], folder, settings_for(folder, FAPILOG_SINKS="stderr")) as sender:
        assert (sender.ended(), sender.stdout, sender.stderr) == (0, "", "")


def waiting(folder: Path) -> int:
    return len(list((folder / "broker").iterdir()))


def told(folder: Path) -> Counter[tuple[int, int, int]]:
    """Return what has been logged for certain: number, step and process."""
    path = folder / "told"
    rows = path.read_text().splitlines() if path.exists() else []
    return Counter((int(n), int(step), int(pid)) for n, step, pid in map(str.split, rows))


class Worker(Running):
    """
    A Celery worker in a directory of its own.

    Args:
        folder: Working directory; the broker is in it, and the log files are made here.
        arguments: More of the command line.
        pool: Its kind.
        children: How many.
        level: `--loglevel`.
        settings: More environment.
    """

    def __init__(
        self, folder: Path, *arguments: str, pool: str = "prefork", children: int = 4, level: str = "INFO", **settings: str
    ) -> None:
        command = [CELERY, "-A", "celery_app", "worker", "-P", pool, "-c", str(children), "-l", level]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat", *arguments]
        super().__init__(command, folder, settings_for(folder, **settings))
        self.last: list[int] = []  # the children when it was told to stop

    def has_told(self, count: int) -> None:
        """Wait until its tasks have logged so much."""

        def done() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}"
            return told(self.folder).total() >= count

        wait_until(done, f"{count} events are logged", 120.0)

    def children(self) -> list[int]:
        return [pid for pid in living(self.pid) if pid != self.pid]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the parent, wait for its end, check that no process is left; return the exit code."""
        self.last = self.children()
        self.signal(number)
        code = self.ended(SHUTDOWN_S)
        self.nothing_left()
        return code


def check_told(folder: Path, *, killed: Iterable[int] = (), successors: Iterable[int] = ()) -> dict[int, list[Life]]:
    """
    Check that all that the tasks have told is in the files once, from the same process, and that no life has a gap or a double.

    Args:
        folder: Of the worker.
        killed: Processes that may have been interrupted between a call and its telling of it: one event more, then.
        successors: Those that were there at the end, and may have been killed while they had nothing to do.

    Returns:
        The lives by worker number.
    """
    killed, unclosed = set(killed), {*killed, *successors}
    found = lives(folder)
    seen = Counter((line["n"], line["step"], life.pid) for life in found for line in life.named("work"))
    expected = told(folder)
    assert not expected - seen, "lost"
    more = seen - expected
    assert {pid for *_, pid in more} <= killed, "doubled, or untold"
    assert max(Counter(pid for *_, pid in more).values(), default=1) == 1, "doubled"
    for life in found:
        life.whole(closed=None if life.pid in unclosed else True)
    check_turns(folder)
    verified(folder)
    by_worker: dict[int, list[Life]] = {}
    for life in found:
        by_worker.setdefault(life.worker, []).append(life)
    return by_worker


def verified(folder: Path) -> None:
    files = [str(path) for path in sorted(folder.glob("app.*.jsonl"))]
    with Running(["-m", "fapilog", "verify", *files], folder, environment(folder)) as verify:
        assert verify.ended() == 0, verify.stdout


def all_lines(folder: Path) -> list[dict[str, Any]]:
    return [line for life in lives(folder) for line in life.lines]


def celerys(lines: Iterable[dict[str, Any]], word: str) -> list[dict[str, Any]]:
    """Return Celery's own lines about tasks that say *word*."""
    return [line for line in lines if line["logger"].startswith("celery.") and f"] {word}" in line["event"]]


def by_life(folder: Path, event: str) -> dict[int, dict[str, Any]]:
    """Return the events of that name by the process that they are about."""
    found = [line for line in all_lines(folder) if line["event"] == event]
    assert len({line["dead_pid"] for line in found}) == len(found), "told twice"
    return {line["dead_pid"]: line for line in found}


def pids_of(folder: Path, *numbers: int) -> list[int]:
    """Return by which processes these tasks were run."""
    return [next(pid for n, _, pid in told(folder) if n == number) for number in numbers]


def complete(folder: Path) -> int:
    """Return how many tasks have told all that they have to tell."""
    return sum(count == STEPS for count in Counter(n for n, *_ in told(folder)).values())


# ---- prefork


def test_a_warm_shutdown(tmp_path) -> None:
    """Every event is there once, with its task's id and name; the parent is worker 0, its children count from 1."""
    send(tmp_path, "work", 0, 24, "speak", 24, 28, "fail", 28, 29, "retried", 29, 30)
    with Worker(tmp_path, children=2) as worker:
        wait_until(lambda: len(celerys(lines_so_far(tmp_path), "succeeded")) == 29, "all tasks are done")
        assert worker.stop() == 0
    by_worker = check_told(tmp_path)
    assert (complete(tmp_path), told(tmp_path).total()) == (24, 24 * STEPS)
    assert {number: len(found) for number, found in by_worker.items()} == {0: 1, 1: 1, 2: 1}
    assert by_worker[0][0].pid == worker.pid
    assert [by_worker[n][0].lines[0]["event"] for n in (1, 2)] == ["fapilog.worker_started"] * 2
    children = [*by_worker[1][0].lines, *by_worker[2][0].lines]
    check_celerys_lines(by_worker[0][0].lines, children)
    check_contexts(children, range(24, 28))


def lines_so_far(folder: Path) -> list[dict[str, Any]]:
    """Return the lines, none while one is being written."""
    with suppress(AssertionError, ValueError):
        return all_lines(folder)
    return []


def check_celerys_lines(parent: list[dict[str, Any]], children: list[dict[str, Any]]) -> None:
    """Check what the parent and its children say of the tasks of `test_a_warm_shutdown`."""
    received, succeeded = celerys(parent, "received"), celerys(children, "succeeded")
    names = {line["task_id"]: line["task"] for line in received}
    sent = {"work": 24, "speak": 4, "fail": 1, "retried": 1}
    assert Counter(names.values()) == {f"celery_app.{name}": count for name, count in sent.items()}
    assert (len(received), len(succeeded)) == (31, 29)
    assert all(line["task_id"] in line["event"] and line["duration_ms"] > 0 for line in succeeded)
    assert not [line for line in parent + children if "data" in line]
    (failed,) = celerys(children, "raised unexpected")
    assert (failed["level"], failed["exception"]["type"], failed["exception"]["message"]) == ("error", "ValueError", "28")
    of_tasks = [line for line in children if line["logger"].startswith("tasks") or line["logger"] == "celery.app.trace"]
    assert all(names[line["task_id"]] == line["task"] for line in of_tasks)
    assert not [line for line in [*parent, *children] if line not in of_tasks + received and "task_id" in line]
    tried = sorted((line for line in children if line["event"] == "tried"), key=lambda line: str(line["timestamp"]))
    assert [line.get("retries") for line in tried] == [None, 1]


def check_contexts(lines: list[dict[str, Any]], spoken: Iterable[int]) -> None:
    """Check that each kind of logger was heard in each of the `speak` tasks, and that what one has left bound ends with it."""
    for n in spoken:
        (ours,) = [line for line in lines if line["event"] == "ours" and line["n"] == n]
        of_task = [line for line in lines if line.get("task_id") == ours["task_id"] and "received" not in line["event"]]
        assert [line["event"] for line in of_task[:4]] == ["ours", f"own {n}", f"standard {n}", "bound"]
        assert [line.get("left_by") for line in of_task] == [None, None, None, n, n]  # the last one is Celery's
    assert sum("left_by" in line for line in lines) == 2 * len(list(spoken))


@pytest.mark.matrix
def test_two_thousand_tasks_in_recycled_children(tmp_path) -> None:
    """A child that has run its tasks hands its number on; every event is there once."""
    send(tmp_path, "work", 0, 2000)
    with Worker(tmp_path, "--max-tasks-per-child", "50") as worker:
        worker.has_told(2000 * STEPS)
        assert worker.stop() == 0
    by_worker = check_told(tmp_path, successors=worker.last)
    assert told(tmp_path).total() == 2000 * STEPS
    assert {(n, step) for n, step, _ in told(tmp_path)} == {(n, step) for n in range(2000) for step in range(STEPS)}
    assert sorted(by_worker) == [0, 1, 2, 3, 4]
    children = [life for number in (1, 2, 3, 4) for life in by_worker[number]]
    assert len(children) >= 40
    assert len({life.pid for life in children}) == len(children)
    assert max(Counter(pid for *_, pid in told(tmp_path)).values()) == 50 * STEPS
    assert set(by_life(tmp_path, "fapilog.worker_died")) <= set(worker.last)
    assert len(celerys(by_worker[0][0].lines, "received")) == 2000
    assert sum(len(celerys(life.lines, "succeeded")) for life in children) == 2000
    loggers = {line["logger"] for life in children for line in life.lines}
    assert loggers == {"tasks", "celery.app.trace", "fapilog"}  # billiard's has no more to say than without us


@pytest.mark.matrix
def test_a_hard_time_limit(tmp_path) -> None:
    """What a child has logged before it is killed is delivered once, and its death is told."""
    send(tmp_path, "hang", 0, 1, "hang_deaf", 1, 2, "work", 2, 40)
    with Worker(tmp_path, "--time-limit", "3", children=2) as worker:
        worker.has_told(40 * STEPS)
        wait_until(lambda: worker_says(tmp_path, "Hard time limit") == 2, "both have met their limit")
        heard, deaf = pids_of(tmp_path, 0, 1)
        worker_gone(worker, heard, deaf)
        assert worker.stop() == 0
    by_worker = check_told(tmp_path, killed=[heard, deaf], successors=worker.last)
    assert complete(tmp_path) == 40
    assert sorted(by_worker) == [0, 1, 2]
    died = by_life(tmp_path, "fapilog.worker_died")
    # The other one has a tenth of a second to close, between SIGTERM and SIGKILL.
    assert {deaf} <= set(died) <= {heard, deaf, *worker.last}
    assert died[deaf]["lost"] == 0


def worker_says(folder: Path, text: str) -> int:
    return sum(text in str(line["event"]) for line in lines_so_far(folder))


def worker_gone(worker: Worker, *pids: int) -> None:
    wait_until(lambda: not set(pids) & set(living(worker.pid)), f"{pids} are gone")


@pytest.mark.matrix
@pytest.mark.parametrize(("number", "remap"), [(signal.SIGQUIT, ""), (signal.SIGTERM, "SIGQUIT")])
def test_a_cold_shutdown(tmp_path, number, remap) -> None:
    """Tasks under way are given up; what they have logged is delivered."""
    send(tmp_path, "work", 0, 20, "hang", 20, 22)
    with Worker(tmp_path, children=2, **({"REMAP_SIGTERM": remap} if remap else {})) as worker:
        worker.has_told(22 * STEPS)
        children = worker.children()
        assert worker.stop(number) == 0  # as Celery has it
    by_worker = check_told(tmp_path, killed=children)
    assert complete(tmp_path) == 22
    assert sorted(by_worker) == [0, 1, 2]


@pytest.mark.matrix
def test_children_killed_under_load(tmp_path) -> None:
    """
    Each event whose call had returned is there once; the next child takes the number and tells of the death.

    They are killed in a task: billiard's pool for such a broker hangs if a child dies while it holds the lock of the queue.
    """
    send(tmp_path, *(each for n in range(0, 600, 200) for each in ("work", n, n + 199, "perish", n + 199, n + 200)))
    with Worker(tmp_path, children=2) as worker:
        worker.has_told(600 * STEPS)
        killed = pids_of(tmp_path, 199, 399, 599)
        worker_gone(worker, *killed)
        assert worker.stop() == 0
    by_worker = check_told(tmp_path, killed=killed, successors=worker.last)
    assert (complete(tmp_path), sorted(by_worker)) == (600, [0, 1, 2])
    died = by_life(tmp_path, "fapilog.worker_died")
    assert set(killed) <= set(died) <= {*killed, *worker.last}
    assert {each["lost"] for each in died.values()} == {0}


@pytest.mark.matrix
def test_how_a_child_has_died(tmp_path) -> None:
    """Its successor knows from the parent; where a sibling comes before, which looks every 5 s, it is not known."""
    send(tmp_path, "work", 0, 10, "perish", 10, 11, "work", 11, 20)
    with Worker(tmp_path, children=1) as worker:
        worker.has_told(20 * STEPS)
        (killed,) = pids_of(tmp_path, 10)
        assert worker.stop() == 0
    by_worker = check_told(tmp_path, killed=[killed], successors=worker.last)
    assert {number: len(found) for number, found in by_worker.items()} == {0: 1, 1: 2}
    died = by_life(tmp_path, "fapilog.worker_died")[killed]
    shown = [died[name] for name in ("dead_worker", "dead_pid", "signal", "exit_code", "lost", "pid")]
    assert shown == [1, killed, "SIGKILL", None, 0, by_worker[1][1].pid]
    assert died["recovered"] >= STEPS


@pytest.mark.matrix
def test_an_embedded_beat(tmp_path) -> None:
    """The process that `--beat` forks is a child with a number of its own, and closes."""
    send(tmp_path, "work", 0, 10)
    with Worker(tmp_path, "--beat", "--schedule", str(tmp_path / "schedule"), children=2) as worker:
        worker.has_told(10 * STEPS)
        wait_until(lambda: worker_says(tmp_path, "beat: Starting"), "it has begun")
        assert worker.stop() == 0
    by_worker = check_told(tmp_path)
    assert (complete(tmp_path), sorted(by_worker)) == (10, [0, 1, 2, 3])
    assert not by_life(tmp_path, "fapilog.worker_died")


@pytest.mark.matrix
@pytest.mark.parametrize(("pool", "numbers"), [("prefork", [0, 1, 2]), ("threads", [1])])
def test_a_killed_parent(tmp_path, pool, numbers) -> None:
    """Its children go with it; the next worker delivers what they had logged."""
    send(tmp_path, "work", 0, 400)
    with Worker(tmp_path, pool=pool, children=2) as worker:
        worker.has_told(100 * STEPS)
        killed = [worker.pid, *worker.children()]
        worker.signal(signal.SIGKILL)
        worker.ended()
        worker.nothing_left()
    left = waiting(tmp_path)
    done = complete(tmp_path)
    with Worker(tmp_path, pool=pool, children=2) as worker:
        wait_until(lambda: complete(tmp_path) >= done + left, "what was in the broker is done", 120.0)
        assert worker.stop() == 0
    by_worker = check_told(tmp_path, killed=killed)
    assert sorted(by_worker) == numbers
    assert set(by_life(tmp_path, "fapilog.worker_died")) == set(killed)


@pytest.mark.matrix
def test_spawned_children(tmp_path) -> None:
    """They import the app again; nothing is different."""
    send(tmp_path, "work", 0, 20, "speak", 20, 22)
    with Worker(tmp_path, children=2, TEST_START_METHOD="spawn") as worker:
        wait_until(lambda: len(celerys(lines_so_far(tmp_path), "succeeded")) == 22, "all tasks are done")
        assert worker.stop() == 0
    by_worker = check_told(tmp_path)
    assert (complete(tmp_path), sorted(by_worker)) == (20, [0, 1, 2])
    check_contexts([*by_worker[1][0].lines, *by_worker[2][0].lines], range(20, 22))


@pytest.mark.matrix
def test_a_restart_by_hangup(tmp_path) -> None:
    """The parent executes itself anew: two lives of one process, both whole."""
    send(tmp_path, "work", 0, 10)
    with Worker(tmp_path, children=2) as worker:
        worker.has_told(10 * STEPS)
        worker.signal(signal.SIGHUP)
        wait_until(lambda: worker_says(tmp_path, " ready.") == 2, "it is up again")
        send(tmp_path, "work", 10, 20)
        # Celery may run a task once more that it had not acknowledged when it was told to start anew.
        wait_until(lambda: {n for n, step, _ in told(tmp_path) if step == STEPS - 1} == set(range(20)), "all tasks are done")
        assert worker.stop() == 0
    by_worker = check_told(tmp_path)
    assert {number: len(found) for number, found in by_worker.items()} == {0: 2, 1: 2, 2: 2}
    assert not by_life(tmp_path, "fapilog.worker_died")


@pytest.mark.matrix
def test_a_soft_time_limit_in_the_midst_of_logging(tmp_path) -> None:
    """The exception reaches the task, and each event is there once."""
    send(tmp_path, "chat", 0, 2)
    policy = {"FAPILOG_QUEUE_OVERFLOW": "block", "FAPILOG_QUEUE_BLOCK_TIMEOUT": "5"}
    with Worker(tmp_path, "--soft-time-limit", "1", "--time-limit", "20", children=2, **policy) as worker:
        worker.has_told(2 * STEPS)
        assert worker.stop() == 0
    check_told(tmp_path)
    lines = all_lines(tmp_path)
    for n in range(2):
        (end,) = [line for line in lines if line["event"] == "interrupted" and line["n"] == n]
        logged = [line["logged"] for line in lines if line["event"] == "chat" and line["n"] == n]
        assert logged[: end["logged"]] == list(range(end["logged"]))
        assert len(logged) - end["logged"] in (0, 1)  # the limit may have come in a call, before it came back
    assert worker_says(tmp_path, "Hard time limit") == 0


# ---- other pools


@pytest.mark.matrix
@pytest.mark.parametrize("pool", ["solo", "threads", "gevent"])
def test_pools_in_one_process(tmp_path, pool) -> None:
    """The process that is started is worker 1; every event is there once, with the context of its own task."""
    if pool == "gevent":
        pytest.importorskip("gevent")
    send(tmp_path, "work", 0, 40, "speak", 40, 44)
    with Worker(tmp_path, pool=pool) as worker:
        wait_until(lambda: len(celerys(lines_so_far(tmp_path), "succeeded")) == 44, "all tasks are done")
        assert worker.stop() == 0
    by_worker = check_told(tmp_path)
    assert complete(tmp_path) == 40
    ((life,),) = by_worker.values()
    assert (life.worker, life.pid, life.lines[0]["event"]) == (1, worker.pid, "fapilog.worker_started")
    ids = {(line["n"], line["task_id"]) for line in life.named("work")}
    assert len(ids) == len(dict(ids)) == 40
    check_contexts(life.lines, range(40, 44))


# ---- without install(), and around it


@pytest.mark.matrix
def test_without_install(tmp_path) -> None:
    """
    `configure_logging()` alone, and Celery takes the root's handlers: every record that propagates arrives once (O-STD-3).

    Those of Celery's task loggers do not: Celery stops them. No child closes, so their deaths are told.
    """
    send(tmp_path, "work", 0, 20, "speak", 20, 24)
    with Worker(tmp_path, children=2, TEST_INSTALL="0") as worker:
        wait_until(lambda: len(celerys(lines_so_far(tmp_path), "succeeded")) == 24, "all tasks are done")
        children = worker.children()
        assert worker.stop() == 0
    check_told(tmp_path, killed=children)
    lines = all_lines(tmp_path)
    said = Counter(str(line["event"]) for line in lines)
    for n in range(20, 24):
        assert (said[f"standard {n}"], said[f"own {n}"], worker.stderr.count(f"own {n}")) == (1, 0, 1)
    assert len(celerys(lines, "received")) == len(celerys(lines, "succeeded")) == 24
    assert set(by_life(tmp_path, "fapilog.worker_died")) <= set(children)


def test_a_wrong_setting(tmp_path) -> None:
    """The worker does not start, and says in one line which setting is wrong."""
    with Worker(tmp_path, FAPILOG_QUEUE_SIZE="-1") as worker:
        assert worker.ended() == 1
        worker.nothing_left()
    assert worker.stderr.count("FAPILOG_QUEUE_SIZE='-1': must be a whole number") == 1
    assert "Traceback" not in worker.stderr


@pytest.mark.matrix
def test_levels_and_a_log_file(tmp_path) -> None:
    """`--loglevel` decides for Celery's loggers, `FAPILOG_LEVEL` for others; `--logfile` gets Celery's text as ever."""
    send(tmp_path, "speak", 0, 1, "fail", 1, 2, "work", 2, 3)
    log = tmp_path / "celery.log"
    with Worker(tmp_path, "--logfile", str(log), children=1, level="WARNING") as worker:
        worker.has_told(STEPS)
        assert worker.stop() == 0
    said = [str(line["event"]) for line in all_lines(tmp_path)]
    assert "own 0" not in said
    assert not [each for each in said if "succeeded" in each or "received" in each]
    assert [said.count(each) for each in ("ours", "standard 0", "bound")] == [1, 1, 1]
    assert len([each for each in said if "raised unexpected" in each]) == 1
    text = log.read_text()
    assert (text.count("standard 0"), text.count("raised unexpected"), text.count("own 0")) == (1, 1, 0)


def test_a_process_that_sends_tasks(tmp_path) -> None:
    """`install()` changes nothing there, until a task is run in the process itself: that has its context, nested too."""
    code = """
    import logging, os, sys, threading
    import structlog
    os.environ.update(TEST_BROKER="broker", TEST_TOLD="told", FAPILOG_SINKS="file", FAPILOG_FILE_PATH="out.jsonl")
    sys.path.insert(0, os.environ["HERE"])
    import celery_app, fapilog
    assert not structlog.is_configured() and threading.active_count() == 1 and not os.path.exists("out.jsonl")
    handlers = [each for name in ("", "celery", "multiprocessing") for each in logging.getLogger(name).handlers]
    assert all(type(each) is logging.NullHandler for each in handlers)
    fapilog.bind_contextvars(request_id="r")
    celery_app.outer.apply((1,))
    assert fapilog.get_contextvars() == {"request_id": "r"}
    """
    ran_well(run_script(code, tmp_path, env={"HERE": str(HERE)}))
    lines = [line for line in read_lines(tmp_path / "out.jsonl") if line["logger"] == "tasks"]
    shown = [(line["event"], line["task"], line["request_id"], line.get("of_outer"), line.get("left_by")) for line in lines]
    assert shown == [
        ("before", "celery_app.outer", "r", 1, None),
        ("ours", "celery_app.speak", "r", 1, None),
        ("bound", "celery_app.speak", "r", 1, 1),
        ("after", "celery_app.outer", "r", 1, None),
    ]
    assert lines[0]["task_id"] == lines[3]["task_id"] != lines[1]["task_id"]


def test_an_eager_task_with_a_secret_among_its_arguments(tmp_path) -> None:
    """They are not logged, also in a process that is no worker; `retries` is that of the task itself."""
    code = """
    import os, sys
    from celery import Celery
    import fapilog, fapilog.servers.celery
    fapilog.servers.celery.install()
    app = Celery("t", broker_url="memory://", task_ignore_result=True)
    @app.task(name="inner")
    def inner(*args, **more): fapilog.get_logger("tasks").info("inner")
    @app.task(name="outer")
    def outer():
        inner.apply(("hunter2",), {"word": "hunter3"})
        fapilog.get_logger("tasks").info("outer")
    fapilog.configure_logging(sinks=["file"], file_path="out.jsonl")
    outer.apply(retries=2)
    """
    ran_well(run_script(code, tmp_path))
    lines = read_lines(tmp_path / "out.jsonl")
    assert "hunter" not in (tmp_path / "out.jsonl").read_text()
    assert [(line["event"], line.get("retries")) for line in lines if line["logger"] == "tasks"] == [
        ("inner", None),
        ("outer", 2),
    ]
    succeeded = [line for line in lines if line["logger"] == "celery.app.trace"]
    assert [(line["task"], "duration_ms" in line, "data" in line) for line in succeeded] == [
        ("inner", True, False),
        ("outer", True, False),
    ]


def test_a_soft_time_limit_that_comes_again_when_its_task_has_ended(monkeypatch) -> None:
    """The task that runs then does not meet it; its own does."""
    raised: list[int] = []
    monkeypatch.setattr("billiard.pool.soft_timeout_sighandler", lambda number, _: raised.append(number))
    process = adapter._Process
    monkeypatch.setattr(process, "task", "the next")
    monkeypatch.setattr(process, "late", "the one before")
    adapter._soft_limit(signal.SIGUSR1, None)
    assert raised == []
    adapter._soft_limit(signal.SIGUSR1, None)  # its own, from billiard
    process.late = "the next"
    adapter._soft_limit(signal.SIGUSR1, None)
    assert raised == [signal.SIGUSR1] * 2
