"""A FastAPI application whose every request to /work/{n} logs exactly five events.

Nothing in it knows about Gunicorn, workers or queues.
"""

import os

from fastapi import FastAPI

import fapilog

app = FastAPI(title="fapilog example")
fapilog.configure_logging(app=app)
log = fapilog.get_logger("example.work")

STEPS = 5


@app.get("/")
async def health() -> dict[str, int]:
    """Say which worker process answers; logs nothing."""
    return {"pid": os.getpid()}


@app.get("/work/{n}")
async def work(n: int) -> dict[str, int]:
    """Log `STEPS` events, each once: the pairs of *n* and step are what demo.py counts."""
    for step in range(STEPS):
        log.info("work_step", n=n, step=step)
    return {"n": n, "pid": os.getpid()}
