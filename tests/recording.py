"""Sinks for the tests: ones that record, fail, hang, refuse and sleep."""

from __future__ import annotations

import asyncio
import time

from fapilog import SinkRejected, SinkUnavailable


class RecordingSink:
    """Keeps what it is given; `fail` makes the next writes raise, `gate` makes them wait."""

    def __init__(self, name="memory", *, sleep=0.0):
        self.name = name
        self.events = []
        self.batches = []
        self.attempts = 0
        self.failures = []
        self.gate = None
        self.sleep = sleep
        self.opened = 0
        self.closed = 0

    async def open(self, identity):
        self.opened += 1

    async def write(self, events):
        self.attempts += 1
        if self.sleep:
            time.sleep(self.sleep)
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            failure = self.failures.pop(0)
            if failure is not None:
                raise failure
        self.batches.append(len(events))
        self.events += events

    async def close(self):
        self.closed += 1

    def own(self):
        """The events that are not the hub's own."""
        return [event for event in self.events if not str(event["event"]).startswith("fapilog.")]

    def seqs(self):
        return [event.seq for event in self.events]


class BrokenSink(RecordingSink):
    """Takes nothing."""

    async def write(self, events):
        self.attempts += 1
        raise SinkUnavailable("broken")


class RefusingSink(RecordingSink):
    """Refuses all events of every batch but *keeps*."""

    def __init__(self, name="refusing", *, keeps=0):
        super().__init__(name)
        self.keeps = keeps

    async def write(self, events):
        self.events += events[: self.keeps]
        raise SinkRejected(len(events) - self.keeps)


class HangingSink(RecordingSink):
    """Never returns from a write."""

    async def write(self, events):
        self.attempts += 1
        await asyncio.Event().wait()


async def until(condition, seconds=5.0):
    """Let the loop run until *condition* holds; fail after *seconds*."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0)
