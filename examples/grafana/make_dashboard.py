"""
Makes `dashboard.json`, in the root of the checkout:
``python -m examples.grafana.make_dashboard > examples/grafana/dashboard.json``.

Change this and make it anew, not the JSON. `FROM`, `SINKS` and `STREAMS` are the selection that the variables at the top of the
dashboard make: of our metrics, of those of sinks, and of Loki's streams.
"""

from __future__ import annotations

import json
import sys

from examples.grafana.parts import (
    LOKI,
    RED,
    RED_FROM_ONE,
    WIDTH,
    Json,
    choice,
    from_loki,
    graph,
    lines,
    number,
    panel,
    placed,
    source,
    states,
    target,
    values,
    words,
)

FROM = 'job=~"$job", instance=~"$instance", worker=~"$worker"'
SINKS = FROM + ', sink=~"$sink"'
STREAMS = '{service=~"$service", worker=~"$worker"}'
RATE, RANGE, AUTO = "[$__rate_interval]", "[$__range]", "[$__auto]"
BY_WORKER = "{{instance}} worker {{worker}}"
BY_SINK = "{{instance}} worker {{worker}}: {{sink}}"
OWN_EVENTS = "fapilog.dropped|fapilog.worker_died|fapilog.recovered"


def at_a_glance() -> list[Json]:
    """Return the numbers that should be green."""
    refused = f'sum(increase(fapilog_events_refused_total{{{FROM}, reason!="sampled"}}{RANGE}))'
    masters = f'last_over_time(fapilog_worker_info{{{FROM}, role="master"}}{RANGE})'
    return [
        number("Accepted", "Accepted events, a second.", f"sum(rate(fapilog_events_total{{{FROM}}}{RATE}))", unit="cps"),
        number("Refused", "In the time shown. What sampling took out is not in it.", refused, steps=RED_FROM_ONE),
        number(
            "Dropped",
            "Accepted events that were given up for a sink, in the time shown; without the lines of a Gunicorn master, which "
            "never go to a network sink.",
            f"sum(increase(fapilog_sink_dropped_total{{{SINKS}}}{RANGE}) unless on (job, instance, worker) {masters})",
            steps=RED_FROM_ONE,
        ),
        number(
            "Lost",
            "Events that were under way when a process died, in the time shown.",
            f"sum(increase(fapilog_lost_events_total{{{FROM}}}{RANGE}))",
            steps=RED_FROM_ONE,
        ),
        number(
            "Deaths",
            "Processes that ended without closing their hub, in the time shown.",
            f"sum(increase(fapilog_worker_deaths_total{{{FROM}}}{RANGE}))",
            steps=RED_FROM_ONE,
        ),
        number("Workers up", "Processes that live, masters too.", f"sum(fapilog_worker_up{{{FROM}}})"),
        number(
            "Workers down",
            "Processes that died and have no successor.",
            f"count(fapilog_worker_up{{{FROM}}} == 0) or vector(0)",
            steps=RED_FROM_ONE,
        ),
        number(
            "Sinks down",
            "Sinks of all workers whose last try failed.",
            f"count(fapilog_sink_up{{{SINKS}}} == 0) or vector(0)",
            steps=RED_FROM_ONE,
        ),
    ]


def events() -> list[Json]:
    """Return what goes in."""
    return [
        graph(
            "Events by level",
            "Accepted events that the worker thread has taken from the queue, a second.",
            "cps",
            target(f"sum by (level) (rate(fapilog_events_total{{{FROM}}}{RATE}))", "{{level}}"),
            stacked=True,
        ),
        graph(
            "Refused by reason",
            "Events that were refused when they were logged, a second.",
            "cps",
            target(f"sum by (reason) (rate(fapilog_events_refused_total{{{FROM}}}{RATE}))", "{{reason}}"),
        ),
        graph(
            "Queue depth",
            "Events that wait, and how many below WARNING the queue holds.",
            "short",
            target(f"fapilog_queue_depth{{{FROM}}}", BY_WORKER),
            target(f"max(fapilog_queue_capacity{{{FROM}}})", "capacity"),
        ),
        graph(
            "Queue high watermark",
            "The most that ever waited at once in a process, as a share of what its queue holds: what scrapes miss of the depth.",
            "percentunit",
            target(f"fapilog_queue_high_watermark{{{FROM}}} / (fapilog_queue_capacity{{{FROM}}} > 0)", BY_WORKER),
        ),
    ]


def sinks() -> list[Json]:
    """Return what comes out."""
    bucket = f"sum by (sink, le) (rate(fapilog_sink_delivery_seconds_bucket{{{SINKS}}}{RATE}))"
    mean = " / ".join(f"sum by (sink) (rate(fapilog_sink_delivery_seconds_{part}{{{SINKS}}}{RATE}))" for part in ("sum", "count"))
    share = f"fapilog_sink_backlog_bytes{{{SINKS}}} / (fapilog_sink_backlog_capacity_bytes{{{SINKS}}} > 0)"
    dropped = f"sum by (sink, reason) (rate(fapilog_sink_dropped_total{{{SINKS}}}{RATE}))"
    retries = f"sum by (sink) (rate(fapilog_sink_retries_total{{{SINKS}}}{RATE}))"
    delivered = f"sum by (sink) (rate(fapilog_sink_delivered_total{{{SINKS}}}{RATE}))"
    seconds = [target(f"histogram_quantile({q}, {bucket})", f"{{{{sink}}}} p{100 * q:.0f}") for q in (0.5, 0.95, 0.99)]
    backlog = [
        target(f"sum by (sink) (fapilog_sink_backlog_bytes{{{SINKS}}})", "{{sink}}"),
        target(f"sum by (sink) (fapilog_sink_backlog_capacity_bytes{{{SINKS}}})", "{{sink}}: at most"),
    ]
    about = "How long batches took from the worker thread's hands to the sink's, retries included."
    return [
        graph("Delivered", "Events that the sink took, a second.", "cps", target(delivered, "{{sink}}"), width=8),
        graph(
            "Dropped by reason", "Accepted events given up, a second.", "cps", target(dropped, "{{sink}}: {{reason}}"), width=8
        ),
        graph("Retries", "Failed tries that were followed by another, a second.", "cps", target(retries, "{{sink}}"), width=8),
        states("Sink up", "Whether the last try succeeded.", target(f"fapilog_sink_up{{{SINKS}}}", BY_SINK)),
        graph("Delivery time", about, "s", *seconds, target(mean, "{{sink}} mean")),
        graph("Backlog", "What waits for the sink, all workers together, and the most that may.", "bytes", *backlog),
        graph(
            "Backlog by worker",
            "What waits for the sink of each worker, as a share of the most that may: at 100 % events are dropped.",
            "percentunit",
            target(share, BY_SINK),
        ),
    ]


def processes() -> Json:
    """Return the table of the processes."""

    def column(query: str) -> Json:
        return target(f"sum by (instance, worker) ({query})", instant=True, range=False, format="table")

    # Values get the letters of their queries as names.
    shown = {
        "Value #B": ("started", "dateTimeFromNow"),
        "Value #C": ("heartbeat, age", "s"),
        "Value #D": ("restarts", "none"),
        "Value #E": ("deaths", "none"),
    }
    overrides = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": unit}]}
        for name, unit in shown.values()
    ]
    hidden = {f"{name} {at}" for name in ("Time", "Value") for at in "12345"} | {"Time", "Value #A"}
    heartbeat = f"fapilog_worker_heartbeat_time_seconds{{{FROM}}}"
    targets = [
        target(
            f"sum by (instance, worker, service, env, role) (fapilog_worker_info{{{FROM}}})",
            instant=True,
            range=False,
            format="table",
        ),
        column(f"fapilog_worker_start_time_seconds{{{FROM}}} * 1000"),
        column(f"timestamp({heartbeat}) - {heartbeat}"),
        column(f"fapilog_worker_restarts_total{{{FROM}}}"),
        column(f"fapilog_worker_deaths_total{{{FROM}}}"),
    ]
    organize = {
        "excludeByName": dict.fromkeys(sorted(hidden), True),
        "renameByName": {key: name for key, (name, _) in shown.items()},
    }
    return panel(
        "table",
        "Processes",
        "Who has which number now, since when, and how many were there before.",
        "none",
        (WIDTH, 8),
        targets,
        overrides=overrides,
        transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": organize}],
        options={"showHeader": True, "cellHeight": "sm"},
    )


def workers() -> list[Json]:
    """Return who lives."""
    heartbeat = f"fapilog_worker_heartbeat_time_seconds{{{FROM}}}"
    deaths = f"sum by (signal) (increase(fapilog_worker_deaths_total{{{FROM}}}{RATE}))"
    restarts = f"sum by (instance, worker) (increase(fapilog_worker_restarts_total{{{FROM}}}{RATE}))"
    age = f"timestamp({heartbeat}) - {heartbeat}"
    return [
        processes(),
        states("Worker up", "Red: it died and has no successor.", target(f"fapilog_worker_up{{{FROM}}}", BY_WORKER)),
        graph("Deaths by signal", "Processes that ended without closing their hub.", "short", target(deaths, "{{signal}}")),
        graph("Restarts", "Processes whose number another one took: recycled ones too.", "short", target(restarts, BY_WORKER)),
        graph("Age of the heartbeat", "Over 5 s and rising: the process is stopped, or stuck.", "s", target(age, BY_WORKER)),
    ]


def crash_safety() -> list[Json]:
    """Return what a death has cost, or would."""
    recovered = f"sum(increase(fapilog_recovered_events_total{{{FROM}}}{RATE}))"
    lost = f"sum(increase(fapilog_lost_events_total{{{FROM}}}{RATE}))"
    unprotected = f"sum by (sink) (rate(fapilog_journal_unprotected_total{{{SINKS}}}{RATE}))"
    return [
        graph(
            "Recovered and lost",
            "Events of dead processes: delivered after all, or not.",
            "short",
            target(recovered, "recovered"),
            target(lost, "lost"),
            width=8,
        ),
        graph(
            "Unprotected",
            "Events that the journal had no room for any more before the sink had them, a second: a kill would have lost them.",
            "cps",
            target(unprotected, "{{sink}}"),
            width=8,
        ),
        graph(
            "Journal",
            "Its size; 0 for a process that has none.",
            "bytes",
            target(f"fapilog_journal_capacity_bytes{{{FROM}}}", BY_WORKER),
            width=4,
        ),
        graph(
            "Damaged rows",
            "Rows of the board that cannot be read: their workers are not shown.",
            "short",
            target('fapilog_board_damaged_rows{job=~"$job", instance=~"$instance"}', "{{instance}}"),
            width=4,
        ),
    ]


def log_lines() -> list[Json]:
    """Return what Loki has."""
    error = f'{STREAMS} |~ `"level":"(error|critical)"` | json level="level" | level=~"error|critical"'
    counted = f"sum by (service, worker, level) (count_over_time({error} {AUTO}))"
    fields = 'event="event", scope="scope", reason="reason", count="count"'
    dropped = f'{STREAMS} |= `"event":"fapilog.dropped"` | json {fields} | event="fapilog.dropped"'
    announced = f'sum by (service, scope, reason) (sum_over_time({dropped} | unwrap count | __error__="" {AUTO}))'
    own = f'{STREAMS} |~ `"event":"({OWN_EVENTS})"` | json event="event" | event=~"{OWN_EVENTS}"'
    every = f'{STREAMS} |= `$search` | json level="level" | level=~"$level"'
    return [
        from_loki("Errors", "Lines at ERROR and above.", counted, "{{service}} worker {{worker}}: {{level}}"),
        from_loki("Announced drops", "As the log itself says.", announced, "{{service}} {{scope}}: {{reason}}"),
        lines("What fapilog says", "Events that were dropped, processes that died, and what was recovered.", own, 8),
        lines("Errors, line by line", "Lines at ERROR and above.", error),
        lines("Lines", "All that the variables at the top leave.", every, 16),
    ]


def variables() -> list[Json]:
    """Return what can be chosen at the top. Each one offers what the ones before it leave."""
    targets = 'job=~"$job", instance=~"$instance"'
    return [
        source("prometheus", "Prometheus"),
        source("loki", "Loki"),
        choice("service", "service", "label_values(fapilog_worker_info, service)", ".+"),
        choice("job", "job", 'label_values(fapilog_worker_info{service=~"$service"}, job)'),
        choice("instance", "instance", 'label_values(fapilog_worker_info{service=~"$service", job=~"$job"}, instance)'),
        choice("worker", "worker", f"label_values(fapilog_events_total{{{targets}}}, worker)", ".+"),
        choice("sink", "sink", f"label_values(fapilog_sink_delivered_total{{{targets}}}, sink)", ".+"),
        values("level", "level (lines)", ["debug", "info", "warning", "error", "critical"]),
        words("search", "text (lines)"),
    ]


def marks() -> list[Json]:
    """Return the marks at the moments when a process died."""
    died = f'{STREAMS} |= `"event":"fapilog.worker_died"` | json event="event", dead="dead_worker", signal="signal", lost="lost"'
    return [
        {
            "name": "Deaths",
            "datasource": LOKI,
            "enable": True,
            "iconColor": RED,
            "expr": f'{died} | event="fapilog.worker_died"',
            "titleFormat": "Worker {{dead}} died",
            "textFormat": "{{signal}}, lost: {{lost}}",
            "target": {"refId": "Deaths", "expr": f'{died} | event="fapilog.worker_died"', "queryType": "range"},
        }
    ]


def dashboard() -> Json:
    """Return the whole dashboard."""
    sections = {
        "At a glance": at_a_glance(),
        "Events": events(),
        "Sinks": sinks(),
        "Workers": workers(),
        "Crash safety": crash_safety(),
        "Log lines": log_lines(),
    }
    return {
        "uid": "fapilog",
        "title": "fapilog",
        "description": "What the processes of a service have logged, delivered and dropped. Made by make_dashboard.py.",
        "tags": ["fapilog", "logging"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables()},
        "annotations": {"list": marks()},
        "links": [],
        "panels": placed(sections),
    }


def text() -> str:
    """Return what stands in `dashboard.json`."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
