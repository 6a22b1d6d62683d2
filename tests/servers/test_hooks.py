"""Our hooks beside the user's own in gunicorn's configuration, whichever way they come together (O-GUN-1)."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from gunicorn.config import make_settings

from fapilog.errors import ConfigurationError
from fapilog.servers import gunicorn
from tests._support import process_restored, rest_in_matrix
from tests.programs.running import FULL, LIMIT_S, Life, Running, environment, lives, living, wait_until
from tests.servers.harness import HERE, Gunicorn

if TYPE_CHECKING:
    from pathlib import Path

UVICORN = "uvicorn_worker.UvicornWorker"
WORKERS = 2
PATIENT = {"FAPILOG_DRAIN_TIMEOUT": "10"}  # this machine may stand still for longer than the default

MARK = """
import json, os
def mark(hook, *arguments):
    told = {"hook": hook, "pid": os.getpid(), "types": [type(each).__name__ for each in arguments]}
    told["worker"] = arguments[-1].pid
    fd = os.open(os.environ["FAPILOG_TEST_MARKS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(fd, json.dumps(told).encode() + b"\\n")
    os.close(fd)
"""
HOOKS = """
def on_starting(server): mark("on_starting", server)
def post_fork(server, worker): mark("post_fork", server, worker)
def post_worker_init(worker): mark("post_worker_init", worker)
def worker_exit(server, worker): mark("worker_exit", server, worker)
def child_exit(server, worker): mark("child_exit", server, worker)
def on_exit(server): mark("on_exit", server)
"""
NAMES = ("on_starting", "post_fork", "post_worker_init", "worker_exit", "child_exit", "on_exit")
USER = MARK + HOOKS
WRAP = "import fapilog.servers.gunicorn\nfapilog.servers.gunicorn.wrap(globals())\n"
STAR = "from fapilog.gunicorn_conf import *\n"
LOGGER_CLASS = "from fapilog.gunicorn_conf import logger_class\n"

STRINGS = """
import sys
sys.path.insert(0, {folder!r})
""" + "".join(f'{name} = "user_hooks.{name}"\n' for name in NAMES)

CALLING = (
    "import fapilog.gunicorn_conf as ours\n"
    + MARK
    + """
def on_starting(server): ours.on_starting(server); mark("on_starting", server)
def post_fork(server, worker): ours.post_fork(server, worker); mark("post_fork", server, worker)
def post_worker_init(worker): mark("post_worker_init", worker)
def worker_exit(server, worker): mark("worker_exit", server, worker); ours.worker_exit(server, worker)
def child_exit(server, worker): mark("child_exit", server, worker)
def on_exit(server): mark("on_exit", server); ours.on_exit(server)
"""
)
DECORATED = (
    "from fapilog.servers.gunicorn import wrap_child_exit, wrap_on_exit, wrap_on_starting, wrap_post_fork, wrap_worker_exit\n"
    + MARK
)
for definition in HOOKS.strip().splitlines():
    decorator = f"wrap_{definition[4:].partition('(')[0]}"
    DECORATED += f"@{decorator}\n{definition}\n" if hasattr(gunicorn, decorator) else f"{definition}\n"

WAYS: dict[str, str] = {
    "wrap-before": WRAP + USER,
    "wrap-after": USER + WRAP,
    "wrap-twice": WRAP + USER + WRAP,
    "star-before": STAR + USER,
    "star-after": USER + STAR,
    "logger-class-before": LOGGER_CLASS + USER,
    "logger-class-after": USER + LOGGER_CLASS,
    "strings-and-wrap": STRINGS + WRAP,
    "strings-and-logger-class": LOGGER_CLASS + STRINGS,
    "calling": CALLING,
    "calling-and-logger-class": LOGGER_CLASS + CALLING,
    "calling-and-wrap": CALLING + WRAP,
    "decorated": DECORATED,
    "decorated-and-wrap": DECORATED + WRAP,
    "option": USER,
}
RARE = {"wrap-twice", "strings-and-logger-class", "calling-and-wrap", "decorated-and-wrap", "star-after"}

EMBEDDED = """
import sys
import fapilog.servers.gunicorn
from gunicorn.app.base import BaseApplication

sys.path.insert(0, sys.argv[2])

class Embedded(BaseApplication):
    def __init__(self, options):
        self.options = options
        super().__init__()

    def load_config(self):
        for name, value in self.options.items():
            self.cfg.set(name, value)

    def load(self):
        import logs_app
        return logs_app.wsgi

options = {"bind": f"fd://{sys.argv[1]}", "workers": 2, "worker_class": "sync", "worker_tmp_dir": "."}
options.update({name: globals()[name] for name in NAMES})
assert fapilog.servers.gunicorn.wrap(options) is options
Embedded(options).run()
"""


class Embedded(Running):
    """A program that runs gunicorn itself, without a conf file."""

    def __init__(self, folder: Path, **settings: str) -> None:
        (folder / "embedding.py").write_text(f"{USER}\nNAMES = {NAMES!r}\n{EMBEDDED}")
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.port = int(bound.getsockname()[1])
            command = [str(folder / "embedding.py"), str(bound.fileno()), str(HERE)]
            super().__init__(command, folder, environment(folder, **PATIENT, **settings), [bound.fileno()])

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        code = self.ended()
        self.nothing_left()
        return code


def ask(port: int, path: str = "/log") -> bytes:
    """Return the answer, or nothing where nobody answers yet."""
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), LIMIT_S) as connection:
        connection.sendall(b"GET %s HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n" % path.encode())
        with connection.makefile("rb") as answer:
            return answer.read()
    return b""


def ask_until_all_have_logged(server: Any, folder: Path, workers: int = WORKERS) -> int:
    """Ask until each worker has written something; return how many requests were answered."""
    answered = 0

    def all_have() -> bool:
        nonlocal answered
        answered += ask(server.port).startswith(b"HTTP/1.1 200")
        return len(list(folder.glob("app.[1-9].jsonl"))) == workers

    wait_until(all_have, f"{workers} workers write")
    return answered


def marks(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "marks").read_text().splitlines()]


def check_marks(
    folder: Path, master: int, pids: set[int], *, worker_class: str = "SyncWorker", worker_exits: bool = True
) -> None:
    """Check that each hook of the user's ran once, in its process, with its arguments."""
    found = Counter((told["hook"], told["pid"], told["worker"], *told["types"]) for told in marks(folder))
    expected: list[tuple[Any, ...]] = [("on_starting", master, master, "Arbiter"), ("on_exit", master, master, "Arbiter")]
    for pid in pids:
        expected.append(("post_fork", pid, pid, "Arbiter", worker_class))
        expected.append(("post_worker_init", pid, pid, worker_class))
        expected.append(("child_exit", master, pid, "Arbiter", worker_class))
        if worker_exits:
            expected.append(("worker_exit", pid, pid, "Arbiter", worker_class))
    assert found == Counter(expected)


def check_lives(folder: Path, answered: int, workers: int = WORKERS) -> list[Life]:
    """Check that all events of the workers are there and each was closed once; return their lives."""
    found = [life.whole() for life in lives(folder)]
    mine = [life for life in found if life.worker]
    assert sorted(life.worker for life in mine) == list(range(1, workers + 1))
    assert sum(len(life.named("logged")) for life in mine) == answered
    return mine


def run_with(folder: Path, conf: str, *arguments: str, kind: str = "sync", workers: int = WORKERS, **settings: Any) -> Gunicorn:
    return Gunicorn(
        folder,
        *arguments,
        app="logs_app:wsgi" if kind == "sync" else "logs_app:asgi",
        kind=kind,
        workers=workers,
        conf=conf.replace("{folder!r}", repr(str(folder))),
        FAPILOG_TEST_MARKS=str(folder / "marks"),
        **{**PATIENT, **settings},
    )


@pytest.mark.matrix
@pytest.mark.parametrize("way", [way for way in WAYS if FULL or way not in RARE])
def test_hooks_of_the_users_beside_ours(tmp_path, way):
    """O-GUN-1: each of the user's runs exactly once with its arguments, and ours do their work: every event, one end a worker."""
    (tmp_path / "user_hooks.py").write_text(USER)
    arguments = ["--logger-class", "fapilog.servers.gunicorn_logger.Logger"] if way == "option" else []

    with run_with(tmp_path, WAYS[way], *arguments) as server:
        answered = ask_until_all_have_logged(server, tmp_path)
        assert server.stop() == 0

        workers = check_lives(tmp_path, answered)
        check_marks(tmp_path, server.pid, {life.pid for life in workers})
        lines = way not in {"calling", "decorated"}  # with the hooks alone gunicorn's own lines are not logged through the hub
        assert sum(len(life.named("request")) for life in workers) == (answered if lines else 0)
        assert {life.worker for life in lives(tmp_path)} == {1, 2} | ({0} if lines else set())


@pytest.mark.parametrize("way", rest_in_matrix(1, ["wrap-before", "logger-class-after"]))
def test_hooks_of_the_users_under_uvicorn_worker(tmp_path, way):
    """As under the others; no worker_exit after SIGTERM, as without us, but the end of each worker is there all the same."""
    with run_with(tmp_path, WAYS[way], kind=UVICORN) as server:
        answered = ask_until_all_have_logged(server, tmp_path)
        assert server.stop() == 0

        workers = check_lives(tmp_path, answered)
        pids = {life.pid for life in workers}
        check_marks(tmp_path, server.pid, pids, worker_class="UvicornWorker", worker_exits=False)


SLOW_TO_BEGIN = """
import os, time
from fapilog.gunicorn_conf import logger_class
def post_fork(server, worker):
    fd = os.open({folder!r} + "/begun", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(fd, b"%d\\n" % os.getpid())
    end = time.monotonic() + 60
    while not os.path.exists({folder!r} + "/go") and time.monotonic() < end:
        time.sleep(0.01)
"""


@pytest.mark.parametrize(
    ("to", "kind"), rest_in_matrix(1, [("worker", UVICORN), ("master", "sync"), ("worker", "sync"), ("master", UVICORN)])
)
def test_a_worker_is_ended_before_it_has_handlers_of_its_own(tmp_path, kind, to):
    """SIGTERM between the fork and Gunicorn's `init_signals()` is not lost: the worker ends in order as soon as it can."""
    with run_with(tmp_path, SLOW_TO_BEGIN, kind=kind) as server:
        begun = tmp_path / "begun"
        wait_until(lambda: begun.exists() and begun.read_bytes().count(b"\n") == WORKERS, "the workers have begun")
        first, second = map(int, begun.read_text().split())
        if to == "worker":
            os.kill(first, signal.SIGTERM)
        else:
            server.signal(signal.SIGTERM)
            wait_until(lambda: b"Handling signal: term" in (tmp_path / "app.0.jsonl").read_bytes(), "the master has heard it")
        (tmp_path / "go").touch()
        wait_until(lambda: first not in living(server.pid), "it has ended")
        if to == "worker":
            ask_until_all_have_logged(server, tmp_path)
            assert server.stop() == 0
            assert {first, second} < {life.pid for life in lives(tmp_path)}
        else:
            assert server.ended() == 0
        assert "SIGKILL" not in server.stdout + server.stderr
        for life in lives(tmp_path):
            life.whole()


def test_an_embedded_gunicorn_without_a_conf_file(tmp_path):
    """A dict of options that was wrapped is enough: the user's hooks and ours do their work."""
    with Embedded(tmp_path, FAPILOG_TEST_MARKS=str(tmp_path / "marks")) as server:
        answered = ask_until_all_have_logged(server, tmp_path)
        assert server.stop() == 0

        workers = check_lives(tmp_path, answered)
        check_marks(tmp_path, server.pid, {life.pid for life in workers})
        assert sum(len(life.named("request")) for life in workers) == answered


def test_our_logger_class_on_the_command_line_and_no_conf_file(tmp_path):
    """It brings the hooks with it."""
    arguments = ["--logger-class", "fapilog.servers.gunicorn_logger.Logger"]

    with Gunicorn(tmp_path, *arguments, app="logs_app:wsgi", workers=WORKERS, FAPILOG_DRAIN_TIMEOUT="10") as server:
        answered = ask_until_all_have_logged(server, tmp_path)
        assert server.stop() == 0

        workers = check_lives(tmp_path, answered)
        assert sum(len(life.named("request")) for life in workers) == answered
        assert server.stderr == ""


@pytest.mark.parametrize("way", ["wrap-before", *(["wrap-after", "logger-class-before"] if FULL else [])])
def test_the_master_reads_the_conf_file_again_by_sighup(tmp_path, way):
    """Each hook still runs once for each worker, old or new, and once for the master."""
    with run_with(tmp_path, WAYS[way]) as server:
        answered = ask_until_all_have_logged(server, tmp_path)
        old = {told["worker"] for told in marks(tmp_path) if told["hook"] == "post_fork"}
        server.signal(signal.SIGHUP)
        wait_until(lambda: sum(told["hook"] == "child_exit" for told in marks(tmp_path)) == WORKERS, "the old workers are gone")
        wait_until(
            lambda: sum(told["hook"] == "post_worker_init" for told in marks(tmp_path)) == 2 * WORKERS, "the new ones are up"
        )
        answered += sum(ask(server.port).startswith(b"HTTP/1.1 200") for _ in range(20))
        assert server.stop() == 0

        pids = {told["worker"] for told in marks(tmp_path) if told["hook"] == "post_fork"}
        assert old < pids
        assert len(pids) == 2 * WORKERS
        check_marks(tmp_path, server.pid, pids)
        found = [life.whole() for life in lives(tmp_path)]
        assert sum(len(life.named("logged")) for life in found) == answered
        assert sum(len(life.named("request")) for life in found) == answered


# ---- a hook of the user's that raises

RAISES = """
def {name}({parameters}):
    raise RuntimeError("the user's {name} fails")
"""
ALONE = {
    "on_starting": "server",
    "post_fork": "server, worker",
    "worker_exit": "server, worker",
    "child_exit": "server, worker",
    "on_exit": "server",
}


def outcome(folder: Path, conf: str) -> tuple[int, int, bool]:
    """Return the exit code, how many workers were made, and whether the failure was told on stderr or in our lines."""
    folder.mkdir()
    with run_with(folder, conf, workers=1) as server:  # of two that fail to boot, gunicorn may trip over the second

        def over_or_serving() -> bool:
            return server.process.poll() is not None or ask(server.port).startswith(b"HTTP/1.1 200")

        wait_until(over_or_serving, "it serves or ends")
        if server.process.poll() is None:
            server.signal(signal.SIGTERM)
        code = server.ended()
        server.nothing_left()
        told = server.stderr + "".join(path.read_text() for path in folder.glob("app.*.jsonl"))
        return code, told.count("Booting worker with pid"), "the user's" in told


@pytest.mark.matrix
@pytest.mark.parametrize(
    "way", [WRAP, LOGGER_CLASS] if FULL else [WRAP], ids=lambda way: "wrap" if way == WRAP else "logger-class"
)
@pytest.mark.parametrize("name", ALONE)
def test_a_hook_of_the_users_that_raises(tmp_path, name, way):
    """Gunicorn does what it does without us: the same exit code, as many workers, and the failure is told."""
    conf = RAISES.format(name=name, parameters=ALONE[name])

    code, booted, told = outcome(tmp_path / "plain", conf)
    ours = outcome(tmp_path / "ours", conf + way)

    assert told
    assert ours == (code, booted, told)
    ended = [life for life in lives(tmp_path / "ours") if life.named("logged")]
    assert [len(life.named("fapilog.closed")) for life in ended] == [1] * len(ended)


# ---- what cannot be composed


@pytest.fixture
def restored():
    with process_restored():
        yield


@pytest.mark.parametrize("value", [42, None, "globals()", []], ids=repr)
def test_wrap_of_something_that_is_no_namespace(restored, value):
    """One ConfigurationError that shows it and says what would be right."""
    with pytest.raises(ConfigurationError, match=r"wrap\(globals\(\)\)") as caught:
        gunicorn.wrap(value)
    assert repr(value) in str(caught.value)


BAD = {
    "not-callable": 42,
    "wrong-arity": lambda: None,
    "too-many": lambda _a, _b, _c, _d: None,
    "no-such-module": "no_such_module_here.hook",
    "no-such-attribute": "os.path.no_such_hook",
    "no-path": "hook",
}


@pytest.mark.parametrize("name", ["on_starting", "post_fork", "worker_exit", "child_exit", "on_exit"])
@pytest.mark.parametrize("bad", BAD)
def test_a_hook_that_cannot_be_composed(restored, name, bad):
    """One ConfigurationError that names the hook and shows what it is."""
    with pytest.raises(ConfigurationError) as caught:
        gunicorn.wrap({name: BAD[bad]})
    assert str(caught.value).startswith(f"{name}: ")
    assert repr(BAD[bad]) in str(caught.value)


def test_a_hook_that_cannot_be_composed_in_a_conf_file(tmp_path):
    """Gunicorn does not start, and the message that names the hook is on stderr once."""
    with run_with(tmp_path, "post_fork = 42\n" + WRAP) as server:
        assert server.ended() == 1
        server.nothing_left()
        assert server.stderr.count("post_fork: 42 cannot be composed") == 1
        assert "Booting worker" not in server.stderr
        assert lives(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "arity"), [("on_starting", 1), ("post_fork", 2), ("worker_exit", 2), ("child_exit", 2), ("on_exit", 1)]
)
def test_the_signature_of_a_composed_hook(restored, name, arity):
    """It has as many parameters as gunicorn asks for, all positional and without defaults, whatever the user's looks like."""
    decorate = getattr(gunicorn, f"wrap_{name}")
    hooks = [decorate(lambda *_: None), gunicorn.wrap({})[name], getattr(gunicorn, name)]

    for hook in hooks:
        parameters = inspect.signature(hook).parameters.values()
        assert [each.kind for each in parameters] == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * arity
        assert all(each.default is inspect.Parameter.empty for each in parameters)


def test_wrap_of_a_namespace_that_was_wrapped(restored):
    """Nothing changes: no hook is put around itself."""
    options: dict[str, Any] = {"post_fork": lambda _server, _worker: None, "bind": "here"}
    once = dict(gunicorn.wrap(options))
    assert gunicorn.wrap(options) == once
    assert once["bind"] == "here"
    known = {"dirty_worker_exit"} & set(make_settings())  # since Gunicorn 25
    assert set(once) == {"bind", "logger_class", "on_starting", "post_fork", "worker_exit", "child_exit", "on_exit"} | known


def test_a_logger_class_of_the_users(restored):
    """It stays."""
    assert gunicorn.wrap({"logger_class": "theirs.Logger"})["logger_class"] == "theirs.Logger"
