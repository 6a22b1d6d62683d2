"""
From statistics to Prometheus metric families. Values in, values out; the only module that builds prometheus_client's objects.

Invariants:

1. The families are those of `described()`, each once, whatever the statistics say.
2. Each sample has the label `worker`, but for those about the board itself. No label has a pid, a boot id or anything else that
   changes with a process life, so the number of series is bounded by slots, sinks and reasons.
3. Counters are those of a slot over all its lives. Those of the reasons, levels and causes that are known are there from the
   start, as 0: `increase()` sees the first event of a series only if the series was there before.
4. A slot without a process has no gauge, but `fapilog_worker_up` 0 if its last process has died; one that has ended in order
   leaves counters only.

Names and units are as OpenMetrics 1.0 demands: a counter's family is named without `_total`, a unit is the end of the name
(https://prometheus.io/docs/specs/om/open_metrics_spec/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from fapilog._internal.accounting import DROPS, REFUSALS
from fapilog.results import BUCKETS, SinkTotals, WorkerStatistics
from fapilog.typing import LEVELS

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from fapilog.results import ServiceStatistics

#: The most frequent ones, and the two that are no signals.
CAUSES = ("SIGKILL", "SIGSEGV", "SIGABRT", "exit", "unknown")
BOUNDS = (*map(str, BUCKETS), "+Inf")

#: Values of the labels beside `worker`, and the value; *None* for no sample.
Samples = Iterable[tuple[tuple[str, ...], float | None]]


@dataclass(frozen=True, slots=True)
class Family:
    """
    A counter or a gauge.

    Args:
        kind: Which of the two.
        name: That of its samples.
        text: Its help.
        read: Its samples of one worker.
        labels: Those beside `worker`.
        unit: The end of the name, if it is one.
    """

    kind: type[CounterMetricFamily | GaugeMetricFamily]
    name: str
    text: str
    read: Callable[[WorkerStatistics], Samples]
    labels: tuple[str, ...] = ()
    unit: str = ""

    def empty(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Return it without samples."""
        return self.kind(self.name, self.text, labels=("worker", *self.labels), unit=self.unit)

    def of(self, workers: Iterable[WorkerStatistics]) -> Metric:
        """Return it with the samples of *workers*."""
        metric = self.empty()
        for worker in workers:
            for labels, value in self.read(worker):
                if value is not None:
                    metric.add_metric((str(worker.worker), *labels), value)
        return metric


def _one(read: Callable[[WorkerStatistics], float | None]) -> Callable[[WorkerStatistics], Samples]:
    return lambda worker: [((), read(worker))]


def _each(known: Iterable[str], read: Callable[[WorkerStatistics], dict[str, int]]) -> Callable[[WorkerStatistics], Samples]:
    return lambda worker: [((name,), count) for name, count in (dict.fromkeys(known, 0) | read(worker)).items()]


def _by_sink(read: Callable[[SinkTotals], float | None]) -> Callable[[WorkerStatistics], Samples]:
    return lambda worker: [((name,), read(sink)) for name, sink in worker.sinks.items()]


def _dropped(worker: WorkerStatistics) -> Samples:
    for name, sink in worker.sinks.items():
        for reason, count in (dict.fromkeys(map(str, DROPS), 0) | sink.dropped).items():
            yield (name, reason), count


def _up(worker: WorkerStatistics) -> float | None:
    if worker.alive:
        return 1
    return None if worker.closed else 0


def _info(worker: WorkerStatistics) -> Samples:
    identity = worker.identity
    return [((identity.service, identity.env, worker.role), 1 if worker.alive else None)]


COUNTER, GAUGE = CounterMetricFamily, GaugeMetricFamily
FAMILIES = (
    Family(
        COUNTER,
        "fapilog_events_total",
        "Accepted events that the worker thread has taken from the queue.",
        _each(LEVELS, lambda worker: worker.levels),
        ("level",),
    ),
    Family(
        COUNTER,
        "fapilog_events_refused_total",
        "Events that were refused when they were logged.",
        _each(tuple(map(str, REFUSALS)), lambda worker: worker.refused),
        ("reason",),
    ),
    Family(GAUGE, "fapilog_queue_depth", "Events that wait for the worker thread.", _one(lambda worker: worker.queue_depth)),
    Family(
        GAUGE,
        "fapilog_queue_capacity",
        "Events below WARNING that the queue holds.",
        _one(lambda worker: worker.queue_capacity),
    ),
    Family(
        GAUGE,
        "fapilog_queue_high_watermark",
        "The most events that ever waited at once in this process.",
        _one(lambda worker: worker.queue_peak),
    ),
    Family(
        COUNTER,
        "fapilog_sink_delivered_total",
        "Events that the sink took.",
        _by_sink(lambda sink: sink.delivered),
        ("sink",),
    ),
    Family(
        COUNTER, "fapilog_sink_dropped_total", "Accepted events that were given up for the sink.", _dropped, ("sink", "reason")
    ),
    Family(
        COUNTER,
        "fapilog_sink_retries_total",
        "Failed tries that were followed by another.",
        _by_sink(lambda sink: sink.retries),
        ("sink",),
    ),
    Family(
        GAUGE,
        "fapilog_sink_backlog_bytes",
        "What waits for the sink.",
        _by_sink(lambda sink: sink.backlog_bytes),
        ("sink",),
        "bytes",
    ),
    Family(
        GAUGE,
        "fapilog_sink_backlog_capacity_bytes",
        "The most that may wait for the sink.",
        _by_sink(lambda sink: sink.backlog_capacity),
        ("sink",),
        "bytes",
    ),
    Family(GAUGE, "fapilog_sink_up", "Whether the last try succeeded.", _by_sink(lambda sink: sink.up), ("sink",)),
    Family(
        GAUGE, "fapilog_worker_up", "Whether a process holds the slot; 0 if the last one died and has no successor.", _one(_up)
    ),
    Family(
        GAUGE,
        "fapilog_worker_start_time_seconds",
        "When the process began, since the epoch.",
        _one(lambda worker: worker.started if worker.alive else None),
        unit="seconds",
    ),
    Family(
        GAUGE,
        "fapilog_worker_heartbeat_time_seconds",
        "When the process's worker thread last showed that it runs, since the epoch.",
        _one(lambda worker: worker.heartbeat),
        unit="seconds",
    ),
    Family(GAUGE, "fapilog_worker_info", "What the process is: always 1.", _info, ("service", "env", "role")),
    Family(
        COUNTER, "fapilog_worker_restarts_total", "Processes that held the slot before.", _one(lambda worker: worker.restarts)
    ),
    Family(
        COUNTER,
        "fapilog_worker_deaths_total",
        "Processes that ended without closing their hub, by signal, or exit, or unknown.",
        _each(CAUSES, lambda worker: worker.deaths),
        ("signal",),
    ),
    Family(
        COUNTER,
        "fapilog_recovered_events_total",
        "Events of dead processes that were delivered after all.",
        _one(lambda worker: worker.recovered),
    ),
    Family(
        COUNTER,
        "fapilog_journal_unprotected_total",
        "Events that the journal had no room for any more before the sink had them.",
        _by_sink(lambda sink: sink.unprotected),
        ("sink",),
    ),
    Family(
        GAUGE,
        "fapilog_journal_capacity_bytes",
        "The size of the process's journal; 0 if it has none.",
        _one(lambda worker: worker.journal_bytes),
        unit="bytes",
    ),
    Family(
        COUNTER, "fapilog_lost_events_total", "Events that were under way when a process died.", _one(lambda worker: worker.lost)
    ),
)


def described() -> list[Metric]:
    """Return all families without samples."""
    return [*(family.empty() for family in FAMILIES), _delivery_seconds(()), _damaged_rows()]


def exposed(statistics: ServiceStatistics) -> list[Metric]:
    """Return all families with what *statistics* say."""
    workers = statistics.workers
    damaged = _damaged_rows()
    damaged.add_metric((), statistics.damaged)
    return [*(family.of(workers) for family in FAMILIES), _delivery_seconds(workers), damaged]


def _delivery_seconds(workers: Iterable[WorkerStatistics]) -> Metric:
    text = "How long batches took from the worker thread's hands to the sink's, retries included."
    metric = HistogramMetricFamily("fapilog_sink_delivery_seconds", text, labels=("worker", "sink"), unit="seconds")
    for worker in workers:
        for name, sink in worker.sinks.items():
            buckets = list(zip(BOUNDS, accumulate(sink.took), strict=True))
            metric.add_metric((str(worker.worker), name), buckets, sink.took_seconds)
    return metric


def _damaged_rows() -> GaugeMetricFamily:
    return GaugeMetricFamily("fapilog_board_damaged_rows", "Rows of the board that cannot be read and are not shown.", labels=())
