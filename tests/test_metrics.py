"""The Prometheus side of the board: which metrics there are, what a scrape shows of whom, and beside what it lives."""

from __future__ import annotations

import asyncio
import gzip
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from fapilog._internal import board, families, ledger, notes, rundir, sealed
from fapilog._internal.records import Counts, Gauges, SinkCounts
from fapilog.identity import Identity
from fapilog.metrics import FapilogCollector, make_asgi_app, make_wsgi_app
from fapilog.results import BUCKETS, ServiceStatistics, SinkTotals, WorkerStatistics
from tests._support import ran_well, run_script

ROOT = Path(__file__).parents[1]
Key = tuple[str, tuple[tuple[str, str], ...]]

#: All names, those of DESIGN 7 among them, the kind of each and its labels beside `worker`; not the one about the board itself.
CONTRACT = {
    "fapilog_events_total": ("counter", "level"),
    "fapilog_events_refused_total": ("counter", "reason"),
    "fapilog_queue_depth": ("gauge", ""),
    "fapilog_queue_capacity": ("gauge", ""),
    "fapilog_queue_high_watermark": ("gauge", ""),
    "fapilog_sink_delivered_total": ("counter", "sink"),
    "fapilog_sink_dropped_total": ("counter", "reason sink"),
    "fapilog_sink_retries_total": ("counter", "sink"),
    "fapilog_sink_backlog_bytes": ("gauge", "sink"),
    "fapilog_sink_delivery_seconds_bucket": ("histogram", "le sink"),
    "fapilog_sink_delivery_seconds_count": ("histogram", "sink"),
    "fapilog_sink_delivery_seconds_sum": ("histogram", "sink"),
    "fapilog_sink_backlog_capacity_bytes": ("gauge", "sink"),
    "fapilog_sink_up": ("gauge", "sink"),
    "fapilog_worker_up": ("gauge", ""),
    "fapilog_worker_start_time_seconds": ("gauge", ""),
    "fapilog_worker_heartbeat_time_seconds": ("gauge", ""),
    "fapilog_worker_info": ("gauge", "env role service"),
    "fapilog_worker_restarts_total": ("counter", ""),
    "fapilog_worker_deaths_total": ("counter", "signal"),
    "fapilog_recovered_events_total": ("counter", ""),
    "fapilog_journal_unprotected_total": ("counter", "sink"),
    "fapilog_journal_capacity_bytes": ("gauge", ""),
    "fapilog_lost_events_total": ("counter", ""),
}
GAUGES = {name for name, (kind, _) in CONTRACT.items() if kind == "gauge"}


class Worker:
    """
    A process as the board sees it: it takes a slot, publishes, closes or dies.

    Args:
        run_dir: Where.
        boot: Of its life.
    """

    def __init__(self, run_dir: Path, boot: str = "b1") -> None:
        self.slot = rundir.take_slot(run_dir)
        identity = Identity("app", "", "host", self.slot.number, os.getpid(), boot)
        row, _ = ledger.take_row(self.slot, identity, "worker")
        assert row is not None
        assert row.record is not None
        self.row, self.record = row, row.record

    def publish(self, life: Counts, gauges: Gauges | None = None, *, closed: bool = False) -> None:
        self.row.put(replace(self.record, life=life, gauges=gauges or Gauges(), closed=closed))

    def die(self) -> None:
        self.slot.release()


LIFE = Counts(
    logged=105,
    accepted=100,
    refused={"queue_full": 5},
    levels={"info": 90, "error": 7},
    recovered=3,
    sinks={
        "file": SinkCounts(100, 90, {"rejected": 4}, 0, 2, [1, 2, *[0] * 12, 3, 4], 300.25),
        "loki": SinkCounts(100, 100),
    },
)
STATE = Gauges(
    3, 1000, 17, {"file": 512, "loki": 0}, {"file": False, "loki": True}, {"file": 4096, "loki": 8192}, 1 << 20, beats=True
)


@pytest.fixture(autouse=True)
def fresh_notes() -> None:
    """Let each test see what is said once."""
    notes.forget()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def registry_of(run_dir: Path | None = None) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(FapilogCollector(run_dir))
    return registry


def samples(text: str, parse: Any = parse_openmetrics) -> dict[Key, float]:
    """Return the values by name and labels; no sample may be there twice."""
    found: dict[Key, float] = {}
    for family in parse(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def scraped(run_dir: Path) -> dict[Key, float]:
    return samples(openmetrics(registry_of(run_dir)).decode())


def value(found: dict[Key, float], name: str, worker: int = 1, **labels: str) -> float | None:
    return found.get((f"fapilog_{name}", tuple(sorted({"worker": str(worker), **labels}.items()))))


def test_the_names_the_types_and_the_labels(run_dir: Path) -> None:
    """They are those of the contract, in the eyes of OpenMetrics's own parser, and a sample has the label of its worker."""
    Worker(run_dir).publish(LIFE, STATE)
    found = {
        sample.name: (family.type, " ".join(sorted(sample.labels)))
        for family in parse_openmetrics(openmetrics(registry_of(run_dir)).decode())
        for sample in family.samples
    }
    assert found.pop("fapilog_board_damaged_rows") == ("gauge", "")
    assert found == {name: (kind, " ".join(sorted([*labels.split(), "worker"]))) for name, (kind, labels) in CONTRACT.items()}


def test_the_documentation() -> None:
    """It has every family and no other."""
    named = re.findall(r"^\| `(fapilog_\w+)` \| (\w+)", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    families_ = {family.name + ("_total" if family.type == "counter" else ""): family.type for family in families.described()}
    assert (dict(named), len(named)) == (families_, len(families_))


def test_the_units_and_the_texts() -> None:
    """A family in seconds or bytes says so, as OpenMetrics has it, and each has a text."""
    for family in families.described():
        unit = family.name.rpartition("_")[2]
        assert family.unit == (unit if unit in {"seconds", "bytes"} else ""), family.name
        assert family.documentation.endswith(".")
        assert family.samples == []


def test_the_two_formats(run_dir: Path) -> None:
    """They say the same."""
    Worker(run_dir).publish(LIFE, STATE)
    registry = registry_of(run_dir)
    assert samples(generate_latest(registry).decode(), parse_text) == samples(openmetrics(registry).decode())


def test_a_process_that_lives(run_dir: Path) -> None:
    """Its counters and gauges are there as it wrote them."""
    worker = Worker(run_dir)
    worker.publish(LIFE, STATE)
    found = scraped(run_dir)
    assert value(found, "events_total", level="info") == 90
    assert value(found, "events_refused_total", reason="queue_full") == 5
    assert value(found, "sink_delivered_total", sink="file") == 90
    assert value(found, "sink_dropped_total", sink="file", reason="rejected") == 4
    assert value(found, "sink_retries_total", sink="file") == 2
    assert value(found, "recovered_events_total") == 3
    assert [value(found, f"queue_{name}") for name in ("depth", "capacity", "high_watermark")] == [3, 1000, 17]
    assert [value(found, "sink_backlog_bytes", sink=name) for name in ("file", "loki")] == [512, 0]
    assert [value(found, "sink_backlog_capacity_bytes", sink=name) for name in ("file", "loki")] == [4096, 8192]
    assert [value(found, "sink_up", sink=name) for name in ("file", "loki")] == [0, 1]
    assert value(found, "journal_capacity_bytes") == 1 << 20
    assert value(found, "worker_up") == 1
    assert value(found, "worker_info", service="app", env="", role="worker") == 1
    assert value(found, "worker_heartbeat_time_seconds") == pytest.approx(worker.record.updated)
    assert value(found, "worker_start_time_seconds") == pytest.approx(worker.record.started)
    assert value(found, "worker_restarts_total") == 0


def test_what_has_not_happened_yet(run_dir: Path) -> None:
    """The counters of each known reason, level and cause are there as 0, so that `increase()` sees the first event."""
    Worker(run_dir).publish(Counts(sinks={"file": SinkCounts()}))
    found = scraped(run_dir)
    assert {value(found, "events_total", level=level) for level in ("debug", "info", "warning", "error", "critical")} == {0}
    assert {value(found, "events_refused_total", reason=reason) for reason in ("queue_full", "sampled", "after_close")} == {0}
    dropped = ("drop_oldest", "backlog_full", "retries_exhausted", "rejected", "expired", "after_close")
    assert {value(found, "sink_dropped_total", sink="file", reason=reason) for reason in dropped} == {0}
    assert {value(found, "worker_deaths_total", signal=cause) for cause in ("SIGKILL", "SIGSEGV", "exit", "unknown")} == {0}


def test_delivery_times(run_dir: Path) -> None:
    """Buckets are cumulative, the last has no bound and is the count."""
    Worker(run_dir).publish(LIFE, STATE)
    found = scraped(run_dir)
    buckets = [
        value(found, "sink_delivery_seconds_bucket", sink="file", le=le) for le in (*(str(bound) for bound in BUCKETS), "+Inf")
    ]
    assert buckets == [1, *[3] * 13, 6, 10]
    assert value(found, "sink_delivery_seconds_count", sink="file") == 10
    assert value(found, "sink_delivery_seconds_sum", sink="file") == 300.25


def test_several_workers(run_dir: Path) -> None:
    """One scrape shows all of them, whoever is asked."""
    workers = [Worker(run_dir, f"b{number}") for number in range(4)]
    for number, worker in enumerate(workers):
        worker.publish(Counts(levels={"info": number}))
    found = scraped(run_dir)
    assert [value(found, "events_total", number + 1, level="info") for number in range(4)] == [0, 1, 2, 3]


def test_a_process_that_was_killed(run_dir: Path) -> None:
    """O-MET-3: its counters stay, of its gauges there is none but `fapilog_worker_up`, which is 0."""
    worker = Worker(run_dir)
    worker.publish(LIFE, STATE)
    worker.die()
    found = scraped(run_dir)
    assert value(found, "sink_delivered_total", sink="file") == 90
    assert value(found, "worker_up") == 0
    assert {name for name, _ in found} & GAUGES == {"fapilog_worker_up"}


def test_a_process_that_has_ended_in_order(run_dir: Path) -> None:
    """Its counters stay and no gauge: a service that runs with fewer workers than before is not one whose workers are down."""
    worker = Worker(run_dir)
    worker.publish(LIFE, STATE, closed=True)
    worker.die()
    found = scraped(run_dir)
    assert value(found, "sink_delivered_total", sink="file") == 90
    assert {name for name, _ in found} & GAUGES == set()


@pytest.mark.soak
def test_200_kills(run_dir: Path) -> None:
    """O-MET-3, O-MET-2: counters never fall, each death is counted, and the label sets are those of the first process."""
    before: dict[Key, float] = {}
    for number in range(200):
        worker = Worker(run_dir, f"b{number}")
        worker.publish(LIFE, STATE)
        worker.die()
        counters = {key: number for key, number in scraped(run_dir).items() if key[0] not in GAUGES}
        assert not before or before.keys() == counters.keys()
        assert all(counters[key] >= number for key, number in before.items())
        before = counters
    assert value(before, "worker_deaths_total", signal="unknown") == 199
    assert value(before, "worker_restarts_total") == 199
    assert value(before, "lost_events_total") == 199 * 6
    assert value(before, "events_total", level="info") == 200 * 90


def test_a_row_that_is_damaged(run_dir: Path) -> None:
    """It is counted and left out; the others are there."""
    workers = [Worker(run_dir, f"b{number}") for number in range(2)]
    for worker in workers:
        worker.publish(LIFE)
    fd = rundir.open_file(run_dir, board.NAME, os.O_RDWR)
    os.pwrite(fd, b"\xff" * sealed.BLOCK_BYTES, (board.FIRST_ROW + 1) * sealed.BLOCK_BYTES)
    os.close(fd)
    found = scraped(run_dir)
    assert found["fapilog_board_damaged_rows", ()] == 1
    assert (value(found, "worker_up", 1), value(found, "worker_up", 2)) == (None, 1)


def test_no_board_yet(run_dir: Path, capfd) -> None:
    """There are no workers, no note, and nothing is made."""
    run_dir.mkdir(0o700)
    assert scraped(run_dir) == {("fapilog_board_damaged_rows", ()): 0}
    assert (list(run_dir.iterdir()), capfd.readouterr().err) == ([], "")


def test_a_directory_that_others_may_write_to(run_dir: Path, capfd) -> None:
    """None of our samples, one note, and whatever else is in the registry is served."""
    Worker(run_dir).publish(LIFE)
    run_dir.chmod(0o777)
    registry = registry_of(run_dir)
    Counter("visits", "Visits.", registry=registry).inc(3)
    for _ in range(5):
        found = samples(openmetrics(registry).decode())
        assert {name for name, _ in found} - {"visits_created"} == {"visits_total"}
    assert capfd.readouterr().err.count("there are no metrics") == 1


def test_registering(run_dir: Path, capfd) -> None:
    """It reads nothing, and a second collector in the same registry is refused by its names."""
    run_dir.mkdir(0o777)
    run_dir.chmod(0o777)
    registry = registry_of(run_dir)
    assert capfd.readouterr().err == ""
    with pytest.raises(ValueError, match="fapilog_events"):
        registry.register(FapilogCollector(run_dir))


NAMES = st.text(min_size=1, max_size=20)
COUNTS = st.integers(0, 1 << 60)


@settings(max_examples=200)
@given(st.dictionaries(NAMES, COUNTS, max_size=3), st.dictionaries(NAMES, st.tuples(COUNTS, st.floats(0, 1e11)), max_size=3))
def test_whatever_names_sinks_and_levels_have(levels: dict[str, int], sinks: dict[str, tuple[int, float]]) -> None:
    """What OpenMetrics's parser reads is what the statistics say."""
    totals = {
        name: SinkTotals(count, count, {name: count}, 0, 0, 0, (count >> 4,) * (len(BUCKETS) + 1), seconds, None, None, 0)
        for name, (count, seconds) in sinks.items()
    }
    identity = Identity("app", "", "", 7, 1, "b")
    worker = WorkerStatistics(
        7, True, False, identity, "", 1.0, 2.0, 0, {}, 0, 0, {}, 0, levels, 0, 0, None, None, None, totals
    )  # fmt: skip
    registry = CollectorRegistry()
    collector = FapilogCollector()
    collector._statistics = lambda: ServiceStatistics(None, (worker,), 0)  # type: ignore[method-assign]
    registry.register(collector)
    found = samples(openmetrics(registry).decode())
    for level, count in levels.items():
        assert value(found, "events_total", 7, level=level) == float(count)
    for name, (count, seconds) in sinks.items():
        assert value(found, "sink_dropped_total", 7, sink=name, reason=name) == float(count)
        assert value(found, "sink_delivery_seconds_sum", 7, sink=name) == seconds


def asked_asgi(app: Any, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get("/metrics", headers=headers)

    return asyncio.run(ask())


def asked_wsgi(app: Any, **headers: str) -> httpx.Response:
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://test") as client:
        return client.get("/metrics", headers=headers)


@pytest.mark.parametrize(("make", "ask"), [(make_asgi_app, asked_asgi), (make_wsgi_app, asked_wsgi)], ids=["asgi", "wsgi"])
def test_the_applications(run_dir: Path, make: Any, ask: Any) -> None:
    """The client chooses the format and the compression; what else is in the user's registry is served too."""
    Worker(run_dir).publish(LIFE, STATE)
    registry = CollectorRegistry()
    Counter("visits", "Visits.", registry=registry).inc(3)
    app = make(registry, run_dir=run_dir)
    plain = ask(app, accept="text/plain", **{"accept-encoding": "identity"})
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert samples(plain.text, parse_text)["visits_total", ()] == 3
    answer = ask(app, accept="application/openmetrics-text; version=1.0.0", **{"accept-encoding": "gzip"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-encoding"] == "gzip"
    found = samples(answer.text)
    assert value(found, "sink_delivered_total", sink="file") == 90
    assert found["visits_total", ()] == 3
    assert samples(ask(make(run_dir=run_dir)).text, parse_text).keys() == {
        key for key in samples(plain.text, parse_text) if not key[0].startswith("visits")
    }


def test_a_registry_that_has_the_collector_already(run_dir: Path) -> None:
    """Its samples are there once."""
    Worker(run_dir).publish(LIFE)
    found = samples(asked_wsgi(make_wsgi_app(registry_of(run_dir))).text, parse_text)
    assert value(found, "sink_delivered_total", sink="file") == 90


def test_this_process_and_its_children(tmp_path: Path) -> None:
    """O-MET-1: without a directory it is the process's own; the rows of forked children are there, nothing is counted twice."""
    printed = ran_well(
        run_script(
            """
            import os, time
            import fapilog
            from prometheus_client import CollectorRegistry
            from fapilog.metrics import FapilogCollector

            fapilog.configure_logging(sinks=["file"], file_path="{worker}.jsonl")
            log = fapilog.get_logger()
            for _ in range(10):
                log.info("parent")
            children = []
            for _ in range(4):
                children.append(os.fork())
                if not children[-1]:
                    log.info("child")
                    fapilog.shutdown_logging()
                    os._exit(0)
            for child in children:
                os.waitpid(child, 0)
            registry = CollectorRegistry()
            registry.register(FapilogCollector())
            end = time.monotonic() + 20
            total = lambda: sum(
                sample.value for family in registry.collect() for sample in family.samples
                if sample.name == "fapilog_events_total" and sample.labels["level"] == "info"
            )
            closed = sum(open(f"{n}.jsonl").read().count("fapilog.closed") for n in range(2, 6) if os.path.exists(f"{n}.jsonl"))
            while total() != 14 + closed and time.monotonic() < end:
                time.sleep(0.01)
            print(total() - closed)
            """,
            tmp_path,
        )
    )
    assert printed == "14\n"


def test_a_master(tmp_path: Path) -> None:
    """Whatever it has written is on the board at once: it has no thread that would show its last event later."""
    printed = ran_well(
        run_script(
            """
            import fapilog
            from fapilog.coordinator import coordinator

            coordinator.become_master()
            fapilog.configure_logging(sinks=["file"], file_path="{worker}.jsonl")
            for number in range(1, 20):
                fapilog.get_logger().info("reload", n=number)
                (master,) = fapilog.service_statistics().workers
                assert (master.worker, master.sinks["file"].delivered) == (0, number), number
            """,
            tmp_path,
        )
    )
    assert printed == ""


def test_beside_the_multiprocess_mode_of_prometheus_client(tmp_path: Path) -> None:
    """Both are in one scrape, each process's own counters are added up, and the board leaves nothing in that directory."""
    printed = ran_well(
        run_script(
            """
            import os
            import fapilog, fapilog.metrics
            os.mkdir("multi")
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = "multi"
            fapilog.configure_logging(sinks=["file"], file_path="{worker}.jsonl")
            fapilog.metrics.FapilogCollector()
            from prometheus_client import CollectorRegistry, Counter, generate_latest
            from prometheus_client.multiprocess import MultiProcessCollector

            visits = Counter("visits", "Visits.")
            for _ in range(3):
                if not (child := os.fork()):
                    visits.inc(2)
                    fapilog.get_logger().info("visit")
                    fapilog.shutdown_logging()
                    os._exit(0)
                os.waitpid(child, 0)
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
            answer = fapilog.metrics.make_wsgi_app(registry)(
                {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": ""}, lambda status, headers: None
            )
            text = b"".join(answer).decode()
            print([line for line in text.splitlines() if line.startswith(("visits_total", "fapilog_worker_restarts"))])
            files = [open(entry.path, "rb").read() for entry in os.scandir("multi")]
            print(len(files), any(b"fapilog" in each for each in files))
            """,
            tmp_path,
        )
    )
    lines, files = printed.splitlines()
    assert "visits_total 6.0" in lines
    assert "fapilog_worker_restarts_total" in lines
    assert files == "4 False"


def test_the_package_is_missing(tmp_path: Path) -> None:
    """Importing fapilog.metrics works, and one clear error names what to install."""
    printed = ran_well(
        run_script(
            """
            import sys
            sys.modules["prometheus_client"] = None
            import fapilog, fapilog.metrics
            for make in (fapilog.metrics.FapilogCollector, fapilog.metrics.make_asgi_app, fapilog.metrics.make_wsgi_app):
                try:
                    make()
                except fapilog.ConfigurationError as error:
                    print(error)
            """,
            tmp_path,
        )
    )
    assert printed == "fapilog.metrics needs another package: pip install prometheus-client\n" * 3


def test_the_compressed_text(run_dir: Path) -> None:
    """It is what it would be without."""
    Worker(run_dir).publish(LIFE)
    heard: list[Any] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": "", "HTTP_ACCEPT_ENCODING": "gzip"}
    body = b"".join(make_wsgi_app(run_dir=run_dir)(environ, lambda *said: heard.append(said)))
    assert gzip.decompress(body) == generate_latest(registry_of(run_dir))
