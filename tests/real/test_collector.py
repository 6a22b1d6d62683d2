"""Whole programs that log to files and to an OpenTelemetry Collector, which goes away and comes back."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fapilog._internal.settling import HEAD_FIELDS
from fapilog.identity import HUB_FIELDS
from tests._support import only_matrix, ran_well, run_script
from tests.programs.running import lives, wait_until
from tests.servers.harness import OUR_CONF, UVICORN_WORKER, Gunicorn, check_files

if TYPE_CHECKING:
    from tests.otlp import Record
    from tests.real.collector_server import OtelCollector

REQUESTS, WORKERS = 4_000, 4  # five events each
MIB = 1 << 20
HERE = Path(__file__).parent
SEVERITIES = {"info": (9, "INFO"), "warning": (13, "WARNING"), "error": (17, "ERROR"), "critical": (21, "CRITICAL")}
ELSEWHERE = {*HEAD_FIELDS, *HUB_FIELDS, "trace_id", "span_id", "trace_flags"}


def check_record(found: Record, line: dict[str, Any]) -> None:
    """Check that a record says what the line in the file says."""
    record = found.record
    assert (record.severity_number, record.severity_text) == SEVERITIES[line["level"]]
    assert record.body.string_value == line["event"]
    assert found.scope == line["logger"]
    assert found.resource == {
        "service.name": line["service"],
        "host.name": line["host"],
        "service.instance.id": line["boot"],
        "process.pid": line["pid"],
        "fapilog.worker": line["worker"],
    }
    if line["event"] == "work":
        assert record.trace_id.hex() == line["trace_id"] == f"{line['n'] + 1:032x}"
        assert record.span_id.hex() == line["span_id"] == line["span"]
        assert record.flags & 1 == 1
        others = {name: value for name, value in line.items() if name not in ELSEWHERE}
        assert {"n", "step", "span"} <= others.keys()
        assert found.fields == {**others, "fapilog.seq": line["seq"]}


@pytest.mark.real
def test_a_collector_that_is_restarted(collector: OtelCollector, tmp_path: Path) -> None:
    """20,000 events of 4 workers are in the files once, and each at the Collector with its severity, resource and trace."""
    settings: dict[str, Any] = {
        "FAPILOG_SINKS": "file,otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "FAPILOG_ACCESS_LOG": "false",
    }
    arguments = [*OUR_CONF, "--pythonpath", str(HERE)]
    server = Gunicorn(tmp_path, *arguments, app="traced_app:api", kind=UVICORN_WORKER, workers=WORKERS, **settings)
    with contextlib.ExitStack() as closing, server:
        load = server.wait_for_workers()
        closing.callback(load.close)
        sender = threading.Thread(target=load.send, args=(REQUESTS,))
        sender.start()
        wait_until(lambda: sum(load.work.values()) >= REQUESTS // 3, "a third of the requests")
        collector.stop()
        back_at = time.monotonic() + 3.0
        wait_until(lambda: sum(load.work.values()) >= 2 * REQUESTS // 3, "two thirds of them", 60.0)
        wait_until(lambda: time.monotonic() >= back_at, "a while", 10.0)
        collector.start()
        sender.join()
        wait_until(lambda: collector.count() >= REQUESTS * 5, "all at the Collector", 60.0)
        server.stop()
    collector.stop()
    check_files(tmp_path, load)
    in_files = {(line["boot"], line["seq"]): line for life in lives(tmp_path) for line in life.lines if line["worker"]}
    work = {key for key, line in in_files.items() if line["event"] == "work"}
    assert len(work) == REQUESTS * 5
    records = collector.records()
    stored = Counter((found.resource["service.instance.id"], found.seq) for found in records)
    assert work <= stored.keys() <= in_files.keys()  # what comes after the drain is in the files alone
    for found in records:
        check_record(found, in_files[found.resource["service.instance.id"], found.seq])
    most_in_batch = MIB // 150
    assert stored.total() - len(stored) <= WORKERS * most_in_batch
    assert server.stderr.count("takes no events") <= WORKERS


VALUES = """
    import fapilog
    log = fapilog.get_logger("a")
    inner = [1, "zwei", None, 2.5, True, []]
    log.info("values", i=-(2**63), big=2**70, f=0.1, whole=2.0, t="é\\u0000", n=None, l=inner, d={"k": {"l": [{}]}}, b=b"raw")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("bad")
    log.info("large", text="x" * 200_000)
"""


@pytest.mark.parametrize("compression", ["gzip", only_matrix("none")])
def test_values_of_all_types(collector: OtelCollector, tmp_path: Path, compression: str) -> None:
    """They arrive as they are in the file, but for integers over 64 bits, which are texts."""
    more = {"FAPILOG_SINKS": "file,otlp", "FAPILOG_OTLP_ENDPOINT": collector.url, "FAPILOG_OTLP_COMPRESSION": compression}
    result = run_script(VALUES, tmp_path, env=more)
    assert (ran_well(result), result.stderr) == ("", "")
    collector.stop()
    (path,) = (tmp_path / "logs").iterdir()
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    values, bad, large, _ = collector.records()
    wanted = {name: lines[0][name] for name in ("i", "big", "f", "whole", "t", "n", "l", "d", "b")}
    assert values.fields == {**wanted, "big": str(2**70), "fapilog.seq": 1}
    assert bad.fields["exception.type"] == "ZeroDivisionError"
    assert bad.fields["exception.stacktrace"].endswith("ZeroDivisionError: division by zero")
    assert large.fields["text"] == lines[2]["text"]
