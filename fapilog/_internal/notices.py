"""The `fapilog.dropped` event: what says in the log itself that events are missing from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fapilog.pipeline import own_head

if TYPE_CHECKING:
    from fapilog._internal.accounting import Reason
    from fapilog._internal.line_queue import LineQueue

NOTICE_EVERY = 1.0  # seconds, for each scope and reason


def dropped_head(
    scope: str, reason: Reason, count: int, first_seq: int, last_seq: int, first_ns: int, last_ns: int, **of: str
) -> bytes:
    """Return the head of the notice for what `DropWindow.take()` gave; *of* may name a dead process that it is about."""
    return own_head(
        "fapilog.dropped",
        "warning",
        scope=scope,
        reason=str(reason),
        count=count,
        first_seq=first_seq,
        last_seq=last_seq,
        first_ns=first_ns,
        last_ns=last_ns,
        **of,
    )


def closed_head(queue: LineQueue) -> bytes:
    """Return the head of the `fapilog.closed` event that comes next."""
    refused = {str(reason): window.count for reason, window in queue.refused.items() if window.count}
    return own_head(
        "fapilog.closed",
        last_seq=queue.last_seq + 1,
        logged=queue.last_seq + 1,
        accepted=queue.put_events + 1,
        refused=refused,
    )
