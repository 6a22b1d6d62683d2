"""OpenTelemetry's log SDK: a batch processor before the SDK's own exporter of lines, which writes to a file here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.session import Session
from benchmarks.event import FIELDS, NAME

if TYPE_CHECKING:
    from pathlib import Path

QUEUE_SIZE, BATCH = 65_536, 512


def as_line(record: Any) -> str:
    """Return a record as the SDK writes it, on one line."""
    return str(record.to_json(indent=None)) + "\n"


def open_batch(directory: Path) -> Session:
    """`BatchLogRecordProcessor` with a queue of 65,536 records; what does not fit, it drops."""
    from opentelemetry._logs import SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter

    file = open(directory / "bench.jsonl", "a")  # noqa: SIM115 - closed below
    exporter = ConsoleLogRecordExporter(out=file, formatter=as_line)
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=QUEUE_SIZE, max_export_batch_size=BATCH))
    log = provider.get_logger("bench")
    call = f'log.emit(timestamp=now(), severity_number=INFO, severity_text="INFO", body="{NAME}", attributes={FIELDS!r})'
    names = {"now": time.time_ns, "INFO": SeverityNumber.INFO}

    def close() -> None:
        provider.shutdown()
        file.close()

    return Session(log, close, provider.force_flush, call=call, names=names)
