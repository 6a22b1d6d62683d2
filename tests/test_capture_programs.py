"""The capture of the standard library's logging in whole programs: levels, other handlers' files, forks, ends, feedback."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests._support import FORKED, ran_well, read_lines, run_script
from tests.programs.running import Running, environment, start

if TYPE_CHECKING:
    from pathlib import Path

SET_UP = """
import logging, os, sys, warnings
import fapilog
fapilog.configure_logging(sinks=["file"], file_path="out.jsonl")
"""


def run(folder: Path, code: str, **env: str) -> list[dict[str, Any]]:
    """Run *code* after `SET_UP`; return the events but the hub's own."""
    folder.mkdir(exist_ok=True)
    result = run_script(SET_UP + textwrap.dedent(code), folder, env={"FAPILOG_QUEUE_SIZE": "100000", **env})
    ran_well(result)
    assert result.stderr == ""
    return [line for line in read_lines(folder / "out.jsonl") if not line["event"].startswith("fapilog.")]


def texts(lines: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in lines]


# ---- levels

ALL = """
for name in ("a", "a.b", "sql", "sql.engine"):
    for level in (10, 20, 30):
        logging.getLogger(name).log(level, f"{name} {level}")
"""


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("level", "missing"),
    [
        ("INFO", {"a 10", "a.b 10", "sql 10", "sql.engine 10"}),
        ("DEBUG", set()),
        ("WARNING", {f"{name} {level}" for name in ("a", "a.b", "sql", "sql.engine") for level in (10, 20)}),
        ("INFO,sql=WARNING", {"a 10", "a.b 10", "sql 10", "sql.engine 10", "sql 20", "sql.engine 20"}),
        ("WARNING,sql=DEBUG", {"a 10", "a 20", "a.b 10", "a.b 20"}),
        ("WARNING,sql=DEBUG,sql.engine=INFO", {"a 10", "a 20", "a.b 10", "a.b 20", "sql.engine 10"}),
        ("DEBUG,sql=INFO,sql.engine=DEBUG", {"sql 10"}),
        ("0", set()),
    ],
)
def test_the_level_setting(tmp_path, level, missing) -> None:
    """It holds for the standard library's loggers as it is, without any other set-up; the rules for single loggers too."""
    found = texts(run(tmp_path, ALL, FAPILOG_LEVEL=level))
    every = [f"{name} {level}" for name in ("a", "a.b", "sql", "sql.engine") for level in (10, 20, 30)]
    assert found == [each for each in every if each not in missing]


def test_a_level_that_is_set_at_run_time(tmp_path) -> None:
    """It holds at once for both kinds of loggers, upwards and downwards; switching the capture off puts every level back."""
    code = """
    ours = fapilog.get_logger("sql.ours")
    theirs = logging.getLogger("sql.theirs")
    def say(turn):
        ours.debug(f"ours {turn}"); theirs.debug(f"theirs {turn}")
    own = logging.getLogger("own"); own.setLevel("ERROR")
    say(1)
    fapilog.set_level("DEBUG", "sql")
    say(2)
    fapilog.set_level("INFO", "sql")
    say(3)
    fapilog.set_level("DEBUG")
    say(4)
    fapilog.set_level("DEBUG", "sql.theirs")
    say(5)
    fapilog.set_level("DEBUG", "own")
    own.debug("own")
    assert logging.root.level == 10, logging.root.level
    fapilog.configure_logging(sinks=["file"], file_path="out.jsonl", capture_stdlib=False)
    theirs.info("off")
    levels = [logging.getLogger(name).level for name in (None, "sql", "sql.theirs", "own")]
    assert levels == [30, 0, 0, 40], levels
    assert {type(logging.getLogger(name).level) for name in (None, "sql", "own")} == {int}
    fapilog.configure_logging(sinks=["file"], file_path="out.jsonl", capture_stdlib=True)
    theirs.info("on")
    """
    assert texts(run(tmp_path, code)) == ["ours 2", "theirs 2", "theirs 5", "own", "on"]


def test_a_level_of_the_users_own(tmp_path) -> None:
    """It stays, whether it was set before or after ours, and ours is put back only where ours still stands."""
    code = """
    logging.root.setLevel(logging.ERROR)
    fapilog.set_level("DEBUG")
    logging.getLogger("a").warning("not")
    logging.root.setLevel(logging.DEBUG)
    logging.getLogger("a").debug("yes")
    fapilog.set_level("DEBUG", "sql")
    logging.getLogger("sql").setLevel(logging.ERROR)
    fapilog.configure_logging(capture_stdlib=False)
    assert (logging.root.level, logging.getLogger("sql").level) == (10, 40)
    """
    assert texts(run(tmp_path, code)) == ["yes"]


def test_a_threshold_for_everything(tmp_path) -> None:
    """A level above WARNING holds back what the standard library lets through."""
    assert texts(run(tmp_path, "logging.warning('no'); logging.error('yes')", FAPILOG_LEVEL="ERROR")) == ["yes"]


def test_nothing_else_is_printed(tmp_path) -> None:
    """With nobody else on the root, neither the last resort nor the root's functions print beside us; without us they do."""
    assert texts(run(tmp_path, "logging.getLogger('a').warning('once'); logging.info('two')")) == ["once", "two"]
    off = run_script(SET_UP + "logging.getLogger('a').warning('plain')", tmp_path, env={"FAPILOG_CAPTURE_STDLIB": "false"})
    assert off.stderr == "plain\n"


# ---- other handlers (O-STD-3)

USERS_PROGRAM = """
import logging, logging.config, logging.handlers, sys, warnings
CONFIG = {{"version": 1, "disable_existing_loggers": False, "root": {{"level": "WARNING", "handlers": ["h"]}},
    "handlers": {{"h": {{"()": lambda: handler("users.log")}}}}}}
form = "%(asctime)s|%(name)s|%(levelname)s|%(filename)s|%(lineno)d|%(message)s"
logging.Formatter.formatTime = lambda *_: "then"
def handler(path):
    made = logging.FileHandler(path); made.setFormatter(logging.Formatter(form)); return made
def before():
    {before}
def after():
    {after}
before()
{set_up}
after()
log = logging.getLogger("users")
log.addFilter(lambda record: record.__dict__.setdefault("extra_field", 1))
for level in (10, 20, 30, 40):
    log.log(level, "%s of %d", "part", level, extra={{"user": 7}})
    logging.getLogger("users.deep").log(level, "deep")
    logging.getLogger("another").log(level, "other %s", "one")
logging.root.info("root"); logging.root.warning("50%")
try:
    {{}}["key"]
except KeyError:
    log.exception("failed %s", "here", stack_info=True)
    logging.getLogger("another").error("again", exc_info=True)
warnings.warn("take care")
"""
ARRANGEMENTS = {
    "on the logger": ("logging.getLogger('users').addHandler(handler('users.log'))", "pass"),
    "on the root": ("logging.root.addHandler(handler('users.log'))", "pass"),
    "on the root, twice": ("[logging.root.addHandler(handler('users.log')) for _ in (1, 2)]", "pass"),
    "basicConfig before": ("logging.basicConfig(filename='users.log', level=logging.DEBUG, format=form)", "pass"),
    "basicConfig without a level before": ("logging.basicConfig(filename='users.log', format=form)", "pass"),
    "basicConfig after": ("pass", "logging.basicConfig(filename='users.log', level=logging.INFO, format=form)"),
    "a level of its own after": ("pass", "x = logging.getLogger('users'); x.setLevel(20); x.addHandler(handler('users.log'))"),
    "a handler for errors after": ("pass", "x = handler('users.log'); x.setLevel(40); logging.root.addHandler(x)"),
    "dictConfig after": (
        "pass",
        "logging.config.dictConfig(CONFIG)",
    ),
}


@pytest.mark.matrix
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_the_file_of_a_handler_of_the_users(tmp_path, arrangement) -> None:
    """It is byte for byte what it is without us; the traceback is once in each of our two events (O-STD-3)."""
    before, after = ARRANGEMENTS[arrangement]
    files = []
    for name, set_up in (("alone", "pass"), ("beside", SET_UP.replace("\n", "; ").strip("; "))):
        folder = tmp_path / name
        folder.mkdir()
        result = run_script(USERS_PROGRAM.format(before=before, after=after, set_up=set_up), folder)
        # `-W error` would make the warning an exception.
        assert result.returncode == 1
        assert "UserWarning: take care" in result.stderr
        files.append((folder / "users.log").read_bytes())
    assert files[0] == files[1]
    assert b"failed here" in files[0]
    lines = read_lines(tmp_path / "beside" / "out.jsonl")
    failed = [line for line in lines if line["event"] in ("failed here", "again")]
    assert [str(line).count("KeyError") for line in failed] == [1, 1]
    assert Counter(texts(lines))["other one"] >= 2
    assert not [line for line in lines if line["event"] == "part of 30" and line["user"] != 7]


def test_levels_beside_a_handler_of_the_users(tmp_path) -> None:
    """The root's level is not lowered while another handler would get more by it; a rule that names a logger is obeyed."""
    code = """
    logging.getLogger("a").info("no")
    fapilog.set_level("DEBUG")
    logging.getLogger("a").info("no")
    fapilog.set_level("DEBUG", "a")
    logging.getLogger("a").debug("yes")
    logging.root.handlers[0].setLevel(logging.ERROR)
    fapilog.set_level("INFO")
    logging.getLogger("b").info("now")
    """
    prologue = "import logging; logging.basicConfig(filename='users.log', format='%(message)s')\n"
    result = run_script(prologue + SET_UP + textwrap.dedent(code), tmp_path)
    ran_well(result)
    assert texts(read_lines(tmp_path / "out.jsonl")) == ["yes", "now", "fapilog.closed"]
    assert (tmp_path / "users.log").read_text() == "yes\n"


# ---- processes


def test_celery_resets_the_root_in_a_forked_child(tmp_path) -> None:
    """The child's records arrive all the same, once each, where the child has logged before and where it has not (O-STD-3)."""
    code = """
    fapilog.configure_logging(sinks=["file"], file_path="out.{pid}.jsonl")
    for warm in (False, True):
        pid = os.fork()
        if not pid:
            if warm:
                logging.getLogger("before").warning("before")
            root = logging.getLogger()
            root.handlers = []
            for name in list(root.manager.loggerDict):
                logging.getLogger(name).handlers = []
            logging.captureWarnings(True)
            root.setLevel(logging.WARNING)
            handler = logging.StreamHandler(open(os.devnull, "w")); root.addHandler(handler)
            logging.getLogger("celery.task").warning("working %d", 1)
            logging.getLogger("celery.task").info("below")
            fapilog.shutdown_logging()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print(pid)
    """
    first, second = ran_well(run_script(SET_UP + textwrap.dedent(code), tmp_path)).split()
    assert texts(read_lines(tmp_path / f"out.{first}.jsonl")) == ["working 1", "fapilog.closed"]
    assert texts(read_lines(tmp_path / f"out.{second}.jsonl")) == ["before", "working 1", "fapilog.closed"]


def test_the_root_is_reset_before_anything_was_logged(tmp_path) -> None:
    """A program that never uses a logger of ours is heard all the same."""
    code = """
    import logging.config
    logging.config.dictConfig({"version": 1, "root": {"level": "INFO", "handlers": []}})
    logging.getLogger("a").info("one")
    logging.root.handlers.clear()
    logging.getLogger("a").info("two")
    """
    assert texts(run(tmp_path, code)) == ["one", "two"]


@FORKED
def test_children_of_multiprocessing(tmp_path, method) -> None:
    """What they log through the standard library arrives: the child has its set-up from the parent or from its own import."""
    code = """
    import logging, multiprocessing, sys, warnings
    import fapilog
    fapilog.configure_logging(sinks=["file"], file_path="out.{worker}.jsonl")
    def work(number):
        logging.getLogger("child").info("working %d", number)
        warnings.warn("careful", stacklevel=1)
    if __name__ == "__main__":
        logging.getLogger("parent").info("parent")
        context = multiprocessing.get_context(sys.argv[1])
        for number in (1, 2):
            child = context.Process(target=work, args=[number]); child.start(); child.join(30)
            assert child.exitcode == 0
    """
    (tmp_path / "app.py").write_text(textwrap.dedent(code))
    with Running(["-W", "default", "app.py", method], tmp_path, environment(tmp_path)) as program:
        assert program.ended() == 0
    lines = [line for path in sorted(tmp_path.glob("out.*.jsonl")) for line in read_lines(path)]
    found = Counter(line["event"] for line in lines)
    assert (found["parent"], found["working 1"], found["working 2"], found["careful"]) == (1, 1, 1, 2)


def test_records_after_the_end(tmp_path) -> None:
    """Those of exit callbacks, after our shutdown and after the standard library's, arrive."""
    code = """
    import atexit
    atexit.register(lambda: logging.getLogger("a").info("atexit, registered late"))
    logging.getLogger("a").info("running")
    fapilog.shutdown_logging()
    logging.getLogger("a").info("closed")
    logging.shutdown()
    logging.getLogger("a").info("shut down")
    """
    assert texts(run(tmp_path, code)) == ["running", "closed", "shut down", "atexit, registered late"]


def test_without_a_queue(tmp_path) -> None:
    """Records and warnings are written by the caller."""
    code = """
    logging.getLogger("a").info("one")
    warnings.resetwarnings(); warnings.simplefilter("always")
    warnings.warn("two")
    """
    assert texts(run(tmp_path, code, FAPILOG_QUEUE_ENABLED="false")) == ["one", "two"]


def test_the_loggers_of_asyncio_and_multiprocessing(tmp_path) -> None:
    """asyncio's debug records of the application's loop arrive, none of our own loops'; multiprocessing's do not propagate."""
    code = """
    import asyncio, multiprocessing, time
    logging.root.setLevel(logging.DEBUG)
    async def main():
        asyncio.get_running_loop().slow_callback_duration = 0.01
        time.sleep(0.1)
        await asyncio.sleep(0)
    asyncio.run(main(), debug=True)
    log = multiprocessing.get_logger(); log.addHandler(logging.NullHandler()); log.error("mine")
    """
    lines = run(tmp_path, code, FAPILOG_LEVEL="DEBUG", PYTHONASYNCIODEBUG="1", FAPILOG_QUEUE_BATCH_TIMEOUT="0.01")
    slow = [line for line in lines if line["logger"] == "asyncio" and line["level"] == "warning"]
    assert any("main()" in line["event"] for line in slow)
    assert not any("fapilog" in line["event"] for line in slow)
    assert "mine" not in texts(lines)


# ---- feedback (O-RE-3)


@pytest.mark.matrix
@pytest.mark.parametrize("how", ["client", "executor", "logging"])
def test_a_sink_that_logs_while_it_delivers(tmp_path, how) -> None:
    """
    Its own records and its HTTP client's do not come back: the server gets the application's events and the records of the
    application's own use of the client, and then nothing more (O-RE-3).
    """
    with start(tmp_path, "feedback", how, FAPILOG_LEVEL="DEBUG", FAPILOG_QUEUE_BATCH_TIMEOUT="0.05") as program:
        assert program.ended() == 0
        got = program.stdout.splitlines()
        assert [line for line in got if line.startswith("mine")] == [f"mine {n}" for n in range(10)]
        client = Counter(line.partition(" ")[0] for line in got if not line.startswith("mine"))
        assert client["httpx"] == 5
        assert client["httpcore.connection"] > 0
        assert set(client) <= {"httpx", "httpcore.connection", "httpcore.http11", "asyncio", "growth"}
        assert "growth 0" in got
        assert program.stderr.count("said while an event was being delivered") == (how == "logging")


def test_a_sink_that_logs_while_the_caller_writes(tmp_path) -> None:
    """Its records do not come back to it, without a queue either."""
    code = """
    import logging, fapilog
    class Sink:
        name = "own"
        async def open(self, identity): ...
        async def write(self, events): ...
        async def close(self): ...
        def write_now(self, lines):
            logging.getLogger("sink").info("writing")
            print(len(lines), lines[0].decode().count("mine"))
    fapilog.configure_logging(sinks=[Sink()], queue_enabled=False)
    logging.getLogger("a").info("mine"); logging.getLogger("a").info("mine")
    """
    assert ran_well(run_script(code, tmp_path)) == "1 1\n1 1\n1 0\n"
