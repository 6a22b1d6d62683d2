"""Real servers with the Loki push API, read back in the stand-in's form: VictoriaLogs, and a Loki that the user names."""

from __future__ import annotations

import calendar
import json
import os
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import httpx

from tests.loki.labels import label_text, parse_labels
from tests.loki.ports import ReservedPort
from tests.loki.store import Entry
from tests.programs.running import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

LIMIT_S = 30.0
PUSH_PATH = "/loki/api/v1/push"
URL_VARIABLE = "FAPILOG_TEST_LOKI_URL"
TENANTS_VARIABLE = "FAPILOG_TEST_LOKI_TENANTS"
_OWN_FIELDS = {"_msg", "_time", "_stream", "_stream_id"}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")
_QUERY_LIMIT = 5000  # Loki's own
_DAY_NS = 86_400 * 1_000_000_000


class RealServer:
    """What the tests ask of a server: where to push, and what it has."""

    name: str
    url: str
    push_url: str
    headers: Mapping[str, str] = {}

    def entries(self, **labels: str) -> list[Entry]:
        """Return what is stored in streams with these labels."""
        raise NotImplementedError

    def wait_entries(self, count: int, seconds: float = LIMIT_S, **labels: str) -> list[Entry]:
        """Wait until at least *count* entries are there; return all."""
        wait_until(lambda: len(self.entries(**labels)) >= count, f"{count} entries are there", seconds)
        return self.entries(**labels)


class VictoriaLogs(RealServer):
    """
    A VictoriaLogs on a port of its own, which it keeps, as it keeps its data; a context manager that leaves no process behind.

    Lines are stored as they are (``-loki.disableMessageParsing``). `url` is the base of a Loki sink.

    Args:
        binary: From `tests.real.install`.
        folder: For its data and its log.
    """

    name = "VictoriaLogs"

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary = binary
        self.folder = folder
        self.log = folder / "victoria-logs.log"
        self._port = ReservedPort()
        self.address = f"http://127.0.0.1:{self._port.number}"
        self.url = f"{self.address}/insert"
        self.push_url = self.url + PUSH_PATH
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._port.close()

    def start(self) -> Self:
        """Start it and wait until it is ready."""
        assert self._process is None, "it runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self.binary),
                    f"-storageDataPath={self.folder / 'data'}",
                    f"-httpListenAddr=127.0.0.1:{self._port.number}",
                    "-retentionPeriod=100y",
                    "-futureRetention=2d",
                    "-loki.disableMessageParsing",
                    "-loggerLevel=WARN",
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._ready, "VictoriaLogs is ready", LIMIT_S)
        return self

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"VictoriaLogs ended: {self.log.read_text(errors='replace')[-2000:]}"
        try:
            return httpx.get(f"{self.address}/health", timeout=LIMIT_S).text == "OK"
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End it in order (SIGINT): what it has is on disk afterwards."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(LIMIT_S) == 0, self.log.read_text(errors="replace")[-2000:]
        self._process = None

    def kill(self) -> None:
        """End it at once (SIGKILL); what came in the last seconds may be lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(LIMIT_S)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let it hang (SIGSTOP): the kernel still accepts connections; `go_on` ends it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def force_flush(self) -> None:
        """Make visible what was pushed."""
        httpx.post(f"{self.address}/internal/force_flush", timeout=LIMIT_S).raise_for_status()

    def entries(self, **labels: str) -> list[Entry]:
        return [_entry(json.loads(line)) for line in self.query(_selector(labels)).split(b"\n") if line]

    def count(self, **labels: str) -> int:
        """Return how many entries there are, without reading them."""
        return int(json.loads(self.query(f"{_selector(labels)} | stats count() n"))["n"])

    def streams(self, **labels: str) -> list[dict[str, str]]:
        """Return the label sets."""
        lines = self.query(f"{_selector(labels)} | uniq by (_stream)").split(b"\n")
        return [dict(parse_labels(json.loads(line)["_stream"], names_checked=False)) for line in lines if line]

    def query(self, query: str) -> bytes:
        """Return the JSON lines that answer a LogsQL query about all that was pushed before."""
        self.force_flush()
        answer = httpx.post(f"{self.address}/select/logsql/query", data={"query": query}, timeout=LIMIT_S)
        return answer.raise_for_status().content


def _selector(labels: Mapping[str, str]) -> str:
    return label_text(labels) if labels else "*"


def _entry(fields: dict[str, str]) -> Entry:
    labels = dict(parse_labels(fields["_stream"], names_checked=False))
    others = {name: value for name, value in fields.items() if name not in _OWN_FIELDS and labels.get(name) != value}
    return Entry("", labels, _nanoseconds(fields["_time"]), fields["_msg"], others)


def _nanoseconds(text: str) -> int:
    found = _TIME.fullmatch(text)
    assert found is not None, text
    return calendar.timegm(time.strptime(found[1], "%Y-%m-%dT%H:%M:%S")) * 1_000_000_000 + int((found[2] or "").ljust(9, "0"))


class UsersLoki(RealServer):
    """
    The Loki that `FAPILOG_TEST_LOKI_URL` names: its base address, with credentials where it wants them.

    `FAPILOG_TEST_LOKI_TENANTS` names the tenants that the tests may use (comma list), where it wants one. The tests leave entries
    there, each with a label ``run`` of its own.
    """

    name = "the user's Loki"

    def __init__(self, url: str, tenant: str = "") -> None:
        self.url = url.rstrip("/").removesuffix(PUSH_PATH)
        self.push_url = self.url + PUSH_PATH
        self.headers = {"X-Scope-OrgID": tenant} if tenant else {}

    @classmethod
    def tenants(cls) -> list[str]:
        return [name for name in os.environ.get(TENANTS_VARIABLE, "").split(",") if name]

    def entries(self, **labels: str) -> list[Entry]:
        now = time.time_ns()
        asked: dict[str, str | int] = {
            "query": label_text(labels),
            "limit": _QUERY_LIMIT,
            "start": now - 8 * _DAY_NS,
            "end": now + _DAY_NS,
        }
        headers = {**self.headers, "X-Loki-Response-Encoding-Flags": "categorize-labels"}
        answer = httpx.get(f"{self.url}/loki/api/v1/query_range", params=asked, headers=headers, timeout=LIMIT_S)
        answer.raise_for_status()
        found = [
            Entry(self.headers.get("X-Scope-OrgID", ""), stream["stream"], int(ts), line, _metadata(more))
            for stream in answer.json()["data"]["result"]
            for ts, line, *more in stream["values"]
        ]
        assert len(found) < _QUERY_LIMIT, "there are more entries than one query returns"
        return found


def _metadata(more: list[dict[str, dict[str, str]]]) -> dict[str, str]:
    """Return the metadata without the level that Loki finds by itself."""
    found = more[0].get("structuredMetadata", {}) if more else {}
    return {name: value for name, value in found.items() if name != "detected_level"}
