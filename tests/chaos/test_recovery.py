"""What dead processes left: who finds it delivers it, once, whatever happens to him."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from fapilog._internal.journal import MOST_LEFT, MOST_OF_SLOT
from tests._support import only_matrix
from tests.chaos.harness import named, numbers, run, run_often
from tests.chaos.oracle import written
from tests.loki.standin import StandIn

if TYPE_CHECKING:
    from pathlib import Path

KILLED = "for n in range(int(sys.argv[1])): log.info('e', n=n)\nos.kill(os.getpid(), 9)"


@pytest.mark.parametrize("exits", [100, pytest.param(1000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("method", ["fork", only_matrix("spawn")])
def test_children_that_leave_without_a_word(tmp_path: Path, method: str, exits: int) -> None:
    """`os._exit()` right behind a log call loses no event: the parent delivers what nobody else has (Show 4)."""
    if method == "spawn":
        exits //= 10  # each imports everything anew
    (tmp_path / "program.py").write_text(
        f"""
import multiprocessing, os, fapilog
settings = dict(sinks=["file"], file_path="app.{{worker}}.jsonl", run_dir="run")
def leave(n):
    fapilog.configure_logging(**settings)
    fapilog.get_logger("a").info("e", n=n)
    os._exit(0)
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    fapilog.configure_logging(**settings)
    fapilog.get_logger("a").info("parent")
    for first in range(0, {exits}, 4):
        children = [context.Process(target=leave, args=(n,)) for n in range(first, min(first + 4, {exits}))]
        for child in children:
            child.start()
        for child in children:
            child.join()
"""
    )
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=400)
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(tmp_path) == dict.fromkeys(range(exits), 1)
    assert not list((tmp_path / "run").glob("*journal-*"))


def test_the_next_start(tmp_path: Path) -> None:
    """It writes the lines of the dead as they are, tells of them, and of the death with what it knows now."""
    run(tmp_path, KILLED, "50", code=-9)
    run(tmp_path, "log.info('next')")
    assert numbers(tmp_path) == dict.fromkeys(range(50), 1)
    (recovered,) = named(tmp_path, "fapilog.recovered")
    (died,) = named(tmp_path, "fapilog.worker_died")
    (boot,) = {event["boot"] for event in named(tmp_path, "e")}
    assert (recovered["dead_boot"], recovered["first_seq"], recovered["last_seq"], recovered["count"]) == (boot, 1, 50, 50)
    assert (died["dead_boot"], died["last_seq"], died["recovered"], died["lost"]) == (boot, 50, 50, 0)
    assert not list((tmp_path / "run").glob("*journal-*"))


def test_refusals_that_nobody_was_told_of(tmp_path: Path) -> None:
    """The notice is written for the dead, with its boot: what is missing in its files is explained."""
    run(tmp_path, KILLED, "500", code=-9, queue_size=10, queue_reserve=0.0)
    run(tmp_path, "log.info('next')")
    lines = named(tmp_path, "e")
    last = max(line["seq"] for line in lines)
    notices = [event for event in named(tmp_path, "fapilog.dropped") if event.get("dead_boot") == lines[0]["boot"]]
    assert notices
    own = [event for event in named(tmp_path, "fapilog.dropped") if event["boot"] == lines[0]["boot"]]
    (died,) = named(tmp_path, "fapilog.worker_died")
    assert died["last_seq"] >= last
    assert len(lines) + len(own) + sum(event["count"] for event in [*notices, *own]) == died["last_seq"]


def test_events_that_were_thrown_out(tmp_path: Path) -> None:
    """`drop_oldest` has counted them: they stay away, and the notice is written for the dead."""
    run(tmp_path, KILLED, "300", code=-9, queue_size=20, queue_reserve=0.0, queue_overflow="drop_oldest")
    run(tmp_path, "log.info('next')")
    lines = named(tmp_path, "e")
    assert max(line["n"] for line in lines) == 299
    (died,) = named(tmp_path, "fapilog.worker_died")
    notices = [event["count"] for event in named(tmp_path, "fapilog.dropped")]
    own = [
        event for event in named(tmp_path, "fapilog.dropped") if "dead_boot" not in event and event["boot"] == lines[0]["boot"]
    ]
    assert len(lines) + len(own) + sum(notices) == died["last_seq"]


def test_a_drain_that_is_too_short(tmp_path: Path) -> None:
    """What it leaves undelivered is left to the next process, and not counted as lost."""
    (tmp_path / "app.1.jsonl").mkdir()
    said = run(tmp_path, "for n in range(20): log.info('e', n=n)\nprint(fapilog.shutdown_logging(0.2))")
    assert "complete=False" in said
    assert "dropped=0" in said
    assert list((tmp_path / "run").glob("journal-*"))
    (tmp_path / "app.1.jsonl").rmdir()
    run(tmp_path, "log.info('next')")
    assert numbers(tmp_path) == dict.fromkeys(range(20), 1)
    assert not list((tmp_path / "run").glob("journal-*"))


def test_a_shutdown_and_a_new_start_in_one_process(tmp_path: Path) -> None:
    """What the first hub left is the next process's to deliver: a write of that hub's may still be under way."""
    (tmp_path / "app.1.jsonl").mkdir()
    run(
        tmp_path,
        """
for n in range(20): log.info('e', n=n)
fapilog.shutdown_logging(0.2)
os.rmdir("app.1.jsonl")
fapilog.configure_logging()
log.info("e", n=20)
""",
    )
    assert numbers(tmp_path) == {20: 1}
    run(tmp_path, "log.info('next')")
    assert numbers(tmp_path) == dict.fromkeys(range(21), 1)
    assert not list((tmp_path / "run").glob("journal-*"))


OUTAGE: Any = {"sinks": ["file", "loki"], "loki_url": "http://127.0.0.1:9", "max_event_bytes": 1024, "journal_bytes": 1024}
KNOWS = """
def wait_until_it_knows():
    while next(seen for seen in fapilog.service_statistics().workers if seen.identity.pid == os.getpid()).sinks["loki"].up:
        time.sleep(0.01)
"""


@pytest.mark.matrix
def test_a_sink_that_takes_nothing_for_ever(tmp_path: Path) -> None:
    """A death is told of once, however many processes take over what is owed; only so many journals are kept."""
    run(tmp_path, KILLED, "20", code=-9, **OUTAGE)
    # Which may be too short for them to know that Loki is down.
    run_often(tmp_path, "log.info('next')\nfapilog.shutdown_logging(0.05)", range(MOST_LEFT + 8), **OUTAGE)
    run(tmp_path, f"{KNOWS}log.info('last')\nwait_until_it_knows()\nfapilog.shutdown_logging(0.05)", **OUTAGE)
    assert numbers(tmp_path) == dict.fromkeys(range(20), 1)
    deaths = named(tmp_path, "fapilog.worker_died")  # one that has 0.05 s may have no time to close its life: told of as well
    assert max(Counter(event["dead_boot"] for event in deaths).values()) == 1
    (victim,) = {line["boot"] for line in named(tmp_path, "e")}
    (died,) = [event for event in deaths if event["dead_boot"] == victim]
    assert died["lost"] == 0
    told = Counter(event["dead_boot"] for event in named(tmp_path, "fapilog.recovered"))
    assert max(told.values()) == told[died["dead_boot"]] == 1
    assert len(list((tmp_path / "run").glob("journal-*"))) == MOST_LEFT + MOST_OF_SLOT


@pytest.mark.matrix
def test_many_workers_that_end_in_an_outage(tmp_path: Path) -> None:
    """All leave what Loki has not had, more than are kept for a few workers: it is delivered after the outage."""
    workers = MOST_LEFT + 8
    script = f"""{KNOWS}
import multiprocessing
context = multiprocessing.get_context("fork")
def work(n):
    log.info("e", n=n)
    wait_until_it_knows()
    ready.wait(60)
    fapilog.shutdown_logging(0.5)
    os._exit(0)
ready = context.Barrier({workers})
children = [context.Process(target=work, args=(n,)) for n in range({workers})]
for child in children: child.start()
for child in children: child.join()
print({{child.exitcode for child in children}})
"""
    loki = StandIn()
    settings = OUTAGE | {"loki_url": loki.url}
    assert run(tmp_path, script, **settings).strip() == "{0}"
    assert len(list((tmp_path / "run").glob("journal-*"))) >= workers
    with loki:
        run(tmp_path, "log.info('next')\nfapilog.shutdown_logging(20)", **settings)
        found = [json.loads(entry.line) for entry in loki.entries()]
    assert Counter(line["n"] for line in found if line["event"] == "e") == Counter(range(workers))


def test_an_outage_that_is_longer_than_the_ring(tmp_path: Path) -> None:
    """What Loki has not had is overwritten and counted; it takes nothing from the promise for files (Show 3)."""
    script = """
for n in range(2000):
    log.info("e", n=n, text="x" * 100)
    time.sleep(0.0002)
while not fapilog.service_statistics().workers[0].sinks["loki"].unprotected:
    time.sleep(0.01)
for n in range(2000, 2040):
    log.info("e", n=n, text="x" * 100)
print(fapilog.service_statistics().workers[0].sinks["file"].unprotected, flush=True)
os.kill(os.getpid(), 9)
"""
    assert run(tmp_path, script, code=-9, **OUTAGE) == "0\n"
    run(tmp_path, "log.info('next')\nfapilog.shutdown_logging(0.5)", **OUTAGE)
    assert numbers(tmp_path) == dict.fromkeys(range(2040), 1)
    (died,) = named(tmp_path, "fapilog.worker_died")
    assert 500 < died["lost"] < 2040  # what Loki has not had and the ring has not any more
    assert list((tmp_path / "run").glob("journal-*"))  # with what Loki is owed


@pytest.mark.matrix
def test_a_recoverer_that_is_killed(tmp_path: Path) -> None:
    """At any moment, again and again: the next one goes on, and nothing is written twice."""
    run(tmp_path, KILLED, "3000", code=-9, queue_size=10_000)
    (tmp_path / "run" / "keep").mkdir()
    script = """
import threading
threading.Timer(float(sys.argv[1]), os.kill, (os.getpid(), 9)).start()
log.info("x")
time.sleep(9)
"""
    run_often(tmp_path, script, [delay / 2000 for delay in range(40)], code=-9)
    run(tmp_path, "log.info('next')")
    assert numbers(tmp_path) == dict.fromkeys(range(3000), 1)
    seqs = Counter((event["boot"], event["seq"]) for event in written(tmp_path))
    assert max(seqs.values()) == 1


def test_journals_that_are_none(tmp_path: Path) -> None:
    """They are moved aside, with a note, and not more of them than there is room for; links and foreign ones are left alone."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    for number in range(20):
        (folder / f"journal-1.{number:016x}.0").write_bytes(b"no journal" * 10_000)
    (folder / "journal-1.ab.0").symlink_to("/etc/passwd")
    (folder / "journal-1.ac.0").write_bytes(b"")
    (folder / "journal-2.ad.0").write_bytes(b"of a later version")
    run(tmp_path, "log.info('next')")
    assert len(list(folder.glob("aside-journal-1.*"))) == 16
    assert len(list(folder.glob("journal-1.*"))) == 20 - 16 + 1
    assert (folder / "journal-2.ad.0").exists()


def test_journals_of_another_service_and_of_other_sinks(tmp_path: Path) -> None:
    """Those of another service stay for it; those of the same service with other sinks are moved aside."""
    run(tmp_path, KILLED, "5", code=-9, service="one")
    run(tmp_path, "log.info('next')", service="two")
    assert len(list((tmp_path / "run").glob("journal-*"))) == 1
    run(
        tmp_path,
        "fapilog.configure_logging(sinks=['file'], file_path='other.jsonl', run_dir='run', service='one')\nlog.info('next')",
        service="one",
    )
    assert len(list((tmp_path / "run").glob("aside-*"))) <= 1


def test_the_recover_command(tmp_path: Path) -> None:
    """With the service's environment it delivers as the next start does, with `--to` into a directory; else it says why not."""
    for _ in range(2):
        run(tmp_path, KILLED, "30", code=-9)
    environment = {
        **os.environ,
        "FAPILOG_RUN_DIR": str(tmp_path / "run"),
        "FAPILOG_SINKS": "file",
        "FAPILOG_FILE_PATH": "app.{worker}.jsonl",
    }

    def recover(*options: str, **more: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "fapilog", "recover", *options],
            cwd=tmp_path, env=environment | more, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    code, said = recover(FAPILOG_SERVICE="another")
    assert (code, "service 'fapilog'" in said) == (2, True), said
    code, said = recover(FAPILOG_FILE_PATH="x.jsonl")
    assert (code, "sinks" in said) == (2, True), said
    code, said = recover()
    assert (code, "events recovered from" in said) == (0, True), said  # the second may have begun with those of the first
    assert sum(numbers(tmp_path).values()) == 60
    code, said = recover()
    assert (code, "nothing to recover" in said) == (0, True), said
    run(tmp_path, KILLED, "30", code=-9)
    code, said = recover("--to", "out")
    assert (code, "30 events recovered" in said) == (0, True), said
    assert (
        len(
            [
                line
                for path in (tmp_path / "out").iterdir()
                for line in path.read_bytes().splitlines()
                if orjson.loads(line)["event"] == "e"
            ]
        )
        == 30
    )
