"""Workers that come and go, and the streams that they make at Loki."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.loki import NO_RATES, Dedupe, StandIn
from tests.servers.harness import OUR_CONF, Gunicorn

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.matrix
@pytest.mark.parametrize("recycles", [16, pytest.param(300, marks=pytest.mark.soak)])
def test_the_streams_of_many_recycled_workers(tmp_path: Path, recycles: int) -> None:
    """Four workers never need more than five streams; pid and request are in the lines, and every event is there (O-MET-2)."""
    with StandIn(limits=NO_RATES, dedupe=Dedupe.OFF) as loki:
        settings: Any = {"FAPILOG_SINKS": "file,loki", "FAPILOG_LOKI_URL": loki.url, "FAPILOG_LOKI_BATCH_TIMEOUT": "0.2"}
        settings["FAPILOG_DRAIN_TIMEOUT"] = "10"  # on a busy machine; what a drain has no time for has its own tests
        with Gunicorn(tmp_path, *OUR_CONF, "--max-requests", "10", workers=4, **settings) as server:
            visits = server.meet_workers()
            visits.send(until=lambda: len(visits.pids) >= 4 + recycles)
            assert server.stop() == 0
        entries = loki.entries()
        streams = Counter(tuple(sorted(entry.labels.items())) for entry in entries)
        assert len(streams) <= 5
        assert not any({"pid", "boot", "seq", "level", "request_id"} & entry.labels.keys() for entry in entries)
        lives = {(entry.metadata["pid"], entry.metadata["boot"]) for entry in entries}
        assert len(lives) >= 4 + recycles
        work = Counter(
            (line["n"], line["step"]) for line in map(json.loads, (e.line for e in entries)) if line["event"] == "work"
        )
        asked = [number for number, what in visits.asked.items() if what == "work" and number in visits.answers]
        assert all(work[number, step] == 1 for number in asked for step in range(5))
        assert loki.deduplicated() == []
