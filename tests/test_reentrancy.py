"""
The cases O-RE-1 and O-RE-2 in full size and at once: finalisers and signal handlers that log in the middle of log calls.

`test_cases` has them one by one, the first in small; here the same threads are interrupted by both.
"""

from __future__ import annotations

import collections
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests._support import ran_well, read_lines, run_script, strict
from tests.test_cases import balanced, no_hole

if TYPE_CHECKING:
    from pathlib import Path

HERE = {"FAPILOG_FILE_PATH": "out.jsonl"}

SET_UP = """
import gc, json, signal, sys, threading, time
from dataclasses import asdict
import fapilog

fapilog.configure_logging(
    sinks=SINKS, queue_size=2_000_000, queue_max_bytes="2GiB", drain_timeout=60, queue_batch_timeout=0.05
)
log = fapilog.get_logger("case")
finalised = told = 0  # begun and come to their end

class Cycle:
    def __init__(self, where):
        self.me = self
        self.where = where
    def __del__(self):
        global finalised, told
        finalised += 1
        log.info("finaliser", where=self.where)
        told += 1

class Value:
    def __repr__(self):
        Cycle("repr")
        return "shown"

def collect():
    gc.disable()  # what comes after this function makes no more of them
    quiet = 0
    while quiet < 5:  # not once: while another thread (the hub's own) is still collecting, gc.collect() does nothing
        before = finalised
        gc.collect()
        time.sleep(0.01)
        quiet = quiet + 1 if finalised == before else 0

def tell(**numbers):
    fapilog.flush(60)
    fapilog.shutdown_logging(60)
    with open("result.json", "w") as out:
        json.dump([numbers, asdict(fapilog.statistics())], out)
"""

FINALISERS = """
def run(thread):
    for n in range(10_000):
        Cycle("loop")
        log.info("main", thread=thread, n=n, value=Value())

gc.set_threshold(1)
threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
for each in threads:
    each.start()
for each in threads:
    each.join()
collect()
tell(finalised=finalised)
"""


def outcome(tmp_path: Path, sinks: list[str], code: str) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]], str]:
    """Run *code*; return what it counted, its books, its lines, the same in all sinks, and its stderr."""
    result = run_script(f"SINKS = {sinks}\n{SET_UP}{code}", tmp_path, env=HERE, timeout=120)
    printed = ran_well(result)
    assert "reentrant" not in result.stderr
    numbers, books = json.loads((tmp_path / "result.json").read_text())
    lines = read_lines(tmp_path / "out.jsonl")
    if "stdout" in sinks:
        assert [strict(line) for line in printed.splitlines()] == lines
    balanced(books)
    no_hole(lines, books)
    return numbers, books, lines, result.stderr


@pytest.mark.soak
def test_o_re_1_in_full(tmp_path: Path) -> None:
    """O-RE-1: eight threads, 10,000 records each, a finaliser beside and inside each: all are written once."""
    numbers, books, lines, stderr = outcome(tmp_path, ["file"], FINALISERS)
    kinds = collections.Counter((line["event"], line.get("where")) for line in lines)

    assert stderr == ""
    assert numbers == {"finalised": 160_000}
    assert books["refused"] == {}
    assert kinds["finaliser", "loop"] == kinds["finaliser", "repr"] == 80_000
    mains = [line for line in lines if line["event"] == "main"]
    assert {line["value"] for line in mains} == {"shown"}
    assert sorted((line["thread"], line["n"]) for line in mains) == [(thread, n) for thread in range(8) for n in range(10_000)]


BOTH = """
class Interruption(BaseException):
    pass

sys.unraisablehook = lambda _unraisable: None  # what the handler throws into a finaliser ends there
handled = answered = raised = 0
calls = [0] * 3  # the main thread first
armed = False
stop = False

def handler(_number, _frame):
    global handled, answered, raised, armed
    handled += 1
    log.info("handler", n=handled)
    answered += 1
    if RAISES and armed and handled % 3 == 0:
        armed = False
        raised += 1
        raise Interruption

def work(thread):
    global armed
    while not stop and time.monotonic() < end:
        for _ in range(5):
            armed = armed or thread == 0
            Cycle("loop")
            log.info("main", thread=thread, n=calls[thread], value=Value())
            calls[thread] += 1
        time.sleep(0.001)

log.info("started")
end = time.monotonic() + 3
threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
gc.set_threshold(1)
for each in threads:
    each.start()
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
while time.monotonic() < end:
    try:
        work(0)
        armed = False
    except Interruption:
        calls[0] += 1  # the number of a record that was cut off is not used again
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
stop = True
for each in threads:
    each.join()
collect()
log.info("the log still works")
tell(finalised=finalised, told=told, handled=handled, answered=answered, raised=raised, calls=calls)
"""


@pytest.mark.matrix
@pytest.mark.parametrize("raises", [False, True])
def test_o_re_1_and_2_at_once(tmp_path: Path, raises: bool) -> None:
    """
    O-RE-1, O-RE-2: a handler at 1 kHz and finalisers log into the log calls of the main thread, others log beside it.

    No hang, no torn line, every event once, in order of the seqs, the same in both sinks. One that the handler throws out of was
    written or never came in, and nothing else is missing.
    """
    numbers, books, lines, _ = outcome(tmp_path, ["stdout", "file"], f"RAISES = {raises}\n{BOTH}")
    kinds = collections.Counter(line["event"] for line in lines)
    mains = [(line["thread"], line["n"]) for line in lines if line["event"] == "main"]

    assert numbers["handled"] > 500
    assert (numbers["raised"] > 100) is raises
    assert books["refused"] == {}
    assert numbers["answered"] <= kinds["handler"] <= numbers["handled"]
    assert numbers["told"] <= kinds["finaliser"] <= numbers["finalised"]
    assert raises or (numbers["answered"], numbers["told"]) == (numbers["handled"], numbers["finalised"])
    calls = numbers["calls"]
    assert sum(calls) - numbers["raised"] <= len(mains) <= sum(calls)
    assert len(set(mains)) == len(mains)
    for thread in (1, 2):
        assert [n for who, n in mains if who == thread] == list(range(calls[thread]))
    assert [line["seq"] for line in lines] == sorted(line["seq"] for line in lines)
    assert [line["event"] for line in lines[-2:]] == ["the log still works", "fapilog.closed"]
