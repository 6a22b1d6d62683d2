"""`examples/grafana` before a real Prometheus: its queries find something, and real troubles make its rules speak."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.loki import NO_RATES, Dedupe, StandIn
from tests.programs.running import STRICT, Running, environment, wait_until
from tests.queries import filled
from tests.real.install_prometheus import missing
from tests.real.prometheus import Prometheus
from tests.servers.harness import OUR_CONF, Gunicorn
from tests.test_grafana import ALL, HERE, PROMQL, RULES, TIMES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.real, pytest.mark.skipif(missing() != "", reason=missing() or "it is there")]

WORKERS = 2
QUIET: dict[str, list[dict[str, str]]] = {rule["alert"]: [] for rule in RULES}


def says(prometheus: Prometheus, alert: str, **labels: str) -> None:
    """Wait until the rule *alert* speaks, of something with these labels."""
    wait_until(lambda: any(labels.items() <= each.items() for each in prometheus.alerts()[alert]), f"{alert} speaks")


def test_a_service_and_its_troubles(tmp_path: Path) -> None:
    """Each query of the dashboard finds something, no rule speaks; until Loki goes away, and a worker is killed."""
    with StandIn(limits=NO_RATES, dedupe=Dedupe.OFF) as loki:
        settings: Any = {"FAPILOG_SINKS": "file,loki", "FAPILOG_LOKI_URL": loki.url, "FAPILOG_LOKI_BATCH_TIMEOUT": "0.1"}
        with Gunicorn(tmp_path, *OUR_CONF, app="metrics_app:wsgi", workers=WORKERS, **settings) as server:
            visits = server.meet_workers()
            with Prometheus(tmp_path / "prometheus", server.port, rules=HERE / "alerts.yml") as prometheus:
                empty = dict(PROMQL)

                def all_found() -> bool:
                    for name, query in list(empty.items()):
                        if prometheus.series(filled(query, ALL | TIMES)):
                            del empty[name]
                    return not empty

                try:
                    wait_until(all_found, "each query finds something")
                except AssertionError:
                    print("These find nothing:", *empty)
                    raise
                wait_until(lambda: prometheus.alerts() == QUIET, "no rule speaks")

                loki.stop()
                visits.send(20)
                says(prometheus, "FapilogSinkDown", sink="loki", severity="critical")
                victim = visits.answers[max(visits.answers)]
                os.kill(victim, signal.SIGKILL)
                server.gone([victim])
                server.has(WORKERS)
                says(prometheus, "FapilogWorkerDied", signal="SIGKILL")
                wait_until(  # a worker that has just begun has no journal for a moment: that rule may be pending
                    lambda: (
                        {name for name, alerts in prometheus.alerts().items() if alerts} - {"FapilogWorkerNotReplaced"}
                        == {"FapilogSinkDown", "FapilogWorkerDied"}
                    ),
                    "no other rule speaks",
                )
                loki.start()
                visits.send(20)
                wait_until(lambda: not prometheus.alerts()["FapilogSinkDown"], "the sink is up")
                wait_until(lambda: not prometheus.alerts()["FapilogWorkerNotReplaced"], "the worker is replaced")
            assert server.stop() == 0


CHILDREN = """
import os, signal, sys, time
import fapilog
log = fapilog.get_logger("children")
log.info("begun")
for _ in range(2):
    if not os.fork():
        log.info("child")
        print(os.getpid(), flush=True)
        signal.pause()
signal.pause()
"""
SERVE = """
import sys
from pathlib import Path
from fapilog._internal.exposition import serve
sys.exit(serve(Path("run"), ready=lambda url: print(url, flush=True)))
"""


def test_processes_that_nobody_replaces(tmp_path: Path) -> None:
    """One that is killed is missed, one that is stopped is stuck until it goes on, and metrics that go away are missed too."""
    rules = (HERE / "alerts.yml").read_text()
    assert rules.count("heartbeat_time_seconds > 30") == 1
    (tmp_path / "rules.yml").write_text(rules.replace("heartbeat_time_seconds > 30", "heartbeat_time_seconds > 8"))
    program = Running([*STRICT, "-c", CHILDREN], tmp_path, environment(tmp_path, FAPILOG_JOURNAL="off"))
    with program, Running([*STRICT, "-c", SERVE], tmp_path, environment(tmp_path)) as server:
        server.said("/metrics\n")
        port = int(server.stdout.partition("127.0.0.1:")[2].partition("/")[0])
        wait_until(lambda: len(program.stdout.split()) == 2, "both children run")
        killed, stopped = map(int, program.stdout.split())
        with Prometheus(tmp_path / "prometheus", port, rules=tmp_path / "rules.yml") as prometheus:
            wait_until(lambda: prometheus.one("sum(fapilog_worker_up)") == 3, "all three are seen")
            wait_until(lambda: prometheus.alerts() == QUIET, "no rule speaks")

            os.kill(killed, signal.SIGKILL)
            says(prometheus, "FapilogWorkerNotReplaced", severity="critical")
            os.kill(stopped, signal.SIGSTOP)
            says(prometheus, "FapilogWorkerStuck", severity="critical")
            assert len(prometheus.alerts()["FapilogWorkerStuck"]) == 1
            os.kill(stopped, signal.SIGCONT)
            wait_until(lambda: not prometheus.alerts()["FapilogWorkerStuck"], "it goes on")

            server.kill()
            says(prometheus, "FapilogMetricsMissing", severity="critical")
