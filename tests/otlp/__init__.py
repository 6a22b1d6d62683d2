"""
A stand-in OpenTelemetry Collector for tests, on what the stand-in Loki is made of: see `tests.loki` for script and life.

    with Collector() as collector:
        collector.records()             # Record(resource, scope, record, request), in the order of their coming
        collector.wait_records(10)

`faults.partial(n)` rejects the first *n* records of a request with a partial success.
"""

from __future__ import annotations

from tests.otlp.standin import Collector, Record, attributes

__all__ = ["Collector", "Record", "attributes"]
