"""The board under gunicorn: what is shown is what is in the files, whatever becomes of workers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fapilog._internal import controls
from fapilog._internal.overview import overview
from tests.chaos.oracle import written
from tests.programs.running import lives, wait_until
from tests.servers.harness import OUR_CONF, Gunicorn
from tests.servers.load import get, meet, under_load

if TYPE_CHECKING:
    from pathlib import Path

WORKERS = 4
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(server: Gunicorn) -> Samples:
    """Return all samples of one scrape by name and labels."""
    text = get(server, "/metrics").decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("fapilog_")
    }


def summed(samples: Samples, name: str, **labels: str) -> float:
    return sum(
        value for (found, with_labels), value in samples.items() if found == name and labels.items() <= dict(with_labels).items()
    )


@pytest.mark.matrix
@pytest.mark.parametrize("policy", ["drop", "drop_oldest", "sample", "block"])
def test_the_numbers_of_an_overload(tmp_path: Path, policy: str) -> None:
    """Notices, counters, books and files say the same, for each worker, scope and reason; so does one scrape in all (Show 1)."""
    settings: Any = {
        "FAPILOG_TEST_STALLING": str(tmp_path),
        "FAPILOG_QUEUE_SIZE": "200",
        "FAPILOG_QUEUE_OVERFLOW": policy,
        "FAPILOG_QUEUE_BLOCK_TIMEOUT": "0.001",
    }
    (tmp_path / "stall").touch()
    with Gunicorn(tmp_path, *OUR_CONF, app="board_app:app", workers=WORKERS, **settings) as server:
        meet(server, WORKERS)
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(lambda _: get(server, "/burst?n=2000"), range(24)))
        stalled = scrape(server)
        (tmp_path / "stall").unlink()
        # The last notices are written at most a second after the drops; then nothing changes any more.
        run_dir = tmp_path / "run"
        wait_until(
            lambda: all(not w.queue_depth and not s.in_flight for w in overview(run_dir).workers for s in w.sinks.values()),
            "idle",
        )
        assert server.stop() == 0

    workers = overview(run_dir).workers
    assert [worker.worker for worker in workers] == list(range(WORKERS + 1))
    by_worker = {life.worker: life for life in lives(tmp_path)}
    for worker in workers:
        life = by_worker[worker.worker]
        notices: Counter[tuple[str, str]] = Counter()
        for notice in life.named("fapilog.dropped"):
            if notice["scope"] in {"queue", "file", "stalling"}:
                notices[notice["scope"], notice["reason"]] += notice["count"]
        counters = Counter({("queue", reason): count for reason, count in worker.refused.items()})
        counters.update({(name, reason): count for name, sink in worker.sinks.items() for reason, count in sink.dropped.items()})
        oldest = counters.pop(("file", "drop_oldest"), 0)
        counters.pop(("stalling", "drop_oldest"), 0)
        if oldest:
            counters["queue", "drop_oldest"] = oldest
        assert dict(notices) == dict(counters)
        assert worker.logged == worker.accepted + sum(worker.refused.values()) == max(line["seq"] for line in life.lines)
        assert sum(worker.levels.values()) == worker.accepted
        for sink in worker.sinks.values():
            assert sink.accepted == sink.delivered + sum(sink.dropped.values())
        assert worker.sinks["file"].accepted == worker.accepted
        assert worker.sinks["file"].delivered == len(life.lines)
        taken = sum(len(path.read_bytes().splitlines()) for path in tmp_path.glob(f"stalling.{worker.identity.boot}"))
        if worker.worker:
            assert worker.sinks["stalling"].delivered == taken
            assert worker.sinks["stalling"].dropped.get("backlog_full", 0) > 0 or policy == "block"
    assert summed(stalled, "fapilog_sink_up", sink="file") == WORKERS + 1
    assert summed(stalled, "fapilog_worker_up") == WORKERS + 1
    refused = Counter[str]()
    for worker in workers:
        refused.update(worker.refused)
    assert (
        refused[{"drop": "queue_full", "block": "queue_full", "sample": "sampled"}.get(policy, "queue_full")] > 0
        or policy == "drop_oldest"
    )


@pytest.mark.matrix
@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.soak)])
def test_workers_that_are_killed_under_load(tmp_path: Path, kills: int) -> None:
    """No counter falls, no gauge of a dead process is shown, neither files nor the time of a scrape grow (O-MET-3, Show 2)."""
    run_dir = tmp_path / "run"
    rng = random.Random(6)
    took: list[float] = []
    files: list[int] = []
    last: Samples = {}
    told = Told(tmp_path)
    with Gunicorn(tmp_path, *OUR_CONF, app="board_app:app", workers=WORKERS) as server:
        meet(server, WORKERS)
        with under_load(server, "/burst?n=20", WORKERS):
            for number in range(kills):
                victims = [worker for worker in overview(run_dir).workers if worker.alive and worker.worker]
                victim = rng.choice(victims)
                os.kill(victim.identity.pid, signal.SIGKILL)

                def replaced(slot: int = victim.worker, boot: str = victim.identity.boot) -> bool:
                    return any(w.worker == slot and w.alive and w.identity.boot != boot for w in overview(run_dir).workers)

                wait_until(replaced, f"slot {victim.worker} has a new worker")
                # Without a journal, what a worker was told to say dies with it: it gets the time to say it.
                wait_until(partial(told.are, number + 1), "the death is in a file")
                began = time.perf_counter()
                now = scrape(server)
                took.append(time.perf_counter() - began)
                files.append(len(list(run_dir.iterdir())))
                fallen = {
                    key: (value, now.get(key)) for key, value in last.items() if is_counter(key[0]) and now.get(key, -1) < value
                }
                assert fallen == {}
                alive = {str(w.worker) for w in overview(run_dir).workers if w.alive}
                shown = {dict(labels)["worker"] for name, labels in now if name == "fapilog_queue_depth"}
                assert shown - alive == set() or len(alive) < WORKERS + 1
                last = now
        wait_until(lambda: sum(w.alive for w in overview(run_dir).workers) == WORKERS + 1, "all workers are there")
        last = scrape(server)
        assert server.stop() == 0

    assert summed(last, "fapilog_worker_deaths_total", signal="SIGKILL") == kills
    assert summed(last, "fapilog_worker_restarts_total") == kills
    assert told.are(kills)
    assert Counter(line["signal"] for line in told.lines) == {"SIGKILL": kills}
    assert len({line["dead_boot"] for line in told.lines}) == kills
    started = [line for line in written(tmp_path) if line["event"] == "fapilog.worker_started"]
    assert len({line["boot"] for line in started}) == len(started)
    assert WORKERS <= len(started) <= WORKERS + kills  # one that was killed at once had no time to write it
    assert max(files) <= 3 + 2 * (WORKERS + 1)
    half = len(took) // 2
    assert median(took[half:]) < 2 * median(took[:half]) + 0.02
    assert not list(run_dir.glob("died-*"))


class Told:
    """The deaths that are in the files of a folder; each look reads what has come, for there may be gigabytes in the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[dict[str, Any]] = []
        self._read: Counter[Path] = Counter()

    def are(self, deaths: int) -> bool:
        """Return whether there are so many."""
        for path in self.folder.glob("*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read[path])
                whole = file.read().rpartition(b"\n")[0]  # a last line may be under way
            self._read[path] += len(whole) + bool(whole)
            self.lines += [
                orjson.loads(line) for line in whole.split(b"\n") if b"fapilog.worker_died" in line and line.endswith(b"}")
            ]
        return len(self.lines) == deaths


def is_counter(name: str) -> bool:
    return name.endswith(("_total", "_count", "_sum", "_bucket"))


def test_a_worker_that_dies_last(tmp_path: Path) -> None:
    """Nobody takes its slot any more: the master enters its death at its own end."""
    with Gunicorn(tmp_path, *OUR_CONF, "--graceful-timeout", "1", app="board_app:app", workers=WORKERS) as server:
        pids = meet(server, WORKERS)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        server.signal(signal.SIGTERM)
        assert server.ended() == 0
        server.nothing_left()
    assert {worker.worker: (worker.closed, sum(worker.deaths.values())) for worker in overview(tmp_path / "run").workers} == {
        0: (True, 0),
        **dict.fromkeys(range(1, WORKERS + 1), (False, 1)),
    }
    (master,) = [life for life in lives(tmp_path) if life.worker == 0]
    assert sorted(line["dead_worker"] for line in master.named("fapilog.worker_died")) == list(range(1, WORKERS + 1))
    master.whole()


@pytest.mark.matrix
def test_a_level_for_a_while(tmp_path: Path) -> None:
    """Every worker, busy or idle, logs DEBUG within a second, and none a second after the time is over (Show 3)."""
    seconds = 3.0
    run_dir = tmp_path / "run"
    with Gunicorn(tmp_path, *OUR_CONF, app="board_app:app", workers=WORKERS) as server:
        meet(server, WORKERS)
        time_of: dict[str, float] = {}
        with under_load(server, "/burst?n=6", WORKERS):
            asked = time.time()
            controls.ask(run_dir, 10, seconds=seconds)
            wait_until(lambda: time.time() > asked + seconds + 2.0, "the time is over", seconds + 20)
        time_of["end"] = time.time()
        assert server.stop() == 0
    for life in lives(tmp_path):
        if not life.worker:
            continue
        debug = [stamp(line) for line in life.named("burst") if line["level"] == "debug"]
        assert debug, f"worker {life.worker} logged no DEBUG event"
        assert asked <= min(debug) < asked + 1.0 + 0.5
        assert max(debug) < asked + seconds + 1.0
        others = [stamp(line) for line in life.named("burst") if line["level"] == "info"]
        assert max(others) > asked + seconds + 1.0


@pytest.mark.matrix
def test_a_level_survives_recycling(tmp_path: Path) -> None:
    """A worker that starts while a level is asked for has it from its first event on, and an idle one has it too."""
    run_dir = tmp_path / "run"
    with Gunicorn(tmp_path, *OUR_CONF, "--max-requests", "5", app="board_app:app", workers=WORKERS) as server:
        meet(server, WORKERS)
        controls.ask(run_dir, 10, seconds=60)
        began = time.time()
        wait_until(lambda: time.time() > began + 1.0, "all have heard it")
        for _ in range(60):
            get(server, "/burst?n=6")
        assert server.stop() == 0
    for life in lives(tmp_path):
        bursts = [line for line in life.named("burst") if stamp(line) > began + 1.0]
        assert sum(line["level"] == "debug" for line in bursts) * 6 >= len(bursts) - 6
        if life.worker and life.seqs and stamp(life.lines[0]) > began + 1.0 and bursts:
            assert bursts[0]["level"] == "debug"


def stamp(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def test_a_killed_child_of_a_script(tmp_path: Path) -> None:
    """Without a server, the next process in the slot enters the death, of which nobody knows the cause."""
    script = """
import os, sys, fapilog
fapilog.configure_logging(sinks=["file"], file_path="app.{worker}.jsonl")
fapilog.get_logger("a").info("e")
fapilog.flush(10)
if len(sys.argv) > 1:
    os.kill(os.getpid(), 9)
"""
    environment = {**os.environ, "FAPILOG_RUN_DIR": str(tmp_path / "run")}
    for arguments, code in ((["x"], -9), ([], 0), ([], 0)):
        done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=tmp_path, env=environment, check=False, timeout=60)
        assert done.returncode == code
    first, second, third = lives(tmp_path)
    assert [line["event"] for line in first.lines] == ["e"]
    assert [line["event"] for line in second.lines] == ["fapilog.worker_died", "e", "fapilog.closed"]
    assert [line["event"] for line in third.lines] == ["e", "fapilog.closed"]
    died = second.lines[0]
    assert (died["dead_boot"], died["signal"], died["exit_code"]) == (first.lines[0]["boot"], None, None)
    assert (died["last_seq"], died["lost"], died["level"]) == (1, 0, "warning")
