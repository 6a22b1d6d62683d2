"""Field cases of other projects (O-*), each in a process of its own with a hard time limit."""

from __future__ import annotations

import collections
import json
import re
from pathlib import Path
from typing import Any

import pytest

import fapilog
from tests._support import ran_well, read_lines, rest_in_matrix, run_script, strict
from tests.protections.table import PROTECTIONS

PACKAGE = Path(fapilog.__file__).parent
HERE = {"FAPILOG_FILE_PATH": "out.jsonl"}
TO_FILE = {"FAPILOG_SINKS": "file", **HERE}
EVERY_BOOLEAN = ["QUEUE_ENABLED", "FILE_STRICT", "CAPTURE_STDLIB", "REDACT", "EXCEPTION_LOCALS", "ACCESS_LOG"]


def balanced(books: dict[str, Any]) -> None:
    """Check what `fapilog.statistics()` said."""
    assert books["logged"] == books["accepted"] + sum(books["refused"].values())
    for sink in books["sinks"].values():
        assert sink["accepted"] == sink["delivered"] + sum(sink["dropped"].values()) + sink["in_flight"]


def no_hole(lines: list[dict[str, Any]], books: dict[str, Any]) -> None:
    """Check that the file has each seq once and that what is missing was announced."""
    seqs = [line["seq"] for line in lines]
    assert len(seqs) == len(set(seqs))
    announced = sum(line["count"] for line in lines if line["event"] == "fapilog.dropped")
    assert max(seqs) - len(seqs) == announced
    assert announced == sum(books["refused"].values()) + sum(sum(sink["dropped"].values()) for sink in books["sinks"].values())


def test_o_loop_3(tmp_path: Path) -> None:
    """O-LOOP-3: set up without a loop, used from four loops, two threads and plain code: all is written, nothing complains."""
    result = run_script(
        """
        import asyncio, threading, warnings
        import fapilog

        fapilog.configure_logging()
        log = fapilog.get_logger("case")

        def plain(who):
            for n in range(10):
                log.info(who, n=n)

        async def main(who):
            for n in range(10):
                log.info(who, n=n)
                await log.ainfo(who + " async", n=n)
                await asyncio.sleep(0)
            assert (await fapilog.aflush(10)).complete

        asyncio.run(main("first"))
        plain("between")
        asyncio.run(main("second"))
        thread = threading.Thread(target=lambda: asyncio.run(main("thread")))
        thread.start()
        thread.join()
        plain("after")
        asyncio.run(main("third"), debug=True)
        """,
        tmp_path,
        env={**TO_FILE, "PYTHONASYNCIODEBUG": "0"},
    )
    assert (ran_well(result), result.stderr) == ("", "")
    found: dict[str, list[int]] = collections.defaultdict(list)
    for line in read_lines(tmp_path / "out.jsonl")[:-1]:
        found[line["event"]].append(line["n"])
    loops = ["first", "second", "thread", "third"]
    assert found == {who: list(range(10)) for who in [*loops, *(f"{who} async" for who in loops), "between", "after"]}


DUP_3 = """
import atexit, json, os, threading, time
import fapilog

def count():
    end = time.monotonic() + 10  # for threads of the set-up before to come to their end
    while counts[len(CHANGES):] and threading.active_count() > counts[len(CHANGES)]["threads"] and time.monotonic() < end:
        time.sleep(0.01)
    return {"threads": threading.active_count(), "fds": len(os.listdir("/proc/self/fd")), "hooks": atexit._ncallbacks()}

log = fapilog.get_logger("case")
path = "first.jsonl"
counts = []
for turn in range(8):
    settings = CHANGES[turn % len(CHANGES)]
    fapilog.configure_logging(sinks=["file"], **settings)
    log.info("turn", n=turn)
    assert fapilog.flush(10).complete
    counts.append(count())
for n in range(10):
    log.info("final", n=n)
print(json.dumps(counts))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
@pytest.mark.parametrize(
    "changes",
    [
        [{"file_path": "a.jsonl"}],
        [{"file_path": "a.jsonl"}, {"file_path": "a.jsonl", "level": "DEBUG"}],
        [{"file_path": "b.jsonl"}, {"file_path": "a.jsonl"}],
    ],
    ids=["same", "other level", "other file"],
)
def test_o_dup_3(tmp_path: Path, changes: list[dict[str, str]]) -> None:
    """O-DUP-3: set-up called eight times: each event once, and threads, open files and exit hooks do not grow."""
    printed = ran_well(run_script(f"CHANGES = {changes!r}\n{DUP_3}", tmp_path))
    counts = json.loads(printed)
    assert counts[-1] == counts[len(changes)]
    assert counts[-1] == counts[-1 - len(changes)]
    lines = [line for name in ("a.jsonl", "b.jsonl") if (tmp_path / name).exists() for line in read_lines(tmp_path / name)]
    assert sorted(line["n"] for line in lines if line["event"] == "turn") == list(range(8))
    last = [line["n"] for line in read_lines(tmp_path / "a.jsonl") if line["event"] == "final"]
    assert last == list(range(10))
    assert len({line["seq"] for line in lines}) == len(lines)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_o_dup_3_with_a_sink_of_the_users_own(tmp_path: Path) -> None:
    """O-DUP-3: the same sink object given again and again is opened and closed in turn; its threads do not pile up."""
    printed = ran_well(
        run_script(
            """
            import json, os, threading, time
            import fapilog

            class Mine:
                name = "mine"
                def __init__(self):
                    self.life, self.got = [], []
                async def open(self, identity):
                    self.life.append("open")
                async def write(self, events):
                    self.got += [event["n"] for event in events if "n" in event]
                async def close(self):
                    self.life.append("close")

            mine = Mine()
            counts = []
            for turn in range(6):
                fapilog.configure_logging(sinks=[mine], level="DEBUG" if turn % 2 else "INFO")
                fapilog.get_logger().info("turn", n=turn)
                assert fapilog.flush(10).complete
                end = time.monotonic() + 10
                while threading.active_count() > 4 and time.monotonic() < end:
                    time.sleep(0.01)
                counts.append([threading.active_count(), len(os.listdir("/proc/self/fd"))])
            fapilog.shutdown_logging()
            print(json.dumps([counts, mine.life, mine.got]))
            """,
            tmp_path,
        )
    )
    counts, life, got = json.loads(printed)
    assert counts[-1] == counts[1]
    assert life == ["open", "close"] * 6
    assert got == list(range(6))


RE_1 = """
import gc, json, threading
from dataclasses import asdict
import fapilog

fapilog.configure_logging(queue_size=200_000, queue_max_bytes="512MiB", drain_timeout=30, queue_enabled=ENABLED)
log = fapilog.get_logger("case")
finalised = 0

class Cycle:
    def __init__(self):
        self.me = self
    def __del__(self):
        global finalised
        finalised += 1
        log.info("finaliser")

class Value:
    def __repr__(self):
        Cycle()
        return "shown"

def run(thread):
    for n in range(COUNT):
        Cycle()
        log.info("main", thread=thread, n=n, value=Value())

gc.set_threshold(1)
threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
for each in threads:
    each.start()
for each in threads:
    each.join()
gc.collect()
gc.set_threshold(700)
assert fapilog.flush(30) is not None
fapilog.shutdown_logging(30)
print(json.dumps([finalised, asdict(fapilog.statistics())]))
"""


@pytest.mark.parametrize(("enabled", "count"), rest_in_matrix(1, [(True, 1000), (False, 300)]))
def test_o_re_1(tmp_path: Path, enabled: bool, count: int) -> None:
    """O-RE-1: finalisers log at every allocation, in 8 threads: it ends, all is written or counted, nothing is doubled."""
    printed = ran_well(run_script(f"ENABLED, COUNT = {enabled}, {count}\n{RE_1}", tmp_path, env=TO_FILE, timeout=90))
    finalised, books = json.loads(printed)
    balanced(books)
    lines = read_lines(tmp_path / "out.jsonl")
    kinds = collections.Counter(line["event"] for line in lines)
    lost = sum(books["refused"].values()) + sum(books["sinks"]["file"]["dropped"].values())
    assert kinds["main"] + kinds["finaliser"] + lost == 8 * count + finalised
    assert len({line["seq"] for line in lines}) == len(lines)
    if enabled:
        assert sorted((line["thread"], line["n"]) for line in lines if line["event"] == "main") == [
            (thread, n) for thread in range(8) for n in range(count)
        ]
        assert all(line["value"] == "shown" for line in lines if line["event"] == "main")
        no_hole(lines, books)


RE_2 = """
import json, signal, time
from dataclasses import asdict
import fapilog

class Interruption(KIND):
    pass

fapilog.configure_logging(
    sinks=["stdout", "file"], queue_enabled=ENABLED, queue_size=50_000, queue_max_bytes="1GiB", drain_timeout=30
)
log = fapilog.get_logger("case")
handled = raised = 0
armed = False  # only where the main loop is ready to catch

def handler(_number, _frame):
    global handled, raised, armed
    handled += 1
    log.info(f"handler {handled}")
    if armed and handled % 3 == 0:
        armed = False
        raised += 1
        raise Interruption("by the handler")

log.info("started")
fapilog.flush(30)
signal.signal(signal.SIGALRM, handler)
calls = caught = 0
end = time.monotonic() + SECONDS
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)

def work():  # a function: a backward jump right inside the try would not be covered by it on 3.13
    global armed, calls
    while time.monotonic() < end:
        for _ in range(20):
            armed = RAISES
            calls += 1
            log.info(f"main {calls}", a=1, b="two")
        time.sleep(0.0005)
    armed = False

while time.monotonic() < end:
    try:
        work()
    except Interruption:
        caught += 1
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
log.info("the log still works")
fapilog.flush(30)
fapilog.shutdown_logging(30)
with open("result.json", "w") as out:
    json.dump([handled, raised, caught, calls, asdict(fapilog.statistics())], out)
"""


def re_2(tmp_path: Path, *, raises: bool, kind: str = "BaseException", enabled: bool = True) -> tuple[list[int], Any, Any]:
    prologue = f"RAISES, KIND, ENABLED, SECONDS = {raises}, {kind}, {enabled}, 3\n"
    result = run_script(prologue + RE_2, tmp_path, env=HERE, timeout=90)
    printed = ran_well(result)
    assert "reentrant" not in result.stderr
    *numbers, books = json.loads((tmp_path / "result.json").read_text())
    lines = read_lines(tmp_path / "out.jsonl")
    on_stdout = [strict(line) for line in printed.splitlines()]
    if enabled:
        assert on_stdout == lines
    return numbers, books, lines


def test_o_re_2(tmp_path: Path) -> None:
    """O-RE-2: a handler at 1 kHz logs while the main thread logs to stdout and a file: no hang, no torn line, books balance."""
    (handled, _, _, calls), books, lines = re_2(tmp_path, raises=False)
    balanced(books)
    assert handled > 500
    counts = collections.Counter(line["event"].split()[0] for line in lines)
    refused = sum(books["refused"].values())
    assert books["logged"] == books["accepted"] + refused
    assert counts["main"] + counts["handler"] + refused == calls + handled
    no_hole(lines, books)
    seqs = [line["seq"] for line in lines]
    assert seqs == sorted(seqs)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["BaseException", "Exception"])
def test_o_re_2_with_a_handler_that_raises(tmp_path: Path, kind: str) -> None:
    """O-RE-2: an exception out of the handler in the middle of a log call leaves no lock held, no hole and no event twice."""
    (handled, raised, caught, calls), books, lines = re_2(tmp_path, raises=True, kind=kind)
    assert raised > 100
    names = collections.Counter(line["event"].strip("'") for line in lines if line["event"] != "fapilog.dropped")
    assert [name for name, count in names.items() if count > 1] == []
    assert lines[-2]["event"] == "the log still works"
    assert lines[-1]["event"] == "fapilog.closed"
    refused = sum(books["refused"].values())
    written = sum(name.startswith("handler ") for name in names)
    assert written + refused >= handled - raised
    assert sum(name.startswith("main ") for name in names) <= calls
    if kind == "BaseException":
        assert caught == raised
    balanced(books)
    no_hole(lines, books)


@pytest.mark.matrix
@pytest.mark.parametrize("raises", [False, True])
def test_o_re_2_with_synchronous_output(tmp_path: Path, raises: bool) -> None:
    """O-RE-2: without a queue too: it ends, no line is torn, and the log works afterwards."""
    (handled, _, _, calls), books, lines = re_2(tmp_path, raises=raises, enabled=False)
    balanced(books)
    names = [line["event"] for line in lines]
    assert "the log still works" in names
    assert len(names) == len(set(names))
    assert len({line["seq"] for line in lines}) == len(lines)
    if not raises:
        lost = sum(books["sinks"]["file"]["dropped"].values())
        assert sum(name.startswith(("main ", "handler ")) for name in names) + lost == calls + handled
    for sink in books["sinks"].values():
        assert sink["in_flight"] == 0


@pytest.mark.parametrize(
    ("where", "kind"),
    rest_in_matrix(
        2,
        [("before", "KeyboardInterrupt"), ("after", "TimeoutError"), ("before", "TimeoutError"), ("after", "KeyboardInterrupt")],
    ),
)
def test_o_re_2_with_a_handler_that_raises_during_the_first_event(tmp_path: Path, kind: str, where: str) -> None:
    """O-RE-2: the start that it interrupts is tried again by the next event: one hub, no event lost, none doubled."""
    ran_well(
        run_script(
            f"""
            import threading
            import fapilog
            from fapilog._internal.hub import ProcessHub

            real = ProcessHub.start
            def interrupted(self):
                ProcessHub.start = real
                if {where!r} == "after":
                    real(self)
                raise {kind}("by a handler")
            ProcessHub.start = interrupted

            fapilog.configure_logging(sinks=["file"])
            log = fapilog.get_logger()
            try:
                log.info("first")
            except BaseException as error:
                assert type(error) is {kind}
            for n in range(50):
                log.info("then", n=n)
            assert fapilog.flush(10).complete
            assert sum(thread.name == "fapilog-worker" for thread in threading.enumerate()) == 1
            """,
            tmp_path,
            env=HERE,
        )
    )
    lines = read_lines(tmp_path / "out.jsonl")
    assert [line["event"] for line in lines] == ["first", *["then"] * 50, "fapilog.closed"]
    assert [line["seq"] for line in lines] == list(range(1, 53))


def test_a_hub_that_can_never_start(tmp_path: Path) -> None:
    """The log calls do not raise, one note says why, and every event is counted as refused."""
    result = run_script(
        """
        import fapilog
        from fapilog import coordinator
        from fapilog._internal import starting

        def broken(*_):
            raise RuntimeError("no slot")
        starting.take_slot = broken
        fapilog.configure_logging(sinks=["file"])
        for n in range(5):
            fapilog.get_logger().info("x", n=n)
        queue = coordinator.coordinator.state.queue
        print(queue.last_seq, sum(window.count for window in queue.refused.values()), len(coordinator.coordinator.state.pending))
        """,
        tmp_path,
        env=HERE,
    )
    assert ran_well(result) == "5 5 0\n"
    assert result.stderr.count("no slot") == 1


CONFIGURES = """
import sys
import fapilog
try:
    fapilog.configure_logging()
except fapilog.ConfigurationError as error:
    print(error)
    sys.exit(7)
fapilog.get_logger().info("x")
"""


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((f"FAPILOG_{name}", "ture") for name in EVERY_BOOLEAN),
        ("FAPILOG_LEVEL", "warnning"),
        ("FAPILOG_LEVEL", "INFO,a=loud"),
        ("FAPILOG_QUEUE_SIZE", "10k"),
        ("FAPILOG_QUEUE_SIZE", "-1"),
        ("FAPILOG_QUEUE_SIZE", "1e3"),
        ("FAPILOG_QUEUE_SIZE", "0"),
        ("FAPILOG_QUEUE_BATCH_TIMEOUT", "soon"),
        ("FAPILOG_QUEUE_OVERFLOW", "dorp"),
        ("FAPILOG_DRAIN_TIMEOUT", "nan"),
        ("FAPILOG_SINKS", "stdout,flie"),
        ("FAPILOG_FILE_PATH", "logs/{nope}.jsonl"),
        ("FAPILOG_FORMAT", "yaml"),
        ("FAPILOG_MAX_EVENT_BYTES", "1"),
    ],
)
def test_o_cfg_1(tmp_path: Path, name: str, value: str) -> None:
    """O-CFG-1: one ConfigurationError from configure_logging() names variable and value; nothing is started or written."""
    result = run_script(CONFIGURES, tmp_path, env={name: value, "FAPILOG_SERVICE": "shop"})
    assert result.returncode == 7, result.stderr
    assert name in result.stdout
    assert value in result.stdout
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_o_cfg_1_with_several_wrong_values(tmp_path: Path) -> None:
    """O-CFG-1: all of them are in the one error."""
    wrong = {"FAPILOG_LEVEL": "loud", "FAPILOG_QUEUE_SIZE": "10k", "FAPILOG_FILE_STRICT": "ja"}
    result = run_script(CONFIGURES, tmp_path, env=wrong)
    assert result.returncode == 7
    assert all(re.search(f"{name}.*{value}", result.stdout) for name, value in wrong.items())


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("value", "written"),
    [
        *((value, True) for value in ("true", "1", "yes", "on", "TRUE", " Yes ")),
        *((v, False) for v in ("false", "0", "no", "off", "False")),
    ],
)
def test_o_cfg_1_with_a_boolean_that_is_right(tmp_path: Path, value: str, written: bool) -> None:
    """O-CFG-1: the documented spellings work, seen from outside."""
    code = "import fapilog, threading; fapilog.get_logger().info('x'); print(threading.active_count() > 1)"
    env = {"FAPILOG_QUEUE_ENABLED": value, **TO_FILE}
    assert ran_well(run_script(code, tmp_path, env=env)) == f"{written}\n"
    assert read_lines(tmp_path / "out.jsonl")[0]["event"] == "x"


def test_o_cfg_1_with_a_name_that_is_not_known(tmp_path: Path) -> None:
    """O-CFG-1: a warning with the nearest known name, and set-up goes on."""
    result = run_script(CONFIGURES, tmp_path, env={"FAPILOG_QUEUE_SIZ": "5", "FAPILOG_TEST_X": "1", **TO_FILE})
    ran_well(result)
    assert "FAPILOG_QUEUE_SIZ " in result.stderr
    assert "FAPILOG_QUEUE_SIZE" in result.stderr
    assert "FAPILOG_TEST_X" not in result.stderr


KINDS = {"CFG": 1, "CLI": 2, "CTX": 2, "DUP": 3, "EXIT": 4, "FILE": 3, "FORK": 4, "GUN": 4, "HANG": 2, "IO": 3, "LOKI": 4}
KINDS |= {"LOOP": 3, "MET": 3, "RE": 3, "SEC": 2, "STD": 3, "VAL": 5}


@pytest.mark.parametrize("case", [f"O-{kind}-{number}" for kind, count in KINDS.items() for number in range(1, count + 1)])
def test_each_case_has_a_test(case: str) -> None:
    """Some test says in its first sentence that it is the one of this case."""
    docstrings = re.compile(rf'def test_[^\n]*(?:\n[^"]*?)?:\n    """[^"]*\b{case}\b')
    assert any(docstrings.search(path.read_text()) for path in Path(__file__).parent.rglob("test_*.py"))


def test_each_case_has_a_protection() -> None:
    """The table of `tests.protections` has all of them, each stands once in the source, and the tests that miss it are there."""
    assert {each.case for each in PROTECTIONS} == {f"O-{kind}-{n}" for kind, count in KINDS.items() for n in range(1, count + 1)}
    for each in PROTECTIONS:
        for change in each.changes:
            assert (PACKAGE / change.file).read_text().count(change.old) == 1, (each.case, change.old)
        for test in each.tests:
            path, _, name = test.partition("[")[0].partition("::")
            assert f"def {name}(" in (Path(__file__).parents[1] / path).read_text() or not name, (each.case, test)
