"""Processes that log to files and to VictoriaLogs and are killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.chaos.harness import WORKERS, all_are_held, chaos, is_gone, victims
from tests.chaos.oracle import exactly_once, returned, verified
from tests.programs.running import wait_until
from tests.servers.load import meet, under_load

if TYPE_CHECKING:
    from pathlib import Path

    from tests.real.servers import VictoriaLogs

pytestmark = pytest.mark.real


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.soak)])
def test_workers_that_are_killed_beside_a_server(victoria_logs: VictoriaLogs, tmp_path: Path, kills: int) -> None:
    """Every event whose log call returned is in the files once and in VictoriaLogs at least once (Show 2)."""
    run_dir = tmp_path / "run"
    rng = random.Random(8)
    settings = {"FAPILOG_SINKS": "file,loki", "FAPILOG_LOKI_URL": victoria_logs.url, "FAPILOG_LOKI_BATCH_TIMEOUT": "0.2"}
    with chaos(tmp_path, **settings) as server:
        meet(server, WORKERS)
        with under_load(server, "/burst?n=20", WORKERS):
            for _ in range(kills):
                wait_until(lambda: len(victims(run_dir)) == WORKERS, "all workers are there")
                time.sleep(rng.random() * 0.3)  # the moment of the kill
                victim = rng.choice(victims(run_dir))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim.identity.pid, signal.SIGKILL)
                wait_until(partial(is_gone, server, victim.identity.pid), "it is gone")
        wait_until(lambda: all_are_held(tmp_path), "what the dead left is taken care of")
        assert server.stop() == 0
    assert exactly_once(tmp_path) > kills * 20
    there = {line.get("number") for line in (orjson.loads(entry.line) for entry in victoria_logs.entries())}
    wanted = returned(tmp_path)
    assert len(wanted - there) == 0, f"{len(wanted - there)} of {len(wanted)} are not in VictoriaLogs"
    assert not list(run_dir.glob("*journal-*"))
    verified(tmp_path)
