"""`fapilog doctor` on what a program leaves after its import: structlog, loggers, shared files, queues, threads."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING

import pytest

from fapilog.cli.checks.program import check_loggers, check_structlog
from fapilog.cli.checks.sharing import check_files, check_queues, check_threads
from fapilog.cli.probe import program
from fapilog.cli.probe.sight import QueueSeen
from tests.doctoring import SERVER, made_up, seen, told, write

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.matrix  # each is two processes or more


SET_UP = "import fapilog; fapilog.configure_logging(sinks=['file'])\n"
APP = "\napp = print\n"
PRELOAD = "workers = 2\npreload_app = True\n"
NO_PRELOAD = "workers = 2\n"

# structlog

THEIRS = "import structlog\nstructlog.configure([structlog.processors.JSONRenderer()]{})\n"


def test_structlog_of_somebody_else(tmp_path: Path) -> None:
    """The last word decides: theirs after ours is an error, ours after theirs is right."""
    write(tmp_path, theirs=SET_UP + THEIRS.format("") + APP, ours=THEIRS.format("") + SET_UP + APP)
    found = told(check_structlog, seen(tmp_path, "theirs:app"))
    assert "structlog.configure() at theirs.py:3 has the last word: what is logged through" in found["error"]
    assert told(check_structlog, seen(tmp_path, "ours:app")).keys() == {"ok"}


def test_structlog_that_caches(tmp_path: Path) -> None:
    """The finding says that loggers which were used keep it; by position, too."""
    named, by_position = ", cache_logger_on_first_use=True", ", None, None, None, True"
    write(tmp_path, named=SET_UP + THEIRS.format(named) + APP, placed=SET_UP + THEIRS.format(by_position) + APP)
    for target in ("named:app", "placed:app"):
        assert "keep that for ever (cache_logger_on_first_use)" in told(check_structlog, seen(tmp_path, target))["error"]


def test_structlog_that_ends_in_our_sink(tmp_path: Path) -> None:
    """A chain of the user's own with `queue_sink` is right."""
    chain = "import structlog\nstructlog.configure(processors=[fapilog.queue_sink], cache_logger_on_first_use=True)\n"
    assert told(check_structlog, seen(write(tmp_path, app=SET_UP + chain + APP), "app:app")).keys() == {"ok"}


def test_structlog_before_fapilog_is_set_up_later(tmp_path: Path) -> None:
    """Where the import does not set fapilog up, it is a warning: a later set-up takes structlog over."""
    assert told(check_structlog, seen(write(tmp_path, app=THEIRS.format("") + APP), "app:app")).keys() == {"warning"}


def test_a_program_without_structlog(tmp_path: Path) -> None:
    """Nothing is said."""
    assert told(check_structlog, seen(write(tmp_path, app=APP), "app:app")) == {}


@pytest.mark.parametrize(
    "early",
    [
        "import structlog\nlog = structlog.get_logger().bind(a=1)\n",
        "import structlog\nstructlog.configure(cache_logger_on_first_use=True)\nlog = structlog.get_logger()\nlog.info('used')\n",
    ],
    ids=["bound", "used and cached"],
)
def test_loggers_that_are_older_than_the_set_up(tmp_path: Path, early: str) -> None:
    """Those that were bound, or used and cached, before are named by their module; unused ones are right."""
    write(tmp_path, shop=early, app="import shop\n" + SET_UP + APP, conf="")
    found = told(check_structlog, seen(tmp_path, "app:app"))
    assert "keep the processors of then (in shop)" in found["warning"]
    write(tmp_path, shop="import structlog\nlog = structlog.get_logger()\n")
    assert told(check_structlog, seen(tmp_path, "app:app")).keys() == {"ok"}


# Loggers


def test_loggers_that_a_configuration_disables(tmp_path: Path) -> None:
    """They are named, and so is the place of the configuration; one that leaves them alone is right."""
    text = """
    import logging, logging.config, fapilog
    logging.getLogger("shop.cart")
    fapilog.configure_logging(sinks=["file"])
    logging.config.dictConfig({"version": 1%s})
    app = print
    """
    write(tmp_path, app=text % "", mild=text % ", 'disable_existing_loggers': False", more=text % ", 'incremental': True")
    found = told(check_loggers, seen(tmp_path, "app:app"))["warning"]
    assert "disabled by dictConfig() at app.py:5, so nobody gets their records" in found
    for target in ("mild:app", "more:app"):
        assert told(check_loggers, seen(tmp_path, target)) == {}


def test_loggers_that_a_file_disables(tmp_path: Path) -> None:
    """So does `fileConfig()`."""
    (tmp_path / "log.ini").write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nlevel=INFO\nhandlers=\n"
    )
    app = "import logging.config\nlogging.getLogger('shop.cart')\nlogging.config.fileConfig('log.ini'{})\n" + SET_UP + APP
    write(tmp_path, app=app.format(""), mild=app.format(", disable_existing_loggers=False"))
    assert "disabled by fileConfig() at app.py:3" in told(check_loggers, seen(tmp_path, "app:app"))["warning"]
    assert told(check_loggers, seen(tmp_path, "mild:app")) == {}


def test_a_configuration_that_takes_the_servers_lines(tmp_path: Path) -> None:
    """A program's `dictConfig()` is later than uvicorn's, and wins."""
    write(
        tmp_path,
        app="""
        import logging.config
        logging.config.dictConfig({
            "version": 1, "disable_existing_loggers": False, "handlers": {"h": {"class": "logging.NullHandler"}},
            "loggers": {"uvicorn.access": {"handlers": ["h"]}, "uvicorn.error": {"level": "INFO"}, "shop": {"handlers": ["h"]}},
        })
        app = print
        """,
    )
    found = told(check_loggers, seen(tmp_path, "app:app"))["warning"]
    assert "dictConfig() at app.py:3 gives uvicorn.access handlers of its own" in found


def test_output_that_comes_twice(tmp_path: Path) -> None:
    """A stream handler on the root beside a stream sink is named; not beside a file, nor without the capture."""
    write(tmp_path, app="import logging, fapilog\nfapilog.configure_logging()\nlogging.basicConfig()\napp = print\n")
    found = told(check_loggers, seen(tmp_path, "app:app"))["warning"]
    assert "The root logger has a StreamHandler of its own beside fapilog's sink stdout" in found
    assert told(check_loggers, seen(tmp_path, "app:app", FAPILOG_SINKS="file")) == {}
    assert told(check_loggers, seen(tmp_path, "app:app", FAPILOG_CAPTURE_STDLIB="false")) == {}


# Files that workers would share

HANDLER = "import logging, logging.handlers\nlogging.getLogger('shop').addHandler({})\n" + SET_UP + APP


@pytest.mark.matrix
@pytest.mark.parametrize(
    "handler",
    [
        "logging.handlers.RotatingFileHandler('x.log', maxBytes=1000)",
        "logging.handlers.TimedRotatingFileHandler('x.log')",
        "logging.handlers.RotatingFileHandler('x.log', delay=True)",
    ],
)
def test_rotating_handlers(tmp_path: Path, handler: str) -> None:
    """Several workers that rotate one file are an error, one worker is right, and an unknown number a warning."""
    write(tmp_path, app=HANDLER.format(handler), conf="workers = 4", one="workers = 1")
    found = told(check_files, seen(tmp_path, "app:app"))["error"]
    kind = handler.split(".")[2].partition("(")[0]
    assert (
        f"{tmp_path}/x.log is written to by a {kind} on the logger shop in each of 4 workers, and each of them renames it"
        in found
    )
    assert told(check_files, seen(tmp_path, "app:app", config="one.py")) == {}
    (tmp_path / "gunicorn.conf.py").unlink()
    assert told(check_files, seen(tmp_path, "app:app")).keys() == {"warning"}
    assert told(check_files, seen(tmp_path, "app:app", WEB_CONCURRENCY="3")).keys() == {"error"}


def test_a_plain_file_handler(tmp_path: Path) -> None:
    """It is a warning; a program without one is right."""
    write(tmp_path, app=HANDLER.format("logging.FileHandler('x.log')"), good=SET_UP + APP, conf="workers = 4")
    assert "long lines may be torn" in told(check_files, seen(tmp_path, "app:app"))["warning"]
    assert told(check_files, seen(tmp_path, "good:app")).keys() == {"ok"}


def test_a_handler_that_locks(tmp_path: Path) -> None:
    """concurrent-log-handler is made for several processes."""
    write(
        tmp_path,
        concurrent_log_handler="import logging.handlers\nclass Handler(logging.handlers.BaseRotatingHandler): pass",
        app="import concurrent_log_handler as c\n" + HANDLER.format("c.Handler('x.log', 'a')"),
        conf="workers = 4",
    )
    assert told(check_files, seen(tmp_path, "app:app")).keys() == {"ok"}


def test_files_that_workers_do_not_share(tmp_path: Path) -> None:
    """A name with the pid, and what is no file but a stream, are right."""
    names = ("f'x.{os.getpid()}.log'", "'/dev/null'", "'/dev/stderr'")
    for number, name in enumerate(names):
        write(tmp_path, **{f"app{number}": "import os\n" + HANDLER.format(f"logging.FileHandler({name})")})
        assert told(check_files, seen(tmp_path, f"app{number}:app")).keys() == {"ok"}


def test_a_handler_behind_a_queue(tmp_path: Path) -> None:
    """It stands on no logger and is found all the same."""
    write(
        tmp_path,
        conf="workers = 4",
        app="""
        import logging.handlers, queue
        listener = logging.handlers.QueueListener(queue.Queue(), logging.handlers.RotatingFileHandler("x.log"))
        listener.start()
        app = print
        """,
    )
    assert "by a RotatingFileHandler in each of 4 workers" in told(check_files, seen(tmp_path, "app:app"))["error"]


# Queues and threads under preload

LISTENER = """
import logging.handlers, {module}
queue = {module}.{queue}()
listener = logging.handlers.QueueListener(queue, logging.NullHandler())
{start}
app = print
"""


def listening(module: str = "queue", queue: str = "Queue", start: str = "listener.start()") -> str:
    return LISTENER.format(module=module, queue=queue, start=start)


def test_a_listener_under_preload(tmp_path: Path) -> None:
    """Its thread is not in the workers: an error with preload_app, right without it, a warning where that is not known."""
    write(tmp_path, app=listening(), conf=PRELOAD, good=NO_PRELOAD)
    assert "preload_app is on, and a QueueListener over a queue.Queue" in told(check_queues, seen(tmp_path, "app:app"))["error"]
    assert told(check_queues, seen(tmp_path, "app:app", config="good.py")) == {}
    assert told(check_queues, seen(tmp_path, "app:app", config="good.py", GUNICORN_CMD_ARGS="--preload")).keys() == {"error"}
    (tmp_path / "gunicorn.conf.py").unlink()
    assert "With preload_app (gunicorn --preload), or any fork" in told(check_queues, seen(tmp_path, "app:app"))["warning"]


def test_a_listener_that_is_not_running(tmp_path: Path) -> None:
    """One that was never started, or stopped again, is right."""
    write(tmp_path, app=listening(start=""), stopped=listening(start="listener.start(); listener.stop()"), conf=PRELOAD)
    assert told(check_queues, seen(tmp_path, "app:app")) == {}
    assert told(check_queues, seen(tmp_path, "stopped:app")) == {}


def test_a_queue_between_processes(tmp_path: Path) -> None:
    """It goes on working, through the master: a warning."""
    write(tmp_path, app=listening("multiprocessing"), conf=PRELOAD)
    assert "all workers write through one pipe" in told(check_queues, seen(tmp_path, "app:app"))["warning"]


def test_loguru_under_preload(tmp_path: Path) -> None:
    """Its ``enqueue=True`` is such a queue; a file of its without that is one that workers share."""
    pytest.importorskip("loguru")
    loguru = "from loguru import logger\nlogger.remove()\nlogger.add('x.log', delay=True{})" + APP
    write(
        tmp_path,
        conf=PRELOAD,
        app=loguru.format(", rotation='1 MB', enqueue=True"),
        plain=loguru.format(", rotation='1 MB'"),
        once=loguru.format(""),
    )
    case = seen(tmp_path, "app:app")
    assert "loguru's enqueue=True is made at import: all workers write through one pipe" in told(check_queues, case)["warning"]
    assert told(check_threads, case) == {}
    case = seen(tmp_path, "plain:app")
    assert told(check_queues, case) == {}
    assert (
        f"{tmp_path}/x.log is written to by a loguru in each of 2 workers, and each of them" in told(check_files, case)["error"]
    )
    assert told(check_files, seen(tmp_path, "once:app")).keys() == {"warning"}


def test_what_is_read_of_loguru(tmp_path: Path, monkeypatch) -> None:
    """Its handlers, of the attributes that it has, and nothing of a version that has others."""
    core = types.SimpleNamespace(
        handlers={
            1: types.SimpleNamespace(_enqueue=True, _queue=None, _sink=types.SimpleNamespace(_path="q.log")),
            2: types.SimpleNamespace(
                _enqueue=False, _sink=types.SimpleNamespace(_path=str(tmp_path / "x.log"), _rotation_function=max)
            ),
            3: types.SimpleNamespace(),
        }
    )
    monkeypatch.setitem(sys.modules, "loguru", types.SimpleNamespace(logger=types.SimpleNamespace(_core=core)))
    assert [(each.kind, each.path, each.rotates) for each in program.files([])[-1:]] == [("loguru", f"{tmp_path}/x.log", True)]
    assert program.queues([]) == (QueueSeen("loguru", "builtins.NoneType", between_processes=False),)
    monkeypatch.setitem(sys.modules, "loguru", types.SimpleNamespace())
    assert program.queues([]) == ()


def test_threads_under_preload(tmp_path: Path) -> None:
    """They are named by the package whose code they run; without preload_app there is nothing to say."""
    write(
        tmp_path,
        conf=PRELOAD,
        good=NO_PRELOAD,
        sentry_sdk="import threading, time\ndef beat(): time.sleep(600)\ndef init(): threading.Thread(target=beat).start()",
        app="import sentry_sdk; sentry_sdk.init()\nimport poll\napp = print",
        poll="import threading, time\nclass Poll(threading.Thread):\n    def run(self): time.sleep(600)\nPoll().start()",
        quiet=SET_UP + APP,
    )
    found = told(check_threads, seen(tmp_path, "app:app"))["warning"]
    assert "preload_app is on, and the import starts 2 threads (Sentry, poll)" in found
    assert told(check_threads, seen(tmp_path, "app:app", config="good.py")) == {}
    assert (
        "The import starts 2 threads"
        in told(check_threads, made_up(tmp_path, threads=seen(tmp_path, "app:app").sight.threads))["ok"]
    )
    assert "starts no thread" in told(check_threads, seen(tmp_path, "quiet:app"))["ok"]
    assert told(check_threads, made_up(tmp_path, server=SERVER)) == {}
