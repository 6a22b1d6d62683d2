"""
Who is measured. A contender is a function that sets one up in this process, to write to ``bench*.jsonl`` in a directory.

Each is set up as its own documentation recommends for speed, and writes one JSON object a line with the ten fields.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from benchmarks.contenders import opentelemetry, ours, standard, structured

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.contenders.session import Session

BASELINE, SUBJECT, JOURNALED, FLOOR = "structlog+orjson", "fapilog", "fapilog journal", "noop"
STDLIB, OTEL, LOGURU_QUEUE = "stdlib JSON", "OpenTelemetry batch", "loguru enqueue"

CONTENDERS: dict[str, Callable[[Path], Session]] = {
    BASELINE: structured.open_structlog,
    SUBJECT: ours.open_file,
    JOURNALED: ours.open_journaled,
    "fapilog stdout": ours.open_stdout,
    "fapilog Loki": ours.open_loki,
    "fapilog beside a sink": ours.open_beside_a_sink,
    "fapilog beside a sink that hangs": ours.open_beside_one_that_hangs,
    STDLIB: standard.open_file,
    "stdlib queue": standard.open_queue,
    "loguru": structured.open_loguru,
    LOGURU_QUEUE: structured.open_loguru_queue,
    "picologging": standard.open_picologging,
    "concurrent-log-handler": standard.open_concurrent,
    OTEL: opentelemetry.open_batch,
    FLOOR: structured.open_noop,
}

#: What is measured beside the two of fapilog that write a file.
PEERS = (STDLIB, "stdlib queue", "loguru", LOGURU_QUEUE, "picologging", "concurrent-log-handler", OTEL)
#: Ours that may lose nothing.
BALANCED = (SUBJECT, JOURNALED, "fapilog stdout", "fapilog Loki", "fapilog beside a sink")
_NEEDS = {
    "loguru": "loguru", LOGURU_QUEUE: "loguru", "picologging": "picologging", "concurrent-log-handler": "concurrent_log_handler",
    OTEL: "opentelemetry.sdk",
}  # fmt: skip


def absent(name: str) -> str:
    """Return why a contender cannot be measured here; empty if it can."""
    needed = _NEEDS.get(name, "")
    try:
        there = not needed or importlib.util.find_spec(needed) is not None
    except ModuleNotFoundError:
        there = False
    return "" if there else f"{needed} is not installed on this Python"
