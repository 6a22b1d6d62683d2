"""Prometheus for real: it scrapes a server of four workers through recycles and a kill, and has what is in the files."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.programs.running import LIMIT_S, lives, wait_until
from tests.real.install_prometheus import missing, program
from tests.real.prometheus import Prometheus
from tests.servers.harness import OUR_CONF, STEPS, UVICORN_WORKER, Gunicorn, check_visits

if TYPE_CHECKING:
    from tests.programs.running import Life
    from tests.servers.harness import Visits

pytestmark = [pytest.mark.real, pytest.mark.skipif(missing() != "", reason=missing() or "it is there")]

ROOT = Path(__file__).parents[2]
WORKERS = 4
SETTLED_S = 20.0
DELIVERED = 'sum by (worker) (fapilog_sink_delivered_total{sink="file"})'
#: How many slots have gauges, which each process has, the master too.
NAMES = [("up",), ("slots",), ("depth",), ("sinks",), ("start",)]
GAUGES = """
      label_replace(count(fapilog_worker_up), "name", "up", "", "")
   or label_replace(sum(fapilog_worker_up), "name", "slots", "", "")
   or label_replace(count(fapilog_queue_depth), "name", "depth", "", "")
   or label_replace(count(fapilog_sink_up), "name", "sinks", "", "")
   or label_replace(count(fapilog_worker_start_time_seconds), "name", "start", "", "")
"""
#: A scrape has no access event: nothing is logged in the end, so that the numbers come to rest.
SETTINGS: dict[str, Any] = {"FAPILOG_ACCESS_LOG": "false"}


def delivered(found: list[Life]) -> dict[tuple[str, ...], float]:
    """Return how many lines there are, by worker."""
    counted: Counter[tuple[str, ...]] = Counter()
    for life in found:
        counted[str(life.worker),] += len(life.lines)
    return {key: float(count) for key, count in counted.items()}


def by_level(found: list[Life]) -> dict[tuple[str, ...], float]:
    """Return how many lines there are, by level and worker."""
    counted = Counter((line["level"], str(life.worker)) for life in found for line in life.lines)
    return {key: float(count) for key, count in counted.items()}


def at_rest(prometheus: Prometheus, folder: Path, visits: Visits) -> list[Life]:
    """Wait until all that the visits logged is in the files, and Prometheus has what is there; return the lives."""
    seen: list[object] = []
    found: list[Life] = []

    def same() -> bool:
        # All anew each time: scrapes are requests, so that workers are recycled all the time, and say so.
        found[:] = lives(folder)
        restarts = len(found) - len({life.worker for life in found})
        seen[:] = [
            prometheus.query(DELIVERED),
            delivered(found),
            prometheus.query("fapilog_events_total > 0"),
            by_level(found),
            prometheus.one("sum(fapilog_worker_restarts_total)"),
            restarts,
        ]
        written = Counter(line["n"] for life in found for line in life.named("work"))
        return seen[::2] == seen[1::2] and all(written[n] == STEPS for n in visits.answers)

    try:
        wait_until(same, "it has what is in the files", SETTLED_S)
    except AssertionError:
        print("Prometheus and the files:", *seen, sep="\n")
        raise
    return found


def youngest(found: list[Life]) -> int:
    """Return the worker that began last: the one that has longest to live."""
    return max((line["timestamp"], life.pid) for life in found for line in life.named("fapilog.worker_started"))[1]


@pytest.mark.parametrize("kind", ["sync", UVICORN_WORKER])
def test_four_workers_that_are_recycled_and_one_that_is_killed(tmp_path, kind) -> None:
    """
    The totals are the sums over the files, by worker and by level; no counter ever falls; the dead have no gauges.

    O-MET-3, with one kill.
    """
    app = "metrics_app:wsgi" if kind == "sync" else "metrics_app:api"
    with Gunicorn(tmp_path, *OUR_CONF, "--max-requests", "100", app=app, kind=kind, preload=True, **SETTINGS) as server:
        with Prometheus(tmp_path / "prometheus", server.port, "/metrics/") as prometheus:
            visits = server.meet_workers()
            wait_until(lambda: prometheus.one("sum(fapilog_worker_up)") >= WORKERS, "the first scrape")  # it takes 5 s to begin
            visits.send(until=lambda: len(visits.pids) >= 8)
            victim = youngest(at_rest(prometheus, tmp_path, visits))
            os.kill(victim, signal.SIGKILL)
            server.gone([victim])
            visits.send(until=lambda: len(visits.pids) >= 12)
            server.has(WORKERS)
            at_rest(prometheus, tmp_path, visits)

            assert prometheus.one("sum(fapilog_worker_restarts_total)") >= 6
            assert prometheus.one("sum(fapilog_sink_dropped_total)") == 0
            assert prometheus.one("sum(fapilog_events_refused_total)") == 0
            assert prometheus.one("sum(fapilog_lost_events_total)") == 0
            assert prometheus.one("sum(fapilog_worker_deaths_total)") == 1
            assert prometheus.one('sum(fapilog_worker_deaths_total{signal="SIGKILL"})') == 1
            wait_until(
                lambda: prometheus.query(GAUGES) == dict.fromkeys(NAMES, WORKERS + 1.0), "no gauges of the dead", SETTLED_S
            )
            for counter in ("fapilog_events_total", "fapilog_sink_delivered_total", "fapilog_sink_delivery_seconds_count"):
                assert prometheus.one(f"sum(resets({counter}[1h]))") == 0, counter
            assert prometheus.one("sum(resets(fapilog_worker_restarts_total[1h]))") == 0
        server.stop()
    check_visits(tmp_path, visits, requests=False, killed=[victim])


def test_the_alerts_of_the_documentation(tmp_path) -> None:
    """Prometheus's own checker takes each of them."""
    (rules,) = re.findall(r"```yaml\n(groups:.*?)```", (ROOT / "docs" / "metrics.md").read_text(), re.DOTALL)
    (tmp_path / "rules.yml").write_text(rules)
    command = [program("promtool"), "check", "rules", tmp_path / "rules.yml"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert checked.returncode == 0, checked.stderr
    assert f"SUCCESS: {rules.count('- alert:')} rules found" in checked.stdout


def test_what_promtool_says(tmp_path) -> None:
    """Prometheus's own checker of names and types has nothing to object."""
    with Gunicorn(tmp_path, *OUR_CONF, app="metrics_app:wsgi", workers=1, **SETTINGS) as server:
        server.meet_workers()
        text = httpx.get(f"http://127.0.0.1:{server.port}/metrics", timeout=LIMIT_S).content
        checked = subprocess.run(
            [program("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=30, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
        assert b'fapilog_sink_delivered_total{sink="file",worker="1"}' in text
