"""`examples/grafana`: that every name in it exists, that every rule is complete and tested, and which lines its LogQL selects."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from examples.grafana import make_dashboard
from fapilog._internal import families
from tests._support import ran_well, run_script
from tests.loki import NO_RATES, Dedupe, Entry, StandIn, faults
from tests.queries import LogQuery, Used, filled
from tests.real.install_prometheus import missing, program

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
HERE = ROOT / "examples" / "grafana"
DASHBOARD = json.loads((HERE / "dashboard.json").read_text())
PANELS = [each for each in DASHBOARD["panels"] if each["type"] != "row"]
RULES = [rule for group in yaml.safe_load((HERE / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
TESTS = yaml.safe_load((HERE / "alerts_test.yml").read_text())["tests"]
TARGET = {"job", "instance"}  # labels that Prometheus puts on what it scrapes
ALL = {"service": ".+", "job": ".+", "instance": ".+", "worker": ".+", "sink": ".+", "level": ".*", "search": ""}
TIMES = {"__rate_interval": "1m", "__range": "1h", "__auto": "1m"}
SEVERITIES = {"warning", "critical"}
needs_promtool = pytest.mark.skipif(missing() != "", reason=missing() or "it is there")


def queries(kind: str) -> dict[str, str]:
    """Return the queries of the dashboard to data sources of *kind*, by a name of theirs."""
    found = {f"{panel['title']} {each['refId']}": each for panel in PANELS for each in panel["targets"]}
    found |= {f"annotation {each['name']}": each["target"] | {"datasource": each["datasource"]} for each in marks()}
    return {name: each["expr"] for name, each in found.items() if each["datasource"]["type"] == kind}


def marks() -> list[dict[str, Any]]:
    return list(DASHBOARD["annotations"]["list"])


def variables() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in DASHBOARD["templating"]["list"]}


PROMQL = queries("prometheus")
LOGQL = queries("loki")
EXPRESSIONS = {
    **PROMQL,
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{
        name: each["query"]["query"].removeprefix("label_values(").rpartition(",")[0]
        for name, each in variables().items()
        if each["type"] == "query"
    },
}


# The files.


def test_what_makes_the_dashboard() -> None:
    """The file is what it makes: `python -m examples.grafana.make_dashboard > examples/grafana/dashboard.json` renews it."""
    assert (HERE / "dashboard.json").read_text() == make_dashboard.text()


def test_the_panels() -> None:
    """Each has an id and a title of its own, says what it shows, in which unit, and asks something of a source that is chosen."""
    ids = [each["id"] for each in DASHBOARD["panels"]]
    titles = [each["title"] for each in DASHBOARD["panels"]]
    assert sorted(ids) == list(range(1, len(ids) + 1))
    assert len(set(titles)) == len(titles)
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        letters = [each["refId"] for each in panel["targets"]]
        assert letters, panel["title"]
        assert len(set(letters)) == len(letters), panel["title"]
        for each in panel["targets"]:
            assert each["expr"].strip(), panel["title"]
            assert each["datasource"] == panel["datasource"], panel["title"]
            assert each["datasource"] in ({"type": kind, "uid": f"${{{kind}}}"} for kind in ("prometheus", "loki"))


def test_the_places_of_the_panels() -> None:
    """None lies over another, and none sticks out."""
    taken: Counter[tuple[int, int]] = Counter()
    for each in DASHBOARD["panels"]:
        place = each["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        taken.update(
            (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
        )
    assert set(taken.values()) == {1}


def test_the_variables() -> None:
    """Each that a query uses is there, each that is there is used, and each uses only those before it."""
    text = json.dumps([PANELS, marks()])
    own = set(re.findall(r"\$\{?([a-z]\w*)", text))
    names = list(variables())
    assert own | {"prometheus", "loki"} == set(names)
    assert set(re.findall(r"\$(__\w+)", text)) <= {*TIMES}
    for at, name in enumerate(names):
        asked = json.dumps(variables()[name].get("query", "")) + json.dumps(variables()[name].get("datasource", ""))
        assert set(re.findall(r"\$\{?([a-z]\w*)", asked)) <= set(names[:at]), name


def test_all_of_a_variable_that_narrows_others() -> None:
    """Where one service is chosen, "All" jobs and instances are those of that service, not all that there are."""
    assert [name for name, each in variables().items() if each.get("includeAll") and "allValue" not in each] == [
        "job",
        "instance",
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_what_an_alert_has(rule: dict[str, Any]) -> None:
    """A time, a severity, a summary and a description; and a link to the section that says what to do, which names it."""
    assert re.fullmatch(r"\d+[ms]", rule["for"])
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["description"].endswith(".")
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    sections = dict(re.findall(r"^## (.+)\n+`?(\w*)", (ROOT / page).read_text(), re.MULTILINE))
    named = {title.lower().replace(" ", "-"): first for title, first in sections.items()}
    assert named.get(anchor) == rule["alert"]


def test_the_names_of_the_alerts() -> None:
    """No two have the same, and the page has no section about one that is not there."""
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert sorted(re.findall(r"^`(Fapilog\w+)`: ", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)) == sorted(names)


def test_the_tests_of_the_alerts() -> None:
    """Each has a case in which it fires, one in which it does not yet, and is quiet in a service that is well."""
    asked = [(each["name"], case["alertname"], bool(case["exp_alerts"])) for each in TESTS for case in each["alert_rule_test"]]
    names = {rule["alert"] for rule in RULES}
    assert {alert for _, alert, fires in asked if fires} == names
    assert {alert for name, alert, fires in asked if not fires and not name.startswith("a service that is well")} == names
    assert {alert for name, alert, fires in asked if not fires and name.startswith("a service that is well")} == names


def test_what_surrounds_them() -> None:
    """The other files parse, and name files, addresses and sources that fit each other."""
    compose = yaml.safe_load((HERE / "compose.yml").read_text())["services"]
    sources = yaml.safe_load((HERE / "provisioning" / "datasources" / "fapilog.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((HERE / "provisioning" / "dashboards" / "fapilog.yml").read_text())["providers"]
    prometheus = yaml.safe_load((HERE / "prometheus.yml").read_text())
    mounted = [volume.split(":") for each in compose.values() for volume in each.get("volumes", [])]
    assert all((HERE / source).exists() for source, *_ in mounted)
    assert f"{provider['options']['path']}/fapilog.json" in [target for _, target, *_ in mounted]
    assert {(each["type"], each["url"].split(":")[1].strip("/")) for each in sources} == {(n, n) for n in ("prometheus", "loki")}
    assert prometheus["rule_files"] == ["alerts.yml"]
    named = set(re.findall(r"`([\w./]+\.\w+|provisioning/)`", (HERE / "README.md").read_text().partition("## What it needs")[0]))
    there = {each.name + "/" * each.is_dir() for each in HERE.iterdir() if each.name not in {"README.md", "__pycache__"}}
    assert named == there


# What a service in trouble really exposes and sends.

TROUBLE = """
import os, signal, subprocess, sys, time
import fapilog
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from fapilog.coordinator import coordinator
from fapilog.metrics import FapilogCollector

class Balky:
    name = "balky"
    tries = 0
    async def open(self, identity): ...
    async def close(self): ...
    async def write(self, events):
        self.tries += 1
        raise fapilog.SinkUnavailable("not yet") if self.tries == 1 else fapilog.SinkRejected("never")

coordinator.become_worker()  # as a server's hook does
master = subprocess.Popen(
    [
        sys.executable,
        "-c",
        "import sys, fapilog; from fapilog.coordinator import coordinator; coordinator.become_master();"
        "fapilog.configure_logging(sinks=['file'], service='shop', file_path='{worker}.jsonl');"
        "fapilog.get_logger().info('master'); sys.stdin.read()",
    ],
    stdin=subprocess.PIPE,
)
fapilog.configure_logging(
    sinks=["file", "loki", Balky()], loki_url=sys.argv[1], loki_batch_timeout=0.1, service="shop", env="prod", journal="on",
    queue_size=20, queue_retry_delay=0.05, max_event_bytes=400_000, file_path="{worker}.jsonl",
)
log = fapilog.get_logger("shop.cart")
log.info("begun", nested={"level": "error", "event": "fapilog.dropped", "count": 1000}, text='"level":"error"')
log.error("failed", n=1)
log.critical("burning")
log.warning("long", text="x" * 300_000)
fapilog.flush(20)
for n in range(2000):
    log.info("burst", n=n)

def forked(life):
    child = os.fork()
    if not child:
        life()
        fapilog.shutdown_logging(20)
        os._exit(0)
    os.waitpid(child, 0)

def killed():
    log.info("last words")
    os.kill(os.getpid(), signal.SIGKILL)

forked(killed)
forked(lambda: log.info("next"))

def seen():
    registry = CollectorRegistry()
    registry.register(FapilogCollector())
    found = {w.worker: w for w in fapilog.service_statistics().workers}
    recovered = any(worker.recovered for worker in found.values())
    done = {0, 2} <= set(found) and found[2].closed and found[1].sinks["balky"].dropped and recovered
    return generate_latest(registry).decode() if done else ""

end = time.monotonic() + 30
while not (text := seen()):
    assert time.monotonic() < end, fapilog.service_statistics()
    time.sleep(0.05)
sys.stdout.write(text)
master.communicate()
"""


class Trouble:
    """
    What a service has exposed and sent through which all went that can go wrong.

    Args:
        text: What it exposed, in OpenMetrics's format.
        entries: What Loki has.
    """

    def __init__(self, text: str, entries: list[Entry]) -> None:
        self.samples = [sample for family in parse_openmetrics(text) for sample in family.samples]
        self.labels: dict[str, dict[str, set[str]]] = {"up": {}}
        self.sums: Counter[str] = Counter()
        for sample in self.samples:
            self.sums[sample.name] += sample.value
            values = self.labels.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
        self.entries = entries

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of the one sample that has exactly these labels."""
        return next((each.value for each in self.samples if (each.name, each.labels) == (name, labels)), None)

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines that are JSON."""
        return [json.loads(entry.line) for entry in self.entries if not entry.line.endswith("]")]


@pytest.fixture(scope="module")
def trouble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trouble]:
    folder = tmp_path_factory.mktemp("trouble")
    with StandIn(limits=NO_RATES, dedupe=Dedupe.OFF) as loki:
        loki.script(faults.failure(500))
        code = f"import sys; sys.argv[1:] = [{loki.url!r}]\n{TROUBLE}"
        text = ran_well(run_script(code, folder))
        yield Trouble(text, loki.entries())


def test_that_all_of_it_has_happened(trouble: Trouble) -> None:
    """Events, refusals, drops, retries, a death, a successor and a recovery."""
    happened = ("events", "events_refused", "sink_delivered", "sink_dropped", "sink_retries")
    for name in (*happened, "worker_deaths", "worker_restarts", "recovered_events"):
        assert trouble.sums[f"fapilog_{name}_total"] > 0, name
    assert {line["event"] for line in trouble.lines()} >= set(make_dashboard.OWN_EVENTS.split("|"))


def test_what_processes_say_of_themselves(trouble: Trouble) -> None:
    """Whose they are, how much their backlogs and their journals hold, and that they run; a master has neither."""
    assert trouble.value("fapilog_worker_info", worker="1", service="shop", env="prod", role="worker") == 1
    assert trouble.value("fapilog_worker_info", worker="0", service="shop", env="", role="master") == 1
    for sink, capacity in {"loki": 32 << 20, "file": 32 << 20, "balky": 32 << 20}.items():
        assert trouble.value("fapilog_sink_backlog_capacity_bytes", worker="1", sink=sink) == capacity
    assert [trouble.value("fapilog_journal_capacity_bytes", worker=worker) for worker in "012"] == [0, 8 << 20, None]
    started, beat = (
        [trouble.value(f"fapilog_worker_{what}_time_seconds", worker=worker) for worker in "012"]
        for what in ("start", "heartbeat")
    )
    assert started[0] is not None
    assert started[2] is None
    assert (beat[0], beat[2]) == (None, None)
    assert started[1] is not None
    assert beat[1] is not None
    assert started[1] <= beat[1]


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_the_names_in_an_expression(trouble: Trouble, name: str) -> None:
    """Each metric is one that the service exposes, with the labels that it is selected, summed and joined by, and values."""
    used = Used.by(EXPRESSIONS[name])
    known = set(TARGET)
    assert used.metrics
    for metric, matchers in used.metrics:
        assert metric in trouble.labels, metric
        known |= trouble.labels[metric].keys()
        for label, operator, value in matchers:
            assert label in trouble.labels[metric].keys() | TARGET, (metric, label)
            assert operator in {"=~", "!~"} or value in trouble.labels[metric][label], (metric, label, value)
    assert used.listed <= known


def test_the_labels_in_legends(trouble: Trouble) -> None:
    """Each is one of a metric in its query, or one that Loki's query sums by."""
    for panel in PANELS:
        for each in panel["targets"]:
            legend = set(re.findall(r"\{\{(\w+)\}\}", each["legendFormat"]))
            if each["datasource"]["type"] == "loki":
                assert legend <= set(LogQuery.of(filled(each["expr"], ALL | TIMES)).by), panel["title"]
                continue
            used = Used.by(each["expr"])
            labels = {label for metric, _ in used.metrics for label in trouble.labels[metric]} | TARGET
            summed = re.search(r"\b(?:sum|max|count) by", each["expr"]) is not None
            assert legend <= ((used.listed - {"le"}) if summed else labels), panel["title"]


def test_what_is_not_shown() -> None:
    """Every family that we expose is on the dashboard."""
    shown = {metric for query in PROMQL.values() for metric, _ in Used.by(query).metrics}
    for family in families.described():
        samples = {"counter": {f"{family.name}_total"}, "histogram": {f"{family.name}_bucket"}}.get(family.type, {family.name})
        assert samples <= shown, family.name


@pytest.mark.parametrize("name", LOGQL)
def test_the_labels_of_a_logql_query(trouble: Trouble, name: str) -> None:
    """Streams are selected by labels that our sink sends, and lines summed by these or by what the query takes out of them."""
    query = LogQuery.of(filled(LOGQL[name], ALL | TIMES))
    sent = set.intersection(*(set(entry.labels) for entry in trouble.entries))
    assert set(re.findall(r"(\w+)=~", query.selector)) <= sent
    taken = {label for stage in query.stages for label in re.findall(r'(\w+)="', stage.get("fields", ""))}
    assert set(query.by) <= sent | taken
    assert {stage["label"] for stage in query.stages if "label" in stage} <= taken | {"__error__"}


def selected(trouble: Trouble, name: str, **chosen: str) -> list[tuple[Entry, dict[str, str]]]:
    query = LogQuery.of(filled(LOGQL[name], ALL | TIMES | chosen))
    return [(entry, labels) for entry in trouble.entries if (labels := query.selects(entry)) is not None]


@pytest.mark.parametrize("name", ["Errors A", "Errors, line by line A"])
def test_which_lines_are_errors(trouble: Trouble, name: str) -> None:
    """Those at ERROR and above, not those that have such a text in a field."""
    wanted = sorted(line["event"] for line in trouble.lines() if line["level"] in {"error", "critical"})
    assert sorted(json.loads(entry.line)["event"] for entry, _ in selected(trouble, name)) == wanted
    assert {"failed", "burning"} <= set(wanted)


def test_which_lines_fapilog_says(trouble: Trouble) -> None:
    """Drops, deaths and recoveries, and nothing that has their names in a field."""
    wanted = Counter(line["event"] for line in trouble.lines() if line["event"] in make_dashboard.OWN_EVENTS.split("|"))
    assert Counter(json.loads(entry.line)["event"] for entry, _ in selected(trouble, "What fapilog says A")) == wanted


def test_how_many_drops_are_announced(trouble: Trouble) -> None:
    """The sum over scopes and reasons is that of the events themselves."""
    counted: Counter[tuple[str, str]] = Counter()
    for _, labels in selected(trouble, "Announced drops A"):
        counted[labels["scope"], labels["reason"]] += int(labels["count"])
    wanted: Counter[tuple[str, str]] = Counter()
    for line in trouble.lines():
        if line["event"] == "fapilog.dropped":
            wanted[line["scope"], line["reason"]] += line["count"]
    assert counted == wanted
    assert {("queue", "queue_full"), ("balky", "rejected")} <= set(counted)


def test_which_deaths_are_marked(trouble: Trouble) -> None:
    """Each once, with what the mark says."""
    ((_, labels),) = selected(trouble, "annotation Deaths")
    told = marks()[0]["titleFormat"] + marks()[0]["textFormat"]
    assert set(re.findall(r"\{\{(\w+)\}\}", told)) - {"signal"} <= set(labels)  # nobody has seen of what it died
    assert labels["dead"] == "2"


def test_which_lines_are_shown(trouble: Trouble) -> None:
    """All, also one that was cut and is no JSON; or those with a text, of a level, of a worker, of a service."""
    shown = "Lines A"
    assert len(selected(trouble, shown)) == len(trouble.entries)
    assert any(entry.line.endswith("bytes]") for entry, _ in selected(trouble, shown))
    (found,) = selected(trouble, shown, search='"event":"burning"')
    assert found[1]["level"] == "critical"
    assert {labels["level"] for _, labels in selected(trouble, shown, level="error|critical")} == {"error", "critical"}
    assert {labels["worker"] for _, labels in selected(trouble, shown, worker="2")} == {"2"}
    assert selected(trouble, shown, service="other") == []


# What Prometheus says.


def promtool(*arguments: str, folder: Path = HERE) -> str:
    """Return what it prints; it has to find nothing wrong."""
    command: list[Path | str] = [program("promtool"), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@needs_promtool
def test_the_alerts_for_promtool() -> None:
    """It takes each of them, and the configuration that loads them."""
    assert f"SUCCESS: {len(RULES)} rules found" in promtool("check", "rules", "alerts.yml")
    assert "is valid" in promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_when_the_alerts_fire() -> None:
    """As `alerts_test.yml` says, with the texts that it says."""
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


@pytest.mark.matrix
@needs_promtool
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_that_never_fires(tmp_path: Path, rule: dict[str, Any]) -> None:
    """Its tests fail: they would notice."""
    document = yaml.safe_load((HERE / "alerts.yml").read_text())
    for group in document["groups"]:
        for each in group["rules"]:
            if each["alert"] == rule["alert"]:
                each["expr"] = f"({each['expr']}) and on () (vector(1) == 2)"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(document))
    (tmp_path / "alerts_test.yml").write_text((HERE / "alerts_test.yml").read_text())
    with pytest.raises(AssertionError, match=rule["alert"]):
        promtool("test", "rules", "alerts_test.yml", folder=tmp_path)


@needs_promtool
def test_the_expressions_of_the_dashboard_for_promtool(tmp_path: Path) -> None:
    """It parses each of them, as Grafana sends it."""
    rules = [{"record": "x:y", "expr": filled(query, ALL | TIMES), "labels": {"name": name}} for name, query in PROMQL.items()]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", "rules.yml", folder=tmp_path)
