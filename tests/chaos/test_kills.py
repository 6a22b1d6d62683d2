"""Processes that are killed at any moment: what their log calls were given arrives all the same."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests._support import only_matrix
from tests.chaos.harness import WORKERS, all_are_held, chaos, is_gone, size_of, victims
from tests.chaos.oracle import exactly_once, verified, written
from tests.programs.running import living, wait_until
from tests.servers.load import get, meet, under_load

if TYPE_CHECKING:
    from pathlib import Path

MANY = 16  # journals of dead processes, at which whoever starts takes care of them first


@pytest.mark.parametrize("kills", [only_matrix(25), pytest.param(300, marks=pytest.mark.soak)])
def test_workers_that_are_killed_under_load(tmp_path: Path, kills: int) -> None:
    """Every event whose log call returned is in the files once; neither run directory nor descriptors grow (Show 1)."""
    run_dir = tmp_path / "run"
    rng = random.Random(7)
    sizes: list[int] = []
    descriptors: list[int] = []
    with chaos(tmp_path) as server:
        meet(server, WORKERS)
        with under_load(server, "/burst?n=20", WORKERS):
            for number in range(kills):
                wait_until(lambda: len(victims(run_dir)) == WORKERS, "all workers are there")
                # The moment of the kill. Where workers live for less than half a second, few get to the end of what was left:
                # at 7.5 kills a second 20 to 50 journals waited, at 3 no more than 10.
                time.sleep(rng.random() * 0.4)
                victim = rng.choice(victims(run_dir))
                with contextlib.suppress(ProcessLookupError):  # its successor has the slot, and no row yet
                    os.kill(victim.identity.pid, signal.SIGKILL)
                wait_until(partial(is_gone, server, victim.identity.pid), "it is gone")
                if number % 5 == 4:
                    sizes.append(size_of(run_dir))
                    descriptors.append(len(os.listdir(f"/proc/{server.pid}/fd")))
            wait_until(lambda: all_are_held(tmp_path), "what the dead left is taken care of")
        assert server.stop() == 0

    assert exactly_once(tmp_path) > kills * 50
    assert max(sizes) <= (2 * WORKERS + MANY) * (9 << 20)
    assert max(descriptors) <= min(descriptors) + WORKERS + 2
    assert not list(run_dir.glob("*journal-*"))
    verified(tmp_path)
    events = list(written(tmp_path))
    assert sum(event["event"] == "fapilog.recovered" for event in events) >= kills // 5
    ended = {event["boot"] for event in events if event["event"] == "fapilog.closed"}
    ended |= {event["dead_boot"] for event in events if event["event"] == "fapilog.worker_died"}
    assert {event["boot"] for event in events if event["event"] == "chaos"} <= ended


@pytest.mark.matrix
def test_everything_is_killed_at_once(tmp_path: Path) -> None:
    """The master and all workers: after a restart the tails are there (Show 3)."""
    for attempt in range(3):
        with chaos(tmp_path) as server:
            meet(server, WORKERS)
            for _ in range(20):
                get(server, "/burst?n=20")
            pids = [server.pid, *living(server.pid)]
            if attempt < 2:
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                assert server.ended() == -signal.SIGKILL
            else:
                wait_until(
                    lambda: not list((tmp_path / "run").glob("journal-*")) or all_are_held(tmp_path), "all are adopted", 30
                )
                assert server.stop() == 0
    assert exactly_once(tmp_path) > 1000
    assert not list((tmp_path / "run").glob("*journal-*"))
    verified(tmp_path)


@pytest.mark.matrix
@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGTTOU])
def test_tails_in_slots_that_nobody_takes(tmp_path: Path, how: signal.Signals) -> None:
    """A worker is killed and the server gets smaller, or all its workers new: no tail waits longer than ten seconds (Show 3)."""
    with chaos(tmp_path, FAPILOG_QUEUE_BATCH_TIMEOUT="30", FAPILOG_QUEUE_BATCH_SIZE="100000") as server:
        meet(server, WORKERS)
        for _ in range(12):
            get(server, "/burst?n=20")
        last = max(victims(tmp_path / "run"), key=lambda worker: worker.worker)
        os.kill(server.pid, how)  # the master asks the worker with the highest age to go, or all of them, ...
        os.kill(last.identity.pid, signal.SIGKILL)  # ... and this one does not go in order
        began = time.monotonic()
        wait_until(lambda: all_are_held(tmp_path), "nothing is left", 30)
        assert time.monotonic() - began < 12.0
        meet(server, WORKERS - (how == signal.SIGTTOU))
        assert server.stop() == 0
    assert exactly_once(tmp_path) >= 240
    assert not list((tmp_path / "run").glob("*journal-*"))
    verified(tmp_path)


@pytest.mark.matrix
def test_files_that_are_rotated_and_compressed(tmp_path: Path) -> None:
    """Each event is there once, whatever was rotated, compressed or removed under whom."""
    rng = random.Random(9)
    run_dir = tmp_path / "run"
    rotating = {"FAPILOG_FILE_MAX_BYTES": "20000", "FAPILOG_FILE_KEEP": "10000", "FAPILOG_FILE_COMPRESS": "gzip"}
    with chaos(tmp_path, **rotating) as server:
        meet(server, WORKERS)
        with under_load(server, "/burst?n=20", WORKERS):
            for _ in range(15):
                wait_until(lambda: len(victims(run_dir)) == WORKERS, "all workers are there")
                time.sleep(rng.random() * 0.2)  # the moment of the kill
                victim = rng.choice(victims(run_dir))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim.identity.pid, signal.SIGKILL)
                wait_until(partial(is_gone, server, victim.identity.pid), "it is gone")
        wait_until(lambda: all_are_held(tmp_path), "what the dead left is taken care of")
        assert server.stop() == 0
    assert exactly_once(tmp_path) > 1000
    assert not list(run_dir.glob("*journal-*"))
    verified(tmp_path)
