"""The current span of OpenTelemetry in the fields of events, on every way into the pipeline."""

from __future__ import annotations

import json
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, TraceFlags, use_span

import fapilog
from fapilog._internal import tracing
from fapilog.logger import processors
from fapilog.pipeline import head_of
from fapilog.testing import capture_events
from tests._support import ran_well, run_script

if TYPE_CHECKING:
    from pathlib import Path

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
IDS = {"trace_id": TRACE, "span_id": SPAN, "trace_flags": "01"}
FLAGS = TraceFlags(TraceFlags.SAMPLED)


def span(trace_id: str = TRACE, span_id: str = SPAN) -> NonRecordingSpan:
    return NonRecordingSpan(SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=FLAGS))


def ids(event: Any) -> dict[str, Any]:
    return {name: event[name] for name in IDS if name in event}


PROGRAM = """
    import asyncio, logging, sys, threading
    import structlog, fapilog
    from opentelemetry.sdk.trace import TracerProvider
    tracer = TracerProvider().get_tracer("x")
    fapilog.configure_logging(queue_enabled={queue})
    log = fapilog.get_logger("a")
    log.info("outside")
    with tracer.start_as_current_span("one") as current:
        log.info("flat", n=1)
        log.info("nested", d={{"k": [1, {{"x": 2}}]}})
        log.bind(b=1).warning("bound")
        structlog.get_logger("s").info("structlog")
        logging.getLogger("std").warning("stdlib %s", 1)
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("raised")
        chain = structlog.wrap_logger(structlog.PrintLogger(), processors=[fapilog.queue_sink])
        chain.info("chain")
        async def main():
            await log.ainfo("async")
            await asyncio.create_task(task())
        async def task():
            log.info("task")
        asyncio.run(main())
        with tracer.start_as_current_span("two"):
            log.info("inner")
        threads = [threading.Thread(target=lambda: log.info("thread"))]
        threads[0].start(); threads[0].join()
        context = current.get_span_context()
    log.info("after")
    sys.stderr.write(f"{{context.trace_id:032x}} {{context.span_id:016x}}")
"""


@pytest.mark.parametrize("queue", [True, False])
def test_all_ways_into_the_pipeline(tmp_path: Path, queue: bool) -> None:
    """What is logged within a span has its identifiers, also by the standard library, structlog chains and coroutines."""
    result = run_script(PROGRAM.format(queue=queue), tmp_path)
    trace_id, span_id = result.stderr.split()
    events = {line["event"]: line for line in map(json.loads, ran_well(result).splitlines())}
    inside = ["flat", "nested", "bound", "structlog", "stdlib 1", "raised", "chain", "async", "task"]
    for name in inside:
        found = ids(events[name])
        assert (found["trace_id"], found["span_id"]) == (trace_id, span_id), name
        assert int(found["trace_flags"], 16) & 1 == 1
    assert events["inner"]["trace_id"] == trace_id
    assert events["inner"]["span_id"] != span_id
    for name in ("outside", "after", "thread"):
        assert ids(events[name]) == {}, name


def test_a_program_without_opentelemetry(tmp_path: Path) -> None:
    """It is not imported, whatever is logged, also where the sink otlp is: its messages are no part of that."""
    script = """
        import sys, structlog, fapilog
        fapilog.configure_logging(sinks=["file", "otlp"], otlp_endpoint="http://127.0.0.1:9", drain_timeout=0.1)
        structlog.contextvars.bind_contextvars(request_id="r")
        fapilog.get_logger("a").info("e", d={"k": [1]})
        print(sorted(name for name in sys.modules if name.startswith(("opentelemetry.trace", "opentelemetry.sdk"))))
    """
    assert ran_well(run_script(script, tmp_path)) == "[]\n"


class TestFields:
    def test_of_the_users_own(self) -> None:
        """Those of a call, of a bound logger, of context variables and of processors win, each by its name."""
        with capture_events() as caught, use_span(span()):
            fapilog.get_logger("a").info("call", trace_id="mine")
            fapilog.get_logger("a").bind(span_id="mine").info("bound")
            with fapilog.bound_contextvars(trace_flags="mine"):
                fapilog.get_logger("a").info("context")
        found = {event["event"]: ids(event) for event in caught}
        assert found == {
            "call": {**IDS, "trace_id": "mine"},
            "bound": {**IDS, "span_id": "mine"},
            "context": {**IDS, "trace_flags": "mine"},
        }

    def test_of_a_dict(self) -> None:
        """An event of a chain of the user's own gets them too, unless it has its own."""
        with use_span(span()):
            line = json.loads(head_of({"event": "e", "span_id": "mine"})[1] + b"}")
        assert ids(line) == {**IDS, "span_id": "mine"}

    def test_of_a_processors_own(self) -> None:
        """What a processor sets stays."""

        def own(_logger: Any, _method: str, event: Any) -> Any:
            assert event["trace_id"] == TRACE
            return {**event, "trace_id": "mine"}

        processors.append(own)
        try:
            with capture_events() as caught, use_span(span()):
                fapilog.get_logger("a").info("e")
        finally:
            processors.remove(own)
        assert ids(caught[0]) == {**IDS, "trace_id": "mine"}


class TestSpans:
    def test_that_are_none(self) -> None:
        """An invalid one has no fields."""
        with use_span(INVALID_SPAN):
            assert tracing.span_fields() == {}

    def test_one_after_another(self) -> None:
        """Each has its own fields, with the zeros before them."""
        for number in (1, 2, 1):
            with use_span(span(f"{number:x}", f"{number:x}")):
                for _ in range(2):
                    wanted = {"trace_id": f"{number:032x}", "span_id": f"{number:016x}", "trace_flags": "01"}
                    assert tracing.span_fields() == wanted

    def test_of_threads_at_once(self) -> None:
        """None has those of another."""
        wrong: list[object] = []

        def work(number: int) -> None:
            mine = span(f"{number:x}", f"{number:x}")
            with use_span(mine):
                found = {tracing.span_fields()["trace_id"] for _ in range(2_000)}
            wrong.extend(found - {f"{number:032x}"})

        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    @pytest.mark.parametrize(
        "module",
        [
            SimpleNamespace(),
            None,
            SimpleNamespace(get_current_span=lambda: None),
            SimpleNamespace(get_current_span=lambda: 1 / 0),
            SimpleNamespace(get_current_span=lambda: SimpleNamespace(get_span_context=lambda: SimpleNamespace(is_valid=True))),
        ],
    )
    def test_of_a_module_that_is_none(self, monkeypatch, module: Any) -> None:
        """Half of OpenTelemetry, as another thread imports it, and what only has its name, has no span."""
        monkeypatch.setitem(sys.modules, tracing.MODULE, module)
        assert tracing.span_fields() == {}


class TestUntraced:
    def test_inside(self) -> None:
        """OpenTelemetry's instrumentation sees that it is not wanted, and afterwards that it is."""
        assert otel_context.get_value(tracing.SUPPRESS) is None
        with tracing.untraced():
            assert otel_context.get_value(tracing.SUPPRESS) is True
            assert otel_context.get_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY) is True
        assert otel_context.get_value(tracing.SUPPRESS) is None

    @pytest.mark.parametrize("module", [None, SimpleNamespace()])
    def test_without_opentelemetry(self, monkeypatch, module: Any) -> None:
        """Nothing happens."""
        monkeypatch.setitem(sys.modules, tracing.CONTEXT, module)
        with tracing.untraced():
            pass


def test_the_real_tracer() -> None:
    """A span of the SDK's is what its own interface says it is."""
    with TracerProvider().get_tracer("x").start_as_current_span("s"):
        context = trace.get_current_span().get_span_context()
        found = tracing.span_fields()
    assert (int(found["trace_id"], 16), int(found["span_id"], 16)) == (context.trace_id, context.span_id)
    assert int(found["trace_flags"], 16) == context.trace_flags
