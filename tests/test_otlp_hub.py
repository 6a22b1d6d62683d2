"""The OTLP sink in whole programs: by environment, over forks, beside a file, and where its package is missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import fapilog
from fapilog.errors import ConfigurationError
from tests._support import only_matrix, process_restored, ran_well, read_lines, run_script
from tests.loki import NO_RATES, certificates, faults
from tests.otlp import Collector, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector(limits=NO_RATES) as server:
        yield server
        server.script()
        server.release()


def env(collector: Collector, **more: str) -> dict[str, str]:
    """Return an environment with a file and a Collector."""
    return {"FAPILOG_SINKS": "file,otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **more}


def own(collector: Collector) -> list[Record]:
    """Return the records that are not the hub's."""
    return [each for each in collector.records() if not each.record.body.string_value.startswith("fapilog.")]


def test_a_script_by_environment_alone(collector: Collector, tmp_path: Path) -> None:
    """All events are in the file and at the Collector when it has ended, the last partial batch too, as configured."""
    script = """
        import fapilog
        for number in range(500):
            fapilog.get_logger("a").info("e", n=number)
    """
    more = {
        "OTEL_SERVICE_NAME": "till",
        "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=pod%201,service.name=no",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=abc%20d",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "5000",
        "FAPILOG_LABELS": "team=core",
        "FAPILOG_OTLP_BATCH_TIMEOUT": "60",
    }
    result = run_script(script, tmp_path, env=env(collector, **more))
    assert (ran_well(result), result.stderr) == ("", "")
    (path,) = (tmp_path / "logs").iterdir()
    lines = read_lines(path)
    assert [each.seq for each in collector.records()] == [line["seq"] for line in lines] == list(range(1, 502))
    assert {each.resource["service.name"] for each in collector.records()} == {"till"}
    found = collector.records()[0].resource
    assert {"k8s.pod.name": "pod 1", "team": "core", "process.pid": lines[0]["pid"]}.items() <= found.items()
    assert {request.header("api-key") for request in collector.requests()} == {"abc d"}


def test_a_service_of_the_users_own(collector: Collector, tmp_path: Path) -> None:
    """`FAPILOG_SERVICE` wins over OpenTelemetry's names."""
    script = "import fapilog; fapilog.get_logger('a').info('e')"
    more = {"FAPILOG_SERVICE": "shop", "OTEL_SERVICE_NAME": "till", "FAPILOG_SINKS": "otlp"}
    ran_well(run_script(script, tmp_path, env=env(collector, **more)))
    assert {each.resource["service.name"] for each in collector.records()} == {"shop"}


def test_forked_children(collector: Collector, tmp_path: Path) -> None:
    """Each is a resource of its own; every event arrives once, the parent's too."""
    script = """
        import os, fapilog
        log = fapilog.get_logger("a")
        for number in range(100):
            log.info("parent", n=number)
        assert fapilog.flush(10).complete
        children = []
        for child in range(4):
            pid = os.fork()
            if not pid:
                for number in range(100):
                    log.info("child", n=number, child=child)
                fapilog.shutdown_logging()
                os._exit(0)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    """
    result = run_script(script, tmp_path, env=env(collector))
    assert (ran_well(result), result.stderr) == ("", "")
    found = sorted((each.fields.get("child", -1), each.fields["n"]) for each in own(collector))
    assert found == [(child, n) for child in range(-1, 4) for n in range(100)]
    assert len({(each.resource["service.instance.id"], each.resource["process.pid"]) for each in own(collector)}) == 5


def test_the_end_while_the_server_hangs(collector: Collector, tmp_path: Path) -> None:
    """It comes within its limit, and says how many events were not delivered; the next process delivers them."""
    collector.script(then=faults.hang())
    script = "import fapilog; [fapilog.get_logger('a').info('e', n=n) for n in range({})]"
    more = {"FAPILOG_RUN_DIR": str(tmp_path / "run"), "FAPILOG_JOURNAL": "on", "FAPILOG_DRAIN_TIMEOUT": "1"}
    result = run_script(script.format(1000), tmp_path, env=env(collector, **more))
    ran_well(result)
    assert "events were not delivered to sink 'otlp' (left in the journal)" in result.stderr
    collector.script()
    collector.release()
    again = """
        import time, fapilog
        fapilog.get_logger("b").info("later")
        end = time.monotonic() + 20
        while time.monotonic() < end and not list(fapilog.flush(10).per_sink.values())[0].delivered:
            time.sleep(0.05)
        fapilog.flush(10)
    """
    ran_well(run_script(again, tmp_path, env=env(collector, **more, FAPILOG_SINKS="file,otlp")))
    found = [each for each in collector.records() if each.scope == "a"]
    assert {each.fields["n"] for each in found} == set(range(1000))
    assert len({each.resource["service.instance.id"] for each in found}) == 1
    assert {each.resource["service.instance.id"] for each in found}.isdisjoint(
        each.resource["service.instance.id"] for each in collector.records() if each.scope == "b"
    )


@pytest.mark.parametrize("tls", [only_matrix(False), True], ids=["http", "https"])
def test_what_a_push_imports(collector: Collector, tmp_path: Path, tls: bool) -> None:
    """Nothing: a child that is forked in the midst of an import on another thread would never get the rest of the module."""
    script = """
        import sys, fapilog
        fapilog.configure_logging(otlp_batch_timeout=0.05, sinks=["otlp"])
        before = set(sys.modules)
        try:
            1 / 0
        except ZeroDivisionError:
            fapilog.get_logger("a").exception("e", d={"a": [1, 2.5, True, None]})
        assert fapilog.flush(10).complete
        print(*sorted(set(sys.modules) - before))
    """
    if not tls:
        url = collector.url.replace("127.0.0.1", "localhost")
        assert ran_well(run_script(script, tmp_path, env=env(collector, OTEL_EXPORTER_OTLP_ENDPOINT=url))) == "\n"
        return
    authority = certificates.authority(tmp_path)
    with Collector(limits=NO_RATES, tls=authority.server(), host="localhost") as server:
        more = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.ca_file)}
        assert ran_well(run_script(script, tmp_path, env=env(server, **more))) == "\n"


@pytest.mark.parametrize("missing", ["opentelemetry", "google.protobuf"])
def test_without_the_package(tmp_path: Path, missing: str) -> None:
    """There is one error that says what to install, also where the class is asked for."""
    script = f"""
        import sys
        sys.modules[{missing!r}] = None
        import fapilog
        try:
            fapilog.configure_logging(sinks=["otlp"])
        except fapilog.ConfigurationError as error:
            print(error)
        try:
            from fapilog.sinks import OtlpSink
        except ImportError as error:
            print(error)
    """
    text = "the sink otlp needs a package that is not there: pip install opentelemetry-proto\n"
    assert ran_well(run_script(script, tmp_path)) == 2 * text


def test_an_object_instead_of_a_name(collector: Collector, tmp_path: Path) -> None:
    """It is a sink like any other; two of different names send to two servers."""
    script = f"""
        import fapilog
        from fapilog.sinks import OtlpSink
        fapilog.configure_logging(sinks=[OtlpSink("{collector.url}"), OtlpSink("{collector.url}", name="second")])
        fapilog.get_logger("a").info("e")
        assert fapilog.flush(10).complete
    """
    ran_well(run_script(script, tmp_path))
    assert len(own(collector)) == 2


def test_spans_of_an_instrumented_client(collector: Collector, tmp_path: Path) -> None:
    """Instrumentation that looks whether it is wanted finds that it is not, for what the sink sends."""
    script = """
        import httpx, json
        from opentelemetry import context
        seen = []
        plain = httpx.AsyncHTTPTransport.handle_async_request
        async def traced(self, request):
            seen.append(context.get_value("suppress_instrumentation"))
            return await plain(self, request)
        httpx.AsyncHTTPTransport.handle_async_request = traced
        import fapilog
        fapilog.get_logger("a").info("e")
        assert fapilog.flush(10).complete
        print(json.dumps(seen))
    """
    printed = ran_well(run_script(script, tmp_path, env=env(collector, FAPILOG_SINKS="otlp")))
    assert json.loads(printed) == [True]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"otlp_endpoint": "collector:4318"}, "FAPILOG_OTLP_.* or OTEL_EXPORTER_OTLP_.*must be the URL of a server"),
        ({"otlp_endpoint": "http://ann:hunter2@h", "otlp_headers": "hunter2"}, "the headers must be key=value pairs"),
        ({"queue_enabled": False}, "writes synchronously, and sink 'otlp' has no write_now"),
    ],
)
def test_settings_that_cannot_be(overrides: dict[str, Any], message: str) -> None:
    """They are errors at set-up that show no secret."""
    with process_restored(), pytest.raises(ConfigurationError, match=message) as caught:
        fapilog.configure_logging(sinks=["otlp"], **overrides)
    assert "hunter2" not in str(caught.value)
