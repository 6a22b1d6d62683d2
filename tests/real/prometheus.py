"""Debian's Prometheus as a process of a test's own: it scrapes one target and answers queries."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import httpx

from tests.loki.ports import ReservedPort
from tests.programs.running import wait_until
from tests.real.install_prometheus import program

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

LIMIT_S = 30.0
CONFIG = """
global: {{scrape_interval: {every}, scrape_timeout: {every}, evaluation_interval: {every}}}
rule_files: {rules}
scrape_configs:
- job_name: app
  metrics_path: {path}
  static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class Prometheus:
    """
    A Prometheus on a port of its own; a context manager that leaves no process behind.

    Args:
        folder: For its data and its log.
        port: Of the target, on 127.0.0.1.
        path: Of the metrics there.
        every: Time between scrapes, and between two looks at the rules.
        rules: A file of them.
    """

    def __init__(self, folder: Path, port: int, path: str = "/metrics", every: str = "250ms", rules: Path | None = None) -> None:
        self.folder = folder
        self.folder.mkdir()
        self.log = folder / "prometheus.log"
        self._reserved = ReservedPort()
        self.url = f"http://127.0.0.1:{self._reserved.number}"
        (folder / "prometheus.yml").write_text(
            CONFIG.format(every=every, port=port, path=path, rules=json.dumps([str(rules)] if rules else []))
        )

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    str(program("prometheus")),
                    f"--config.file={self.folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self.folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._reserved.number}",
                    "--log.level=warn",
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_until(self._ready, "Prometheus is ready", LIMIT_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(LIMIT_S)
        self._reserved.close()

    def _ready(self) -> bool:
        assert self._process.poll() is None, f"Prometheus ended: {self.log.read_text(errors='replace')[-2000:]}"
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=LIMIT_S).status_code == 200
        except httpx.TransportError:
            return False

    def query(self, query: str) -> dict[tuple[str, ...], float]:
        """Return the values now, by those of their labels in the order of their names, the target's apart."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=LIMIT_S)
        found: dict[tuple[str, ...], float] = {}
        for each in answer.raise_for_status().json()["data"]["result"]:
            labels: dict[str, Any] = each["metric"]
            key = tuple(labels[name] for name in sorted(labels.keys() - {"__name__", "instance", "job"}))
            assert key not in found, f"two series have the same labels: {labels}"
            found[key] = float(each["value"][1])
        return found

    def series(self, query: str) -> list[dict[str, str]]:
        """Return the labels of all that *query* finds now."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=LIMIT_S)
        assert answer.status_code == 200, answer.text
        return [each["metric"] for each in answer.json()["data"]["result"]]

    def alerts(self) -> dict[str, list[dict[str, str]]]:
        """Return the labels of what every rule has to say now, be it that its time is not over; each rule is in order."""
        groups = httpx.get(f"{self.url}/api/v1/rules", timeout=LIMIT_S).raise_for_status().json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}, [rule.get("lastError") for rule in rules]
        return {rule["name"]: [alert["labels"] for alert in rule["alerts"]] for rule in rules}

    def one(self, query: str) -> float:
        """Return the one value now; 0 if there is none."""
        return self.query(query).get((), 0.0)
