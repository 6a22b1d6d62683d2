"""route.py: the first log call of a process that nobody has configured does what the environment says, whoever makes it."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests._support import ran_well, read_lines, rest_in_matrix, run_script

if TYPE_CHECKING:
    from pathlib import Path

HERE = {"FAPILOG_SINKS": "file", "FAPILOG_FILE_PATH": "out.jsonl"}
SECRETS = {"FAPILOG_REDACT_KEYS": "tenant_code", "FAPILOG_REDACT_PATTERNS": "card"}
HUBS_OWN = ("fapilog.closed", "fapilog.dropped")

SET_UP = """
import json, os, signal, sys, threading
import fapilog
log = fapilog.get_logger("a.b")
"""


def run(code: str, cwd: Path, **env: str) -> tuple[str, list[dict[str, Any]]]:
    """Return what a fresh process printed, and its events."""
    printed = ran_well(run_script(SET_UP + code, cwd, env={**HERE, **env}))
    path = cwd / "out.jsonl"
    return printed, [line for line in (read_lines(path) if path.exists() else []) if line["event"] not in HUBS_OWN]


def events(code: str, cwd: Path, **env: str) -> list[str]:
    return [line["event"] for line in run(code, cwd, **env)[1]]


# ---- levels and rules


@pytest.mark.parametrize(
    ("level", "call", "logged"),
    rest_in_matrix(
        2,
        [
            ("DEBUG", "log.debug('x')", True),
            ("", "log.debug('x')", False),
            ("INFO,a=ERROR", "log.info('x')", False),
            ("ERROR,a.b=DEBUG", "log.debug('x')", True),
            ("ERROR", "log.info('x')", False),
            ("ERROR", "log.error('x')", True),
            ("", "log.info('x')", True),
            ("INFO,a=ERROR", "fapilog.get_logger('b').info('x')", True),
            ("ERROR,a.b=DEBUG", "fapilog.get_logger('b').info('x')", False),
            ("DEBUG", "log.bind(n=1).log('debug', 'x')", True),
        ],
    ),
)
def test_the_level_of_the_first_call(tmp_path, level, call, logged) -> None:
    """It is the one of the environment, rules of single loggers included."""
    env = {"FAPILOG_LEVEL": level} if level else {}
    assert events(call, tmp_path, **env) == (["x"] if logged else [])


@pytest.mark.parametrize("first", rest_in_matrix(1, ["log.info('e')", "log.debug('none')", "log.is_enabled_for(20)"]))
def test_a_sampling_rule_from_the_first_call_on(tmp_path, first) -> None:
    """Of five events one passes and four are refused, the first call counted."""
    calls = 4 if "'e'" in first else 5
    code = f"""
{first}
for _ in range({calls}):
    log.info("e")
fapilog.flush(10)
print(fapilog.statistics().refused)
"""
    printed, lines = run(code, tmp_path, FAPILOG_SAMPLING="e=1/1h")
    assert [line["event"] for line in lines] == ["e"]
    assert "'sampled': 4" in printed


@pytest.mark.parametrize(
    "call", rest_in_matrix(1, ["fapilog.set_level('DEBUG', 'a')", "log.setLevel('DEBUG')", "fapilog.set_level('DEBUG')"])
)
def test_a_level_that_is_set_before_the_first_call(tmp_path, call) -> None:
    """It holds for that call and for all that follow; whatever else the environment says does, too."""
    code = f"""
{call}
log.debug("x", tenant_code="zq")
log.debug("y")
fapilog.get_logger("c").debug("z")
"""
    _, lines = run(code, tmp_path, FAPILOG_LEVEL="ERROR", **SECRETS)
    assert [line["event"] for line in lines] == ["x", "y", *(["z"] if call == "fapilog.set_level('DEBUG')" else [])]
    assert lines[0]["tenant_code"] == "***"


def test_the_question_for_the_level_before_the_first_call(tmp_path) -> None:
    """The answer is the one of the environment, and the same afterwards."""
    code = """
found = [(log.is_enabled_for(10), log.isEnabledFor(40), log.get_effective_level(), log.getEffectiveLevel())]
log.info("x")
found.append((log.is_enabled_for(10), log.isEnabledFor(40), log.get_effective_level(), log.getEffectiveLevel()))
print(json.dumps(found))
"""
    printed, _ = run(code, tmp_path, FAPILOG_LEVEL="DEBUG")
    assert json.loads(printed) == [[True, True, 10, 10]] * 2


# ---- threads, signals, forks

RACE = """
def race():
    log = fapilog.get_logger("t")
    barrier = threading.Barrier(4)

    def first(i):
        barrier.wait()
        for _ in range(3):
            log.info("card 4111111111111111", tenant_code=f"zq{i}")

    threads = [threading.Thread(target=first, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    fapilog.shutdown_logging(20)
"""


@pytest.mark.parametrize("interval", rest_in_matrix(1, [1e-6, 0.005]))
def test_threads_that_log_first_at_once(tmp_path, interval) -> None:
    """Nothing that the environment calls a secret is shown by any of them, and no event is lost, in 15 cold processes each."""
    code = f"""{RACE}
for _ in range(15):
    child = os.fork()
    if not child:
        try:
            sys.setswitchinterval({interval})
            race()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    _, lines = run(code, tmp_path, **SECRETS)
    assert len(lines) == 15 * 12
    assert {(line["event"], line["tenant_code"]) for line in lines} == {("card ***", "***")}


def test_a_fork_while_nobody_has_configured(tmp_path) -> None:
    """The child that logs first configures itself, and so does the parent after it."""
    code = """
child = os.fork()
log_of = fapilog.get_logger("child" if not child else "parent")
if child:
    assert os.waitpid(child, 0)[1] == 0
log_of.debug("card 4111111111111111", tenant_code="zq")
if not child:
    fapilog.shutdown_logging(20)
    os._exit(0)
"""
    _, lines = run(code, tmp_path, FAPILOG_LEVEL="DEBUG", **SECRETS)
    assert [(line["logger"], line["event"], line["tenant_code"]) for line in lines] == [
        ("child", "card ***", "***"),
        ("parent", "card ***", "***"),
    ]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
def test_a_signal_handler_that_logs_during_the_first_call(tmp_path) -> None:
    """Both events are there, masked as the environment says, at whatever moment of the set-up it comes."""
    code = """
def tell(*_):
    log.info("card 4111111111111111", tenant_code="zq", who="handler")

for n in range(40):
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGALRM, tell)
            signal.setitimer(signal.ITIMER_REAL, 0.00001 + n * 0.0001)
            log.info("card 4111111111111111", tenant_code="zq", who="main")
            while signal.getitimer(signal.ITIMER_REAL)[0]:
                pass
            fapilog.shutdown_logging(20)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    _, lines = run(code, tmp_path, **SECRETS)
    assert sorted(line["who"] for line in lines) == ["handler"] * 40 + ["main"] * 40
    assert {(line["event"], line["tenant_code"]) for line in lines} == {("card ***", "***")}


DURING = """
import fapilog.bootstrap as bootstrap
from fapilog._internal import starting

def then(function, do):
    def done(*args, **named):
        do()
        return function(*args, **named)
    return done
"""


@pytest.mark.parametrize(
    "moment", rest_in_matrix(2, ["bootstrap.load_settings", "starting.sampler_of", "bootstrap._check", "starting.parse_levels"])
)
def test_a_log_call_from_the_midst_of_set_up(tmp_path, moment) -> None:
    """It obeys the environment as any other."""
    where, _, name = moment.partition(".")
    code = f"""{DURING}
told = []
def tell():
    if not told:
        told.append(1)
        log.info("card 4111111111111111", tenant_code="zq")
        log.debug("never")

{moment} = then({where}.{name}, tell)
log.info("first")
"""
    _, lines = run(code, tmp_path, **SECRETS)
    assert [(line["event"], line.get("tenant_code")) for line in lines] == [("card ***", "***"), ("first", None)]


def test_set_up_that_always_logs(tmp_path) -> None:
    """It comes to its end, and no event is lost."""
    code = f"""{DURING}
told = 0
def tell():
    global told
    told += 1
    log.info("from set-up", password="zq")

bootstrap._check = then(bootstrap._check, tell)
log.info("first")
print(told)
"""
    printed, lines = run(code, tmp_path)
    assert 1 <= int(printed) <= 20
    assert [line["event"] for line in lines].count("from set-up") == int(printed)
    assert [line["event"] for line in lines].count("first") == 1
    assert {line.get("password", "***") for line in lines} == {"***"}


@pytest.mark.parametrize(
    ("moment", "thread"),
    rest_in_matrix(
        2,
        [
            ("starting.parse_levels", "another"),
            ("starting.sampler_of", "the same"),
            ("starting.parse_levels", "the same"),
            ("starting.sampler_of", "another"),
        ],
    ),
)
def test_a_log_call_in_the_midst_of_configure_logging(tmp_path, moment, thread) -> None:
    """It obeys what that call says, as do those that follow."""
    code = f"""{DURING}
told = []
def tell():
    if not told:
        told.append(1)
        if {thread == "another"}:
            other = threading.Thread(target=log.debug, args=("card 4111111111111111",), kwargs={{"tenant_code": "zq"}})
            other.start()
            other.join()
        else:
            log.debug("card 4111111111111111", tenant_code="zq")

{moment} = then({moment}, tell)
fapilog.configure_logging(level="DEBUG", redact_keys=["tenant_code"], redact_patterns=["card"])
log.debug("card 4111111111111111", tenant_code="zq")
"""
    _, lines = run(code, tmp_path, FAPILOG_LEVEL="ERROR")
    assert [(line["event"], line["tenant_code"]) for line in lines] == [("card ***", "***")] * 2


# ---- set-up that says otherwise


def test_a_wrong_environment(tmp_path) -> None:
    """One note says so, every event is kept, and the defaults hold."""
    code = """
log.debug("no")
for n in range(3):
    log.info("x", n=n, password="zq")
"""
    result = run_script(SET_UP + code, tmp_path, env={"FAPILOG_LEVEL": "LOUD"})
    lines = [json.loads(line) for line in ran_well(result).splitlines() if line.startswith("{")]
    assert [(line["n"], line["password"]) for line in lines if line["event"] == "x"] == [(n, "***") for n in range(3)]
    assert "no" not in [line["event"] for line in lines]
    assert result.stderr.count("FAPILOG_LEVEL='LOUD'") == result.stderr.count("going on with the defaults") == 1, result.stderr


def test_configure_logging_after_the_first_event(tmp_path) -> None:
    """What it says holds from then on, and nothing of the first event's set-up is left."""
    code = """
log.info("one", tenant_code="zq")
fapilog.configure_logging(sinks=["file"], file_path="out.jsonl", level="DEBUG", redact_keys=["other"], sampling="")
log.debug("two", tenant_code="shown", other="zq")
"""
    _, lines = run(code, tmp_path, FAPILOG_LEVEL="INFO", FAPILOG_REDACT_KEYS="tenant_code", FAPILOG_SAMPLING="*=1/1h")
    assert [(line["event"], line["tenant_code"], line.get("other")) for line in lines] == [
        ("one", "***", None),
        ("two", "shown", "***"),
    ]


@pytest.mark.parametrize("worker", [False, True], ids=["without a worker", "with a hand-made worker"])
def test_queue_sink_while_nobody_has_configured(tmp_path, worker) -> None:
    """It configures nothing: a chain of the user's own that has no hub, or a worker of its own, is left alone."""
    code = f"""
import structlog
from fapilog._internal.route import route
from fapilog.bootstrap import use_worker
if {worker}:
    use_worker(fapilog.QueueWorker([]))
structlog.configure(processors=[structlog.processors.add_log_level, fapilog.queue_sink])
structlog.get_logger().info("x")
assert not route.configured
assert not os.path.exists("out.jsonl")
"""
    printed, lines = run(code, tmp_path)
    assert lines == []
    assert ("x" in printed) is not worker
