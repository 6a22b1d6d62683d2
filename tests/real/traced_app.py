"""
An application whose requests are in spans of OpenTelemetry's: ``/work/<n>`` in the trace whose number is *n* + 1.

It logs `STEPS` times `work`, at a level for each step; ``/who`` logs one `who`, and keeps the process busy for a moment.
"""

from __future__ import annotations

import os
import time

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

import fapilog

LEVELS = ("info", "warning", "error", "critical", "info")
HOLD_S = 0.02  # long enough for another worker to take the next connection

log = fapilog.get_logger("test.traced")
tracer = TracerProvider().get_tracer("test")
api = FastAPI()


@api.get("/who", response_class=PlainTextResponse)
async def who() -> str:
    log.info("who")
    time.sleep(HOLD_S)
    return str(os.getpid())


@api.get("/work/{n}", response_class=PlainTextResponse)
async def work(n: int) -> str:
    parent = NonRecordingSpan(SpanContext(n + 1, 7, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
    with tracer.start_as_current_span("work", context=set_span_in_context(parent)):
        span = trace.get_current_span().get_span_context().span_id
        for step, level in enumerate(LEVELS):
            getattr(log, level)("work", n=n, step=step, span=f"{span:016x}")
    return str(os.getpid())
