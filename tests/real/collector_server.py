"""A real OpenTelemetry Collector, and what it has written, in the stand-in's form."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.loki.ports import ReservedPort
from tests.otlp.standin import Record, records_in
from tests.programs.running import wait_until

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

LIMIT_S = 30.0
CONFIG = """
receivers:
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:{port}
exporters:
  file:
    path: {out}
    append: true
    flush_interval: 100ms
service:
  telemetry:
    metrics:
      level: none
    logs:
      level: warn
  pipelines:
    logs:
      receivers: [otlp]
      exporters: [file]
"""


class OtelCollector:
    """
    A Collector on a port of its own, which it keeps, as it keeps its file; a context manager that leaves no process behind.

    Args:
        binary: From `tests.real.install_collector`.
        folder: For its configuration, its log and its file.
    """

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary = binary
        self.log = folder / "collector.log"
        self.out = folder / "collector.jsonl"
        self._port = ReservedPort()
        self._config = folder / "collector.yaml"
        self._config.write_text(CONFIG.format(port=self._port.number, out=self.out))
        self.url = f"http://127.0.0.1:{self._port.number}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(LIMIT_S)
        self._port.close()

    def start(self) -> Self:
        """Start it and wait until it listens."""
        assert self._process is None, "it runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.binary), f"--config=file:{self._config}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._listens, "the Collector listens", LIMIT_S)
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the Collector ended: {self.log.read_text(errors='replace')[-2000:]}"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self._port.number)) == 0

    def stop(self) -> None:
        """End it in order (SIGTERM): what it has is in the file afterwards."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(LIMIT_S) == 0, self.log.read_text(errors="replace")[-2000:]
        self._process = None

    def count(self) -> int:
        """Return how many records there are, roughly: without reading them."""
        return self.out.read_bytes().count(b'"timeUnixNano"') if self.out.exists() else 0

    def records(self) -> list[Record]:
        """Return the records in its file, in their order."""
        return [record for line in self.out.read_text().splitlines() for record in _records_in(json.loads(line))]


def _records_in(document: dict[str, Any]) -> list[Record]:
    for group in document["resourceLogs"]:
        for scope in group["scopeLogs"]:
            for record in scope["logRecords"]:
                for name in ("traceId", "spanId"):  # hexadecimal in OTLP's JSON, base64 in that of protobuf
                    if name in record:
                        record[name] = _base64(record[name])
    return records_in(ParseDict(document, ExportLogsServiceRequest(), ignore_unknown_fields=True).SerializeToString())


def _base64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()
