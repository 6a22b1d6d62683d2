"""
Gunicorn's dirty arbiter and dirty workers, which end by `os._exit()`: whatever ends them, each event is there once.

`dirty_app` has the applications. What an HTTP worker logs is beside: `asked`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from collections import Counter
from itertools import count, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fapilog.errors import ConfigurationError
from fapilog.servers import gunicorn as hooks
from tests._support import process_restored
from tests.programs.running import Life, lives, living, wait_until
from tests.servers.harness import OUR_CONF, Gunicorn, ask, check_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

pytest.importorskip("gunicorn.dirty", reason="Gunicorn before 25 has no dirty workers")

#: From Python 3.12 on, Gunicorn 27's dirty arbiter and dirty workers wait for their connections' end when they are to end, also
#: without us: the master kills the arbiter after `graceful_timeout`, and its workers, whose connection breaks then, end after it.
#: After a reload under requests an old one and a new one outlived a Gunicorn without fapilog in three of eight runs: the new one
#: had inherited the arbiter's end of the connection to the old one, which does not break then.
ORDERLY = sys.version_info < (3, 12)
orderly = pytest.mark.skipif(not ORDERLY, reason="Gunicorn's dirty processes do not end by themselves on Python 3.12")

STEPS = 5  # as in dirty_app.py
CALLS = 40
HTTP, DIRTY = 2, 2
HOOKS = """
import json, os
import fapilog.servers.gunicorn

def mark(hook, worker=None):
    with open({marks!r}, "a") as file:
        file.write(json.dumps([hook, os.getpid(), worker]) + "\\n")

def on_dirty_starting(arbiter):
    mark("on_dirty_starting")

def dirty_post_fork(arbiter, worker):
    mark("dirty_post_fork", worker.pid)

def dirty_worker_init(worker):
    mark("dirty_worker_init", worker.pid)

fapilog.servers.gunicorn.wrap(globals())

def dirty_worker_exit(arbiter, worker):
    mark("dirty_worker_exit", worker.pid)
"""
#: How Gunicorn is started: more of the command line, the text of a conf file, and whether fapilog is there from the start.
WAYS: dict[str, tuple[tuple[str, ...], str | None, bool]] = {
    "our conf": (OUR_CONF, None, True),
    "post_fork": ((), "from fapilog.gunicorn_conf import post_fork\n", True),
    "the application": ((), None, True),
    "the application, lazily": ((), None, False),
}


class Dirty(Gunicorn):
    """Gunicorn with dirty workers, and the calls that they have answered."""

    def __init__(self, folder: Path, *arguments: str, conf: str | None = None, **settings: str) -> None:
        arguments = ("--dirty-app", "dirty_app:App", "--dirty-workers", str(DIRTY), *arguments)
        # The sockets of the dirty processes are made there, and a socket's path may have 107 bytes: the test's own is too long.
        self._short = tempfile.TemporaryDirectory(prefix="fapilog-")
        told: dict[str, Any] = {**settings, "TMPDIR": self._short.name}
        super().__init__(folder, *arguments, app="dirty_app:wsgi", workers=HTTP, conf=conf, **told)
        self.answers: dict[int, int] = {}
        self.asked: dict[int, int] = {}
        self.broken: set[int] = set()
        self._numbers = count()

    def __exit__(self, kind: object, *_: object) -> None:
        super().__exit__(kind)
        self._short.cleanup()

    def call(self, what: str = "dirty") -> int | None:
        """Make one call; return the pid of whoever answered, or None if nobody could."""
        n = next(self._numbers)
        try:
            answer = ask(self.port, f"/{what}/{n}")
        except ConnectionRefusedError:
            return None
        if answer is None or answer[0] != 200:
            self.broken.add(n)
            return None
        (self.answers if what == "dirty" else self.asked)[n] = int(answer[1])
        return int(answer[1])

    def meet(self, besides: Collection[int] = (), workers: int = DIRTY) -> set[int]:
        """Call until so many dirty workers have answered, not counting *besides*; return their pids."""

        def met() -> bool:
            self.still_runs()
            self.call()
            return len(set(self.answers.values()) - set(besides)) >= workers

        wait_until(met, f"{workers} dirty workers answer")
        return set(self.answers.values()) - set(besides)

    def work(self) -> None:
        """Make `CALLS` calls of each kind, each of which must be answered."""
        assert all(self.call(what) for _ in range(CALLS) for what in ("dirty", "log"))


def check(folder: Path, server: Dirty, *, killed: Collection[int] = ()) -> dict[int, Life]:
    """
    Check that every event of every call is there once, from whoever answered, and no life has a gap; return the lives by pid.

    A call that was not answered may have left its events, each once.
    """
    found = {life.pid: life for life in lives(folder)}
    seen = Counter((line["n"], line["step"], life.pid) for life in found.values() for line in life.named("work"))
    wanted = Counter((n, step, pid) for (n, pid), step in product(server.answers.items(), range(STEPS)))
    assert not wanted - seen, "lost"
    more = Counter(key[:2] for key in (seen - wanted).elements())
    assert not [key for key, times in more.items() if times > 1 or key[0] not in server.broken], (
        "doubled, or from another process"
    )
    asked = Counter((line["n"], life.pid) for life in found.values() for line in life.named("asked"))
    assert asked == Counter(server.asked.items())
    for life in found.values():
        life.whole(closed=life.pid not in killed if ORDERLY or life.named("Starting gunicorn") else None)
    check_turns(folder)
    return found


def dirty_arbiter(server: Dirty) -> int:
    """Return the pid of the dirty arbiter: the child of the master that has children."""
    parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in living(server.pid)}
    (found,) = {parent for parent in parents.values() if parents.get(parent) == server.pid}
    return found


def written(folder: Path) -> bytes:
    return b"".join(map(Path.read_bytes, folder.glob("*.jsonl")))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.matrix)])
def test_a_server_with_dirty_workers_ends(tmp_path, number):
    """Every event once; each process has a number and a file of its own; the dirty arbiter has no thread beside its own."""
    with Dirty(tmp_path, *OUR_CONF) as server:
        dirty = server.meet()
        server.work()
        arbiter = dirty_arbiter(server)
        assert len(os.listdir(f"/proc/{arbiter}/task")) == 1
        code = server.stop(number)

        assert code == 0
        found = check(tmp_path, server)
        assert len(found) == len({life.worker for life in found.values()}) == 2 + HTTP + DIRTY
        assert found[server.pid].worker == 0
        for pid in dirty:
            for event in ("init", "close", "fapilog.worker_started", f"Dirty worker {pid} exiting"):
                assert len(found[pid].named(event)) == 1
        assert len(found[arbiter].named(f"Dirty arbiter starting (pid: {arbiter})")) == 1
        assert len(found[arbiter].named(f"Dirty arbiter exiting (pid: {arbiter})")) == ORDERLY


@pytest.mark.matrix
@pytest.mark.parametrize("way", WAYS)
def test_ways_to_set_up(tmp_path, way):
    """Every event once, whoever set up; also where fapilog comes into the process with the first action."""
    arguments, conf, early = WAYS[way]
    with Dirty(tmp_path, *arguments, conf=conf, FAPILOG_TEST_LAZY="" if early else "1") as server:
        dirty = server.meet()
        server.work()
        code = server.stop()

        assert code == 0
        found = check(tmp_path, server)
        assert all(len(found[pid].named("close")) == 1 for pid in dirty)
        assert all(len(found[pid].named("init")) == early for pid in dirty)


@orderly
@pytest.mark.matrix
def test_a_reload(tmp_path):
    """Whoever Gunicorn ends and begins, every event is there once."""
    with Dirty(tmp_path, *OUR_CONF) as server:
        server.meet()
        server.work()
        server.signal(signal.SIGHUP)
        wait_until(lambda: b"Reloading dirty workers" in written(tmp_path), "it reloads")
        for _ in range(CALLS):  # some find nobody: Gunicorn ends dirty workers that are at work
            server.call()
        wait_until(lambda: written(tmp_path).count(b"Dirty worker exited") >= DIRTY, "dirty workers have ended")
        server.has(1 + HTTP + DIRTY)
        code = server.stop()

        assert code == 0
        assert len(check(tmp_path, server)) >= 2 + 2 * HTTP + 2 * DIRTY


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(number, marks=[pytest.mark.matrix, orderly]) for number in (signal.SIGTERM, signal.SIGABRT))],
)
def test_a_dirty_worker_is_ended(tmp_path, number):
    """Another takes its number; all that it had logged is there once, and its death by SIGKILL is told once, with the signal."""
    with Dirty(tmp_path, *OUR_CONF, "--graceful-timeout", "5") as server:
        victim, other = sorted(server.meet())
        server.work()
        os.kill(victim, number)
        server.gone([victim])
        (heir,) = server.meet({victim, other}, 1)
        server.work()
        code = server.stop()

        assert code == 0
        killed = [victim] if number == signal.SIGKILL else []
        found = check(tmp_path, server, killed=killed)
        assert found[heir].path == found[victim].path
        died = [
            line for life in found.values() for line in life.named("fapilog.worker_died") if ORDERLY or line["dead_pid"] == victim
        ]
        assert [(line["dead_pid"], line["signal"], line["lost"]) for line in died] == [(pid, "SIGKILL", 0) for pid in killed]


@orderly
@pytest.mark.matrix
def test_an_action_is_under_way(tmp_path):
    """Gunicorn does not wait for it; what it has logged is there once."""
    with Dirty(tmp_path, *OUR_CONF, "--timeout", "120") as server:
        server.meet()
        server.work()
        holding = threading.Thread(target=server.call, args=("hold",))
        holding.start()
        wait_until(lambda: b'"holding"' in written(tmp_path), "it holds")
        code = server.stop()
        holding.join()

        assert code == 0
        found = check(tmp_path, server)
        assert sum(len(life.named("holding")) for life in found.values()) == 1


@pytest.mark.matrix
def test_an_application_that_does_not_start(tmp_path):
    """What each of its processes logged is there once, Gunicorn's own line about it too."""
    with Dirty(tmp_path, *OUR_CONF, FAPILOG_TEST_FAILS="1") as server:
        wait_until(lambda: written(tmp_path).count(b"Exception in dirty worker process") >= 2, "two have failed")
        code = server.stop()

        assert code == 0
        failed = [life for life in lives(tmp_path) if life.named("Exception in dirty worker process")]
        assert len(failed) >= 2
        for life in failed:
            assert len(life.named("init")) == len(life.named("Exception in dirty worker process")) == 1
            life.whole()


@orderly
@pytest.mark.matrix
def test_hooks_of_the_users(tmp_path):
    """Each of them runs once where Gunicorn calls it, also one that is defined after `wrap()`."""
    marks = tmp_path / "marks"
    with Dirty(tmp_path, conf=HOOKS.format(marks=str(marks))) as server:
        dirty = server.meet()
        server.work()
        arbiter = dirty_arbiter(server)
        code = server.stop()

    assert code == 0
    check(tmp_path, server)
    told = Counter(tuple(json.loads(line)) for line in marks.read_text().splitlines())
    wanted: list[tuple[Any, ...]] = [("on_dirty_starting", arbiter, None)]
    for pid in dirty:
        wanted += [("dirty_post_fork", arbiter, pid), ("dirty_worker_init", pid, pid), ("dirty_worker_exit", arbiter, pid)]
    assert told == Counter(wanted)


@orderly
@pytest.mark.matrix
def test_files_are_reopened(tmp_path):
    """After SIGUSR1 to the master the dirty arbiter and its workers write to new files."""
    with Dirty(tmp_path, *OUR_CONF) as server:
        dirty = server.meet()
        server.work()
        everybody = {life.pid for life in lives(tmp_path)}
        old = tmp_path / "old"
        old.mkdir()
        for path in tmp_path.glob("*.jsonl"):
            path.rename(old / path.name)
        server.signal(signal.SIGUSR1)

        def all_write() -> bool:
            server.call()
            return dirty <= {life.pid for life in lives(tmp_path)}

        wait_until(all_write, "the dirty workers write to new files")
        code = server.stop()

        assert code == 0
        assert {life.pid for life in lives(tmp_path)} == everybody
        lines = [line for folder in (old, tmp_path) for life in lives(folder) for line in life.lines]
        seen = Counter((line["n"], line["step"]) for line in lines if line["event"] == "work")
        assert seen == Counter(product(server.answers, range(STEPS)))


def test_a_gunicorn_without_dirty_workers() -> None:
    """Its configuration gets the hooks that it has, and no other."""

    class Setting:
        def get(self) -> Callable[..., None]:
            return lambda _server: None

    class Configuration:
        def __init__(self) -> None:
            self.settings = {"on_starting": Setting()}
            self.given: dict[str, Any] = {}

        def set(self, name: str, value: Any) -> None:
            self.given[name] = value

    cfg = Configuration()
    hooks.compose(cfg)
    assert list(cfg.given) == ["on_starting"]


def test_a_hook_that_cannot_be_composed() -> None:
    """It is refused, by name."""
    with process_restored(), pytest.raises(ConfigurationError, match="dirty_worker_exit"):
        hooks.wrap({"dirty_worker_exit": lambda _worker: None})
